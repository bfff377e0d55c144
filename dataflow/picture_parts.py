"""What pictures of slides have in common: type, tissue outlines, scale bars, saving."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from store_schema.errors import InputError

INK: Final = (30, 30, 30)
FRAME: Final = (190, 190, 190)
OUTLINE: Final = (0, 135, 60)  # green: no H&E tissue has it
OUTLINE_PX: Final = 2

_BAR_PX: Final = 7


def font(size_px: int) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans as matplotlib ships it: Pillow's own font has no µ, and few alphabets."""
    return ImageFont.truetype(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size_px)


def resampling(scale: float) -> Image.Resampling:
    """Return the filter that suits an enlargement (``scale`` > 1) or a reduction of pixels."""
    return Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.BOX


def outline_layer(mask: npt.NDArray[np.uint8], size: tuple[int, int]) -> Image.Image:
    """Return the opacity (0 or 255) of a mask's outline, 2 px wide, drawn inside.

    Parameters
    ----------
    mask
        uint8 (y, x), 0 is outside.
    size
        (width, height) of the picture that the mask covers [px].
    """
    scaled = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)).astype(bool)
    edge = scaled & ~ndimage.binary_erosion(scaled, iterations=OUTLINE_PX)
    return Image.fromarray((edge * np.uint8(255)).astype(np.uint8))


def draw_scale_bar(
    draw: ImageDraw.ImageDraw,
    type_: ImageFont.FreeTypeFont,
    x: int,
    y: int,
    width: int,
    um_per_px: float,
) -> int:
    """Draw a scale bar of a round length, with its label.

    Parameters
    ----------
    draw, type_
        Where, and in which type.
    x, y
        Top-left corner of the line [px of the picture].
    width
        Of the view; the bar is a fifth of it at the most [px].
    um_per_px
        Size of a pixel of the view [µm/px].

    Returns
    -------
    int
        Where the label ends [px].
    """
    length_um = round_length(width * um_per_px / 5.0)
    length_px = round(length_um / um_per_px)
    draw.rectangle((x, y + 6, x + length_px, y + 6 + _BAR_PX), fill=INK)
    label = f"{length_um:g} µm" if length_um < 1000 else f"{length_um / 1000:g} mm"
    draw.text((x + length_px + 10, y), label, INK, type_)
    return x + length_px + 10 + math.ceil(draw.textlength(label, type_))


def round_length(length: float) -> float:
    """Return the largest of 1, 2, 5 times a power of ten that is not longer."""
    power = 10.0 ** math.floor(math.log10(length))
    return next(step * power for step in (5.0, 2.0, 1.0) if step * power <= length * (1 + 1e-9))


def shortened(
    draw: ImageDraw.ImageDraw, text: str, type_: ImageFont.FreeTypeFont, room_px: int
) -> str:
    """Return the text, cut with an ellipsis where it would be wider than there is room."""
    if draw.textlength(text, type_) <= room_px:
        return text
    while len(text) > 1 and draw.textlength(text + "…", type_) > room_px:
        text = text[:-1]
    return text + "…"


def wrapped(
    draw: ImageDraw.ImageDraw, text: str, type_: ImageFont.FreeTypeFont, room_px: int
) -> list[str]:
    """Return the text in lines that are no wider than there is room, words whole as far as they have room."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and draw.textlength(longer, type_) <= room_px:
            lines[-1] = longer
        else:
            lines.append(shortened(draw, word, type_, room_px))
    return lines


def save_png(picture: Image.Image, path: Path, what: str) -> None:
    """Write a picture as PNG; folders are made as needed.

    Parameters
    ----------
    picture, path
        What, and where to.
    what
        How the message calls it, e.g. ``QC picture``.

    Raises
    ------
    InputError
        The file can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, format="PNG", compress_level=1)  # 3x as fast
    except OSError as error:
        raise InputError(f"the {what} {path} can't be written: {error}") from error
