"""A converted recipe merges to what mergekit itself makes of the recipe, but for rounding."""

from pathlib import Path

import pytest

from docs.recipes import rows_of_table
from mergekit_runs import (
    MERGEKIT,
    ROUNDING,
    compare,
    convertible,
    outcome,
    run_mergekit,
    write_models,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not MERGEKIT.is_dir(), reason=f"mergekit is not in {MERGEKIT}: tools/setup installs it"),
]
#: A recipe without what mergekit's method needs.
INCOMPLETE = "whisper-merge-multilingual"
#: Of values: in 16 bits mergekit rounds differences, and elects another sign where their sum is about zero.
MAX_SHARE = 0.02


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str | None]]:
    """A folder with models and what mergekit makes of them by every recipe, and by recipe what it was refused with."""
    folder = tmp_path_factory.mktemp("mergekit")
    write_models(folder)
    return folder, run_mergekit(folder, [*convertible(), INCOMPLETE])


def test_mergekit_runs_all_recipes_but_one(outcomes: tuple[Path, dict[str, str | None]]) -> None:
    _, refusals = outcomes
    refused = [Path(recipe).stem for recipe, refusal in refusals.items() if refusal is not None]
    assert refused == [INCOMPLETE], refusals
    _, line = outcome(INCOMPLETE)
    assert line is not None
    assert "mergekit needs it as well" in line


@pytest.mark.parametrize("name", convertible())
def test_equals_mergekit(outcomes: tuple[Path, dict[str, str | None]], name: str) -> None:
    found = compare(outcomes[0], name)
    assert found.worst < ROUNDING[found.dtype]
    assert found.share < MAX_SHARE
    cell = rows_of_table()[name].rpartition("| ")[2].removesuffix(" |")
    limit = 0.0 if cell == "equal" else float(cell.removeprefix("below "))
    assert found.worst <= max(4 * limit, 1e-7)  # another machine may round otherwise
