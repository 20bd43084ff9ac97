"""A manifest made from tables in Python is the one that a file with these tables holds, with the same problems."""

import copy
import tomllib
from pathlib import Path
from typing import Any

import pytest

from regstream import Manifest, ManifestError, load_manifest, make_manifest

TABLES: dict[str, Any] = {
    "merge": {"method": "regmean++", "base": "base", "output": "merged", "alpha": 0.5, "others": {"head": "average"}},
    "rules": [{"parameters": "*.self_attn.*", "blocks": "late", "use": "average"}],
    "candidates": [
        {"name": "math", "model": "./math", "calibration": {"path": "math.jsonl"}},
        {"name": "code", "model": "org/code@main", "calibration": {"dataset": "org/rows", "rows": 256}},
    ],
    "resources": {"host_memory": "8GiB", "device": "cpu"},
}


@pytest.fixture(autouse=True)
def _inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tables name, in the current folder."""
    for folder in ("base", "math"):
        (tmp_path / folder).mkdir()
    (tmp_path / "math.jsonl").write_text('{"text": "1"}\n')
    monkeypatch.chdir(tmp_path)


def from_file(text: str) -> Manifest:
    Path("merge.toml").write_text(text)
    return load_manifest("merge.toml")


def problems(tables: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(ManifestError) as caught:
        make_manifest(tables)
    return caught.value.problems


def test_it_is_the_manifest_that_its_text_describes(tmp_path: Path) -> None:
    made = make_manifest(TABLES)
    assert tomllib.loads(made.text) == TABLES
    assert made.model_dump() == from_file(made.text).model_dump()
    assert made.merge.output == tmp_path / "merged"
    assert made.candidates[0].model is not None
    assert made.candidates[0].model.folder == tmp_path / "math"


def test_paths_tuples_and_none_are_what_python_has_for_them() -> None:
    tables = copy.deepcopy(TABLES)
    tables["merge"] |= {"base": Path("base"), "dtype": None}
    tables["candidates"] = tuple(tables["candidates"])
    assert make_manifest(tables) == make_manifest(TABLES)


def test_the_tables_stay_as_they_are_and_may_change_later() -> None:
    tables = copy.deepcopy(TABLES)
    made = make_manifest(tables)
    assert tables == TABLES
    tables["merge"]["alpha"] = 0.9
    assert made == make_manifest(TABLES)


def test_the_problems_are_those_of_a_file() -> None:
    tables = copy.deepcopy(TABLES)
    tables["merge"] |= {"bse": 1, "base": "missing/base/model", "method": "regmaen"}
    tables["candidates"][1]["name"] = "Math"
    found = problems(tables)
    assert len(found) == 4
    with pytest.raises(ManifestError) as caught:
        from_file(
            'merge = {bse = 1, base = "missing/base/model", method = "regmaen", output = "merged", alpha = 0.5}\n'
            'candidates = [{name = "math", model = "./math"}, {name = "Math", model = "org/code@main"}]\n'
        )
    assert [line.replace("manifest: ", "merge.toml: ", 1) for line in found] == list(caught.value.problems)


@pytest.mark.parametrize("value", [{"base"}, object(), b"base", (part for part in "base"), Path], ids=type)
def test_a_value_that_toml_lacks_is_a_problem_of_its_key(value: object) -> None:
    [problem] = problems({**TABLES, "merge": {**TABLES["merge"], "base": value}})
    assert problem.startswith("manifest: [merge] base: expected a folder or a hub id, found <class '")


@pytest.mark.parametrize("value", ["merge.toml", Path("merge.toml"), [], None], ids=str)
def test_what_is_no_mapping_is_refused(value: Any) -> None:
    [problem] = problems(value)
    assert problem.startswith("manifest: expected a mapping of tables, found ")


def test_text_that_a_record_cannot_hold_is_refused() -> None:
    Path("caf\udce9").mkdir()
    [problem] = problems({**TABLES, "merge": {**TABLES["merge"], "base": "caf\udce9"}})
    assert problem == r"manifest: expected Unicode text, found \udce9, which TOML cannot hold"


def test_keys_that_are_no_text_are_unknown_and_endless_tables_are_refused() -> None:
    assert problems({**TABLES, 7: 1})[0].startswith("manifest: 7: unknown key")  # type: ignore[dict-item]
    endless: list[Any] = []
    endless.append(endless)
    assert problems({**TABLES, "rules": endless}) == ("manifest: tables or lists are nested too deeply",)


def test_no_file_is_in_the_way_of_an_output_called_manifest() -> None:
    made = make_manifest({**TABLES, "merge": {**TABLES["merge"], "output": "manifest"}})
    assert made.merge.output == Path.cwd() / "manifest"
