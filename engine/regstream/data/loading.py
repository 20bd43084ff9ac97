"""Calibration sets: rows sampled by the seed, checked, sorted by length, and batched."""

import hashlib
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedConfig

from regstream.data.batch_policy import BatchPolicy
from regstream.data.dataset_sampler import DatasetSampler
from regstream.data.id_map import IdMap, map_rows
from regstream.data.multimodal import MultimodalRows, load_multimodal_rows
from regstream.data.non_text_rows import has_other_inputs, open_stored_inputs, pixel_source, refuse_images_key
from regstream.data.pixels import PixelRows
from regstream.data.row_checks import RowWarnings, check_token_ids
from regstream.data.row_images import has_image_parts
from regstream.data.row_reader import INPUT_IDS, count_rows, read_rows, sample_indices
from regstream.data.stored_inputs import ForwardInputs, InputRows
from regstream.data.target_rows import Decoder, TargetReader, TargetRows, check_stored_targets, target_field
from regstream.data.tensor_rows import read_token_rows
from regstream.data.tokenizer_process import SharedTokenizer
from regstream.data.tokens import TokenIds, validate_token_ids
from regstream.errors import InputError
from regstream.manifest.schema import Calibration
from regstream.models.architecture.architecture import Architecture
from regstream.models.batch import Batch
from regstream.models.row_costs import RowCosts
from regstream.models.row_mixing import reason_to_run_alone


