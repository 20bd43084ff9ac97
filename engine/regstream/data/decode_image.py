"""One encoded image decoded to RGB, within a bound on its pixels."""

import io
import operator
from collections.abc import Callable

from PIL import ExifTags, Image, UnidentifiedImageError

from regstream.errors import InputError, error_boundary

#: Memory of a pixel decoded, converted to RGB, copied for the processor, and resized: measured at most 19 (CMYK).
PIXEL_BYTES = 20
#: Formats that PIL decodes itself. For others it runs programs, such as a PostScript interpreter.
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
_WIDE_MODES = ("F", "I", "I;16", "I;16B", "I;16L", "I;16N")
#: By EXIF orientation.
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
#: PIL warns of decompression bombs above this.
_MAX_PIXELS = 89_478_485


def decode_image(
    location: str, encoded: bytes, resized_pixels: Callable[[int, int], int] = operator.mul
) -> Image.Image:
    """Decode an image, turned as its EXIF orientation says. `resized_pixels` says how many pixels
    preparing it makes of its width and height.

    Raises:
        InputError: it is no image, is too large, or has more than 8 bits a channel.
    """
    with error_boundary(f"{location}: not a readable image"):
        Image.init()  # registers plugins; builds of PIL differ in which they have
        image = _open_image(encoded, [name for name in _FORMATS if name in Image.OPEN])
        width, height = image.size
        num_pixels = max(width * height, resized_pixels(width, height))
        if num_pixels > _MAX_PIXELS:
            raise InputError(
                f"{location}: {width:,} x {height:,} pixels, up to {num_pixels:,} resized; expected at most"
                f" {_MAX_PIXELS:,}; scale or crop the image"
            )
        _check_value_range(image)
        return _upright(image.convert("RGB"), image)


def _open_image(encoded: bytes, formats: list[str]) -> Image.Image:
    try:
        return Image.open(io.BytesIO(encoded), formats=formats)
    except UnidentifiedImageError:  # its message names an object in memory
        size = f"{len(encoded):,} bytes of another format" if encoded else "an empty file"
        raise ValueError(f"expected one of {', '.join(formats)}, found {size}") from None


def _check_value_range(image: Image.Image) -> None:
    """Refuse values that conversion to 8 bits would clip at 255 or, as fractions of 1, truncate to 0."""
    if image.mode in _WIDE_MODES:
        extrema: tuple[float, float] = image.getextrema()  # type: ignore[assignment]
        low, high = extrema
        if low < 0 or high > 255 or (image.mode == "F" and 0 < high <= 1):
            raise ValueError(f"values from {low:g} to {high:g}; expected 8 bits a channel, 0 to 255: convert it")


def _upright(converted: Image.Image, image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation, as transformers and datasets do when they load an image."""
    try:
        orientation: int | None = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF data is ignored
        return converted
    transpose = _TRANSPOSES.get(orientation) if orientation is not None else None
    return converted if transpose is None else converted.transpose(transpose)
