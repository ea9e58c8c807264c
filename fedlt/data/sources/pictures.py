"""Image files as arrays: decoded, brought to one size and to one number of channels.

The smaller scale that covers the wanted size is taken (for a square: the shorter side becomes the
side of the square), by PIL's bilinear filter, which smooths when it shrinks. The centre is cut
out. The pixels are those of torchvision's ``Resize`` and ``CenterCrop``.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedlt.errors import FedltError, one_line

if TYPE_CHECKING:
    from PIL.Image import Image

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # channels -> PIL's name of the colour mode
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
Size = tuple[int, int]  # height and width in pixels


def read_picture(
    source: Path | bytes, *, channels: int, size: Size | None, where: str
) -> NDArray[np.uint8]:
    """Return one image as uint8 (channels, H, W).

    Args:
        source: An image file, or the bytes of one.
        channels: 1, 3 or 4: grey, colour, or colour with opacity. Opacity is dropped for 1 and 3.
        size: Height and width to bring the image to; None: as the image is.
        where: Name of the image in messages.

    Raises:
        FedltError: If the image cannot be read.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            found = _to_mode(image, MODES[channels])
            pixels = np.asarray(found if size is None else _fitted(found, size))
    except FileNotFoundError as error:
        raise FedltError(f"{where}: there is no such image") from error
    except MemoryError:
        raise
    except Exception as error:  # PIL's readers raise errors of many kinds
        raise FedltError(f"{where}: not an image that can be read: {one_line(error)}") from error
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _to_mode(image: Image, mode: str) -> Image:
    """Return the image in a mode of :data:`MODES`; 16-bit grey keeps its upper 8 bits.

    Raises:
        ValueError: If the image has float pixels, whose range nobody knows.
    """
    from PIL import Image

    if image.mode == "F":
        raise ValueError("float pixels; save 8 or 16 bits a channel, or use an npz file")
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == mode else image.convert(mode)


def _fitted(image: Image, size: Size) -> Image:
    """Return the image scaled until it covers (H, W), and its centre of that size."""
    from PIL import Image

    (height, width), (old_width, old_height) = size, image.size
    if height * old_width >= width * old_height:
        scaled = (max(width, height * old_width // old_height), height)
    else:
        scaled = (width, max(height, width * old_height // old_width))
    if scaled != image.size:
        image = image.resize(scaled, Image.Resampling.BILINEAR)
    left, top = round((scaled[0] - width) / 2), round((scaled[1] - height) / 2)
    return image.crop((left, top, left + width, top + height))


def picture_size(image_size: object) -> Size | None:
    """Return the option ``image_size`` as height and width.

    Args:
        image_size: The side of a square, a list [height, width], or None: as the images are.

    Raises:
        FedltError: If it is something else.
    """
    if image_size is None:
        return None
    sides: list[Any] = [*image_size] if isinstance(image_size, list | tuple) else [image_size] * 2
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise FedltError(
            "data.options.image_size: must be an integer above 0 or a list [height, width],"
            f" got {image_size!r}"
        )
    height, width = map(int, sides)
    return height, width


def picture_channels(channels: object) -> int:
    """Return the option ``channels``.

    Raises:
        FedltError: If it is not 1, 3 or 4.
    """
    if type(channels) is not int or channels not in MODES:
        raise FedltError(f"data.options.channels: must be 1, 3 or 4, got {channels!r}")
    return channels
