"""The published schema describes the records that are written, and no others."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from merge_records import record, set_numbers
from merging import make_merge
from regstream.output.add_results import add_results
from regstream.output.record import PROVENANCE, read_record
from regstream.output.record_schema import BiasRecord, EvaluationRecord, EvaluationRow


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = json.loads(files("regstream.output").joinpath("regstream.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_record_of_a_result_is_valid(tmp_path: Path, validator: Any) -> None:
    output = make_merge(tmp_path, layers=2, candidates=2, hidden=8).run()
    set_numbers(output, {"task1": None})
    rows = [EvaluationRow(model="mean", scores={"task0": 1.5})]
    evaluation = EvaluationRecord(metric="held-out loss", higher_is_better=False, datasets=["task0"], rows=rows)
    bias = [BiasRecord(model="mean", dataset="task0", depth=0, l1=0.1, cosine=0.0)]
    add_results(output, evaluation=evaluation, bias=bias)
    validator.validate(json.loads((output / PROVENANCE).read_text()))
    fields = read_record(output)
    assert (fields.evaluation, fields.bias) == (evaluation, bias)
    assert fields.steps[1].changes[0].candidates["task1"].kept is None
    assert fields.steps[1].solves[0].route == "cholesky"


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"files": {"a": {"bytes": "1", "sha256": ""}}}, "files"),
        ({"steps": [{"name": "stem", "solves": []}]}, "steps"),
        ({"bias": [{"model": "mean"}]}, "bias"),
        ({"evaluation": {"metric": "loss"}}, "evaluation"),
        ({"identity": {}}, "identity"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_record_is_invalid(validator: Any, change: dict[str, Any], place: str) -> None:
    assert validator.is_valid(record())
    errors = list(validator.iter_errors(record(**change)))
    assert errors
    assert {error.path[0] for error in errors} == {place}


def test_every_field_is_described(validator: Any) -> None:
    schema = validator.schema
    for table in (schema, *schema["$defs"].values()):
        assert table["description"]
        assert all(field.get("description") for field in table["properties"].values()), table["title"]
