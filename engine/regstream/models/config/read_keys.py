"""Which keys of its config the code of a model reads: what it does not read cannot change what it computes."""

from typing import Any

from transformers import PreTrainedConfig


class ReadKeys:
    """The keys that were read of a recorded config; those of sub-configs after the sub-config's own and a dot."""

    def __init__(self) -> None:
        self.names: set[str] = set()


def record_reads(config: PreTrainedConfig) -> ReadKeys:
    """Have a config, sub-configs and all, note from now on what is read of it, present or not."""
    reads = ReadKeys()
    _record(config, reads, "")
    return reads


def _record(config: PreTrainedConfig, reads: ReadKeys, prefix: str) -> None:
    plain: Any = type(config)
    for key, value in list(vars(config).items()):
        if isinstance(value, PreTrainedConfig):
            _record(value, reads, f"{prefix}{key}.")

    def read(self: PreTrainedConfig, key: str) -> Any:
        reads.names.add(prefix + plain.attribute_map.get(key, key))
        return plain.__getattribute__(self, key)

    # Of the same name, by which transformers finds the model of a config.
    names = {"__getattribute__": read, "__module__": plain.__module__, "__qualname__": plain.__qualname__}
    config.__class__ = type(plain.__name__, (plain,), names)
