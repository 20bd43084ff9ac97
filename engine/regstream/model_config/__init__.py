"""Configs of models as transformers reads them, whatever spelling their files use; no code that they name is run."""

from regstream.model_config.build import build_config
from regstream.model_config.difference import ROPE, Difference, differences, unused_keys
from regstream.model_config.limits import check_limits
from regstream.model_config.nested import nested_config
from regstream.model_config.reads import ReadKeys, record_reads
from regstream.model_config.remote_code import refuse_remote_code, unused_implementations, without_implementations
from regstream.model_config.shape import hidden_size, vocabulary

__all__ = [
    "ROPE",
    "Difference",
    "ReadKeys",
    "build_config",
    "check_limits",
    "differences",
    "hidden_size",
    "nested_config",
    "record_reads",
    "refuse_remote_code",
    "unused_implementations",
    "unused_keys",
    "vocabulary",
    "without_implementations",
]
