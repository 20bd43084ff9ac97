"""A language model's loss on held-out rows, one block of it resident at a time.

Shape suffixes: B rows, L positions, D features, T tokens.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from regstream import durable
from regstream.block import LayeredModel
from regstream.calibration import TokenRows
from regstream.hidden import HiddenStates

#: Logits computed at a time, in values: memory does not depend on rows' lengths times the vocabulary.
_LOGITS = 16 << 20


class Weights(Protocol):
    """Where a model's parameters are read from."""

    def read(self, into: Mapping[str, Tensor]) -> None:
        """Fill each named buffer."""
        ...


@dataclass(frozen=True, kw_only=True)
class StreamedLoss:
    """Computes losses with a layered model, its hidden states kept below `folder`."""

    model: LayeredModel
    folder: Path
    progress: Callable[[str], None]

    def of(self, label: str, weights: Weights, datasets: Mapping[str, TokenRows]) -> dict[str, float]:
        """The mean negative log-likelihood a predicted token, in nats, on each dataset."""
        states = HiddenStates(self.folder, self.model.dtype)
        durable.remove_tree(self.folder)
        durable.make_folder(self.folder)
        try:
            self._stem(label, weights, datasets, states)
            for block in range(len(self.model.blocks)):
                self._block(label, weights, datasets, states, block)
                states.drop_before(block + 1)
            return self._head(label, weights, datasets, states)
        finally:
            durable.remove_tree(self.folder)

    def _loaded(self, weights: Weights, names: Iterable[str]) -> dict[str, Tensor]:
        shapes = self.model.shapes
        buffers = {n: torch.empty(shapes[n], dtype=self.model.dtype, device=self.model.device) for n in names}
        weights.read(buffers)
        return buffers

    def _stem(self, label: str, weights: Weights, datasets: Mapping[str, TokenRows], states: HiddenStates) -> None:
        names = [name for name in self.model.shapes if self.model.family.part_of(name) == "embeddings"]
        with self.model.lent(self._loaded(weights, names)):
            for dataset, rows in datasets.items():
                with states.write(dataset, 0) as following:
                    for index, batch in enumerate(rows.batches):
                        inputs = rows.inputs(index, dtype=self.model.dtype, device=self.model.device)
                        following.append(batch.pack(self.model.run_stem(inputs)))
        self.progress(f"{label}: stem")

    def _block(
        self, label: str, weights: Weights, datasets: Mapping[str, TokenRows], states: HiddenStates, block: int
    ) -> None:
        names = [name for name in self.model.shapes if self.model.family.block_of(name) == block]
        with self.model.lent(self._loaded(weights, names)):
            for dataset, rows in datasets.items():
                stored = states.read(dataset, block, rows.batches)
                with states.write(dataset, block + 1) as following:
                    for batch, tokens_TD in zip(rows.batches, stored, strict=True):
                        hidden_BLD = batch.unpack(tokens_TD.to(self.model.device))
                        following.append(batch.pack(self.model.run_block(block, hidden_BLD, batch)))
        self.progress(f"{label}: block {block}")

    def _head(
        self, label: str, weights: Weights, datasets: Mapping[str, TokenRows], states: HiddenStates
    ) -> dict[str, float]:
        family, depth = self.model.family, len(self.model.blocks)
        names = [name for name in self.model.shapes if family.part_of(name) in ("final_norm", "head")]
        names += [source for source in self.model.tied.values() if source not in names]
        losses = {}
        with self.model.lent(self._loaded(weights, names)):
            for dataset, rows in datasets.items():
                total = count = 0.0
                for index, tokens_TD in enumerate(states.read(dataset, depth, rows.batches)):
                    ids = rows.token_ids(index)
                    for row_TD, row_ids in zip(torch.split(tokens_TD, list(map(len, ids))), ids, strict=True):
                        total += self._row_loss(row_TD.to(self.model.device), row_ids.to(self.model.device))
                        count += len(row_ids) - 1
                losses[dataset] = total / count
        self.progress(f"{label}: head")
        return losses

    def _row_loss(self, row_TD: Tensor, ids_T: Tensor) -> float:
        """The summed loss of every token of a row but the first, in float32."""
        total = 0.0
        step = max(1, _LOGITS // self.model.vocabulary)
        for start in range(0, len(ids_T) - 1, step):
            stop = min(start + step, len(ids_T) - 1)
            logits = self.model.run_head(row_TD[None], slice(start, stop))[0]
            total += float(cross_entropy(logits.float(), ids_T[start + 1 : stop + 1], reduction="sum"))
        return total
