"""Opens rows that are no text, images or stored inputs, of files and folders, for models that read them."""

from pathlib import Path
from typing import TYPE_CHECKING

from transformers import PreTrainedConfig

from regstream.data.encoded_images import EncodedImages, FolderImages, TableImages
from regstream.data.pixels import StoredPixels
from regstream.data.row_reader import ATTENTION_MASK, INPUT_IDS
from regstream.data.stored_inputs import ForwardInputs, StoredInputs, stored_names
from regstream.errors import InputError
from regstream.models.config.image_sizes import image_shape

if TYPE_CHECKING:
    from regstream.data.image_processor import ProcessedImages


def has_other_inputs(path: Path) -> bool:
    """Whether a file holds tensors beside those of token ids."""
    return path.suffix == ".safetensors" and path.is_file() and bool(stored_names(path) - {INPUT_IDS, ATTENTION_MASK})


def refuse_images_key(path: Path, images: str | None) -> None:
    """Refuse the name of a field of images for rows that are no text.

    Raises:
        InputError: there is one.
    """
    if images is not None:
        raise InputError(
            f'{path}: images = "{images}" names the images of rows of text, and these rows are no text; remove images'
            " (field names the column of a table of images)"
        )


def open_stored_inputs(path: Path, forward: ForwardInputs, images: str | None) -> StoredInputs:
    """Open the tensors that a model reads.

    Raises:
        InputError: the file is none of them, or of other inputs.
    """
    refuse_images_key(path, images)
    if path.suffix != ".safetensors" or path.is_dir():
        raise InputError(
            f"{path}: expected a .safetensors of {forward.main}, with a row in each place of the first dimension; the"
            " model reads neither text nor images of one size"
        )
    return StoredInputs(path, forward.main, forward.arguments)


def pixel_source(
    path: Path, column: str, label: str, config: PreTrainedConfig, base: Path, *, images_key: str | None
) -> "StoredPixels | ProcessedImages":
    """Open the images of a file or a folder; `base` is the folder of the processor.

    Raises:
        InputError: there are none, or `images_key` names a field of them.
    """
    refuse_images_key(path, images_key)
    if path.suffix == ".safetensors" and not path.is_dir():
        return StoredPixels(path, image_shape(config))
    if path.is_dir():
        images: EncodedImages = FolderImages(path)
    elif path.suffix == ".parquet":
        images = TableImages(path, column, label)
    else:
        raise InputError(f"{path}: expected a folder of images, a .parquet of them, or a .safetensors of pixel_values")
    if not len(images):
        raise InputError(f"{path}: no images")
    # With PIL and what transformers reads images with, which no other model needs.
    from regstream.data.image_processor import ProcessedImages

    return ProcessedImages(path, images, base, image_shape(config))
