"""Kinds of option values, checked where they are parsed: whatever is refused names its option."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, Final

import click

TILE_PX_RANGE: Final = (8, 8192)  # smaller is no tile, larger does not fit a batch
# scikit-learn's generators take 32 bits, and repeats count up from it
SEED_RANGE: Final = click.IntRange(0, 2**31 - 1)
_SEPARATORS: Final = tuple(filter(None, (os.sep, os.altsep)))
_LEAST_MEMORY: Final = 2**28  # a worker that has loaded torch needs about as much


class FiniteFloat(click.types.FloatParamType):
    """A float; unlike ``click.FLOAT`` it is neither NaN nor infinite."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number, or fail."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is no number that can be worked with.", param, ctx)
        return number


class FiniteRange(click.FloatRange):
    """A float within bounds; unlike ``click.FloatRange`` it takes neither NaN nor infinity."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number, or fail."""
        return FiniteFloat().convert(super().convert(value, param, ctx), param, ctx)


class FilePath(click.Path):
    """A path of a file to write; unlike ``click.Path`` it doesn't take ``folder/`` for a file called ``folder``."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path, or fail."""
        if str(value).endswith(_SEPARATORS) or Path(value).is_dir():
            self.fail(f"{value} is a folder: name the file in it.", param, ctx)
        return super().convert(value, param, ctx)


class MemoryLimit(click.ParamType[str]):
    """Memory of a worker: ``auto``, or bytes with a unit as Dask reads them."""

    name = "memory"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text, or fail."""
        text = str(value)
        if text == "auto":
            return text
        from dask.utils import parse_bytes

        try:
            n_bytes = parse_bytes(text)
        except ValueError:
            self.fail(f"{text!r} is no amount of memory; give e.g. 8GiB, or auto.", param, ctx)
        if n_bytes < _LEAST_MEMORY:
            self.fail(
                f"{text!r} is {n_bytes} bytes, too little for a worker; give e.g. 8GiB, or auto.",
                param,
                ctx,
            )
        return text


class StorePlace(click.ParamType[str]):
    """Path or URL of a store."""

    name = "store"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text, or fail."""
        text = str(value)
        if not text.strip() or "\0" in text:
            self.fail(f"{text!r} is neither a path nor a URL.", param, ctx)
        return text
