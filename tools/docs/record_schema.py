"""The JSON schema of a result's record, from the fields that `read_record` has."""

from typing import Any

from regstream.output.record_schema import ResultRecord
from regstream.storage.json_file import dump_json

_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def record_schema() -> str:
    """The text of `regstream.schema.json`."""
    schema = _joined_lines(ResultRecord.model_json_schema())
    heading = {"$schema": _DRAFT, "title": "regstream.json"}
    fields = {key: value for key, value in schema.items() if key not in ("title", "$defs")}
    return dump_json({**heading, **fields, "$defs": schema["$defs"]}).decode()


def _joined_lines(schema: Any) -> Any:
    """A schema with each description on one line."""
    if isinstance(schema, list):
        return [_joined_lines(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: " ".join(value.split()) if key == "description" and isinstance(value, str) else _joined_lines(value)
        for key, value in schema.items()
    }
