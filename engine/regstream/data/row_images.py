"""Which images belong to a row of text, and where they are: in files beside the rows, or in a column of a .parquet."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from regstream.data.chat_messages import MESSAGES, chat_messages
from regstream.data.encoded_images import MAX_IMAGE_BYTES, TableColumn
from regstream.data.row_reader import Row, open_table, read_rows
from regstream.errors import InputError, error_boundary, label_boundary
from regstream.storage.regular_file import check_regular

#: Files whose rows may have images.
_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
#: Kinds of parts of a message's content, and the keys under which a part names an image.
_IMAGE_KINDS = ("image", "image_url")
_REFERENCES = ("image", "path", "url", "image_url")
#: Stands for an image in the texts of many data sets.
_PLACEHOLDER = "<image>"


@dataclass(frozen=True)
class RowWithImages:
    """A row's text or messages, whose parts say only that an image is there, and its images in their order."""

    location: str
    value: Any
    images: tuple["ImageReference", ...]


class ImageReference(Protocol):
    """Where an encoded image is."""

    def read(self) -> tuple[str, bytes]:
        """Its location for messages, and its bytes."""


@dataclass(frozen=True)
class ImageFile:
    """An image in a file below the folder of the rows."""

    row: str
    path: Path
    name: str

    def read(self) -> tuple[str, bytes]:
        """The file's name as the row has it, and its bytes."""
        where = f"{self.row}: image {self.name}"
        with label_boundary(where), error_boundary(f"cannot be read from {self.path.parent}"):
            return where, check_regular(self.path, MAX_IMAGE_BYTES).read_bytes()


@dataclass(frozen=True)
class TableImage:
    """An image of a row of a table, at a position in its list: bytes, or a struct with a field `bytes`."""

    row: str
    column: TableColumn
    index: int
    position: int

    def read(self) -> tuple[str, bytes]:
        """The row and the image's number, and its bytes."""
        where = f"{self.row}: image {self.position + 1}"
        value = _as_list(self.column[self.index])[self.position]
        encoded = value.get("bytes") if isinstance(value, Mapping) else value
        if not isinstance(encoded, bytes):
            raise InputError(f"{where}: expected an encoded image, found {str(value)[:40]}")
        return where, encoded


def rows_with_images(path: Path, field: str, images: str | None, indices: list[int]) -> Iterator[RowWithImages]:
    """Read the rows at these indices, which are sorted; `images` is the field or column that names or holds images.

    Raises:
        InputError: the file cannot be read; a row's images and the places for them differ in number; an image is named
            by an address or outside the file's folder; or no row has the field `images`.
    """
    if path.suffix not in _SUFFIXES:
        raise InputError(f"{path}: rows with images are read from {', '.join(_SUFFIXES)}; remove images, or convert it")
    table = path.suffix == ".parquet"
    column = TableColumn(path, open_table(path, images), images) if table and images else None
    has_field = column is not None or images is None
    for index, row in zip(indices, read_rows(path, field, indices, None if table else images), strict=True):
        value = row.images if column is None else column[index]
        has_field |= value is not None
        if column is not None:
            given: list[Any] = [TableImage(row.location, column, index, n) for n in range(len(_as_list(value)))]
        else:
            given = _as_list(value)
        found, references = _place(row, field, given)
        yield RowWithImages(row.location, found, tuple(_located(path, row.location, item) for item in references))
    if not has_field:
        raise InputError(f'{path}: no row has a field "{images}"; images names the field of a row\'s images')


def has_image_parts(path: Path, field: str, indices: list[int]) -> bool:
    """Whether messages of any of these rows have images among the parts of their content."""
    if field != MESSAGES or path.suffix not in _SUFFIXES:
        return False
    rows = read_rows(path, field, indices)
    return any(_kind(part) is not None for row in rows for part in _parts(row))


def _parts(row: Row) -> Iterator[Any]:
    for message in row.value if isinstance(row.value, list) else ():
        content = message.get("content") if isinstance(message, Mapping) else None
        yield from content if isinstance(content, list) else ()


def _kind(part: Any) -> str | None:
    """The kind of a part that is neither text nor of a kind that only its template knows."""
    if not isinstance(part, Mapping):
        return None
    kind = part.get("type") or next((key for key in _IMAGE_KINDS if part.get(key) is not None), None)
    return "image" if kind in _IMAGE_KINDS else kind if kind in ("video", "audio") else None


def _place(row: Row, field: str, given: list[Any]) -> tuple[Any, list[Any]]:
    """The row's value with each image marked, and what names its images in their order: `given`, or parts' own."""
    if field != MESSAGES:
        return row.value, given
    messages = chat_messages(row.location, row.value)
    own = [part for part in _parts(row) if _kind(part) is not None]
    texts = [message["content"] for message in messages if isinstance(message.get("content"), str)]
    if not own and given and sum(text.count(_PLACEHOLDER) for text in texts) == len(given):
        return [_split_placeholders(message) for message in messages], given
    remaining, references = list(given), []
    for part in own:
        if _kind(part) != "image":
            raise InputError(
                f"{row.location}: its messages hold {_kind(part)}; rows may have text and images; remove it"
            )
        reference = next((part[key] for key in _REFERENCES if part.get(key) is not None), None)
        references.append(reference if reference is not None else remaining.pop(0) if remaining else None)
    if remaining or None in references:
        raise InputError(
            f"{row.location}: {len(given)} images for {sum(_is_open(part) for part in own)} parts of messages without"
            ' one of their own; give each {"type": "image"} its path, or list the images in the order of these parts'
        )
    return [_marked(message) for message in messages], references


def _is_open(part: Mapping[str, Any]) -> bool:
    return all(part.get(key) is None for key in _REFERENCES)


def _marked(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """The message with nothing but their kind in the parts that are images."""
    if not isinstance(message.get("content"), list):
        return message
    # Tables have every key of any part in each of them, and templates take a key for its value.
    parts = [
        {"type": "image"}
        if _kind(part) == "image"
        else {key: value for key, value in part.items() if value is not None}
        if isinstance(part, Mapping)
        else part
        for part in message["content"]
    ]
    return {**message, "content": parts}


def _split_placeholders(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """The message's text in parts, with an image in place of each placeholder."""
    content = message.get("content")
    if not isinstance(content, str):
        return message
    parts: list[Mapping[str, str]] = []
    for number, text in enumerate(content.split(_PLACEHOLDER)):
        parts += [{"type": "image"}] if number else []
        parts += [{"type": "text", "text": text}] if text else []
    return {**message, "content": parts}


def _located(path: Path, location: str, reference: Any) -> ImageReference:
    if isinstance(reference, TableImage):
        return reference
    if isinstance(reference, Mapping):
        reference = next((reference[key] for key in ("path", "url") if reference.get(key) is not None), reference)
    where = f"{path.parent / location}"
    if not isinstance(reference, str) or not reference:
        raise InputError(f"{where}: expected the path of an image, found {str(reference)[:40]}")
    if path.suffix == ".parquet":
        raise InputError(
            f"{where}: image {reference[:40]}: a table holds its images in a column, as bytes; images names this column"
        )
    if "://" in reference or reference.startswith("data:"):
        raise InputError(
            f"{where}: image {reference[:40]}: no image is fetched; download it beside {path.name} and give its path"
        )
    folder = path.parent.resolve()
    with error_boundary(f"{where}: image {reference[:200]}"):
        file = (folder / reference).resolve()
    if not file.is_relative_to(folder):
        raise InputError(f"{where}: image {reference[:200]} is outside {path.parent}; put it below this folder")
    return ImageFile(where, file, reference)


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]
