"""Which keys of its config a model's code reads, to be built, and on the way of made-up rows through it."""

from copy import deepcopy
from dataclasses import dataclass

import torch
from transformers import PreTrainedConfig

from regstream.models.architecture.probe import probe_block, probe_head, probe_stem
from regstream.models.config.read_keys import record_reads
from regstream.models.family import Family
from regstream.models.layered_model import LayeredModel


@dataclass(frozen=True)
class ModelReads:
    """Keys by when they are read; keys of sub-configs after the sub-config's own and a dot."""

    building: frozenset[str]
    passing: frozenset[str]


def model_reads(family: Family, config: PreTrainedConfig, dtype: torch.dtype) -> ModelReads | None:
    """What the model of a config reads of it, in stem, blocks and, of a model that continues texts, head.

    As long as these keys agree, the code goes the same way and reads no others. None where it does not run so.
    """
    try:
        recorded = deepcopy(config)
        reads = record_reads(recorded)
        model = LayeredModel(family, recorded, dtype=dtype, device=torch.device("cpu"))
        building = frozenset(reads.names)
        reads.names.clear()
        _, batch = probe_stem(model)
        for index in range(len(model.blocks)):
            probe_block(model, index, batch)
        if family.continues_text:
            probe_head(model)
    except Exception:  # whatever its code makes of rows that are made up
        return None
    return ModelReads(building, frozenset(reads.names))
