"""CLIP's text tower, and prompts as it reads them.

Shape suffixes: P projected features, D features.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from regstream.checkpoint.checkpoint import Checkpoint, open_checkpoint
from regstream.checkpoint.loader import CheckpointLoader
from regstream.data.batch_policy import BatchPolicy
from regstream.data.loading import TokenRows
from regstream.data.row_reader import Row
from regstream.data.tokenizer_process import TokenizerProcess
from regstream.data.tokens import TokenIds
from regstream.errors import InputError, ManifestError
from regstream.evaluate.classes import Classes
from regstream.events import Listener
from regstream.models.families.clip import CLIP_TEXT, CLIP_VISION
from regstream.models.layered_model import LayeredModel
from regstream.plan.plan import Plan
from regstream.validation.agreement import check_base

TEXT_PROJECTION, VISUAL_PROJECTION = "text_projection.weight", "visual_projection.weight"
_BATCH_PROMPTS = 64
#: What configs say that were written before the id was looked at: the highest id of a text ends it, whichever it is.
_ANY_END = 2


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """Every class in every template as token ids: `rows` has them longest first, `places` says where each stood."""

    num_classes: int
    rows: TokenRows
    places: Tensor


@dataclass(frozen=True, kw_only=True)
class TextTower:
    """The text tower of a whole CLIP, opened; no weight of it is in memory but the two projections."""

    checkpoint: Checkpoint
    model: LayeredModel
    tokenize: Callable[[Row], TokenIds]
    text_projection_PD: Tensor
    visual_projection_PD: Tensor

    def prompts(self, classes: Classes) -> Prompts:
        """The prompts of a dataset's classes, tokenized by what stands beside the tower.

        Raises:
            InputError: the tokenizer is another model's, or a prompt is too long.
        """
        ids = [self._ids(prompt) for prompt in classes.prompts]
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]), reverse=True)
        rows = TokenRows([ids[index] for index in order], BatchPolicy(_BATCH_PROMPTS))
        return Prompts(num_classes=len(classes.names), rows=rows, places=torch.tensor(order))

    def _ids(self, prompt: str) -> TokenIds:
        ids = self.tokenize(Row(f'prompt "{prompt}"', prompt))
        if self.model.max_positions is not None and len(ids) > self.model.max_positions:
            raise InputError(
                f'prompt "{prompt}" has more than the {self.model.max_positions} tokens that are read of one'
            )
        if ids.max() >= self.model.vocab_size:
            raise InputError(
                f'{self.checkpoint.folder}: its tokenizer gives id {ids.max()} in prompt "{prompt}", outside the text'
                f" tower's vocabulary of {self.model.vocab_size:,}; is it there, and this model's?"
            )
        end = self.model.eos_token_id
        end = int(ids.max()) if end == _ANY_END else end
        if (ids == end).nonzero()[0].tolist() != [len(ids) - 1]:
            raise InputError(
                f'{self.checkpoint.folder}: its tokenizer does not end prompt "{prompt}" with id {end}, where the text'
                " tower is read; is it there, and this model's?"
            )
        return ids


def open_text_tower(plan: Plan, listener: Listener) -> TextTower:
    """The text tower that a plan's manifest names, else the base's own.

    Raises:
        ManifestError: the base is no CLIP.
        InputError: there is none, the hub does not give it, or it is not the base's.
    """
    if plan.base.family is not CLIP_VISION:
        raise ManifestError(
            f"evaluate: classes: only a CLIP tells classes by their names, and the base is {plan.base.family.name};"
            " give a head"
        )
    named = plan.manifest.evaluation.text_tower
    opening = CheckpointLoader(plan.manifest, plan.commits, listener)
    whole = plan.base if named is None else opening.open_auxiliary("text tower", named)
    for name in (TEXT_PROJECTION, VISUAL_PROJECTION):
        if name not in whole.other_tensors.tensors:
            raise InputError(
                f"{whole.label}: {whole.folder} holds no {name}, so it is no whole CLIP, of which heads are made from"
                ' class names; name the folder of one: [evaluation] text_tower = "…"'
            )
    text = open_checkpoint(whole.label, whole.folder, whole.source, part=CLIP_TEXT)
    model = LayeredModel(CLIP_TEXT, text.model_config, dtype=torch.float32, device=plan.device)
    check_base(text, model)
    _check_projections(whole, model.hidden_size, plan.model.hidden_size)
    return TextTower(
        checkpoint=text,
        model=model,
        # One more than there can be, to see what is too long.
        tokenize=TokenizerProcess(
            "text", whole.folder, (model.max_positions or text.config["max_position_embeddings"]) + 1
        ),
        text_projection_PD=read_projection(whole, TEXT_PROJECTION),
        visual_projection_PD=read_projection(whole, VISUAL_PROJECTION),
    )


def _check_projections(whole: Checkpoint, text_size: int, visual_size: int) -> None:
    text, visual = (whole.other_tensors.tensors[name].shape for name in (TEXT_PROJECTION, VISUAL_PROJECTION))
    expected = (visual[0], text_size), (visual[0], visual_size)
    if (text, visual) != expected:
        raise InputError(
            f"{whole.label}: {whole.folder}: {TEXT_PROJECTION} is {list(text)} and {VISUAL_PROJECTION} {list(visual)},"
            f" where the text tower has {text_size} features and the base {visual_size}; expected the CLIP that the"
            " base is a part of"
        )


def read_projection(whole: Checkpoint, name: str) -> Tensor:
    """A projection of a whole CLIP, (P, D), float32."""
    projection_PD = torch.empty(whole.other_tensors.tensors[name].shape, dtype=torch.float32)
    whole.other_tensors.read({name: projection_PD})
    return projection_PD
