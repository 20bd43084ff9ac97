"""The settings that are compared: a title, and what `[merge]` says. A line more is a setting more."""

from typing import Any

SETTINGS: dict[str, dict[str, Any]] = {
    "mean": {"method": "average"},
    "task arithmetic 0.5": {"method": "task_arithmetic", "scale": 0.5},
    "task arithmetic 1": {"method": "task_arithmetic", "scale": 1.0},
    "TIES": {"method": "ties"},
    "ACE": {"method": "ace"},
    "SWUDI": {"method": "swudi"},
    "ASWUDI": {"method": "aswudi"},
    "RegMean 0.95": {"method": "regmean", "alpha": 0.95},
    "RegMean++ 0.9": {"method": "regmean++", "alpha": 0.9},
    "RegMean++ 0.95": {"method": "regmean++", "alpha": 0.95},
    "RegMean++ 0.95, embeddings averaged": {"method": "regmean++", "others": {"embeddings": "average"}},
    "RegMean++ 1": {"method": "regmean++", "alpha": 1.0},
    "FeatCal": {"method": "featcal"},
    "RegFilter": {"method": "regfilter"},
    "RegFilter, teacher 0.6": {"method": "regfilter", "teacher": 0.6},
    "RegFilter, no teacher": {"method": "regfilter", "teacher": 0.0},
    "RegFilter, ridge to the norm, teacher": {"method": "regfilter", "filter": "ridge", "ridge": 0.01},
    "RegFilter, ridge to the norm, no teacher": {
        "method": "regfilter",
        "filter": "ridge",
        "ridge": 0.01,
        "teacher": 0.0,
    },
    "RegFilter, participation, no teacher": {"method": "regfilter", "filter": "participation", "teacher": 0.0},
}

#: Each seed draws other calibration rows. A method that uses none runs with the first.
SEEDS = (0, 1, 2)
