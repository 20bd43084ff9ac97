"""A language model's loss on held-out rows.

Shape suffixes: T tokens, D features.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from regstream.data.batch_range import BatchRange, Rows
from regstream.data.loading import TokenRows
from regstream.data.stored_inputs import InputRows
from regstream.data.target_rows import TargetRows
from regstream.evaluation.sums import Sums
from regstream.models.layered_model import LayeredModel

#: How many logits are computed at a time, so that memory does not grow with the length of rows.
_MAX_LOGITS = 16 << 20


class _Loss:
    """What losses have in common."""

    title: ClassVar[str] = "held-out loss"
    higher_is_better: ClassVar[bool] = False

    def parameters(self, model: LayeredModel) -> list[str]:
        """Final norms and head, or the embeddings that the head is tied to."""
        names = [name for name in model.shapes if model.architecture.part_of(name) in ("final_norm", "head")]
        return names + [source for source in dict.fromkeys(model.tied.values()) if source not in names]

    @property
    def digest(self) -> str:
        """Nothing beside the model and the rows decides the loss."""
        return self.title

    def score(
        self,
        model: LayeredModel,
        dataset: str,  # noqa: ARG002
        rows: Rows,
        states: Iterator[Tensor],
        earlier: object,  # noqa: ARG002
    ) -> Sums:
        """The sum over all predicted tokens, and how many these are."""
        total, count = 0.0, 0
        for index, tokens_TD in enumerate(states):
            for loss, num_predicted in self._row_losses(model, rows, index, tokens_TD):
                total, count = total + loss, count + num_predicted
        return Sums((total,), count)

    def _row_losses(
        self, model: LayeredModel, rows: Rows, index: int, tokens_TD: Tensor
    ) -> Iterator[tuple[float, int]]:
        """Of each row of a batch the sum over its predicted tokens, and how many these are."""
        raise NotImplementedError


@dataclass(frozen=True)
class HeldOutLoss(_Loss):
    """The mean negative log-likelihood of predicted tokens, in nats."""

    datasets: Mapping[str, TokenRows]

    def score_bytes(self, model: LayeredModel, dtype: torch.dtype) -> int:
        """The logits of a piece of the longest row, capped where the model caps them, and their softmax in float32."""
        longest = max(length for rows in self.datasets.values() for batch in rows.batches for length in batch.lengths)
        num_logits = min(longest, _positions_at_once(model)) * model.vocab_size
        is_capped = getattr(model.model.config, "final_logit_softcapping", None) is not None
        in_float32 = 2 * torch.float32.itemsize
        own = 3 * dtype.itemsize if is_capped else dtype.itemsize
        return num_logits * (max(own, in_float32) if dtype == torch.float32 else own + in_float32)

    def _row_losses(
        self, model: LayeredModel, rows: Rows, index: int, tokens_TD: Tensor
    ) -> Iterator[tuple[float, int]]:
        """Of all tokens except the first."""
        assert isinstance(rows, TokenRows | BatchRange)
        ids = rows.token_ids(index)
        for row_TD, row_ids in zip(torch.split(tokens_TD, list(map(len, ids))), ids, strict=True):
            yield _row_loss(model, row_TD, row_ids.to(model.device)), len(row_ids) - 1


@dataclass(frozen=True)
class TargetLoss(_Loss):
    """The mean negative log-likelihood of the tokens of targets, given their inputs, in nats."""

    datasets: Mapping[str, TargetRows | InputRows]

    def score_bytes(self, model: LayeredModel, dtype: torch.dtype) -> int:
        """The logits of the longest target, and their softmax in float32."""
        longest = max(batch.shape[1] for rows in self.datasets.values() for batch in rows.targets)
        return longest * model.vocab_size * (dtype.itemsize + 2 * torch.float32.itemsize)

    def _row_losses(
        self, model: LayeredModel, rows: Rows, index: int, tokens_TD: Tensor
    ) -> Iterator[tuple[float, int]]:
        """Of all tokens of the target."""
        assert isinstance(rows, TargetRows | InputRows | BatchRange)
        labels_BL = rows.target_labels(index).to(model.device)
        inputs = rows.inputs(index, dtype=tokens_TD.dtype, device=model.device)
        rows_BLD = tokens_TD.view(len(labels_BL), -1, tokens_TD.shape[1])
        for row, labels_L in enumerate(labels_BL):  # the logits of all rows at once would take much more memory
            own = {name: value[row : row + 1] for name, value in inputs.items()}
            logits_LV = model.run_head(rows_BLD[row : row + 1], slice(0, len(labels_L)), own)[0]
            yield float(cross_entropy(logits_LV.float(), labels_L, reduction="sum")), len(labels_L)


def _positions_at_once(model: LayeredModel) -> int:
    return max(1, _MAX_LOGITS // model.vocab_size)


def _row_loss(model: LayeredModel, row_TD: Tensor, ids_T: Tensor) -> float:
    """The sum over a row's tokens except the first, from float32 logits."""
    total = 0.0
    step = _positions_at_once(model)
    for start in range(0, len(ids_T) - 1, step):
        stop = min(start + step, len(ids_T) - 1)
        logits = model.run_head(row_TD[None], slice(start, stop))[0]
        total += float(cross_entropy(logits.float(), ids_T[start + 1 : stop + 1], reduction="sum"))
    return total
