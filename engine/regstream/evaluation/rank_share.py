"""How ranks share an evaluation: each runs every model on a part of the rows, with a folder and journal of its own.

They exchange nothing but what they begin with, which must be the same, and what they have summed up in the end.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from regstream.data.batch_range import BatchRange
from regstream.data.loading import CalibrationSet
from regstream.errors import InputError
from regstream.evaluation.layerwise_pass import LayerwisePass, OpenedModel
from regstream.planning.rank_share import even_cut
from regstream.planning.work import forward_shapes, forward_work
from regstream.ranks.environment import RankId
from regstream.ranks.group import Ranks
from regstream.storage.evaluation_folder import evaluation_folder
from regstream.storage.identity_differences import Identity, differing_ranks
from regstream.storage.run_folder import RunFolder


def share_of(passes: Sequence[LayerwisePass], rank_id: RankId) -> tuple[LayerwisePass, ...]:
    """What a rank runs of an evaluation's passes: of the last one its own rows, or nothing at all without any.

    The passes before compute what the last one needs of all rows, and are short: each rank runs them whole.
    """
    if rank_id.size == 1:
        return tuple(passes)
    *before, last = passes
    parts = _cut_datasets(last, rank_id.size)[rank_id.rank]
    models = tuple(shared for model in last.models if (shared := _with_parts(model, parts)).datasets)
    return (*before, replace(last, models=models)) if models else ()


def _cut_datasets(layers: LayerwisePass, size: int) -> list[Mapping[str, range]]:
    """The numbers of the batches of each data set that each of so many ranks has: one stretch of the list of all."""
    own = {name: layers.model.shapes[name] for name in layers.parameters("block", 0)}
    shapes = forward_shapes(layers.model.architecture, own)
    num_models = Counter(name for model in layers.models for name in model.datasets)

    def cost(rows: CalibrationSet, name: str, index: int) -> float:
        hidden_size, dtype = layers.model.hidden_size, layers.dtype
        flops, _ = forward_work("block", shapes, [rows.batches[index]], hidden_size=hidden_size, dtype=dtype)
        return flops * num_models[name]

    datasets = {name: _whole(rows) for name, rows in layers.datasets.items()}
    costs = [[cost(rows, name, index) for index in range(len(rows.batches))] for name, rows in datasets.items()]
    return [dict(zip(datasets, parts, strict=True)) for parts in even_cut(costs, 0.0, size, whole=False)]


def _with_parts(model: OpenedModel, parts: Mapping[str, range]) -> OpenedModel:
    """A model on parts of its data sets, without those of which there is no part."""
    own = {name: BatchRange(_whole(rows), parts[name]) for name, rows in model.datasets.items() if parts[name]}
    return replace(model, datasets=own)


def _whole(rows: CalibrationSet | BatchRange) -> CalibrationSet:
    assert not isinstance(rows, BatchRange), "the rows are shared already"
    return rows


def check_same_inputs(inputs: Identity, ranks: Ranks) -> None:
    """Refuse to begin where ranks evaluate other models, rows or metrics than the first: each calls this with its own.

    Raises:
        InputError: on every rank; names the rank and what differs.
    """
    for rank, problem in differing_ranks(ranks.gather(inputs)):
        raise InputError(
            f"{ranks.label(rank)} evaluates other inputs than {ranks.label(0)}: {problem}; give every rank the"
            " same manifest, models, rows and versions"
        )


@contextmanager
def rank_folder(parent: RunFolder, key: str, ranks: Ranks) -> Iterator[Path]:
    """This rank's folder of an evaluation, locked for the context; raises as `evaluation_folder`.

    The first rank's is made first and removed last: those of others may lie in the folder around it.
    """
    if not ranks.is_first:
        ranks.gather(None)
    with evaluation_folder(parent, key, num_ranks=ranks.size) as folder:
        if ranks.is_first:
            ranks.gather(None)
        yield folder
        if ranks.is_first:
            ranks.gather(None)
    if not ranks.is_first:
        ranks.gather(None)