class TokenRows:
    """Rows of token ids, longest first: rows of similar length share a batch, and the largest batch comes first."""

    decoding_bytes = 0
    is_in_memory = True
    targets: tuple[Batch, ...] = ()
    records_arguments = False
    largest = (0,)
    costs = RowCosts()

    def __init__(self, rows: Sequence[TokenIds], batch_policy: BatchPolicy) -> None:
        ordered = sorted(rows, key=len, reverse=True)
        self._batches = list(batch_policy.batches(ordered, len))
        self.batches = tuple(Batch(tuple(map(len, rows)), token_ids=rows) for rows in self._batches)
        self.digest = _digest(self._batches)
        #: Bytes of the largest batch in int64.
        self.input_bytes = 8 * max(math.prod(batch.shape) for batch in self.batches)

    def inputs(self, index: int, *, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
        """`input_ids`, (B, L), padded with 0 on the right; and `attention_mask` if there is padding."""
        del dtype
        batch = self.batches[index]
        mask = batch.attention_mask(device)
        return {"input_ids": batch.input_ids(device)} | ({} if mask is None else {"attention_mask": mask})

    def token_ids(self, index: int) -> list[Tensor]:
        """The ids of each row of a batch, without padding."""
        return [torch.from_numpy(ids).long() for ids in self._batches[index]]


#: Rows in batches; which rows share a batch is part of a run's identity.
CalibrationSet = TokenRows | PixelRows | InputRows | MultimodalRows | TargetRows


def load_calibration(
    calibration: Calibration,
    *,
    architecture: Architecture,
    config: PreTrainedConfig,
    base: Path,
    seed: int,
    warn: Callable[[str], None],
    max_features: int = 0,
    max_positions: int | None = None,
    sampler: DatasetSampler | None = None,
    tokenizer: SharedTokenizer | None = None,
    label: str = "label",
    forward: ForwardInputs | None = None,
    decoder: Decoder | None = None,
    id_map: IdMap | None = None,
) -> CalibrationSet:
    """Read a calibration set. `base` is the folder of the tokenizer or the processor.

    The widest activation, `max_features`, sizes batches without `batch_rows`; `max_positions` is the longest row of
    learned positions, `label` the column of image labels; `forward`, `decoder` and `id_map` are of the model's inputs.

    Raises:
        InputError: the set cannot be read or has no rows, or a row is empty, of the wrong type, or of unknown ids.
    """
    is_of_images = architecture.modality == "pixel_values"
    field = "image" if is_of_images and calibration.field == "text" else calibration.field
    target = target_field(calibration, field, architecture)
    path = calibration.path or (sampler or DatasetSampler()).sample(calibration, field, seed, label, target)
    warnings = RowWarnings(path, calibration, warn)
    batch_policy = BatchPolicy(calibration.batch_rows, max_features, pads=not architecture.has_experts)
    max_length = min(calibration.max_length, max_positions or calibration.max_length)
    policy = partial(_policy_of_texts, architecture, config, batch_policy, warnings)
    if target is not None and decoder is not None:
        return TargetReader(target, decoder, base, max_length, seed, id_map).read(warnings, config, policy, tokenizer)
    if forward is not None and (forward.main != INPUT_IDS or has_other_inputs(path)):
        return _input_rows(warnings, forward, batch_policy, config, seed=seed, decoder=decoder, id_map=id_map)
    if is_of_images:
        pixels = pixel_source(path, field, label, config, base, images_key=calibration.images)
        return PixelRows(pixels, architecture, config, _indices(len(pixels), calibration, seed, warnings), batch_policy)
    with nullcontext(tokenizer) if tokenizer else SharedTokenizer() as shared:
        rows, located_ids = _text_rows(warnings, base, max_length, seed=seed, tokenizer=shared, id_map=id_map)
    check_token_ids(path, located_ids, config, have_images=rows is not None)
    warnings.of_truncated(all_ids := [ids for _, ids in located_ids], max_length)
    return rows or TokenRows(all_ids, policy(all_ids))


def _policy_of_texts(
    architecture: Architecture,
    config: PreTrainedConfig,
    batch_policy: BatchPolicy,
    warnings: RowWarnings,
    rows: Sequence[TokenIds],
) -> BatchPolicy:
    """The policy, or that of batches of one row, where rows change each other."""
    reason = reason_to_run_alone(architecture, config, longest=max(map(len, rows)))
    if reason is not None:
        warnings.of_batch_rows(reason)
    return batch_policy if reason is None else BatchPolicy(1)


def _input_rows(
    warnings: RowWarnings,
    forward: ForwardInputs,
    batch_policy: BatchPolicy,
    config: PreTrainedConfig,
    *,
    seed: int,
    decoder: Decoder | None,
    id_map: IdMap | None,
) -> InputRows:
    if id_map is not None:
        id_map.refuse_moved(warnings.path)
    # Rows with images, and those with targets, are not padded.
    policy = BatchPolicy(1) if forward.main == INPUT_IDS or decoder is not None else batch_policy
    stored = open_stored_inputs(warnings.path, forward, warnings.calibration.images)
    indices = _indices(len(stored), warnings.calibration, seed, warnings)
    rows = InputRows(stored, indices, forward, policy, has_targets=decoder is not None)
    if decoder is not None:
        check_stored_targets(warnings.path, rows, decoder, config)
    return rows


def _indices(num_rows: int, calibration: Calibration, seed: int, warnings: RowWarnings) -> list[int]:
    """The sampled indices. Warns before the rows are prepared, which takes its time."""
    warnings.of_few(num_rows)
    warnings.of_many(num_rows)
    return sample_indices(num_rows, calibration.rows, seed, calibration.part)


def _text_rows(
    warnings: RowWarnings,
    base: Path,
    max_length: int,
    *,
    seed: int,
    tokenizer: SharedTokenizer,
    id_map: IdMap | None,
) -> tuple[MultimodalRows | None, list[tuple[str, TokenIds]]]:
    """The sampled rows, if any has images, and the token ids of each with its location."""
    path, calibration = warnings.path, warnings.calibration
    field, images = calibration.field, calibration.images
    if path.is_dir():
        raise InputError(f"{path}: expected a file of rows; a folder of images is for a model that reads images")
    if path.suffix == ".safetensors":
        refuse_images_key(path, images)
        rows_of_ids = read_token_rows(path, calibration, max_length, seed)
        warnings.of_few(len(rows_of_ids))
        warnings.of_many(len(rows_of_ids))
        return None, map_rows(id_map, path, rows_of_ids)
    num_rows = count_rows(path)
    if num_rows == 0:
        raise InputError(f"{path}: no rows")
    indices = _indices(num_rows, calibration, seed, warnings)
    if images is not None or has_image_parts(path, field, indices):
        warnings.of_batch_rows("rows have images")
        multimodal = load_multimodal_rows(
            path, field, images, indices, base=base, max_length=max_length, tokenizer=tokenizer
        )
        return multimodal, multimodal.located_ids()
    rows = read_rows(path, field, indices)
    if field == INPUT_IDS:
        return None, map_rows(id_map, path, [(row.location, validate_token_ids(row, max_length)) for row in rows])
    tokenize = tokenizer.get(field, base, max_length)
    return None, [(row.location, tokenize(row)) for row in rows]


def _digest(batches: Sequence[Sequence[TokenIds]]) -> str:
    digest = hashlib.sha256()
    for rows in batches:
        digest.update(f"batch {len(rows)}\n".encode())
        for ids in rows:
            digest.update(f"row {len(ids)}\n".encode() + np.ascontiguousarray(ids, dtype="<i4").tobytes())
    return digest.hexdigest()
