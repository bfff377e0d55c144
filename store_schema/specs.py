"""Frozen specs: what a slide, a grid, a stored array and a tile table are. Pure numpy; no zarr."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from store_schema import names

JSON: TypeAlias = (
    "Mapping[str, JSON] | list[JSON] | tuple[JSON, ...] | str | int | float | bool | None"
)
EdgeMode: TypeAlias = Literal["drop", "pad"]


def fingerprint(provenance: Mapping[str, Any]) -> str:
    """Digest of what made something.

    Parameters
    ----------
    provenance
        JSON-able mapping; the order of its keys does not matter.

    Returns
    -------
    str
        16 hexadecimal digits of the blake2b of the canonical JSON text.
    """
    text = json.dumps(provenance, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class SlideRecord:
    """What the store keeps of a slide.

    Attributes
    ----------
    slide_id
        Name of the slide's group.
    source
        Path or URL of the file, as found when it was indexed.
    fingerprint
        Digest of the file's content (see ``dataflow.slide_digest``).
    vendor
        The reader's name of the format, e.g. ``aperio``.
    width, height
        Size [px, level 0].
    mpp
        Physical size of a level-0 pixel [µm/px], mean of x and y; None when it isn't known and no
        grid needs it.
    mpp_source
        Where ``mpp`` comes from: ``properties``, ``objective`` (derived), ``user`` or ``unknown``.
    objective_power
        Nominal magnification, when known.
    """

    slide_id: str
    source: str
    fingerprint: str
    vendor: str
    width: int
    height: int
    mpp: float | None
    mpp_source: str
    objective_power: float | None = None


@dataclass(frozen=True)
class GridSpec:
    """What was asked of a tiling: the same for all slides of a run.

    Attributes
    ----------
    tile_px
        Side of a tile [px at ``mpp``].
    mpp
        Requested physical pixel size [µm/px]; None of imported tiles of which it isn't known.
    stride_px
        Distance of neighbouring tiles [px at ``mpp``], at most ``tile_px``.
    edge
        ``drop`` leaves out tiles that reach over the slide's border, ``pad`` keeps them (white
        beyond the border).
    min_tissue
        Smallest tissue fraction of a kept tile, 0 to 1.
    tissue
        The tissue method and its parameters, JSON-able; part of the fingerprint.
    label
        Name of the grid in the store; None names it by size, mpp and stride.
    """

    tile_px: int
    mpp: float | None
    stride_px: int
    edge: EdgeMode = "drop"
    min_tissue: float = 0.0
    tissue: Mapping[str, Any] = field(default_factory=lambda: {"method": "none"})
    label: str | None = None

    @property
    def name(self) -> str:
        """Group name, e.g. ``256px_0.500mpp`` or, with overlap, ``256px_0.500mpp_s128``."""
        if self.label is not None:
            return self.label
        base = f"{self.tile_px}px" + ("" if self.mpp is None else f"_{self.mpp:.3f}mpp")
        return base if self.stride_px == self.tile_px else f"{base}_s{self.stride_px}"

    def to_json(self) -> dict[str, Any]:
        """Return the spec as a JSON-able mapping."""
        return asdict(self)


@dataclass(frozen=True)
class GridGeometry:
    """What a :class:`GridSpec` comes to on one slide.

    Attributes
    ----------
    tile_level0
        Side of the square that a tile covers [px, level 0].
    stride_level0
        Exact (fractional) distance of neighbouring tiles [px, level 0]; corners are ``round(index *
        stride_level0)``, so that nothing drifts over a slide.
    n_rows, n_cols
        Size of the whole lattice, tissue or not.
    """

    tile_level0: int
    stride_level0: float
    n_rows: int
    n_cols: int


@dataclass(frozen=True)
class TileTable:
    """The kept tiles of one slide's grid, in stored (Hilbert) order.

    Attributes
    ----------
    x, y
        int32 (tile,), top-left corner [px, level 0].
    row, col
        int32 (tile,), place in the lattice.
    tissue
        float32 (tile,), tissue fraction, 0 to 1.
    """

    x: npt.NDArray[np.int32]
    y: npt.NDArray[np.int32]
    row: npt.NDArray[np.int32]
    col: npt.NDArray[np.int32]
    tissue: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return int(self.x.shape[0])


@dataclass(frozen=True)
class ArraySpec:
    """Declaration of a stored per-tile array; also what a tile model says of its outputs.

    Attributes
    ----------
    dims
        Dimension names; the first is ``tile``.
    shape
        Sizes of the dimensions after ``tile``.
    dtype
        numpy dtype name.
    attrs
        ``long_name``, ``units``, ``flag_values`` and so on (CF).
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.dims[:1] != (names.TILE,) or len(self.dims) != len(self.shape) + 1:
            raise ValueError(
                f"a tile array has dims (tile, …) and one size per further dim, not {self}"
            )


@dataclass(frozen=True)
class RasterSpec:
    """Declaration of a stored slide-sized array (``masks/<run>``).

    Attributes
    ----------
    dims, shape, dtype, attrs
        As of the array, e.g. dims ``("y", "x")``.
    px_level0
        Side of one raster pixel [px, level 0].
    origin_level0
        (x, y) of the raster's top-left corner [px, level 0].
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    px_level0: float
    origin_level0: tuple[float, float] = (0.0, 0.0)
    attrs: Mapping[str, Any] = field(default_factory=dict)
