"""CLIP's text tower, and prompts tokenized for it.

Shape suffixes: P projected features, D features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

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
from regstream.evaluation.class_names import ClassNames
from regstream.events import Listener
from regstream.models.architecture.nested_models import CLIP_TEXT, CLIP_VISION
from regstream.models.derivation.derive import derive_architecture
from regstream.models.layered_model import LayeredModel
from regstream.planning.plan import Plan
from regstream.validation.compatibility import check_base

TEXT_PROJECTION, VISUAL_PROJECTION = "text_projection.weight", "visual_projection.weight"
_BATCH_PROMPTS = 64
#: The eos_token_id of early CLIP configs, which is wrong: there the highest id of a text marks its end.
_LEGACY_END_ID = 2


@dataclass(frozen=True, kw_only=True)
class TokenizedPrompts:
    """The token ids of every class in every template, longest first; `order` holds their original indices."""

    num_classes: int
    rows: TokenRows
    order: Tensor


@dataclass(frozen=True, kw_only=True)
class TextTower:
    """The opened text tower of a whole CLIP. Only the two projections are in memory."""

    checkpoint: Checkpoint
    model: LayeredModel
    tokenize: Callable[[Row], TokenIds]
    text_projection_PD: Tensor
    visual_projection_PD: Tensor

    def tokenize_prompts(self, classes: ClassNames) -> TokenizedPrompts:
        """Tokenize the prompts of a dataset's classes with the tower's tokenizer.

        Raises:
            InputError: the tokenizer is another model's, or a prompt is too long.
        """
        ids = [self._token_ids(prompt) for prompt in classes.prompts]
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]), reverse=True)
        rows = TokenRows([ids[index] for index in order], BatchPolicy(_BATCH_PROMPTS))
        return TokenizedPrompts(num_classes=len(classes.names), rows=rows, order=torch.tensor(order))

    def _token_ids(self, prompt: str) -> TokenIds:
        ids = self.tokenize(Row(f'prompt "{prompt}"', prompt))
        if self.model.max_positions is not None and len(ids) > self.model.max_positions:
            raise InputError(
                f'prompt "{prompt}" has more than the {self.model.max_positions} tokens that the tower reads'
            )
        if ids.max() >= self.model.vocab_size:
            raise InputError(
                f'{self.checkpoint.folder}: its tokenizer gives id {ids.max()} in prompt "{prompt}", outside the text'
                f" tower's vocabulary of {self.model.vocab_size:,}; does the folder hold this model's tokenizer?"
            )
        end = int(self.model.model.config.eos_token_id)
        end = int(ids.max()) if end == _LEGACY_END_ID else end
        if (ids == end).nonzero()[0].tolist() != [len(ids) - 1]:
            raise InputError(
                f'{self.checkpoint.folder}: its tokenizer does not end prompt "{prompt}" with id {end}, where the text'
                " tower is read; does the folder hold this model's tokenizer?"
            )
        return ids


def open_text_tower(plan: Plan, listener: Listener) -> TextTower:
    """Open the text tower that a plan's manifest names, or else the base's own.

    Raises:
        ManifestError: the base is not a CLIP.
        InputError: there is none, it cannot be downloaded, or it does not fit the base.
    """
    if plan.base.architecture.nested is not CLIP_VISION:
        raise ManifestError(
            "evaluate: classes: only a CLIP can classify by class names, and the base is"
            f" {plan.base.architecture.name}; set head instead"
        )
    reference = plan.manifest.evaluation.text_tower
    loader = CheckpointLoader(plan.manifest, plan.commits, listener)
    whole = plan.base if reference is None else loader.open_auxiliary("text tower", reference, derive_architecture)
    for name in (TEXT_PROJECTION, VISUAL_PROJECTION):
        if name not in whole.other_tensors.tensors:
            raise InputError(
                f"{whole.label}: {whole.folder} holds no {name}, so it is no whole CLIP, and heads cannot be made from"
                ' class names; name the folder of one: [evaluation] text_tower = "…"'
            )
    derive = partial(derive_architecture, part=CLIP_TEXT)
    text = open_checkpoint(whole.label, whole.folder, whole.source, derive=derive)
    model = LayeredModel(text.architecture, text.model_config, dtype=torch.float32, device=plan.device)
    check_base(text, model)
    _check_projections(whole, model.hidden_size, plan.model.hidden_size)
    return TextTower(
        checkpoint=text,
        model=model,
        # One token more than allowed, so that prompts that are too long are noticed.
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
    """Read a projection of a whole CLIP, (P, D), as float32."""
    projection_PD = torch.empty(whole.other_tensors.tensors[name].shape, dtype=torch.float32)
    whole.other_tensors.read({name: projection_PD})
    return projection_PD
