"""The settings that are compared: a title, and what `[merge]` says. A line more is a setting more."""

from typing import Any

SETTINGS: dict[str, dict[str, Any]] = {
    "mean": {"method": "average"},
    "task arithmetic 0.3": {"method": "task_arithmetic", "scale": 0.3},
    "task arithmetic 0.5": {"method": "task_arithmetic", "scale": 0.5},
    "RegMean 0.95": {"method": "regmean", "alpha": 0.95},
    "RegMean++ 0.95": {"method": "regmean++", "alpha": 0.95},
    "RegMean++ 1": {"method": "regmean++", "alpha": 1.0},
}

#: Each seed draws other calibration rows. A method that uses none runs with the first.
SEEDS = (0, 1, 2)
