"""The base's processor: rows of text and images as the arguments of the model's forward pass."""

import hashlib
import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import AutoProcessor, ProcessorMixin

from regstream.data.chat_messages import MESSAGES
from regstream.data.decode_image import PIXEL_BYTES, decode_image
from regstream.data.row_reader import ATTENTION_MASK, INPUT_IDS, Row
from regstream.data.tokens import (
    WITHOUT_CODE,
    check_encodable,
    check_tokenizer_files,
    check_vocabulary,
    has_remote_code,
)
from regstream.errors import InputError, error_boundary, error_reason
from regstream.storage.regular_file import check_regular

_SETTINGS = ("processor_config.json", "preprocessor_config.json")
_CLASS_FILES = (*_SETTINGS, "tokenizer_config.json")
_MAX_SETTINGS_BYTES = 16 << 20
#: What a processor returns for training, and no forward pass needs.
_LABELS = "labels"
_VIDEO_PROCESSOR = "video_processor"
#: Copies of its output that a processor makes: scaled, normalized, split into patches, and joined.
_OUTPUT_COPIES = 4


@dataclass(frozen=True)
class PreparedRow:
    """What a processor makes of a row: `input_ids` (1, tokens), and whatever else the model's forward pass takes."""

    inputs: dict[str, Tensor]
    pixel_digest: str  # of the decoded images
    preparation_bytes: int  # memory for decoding and preparing them


class MultimodalProcessor:
    """Prepares one row at a time, as transformers' processor in a folder does.

    Raises:
        InputError: the folder has no processor of text and images that transformers can load without remote code, or
            it needs a package that is missing.
    """

    def __init__(self, folder: Path) -> None:
        files = [folder / name for name in _SETTINGS if (folder / name).exists()]
        if not files:
            raise InputError(f"{folder}: no {' or '.join(_SETTINGS)}; without a processor, images cannot join a text")
        only = check_tokenizer_files(folder)
        if any(has_remote_code(check_regular(file, _MAX_SETTINGS_BYTES)) for file in files):
            only = WITHOUT_CODE
        #: The settings' bytes, which decide how images become numbers.
        self.settings = b"".join(file.read_bytes() for file in files)
        with error_boundary(f"{folder}: no processor that transformers can load{only}"):
            self._processor = _load(folder)
        tokenizer = getattr(self._processor, "tokenizer", None)
        if tokenizer is None or getattr(self._processor, "image_processor", None) is None:
            raise InputError(
                f"{folder}: transformers loads a {type(self._processor).__name__} from it, which reads no images beside"
                " a text; remove the images from the rows"
            )
        check_vocabulary(folder, tokenizer)
        # transformers hands these settings of a tokenizer.json to the processor, which would cut texts in their images.
        for setting in ("max_length", "truncation", "truncation_strategy", "truncation_side", "stride"):
            tokenizer.init_kwargs.pop(setting, None)
        # With torchvision, transformers resizes with another class, and to slightly different numbers.
        self.settings += type(self._processor.image_processor).__name__.encode()
        self._folder = folder

    def render(self, row: Row, field: str) -> str:
        """The row's text: `messages` go through the chat template.

        Raises:
            InputError: the row is no text, or the template refuses it.
        """
        check_encodable(row)
        if field != MESSAGES:
            if not isinstance(row.value, str):
                raise InputError(f"{row.location}: expected text, found {str(row.value)[:40]}")
            return row.value
        template = self._processor.chat_template or self._processor.tokenizer.chat_template
        if not template:
            raise InputError(f'{self._folder}: no chat template, but field = "messages" needs one; add one')
        chosen = template if isinstance(template, str) else None
        with error_boundary(f"{row.location}: the chat template refused it"):
            return str(self._processor.apply_chat_template(row.value, chat_template=chosen, tokenize=False))

    def prepare(self, location: str, text: str, encoded: Sequence[tuple[str, bytes]], max_length: int) -> PreparedRow:
        """Prepare a row of at most `max_length` tokens, with the locations and bytes of its encoded images.

        Raises:
            InputError: the row is empty, an image cannot be decoded, the processor refuses the row, or images reach
                beyond `max_length`.
        """
        if not (text.strip() or encoded):
            raise InputError(f"{location}: empty text; remove the row")
        images = [decode_image(where, image) for where, image in encoded]
        digest = hashlib.sha256()
        for image in images:
            digest.update(f"{image.size}\n".encode() + image.tobytes())
        bos = self._processor.tokenizer.bos_token
        # As transformers' own `apply_chat_template` decides when it tokenizes what it has rendered.
        options = {"add_special_tokens": False} if bos and text.startswith(bos) else {}
        with error_boundary(f"{location}: the processor refused it"):
            images_of_rows = [images] if images else None
            output = dict(self._processor(text=[text], images=images_of_rows, return_tensors="pt", **options))
        _check_output(location, output)
        num_pixels = sum(image.width * image.height for image in images)
        output_bytes = sum(value.numel() * 4 for value in output.values() if value.is_floating_point())
        return PreparedRow(
            inputs=self._truncate(location, output, bool(images), max_length),
            pixel_digest=digest.hexdigest(),
            preparation_bytes=num_pixels * PIXEL_BYTES + output_bytes * _OUTPUT_COPIES,
        )

    def _truncate(
        self, location: str, output: dict[str, Tensor], has_images: bool, max_length: int
    ) -> dict[str, Tensor]:
        """Cut text after the last image, and leave out what says nothing of a single row."""
        ids = output[INPUT_IDS]
        is_image = torch.isin(ids, self._image_ids()) if has_images else torch.zeros_like(ids, dtype=torch.bool)
        if ids.shape[1] > max_length and has_images and bool(is_image[:, max_length:].any() or not is_image.any()):
            end = int(is_image.nonzero()[-1, 1]) + 1 if is_image.any() else ids.shape[1]
            raise InputError(
                f"{location}: its last image ends at token {end:,}, beyond max_length = {max_length:,}; an image cannot"
                f" be cut: set max_length to {end:,} at least, or use smaller or fewer images"
            )
        of_images = {*self._processor.image_processor.model_input_names}
        kept = {
            name: value[:, :max_length] if name not in of_images and value.shape[:2] == ids.shape else value
            for name, value in output.items()
            if name not in (_LABELS, ATTENTION_MASK)
        }
        return {name: value.contiguous() for name, value in kept.items()}

    def _image_ids(self) -> Tensor:
        """The tokens that stand for an image, or for a piece of one."""
        found = [getattr(self._processor, "image_token_id", None), *getattr(self._processor, "image_token_ids", ())]
        return torch.tensor(sorted({token for token in found if isinstance(token, int)}), dtype=torch.long)


