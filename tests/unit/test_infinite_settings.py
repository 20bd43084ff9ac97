"""Settings that JSON has no number for: read, compared, and in the result's config as in the base's."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from parts_of_models import edit_config
from regstream.errors import InputError
from regstream.models.config.build import build_config
from tiny_merge import TinyMerge, make_tiny_merge
from tiny_models.registry import TINY_MODELS

KEY = "time_step_limit"
TAGGED: list[Any] = [0.0, {"__float__": "Infinity"}]
BARE = [0.0, math.inf]


@pytest.fixture
def merge(tmp_path: Path) -> TinyMerge:
    return make_tiny_merge(tmp_path, TINY_MODELS["bamba"])


def config_of(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


@pytest.mark.parametrize("spelling", [TAGGED, BARE])
def test_the_results_config_has_it_as_the_bases(merge: TinyMerge, spelling: list[Any]) -> None:
    edit_config(merge.folders.base, **{KEY: spelling})
    plan = merge.plan()
    assert tuple(getattr(plan.base.model_config, KEY)) == (0.0, math.inf)
    merge.run()
    assert config_of(merge.output)[KEY] == spelling
    assert tuple(getattr(build_config(config_of(merge.output), merge.output / "config.json"), KEY)) == (0.0, math.inf)


@pytest.mark.parametrize(("of_base", "of_candidate"), [(TAGGED, BARE), (BARE, TAGGED), (TAGGED, TAGGED)])
def test_another_spelling_is_no_difference(merge: TinyMerge, of_base: list[Any], of_candidate: list[Any]) -> None:
    edit_config(merge.folders.base, **{KEY: of_base})
    edit_config(merge.folders.candidates[0], **{KEY: of_candidate})
    assert not any(KEY in line for line in merge.plan().warnings)


def test_another_number_is_refused(merge: TinyMerge) -> None:
    edit_config(merge.folders.candidates[0], **{KEY: [0.0, 8.0]})
    with pytest.raises(InputError, match=rf"{KEY} is \[0.0, 8.0\], where the base has \[0.0, Infinity\]"):
        merge.plan()