def _load(folder: Path) -> Any:
    try:
        load: Any = (_class_without_videos(folder) or AutoProcessor).from_pretrained  # untyped
        return load(folder, local_files_only=True, trust_remote_code=False)
    except ImportError as error:
        reason = error_reason(error).split(". ")[0]
        raise InputError(f"{folder}: its processor needs a package that is missing: {reason}; install it") from error


def _class_without_videos(folder: Path) -> Any:
    """The processor class that the settings name, without its part for videos, which needs torchvision: rows have none.

    None where the class has no such part, or does not go without it.
    """
    names = [_processor_class(folder / name) for name in _CLASS_FILES if (folder / name).exists()]
    found: Any = getattr(transformers, next(filter(None, names), ""), None)
    if not (isinstance(found, type) and issubclass(found, ProcessorMixin)):
        return None
    parameter = inspect.signature(found).parameters.get(_VIDEO_PROCESSOR)
    if parameter is None or parameter.default is inspect.Parameter.empty:
        return None

    def get_attributes(cls: Any) -> list[str]:
        return [name for name in super(without_videos, cls).get_attributes() if name != _VIDEO_PROCESSOR]

    without_videos: Any = type(found.__name__, (found,), {"get_attributes": classmethod(get_attributes)})
    return without_videos


def _processor_class(path: Path) -> str:
    content = json.loads(path.read_bytes())
    name = content.get("processor_class") if isinstance(content, dict) else None
    return name if isinstance(name, str) else ""


def _check_output(location: str, output: dict[str, Any]) -> None:
    for name, value in output.items():
        if not isinstance(value, Tensor):
            raise InputError(f"{location}: the processor makes {name} a {type(value).__name__}; expected a tensor")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise InputError(f"{location}: the processor makes NaN or infinite values of it, in {name}")
    ids = output.get(INPUT_IDS)
    if ids is None or ids.dim() != 2 or ids.shape[0] != 1 or not ids.shape[1]:
        found = None if ids is None else tuple(ids.shape)
        raise InputError(f"{location}: the processor makes {INPUT_IDS} of shape {found}; expected (1, tokens)")
    mask = output.get(ATTENTION_MASK)
    if mask is not None and not bool(mask.all()):
        raise InputError(f"{location}: the processor pads it, and padding would count as tokens; turn padding off")
