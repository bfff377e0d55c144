"""An xarray index over tile corners: ``ds.sel(x=…, y=…)``, exact or nearest with a tolerance."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.spatial import KDTree
from xarray.core.indexing import (
    IndexSelResult,
)  # what Index.sel returns; xarray has no other place for it

from store_schema import names
from store_schema.errors import InputError, NotInStoreError

Positions = npt.NDArray[np.intp]


class TileIndex(xr.Index):
    """Finds tiles by their top-left corner [px, level 0].

    Parameters
    ----------
    x, y
        (tile,) corners.
    dim
        The dimension along which the tiles lie.
    """

    def __init__(
        self, x: npt.NDArray[Any], y: npt.NDArray[Any], dim: Hashable = names.TILE
    ) -> None:
        self.x = x
        self.y = y
        self.dim = dim

    @classmethod
    def from_variables(
        cls, variables: Mapping[Any, xr.Variable], *, options: Mapping[str, Any]
    ) -> Self:
        """Make the index from the coordinates x and y; called by ``Dataset.set_xindex``."""
        del options
        if set(variables) != {names.X, names.Y} or len({v.dims for v in variables.values()}) > 1:
            raise InputError("a tile index is made of the coordinates x and y, along one dimension")
        x, y = variables[names.X], variables[names.Y]
        return cls(x.values, y.values, x.dims[0])

    def create_variables(
        self, variables: Mapping[Any, xr.Variable] | None = None
    ) -> dict[Any, xr.Variable]:
        """Return the coordinates of the tiles that the index has (now)."""
        given = variables or {}
        return {
            name: xr.Variable(
                (self.dim,), values, attrs=given[name].attrs if name in given else None
            )
            for name, values in ((names.X, self.x), (names.Y, self.y))
        }

    @classmethod
    def concat(
        cls, indexes: Any, dim: Hashable, positions: Any = None
    ) -> Self:  # signature of xarray's
        """Join the tiles of several datasets."""
        del positions
        return cls(
            np.concatenate([i.x for i in indexes]), np.concatenate([i.y for i in indexes]), dim
        )

    def isel(self, indexers: Mapping[Any, Any]) -> Self | None:
        """Follow a selection by position; None (no index any more) for a single tile."""
        positions = indexers[self.dim]
        dim = self.dim
        if isinstance(positions, xr.Variable | xr.DataArray):
            if positions.ndim != 1:
                return None
            dim, positions = positions.dims[0], positions.values
        if np.ndim(positions) == 0 and not isinstance(positions, slice):
            return None
        return type(self)(self.x[positions], self.y[positions], dim)

    def sel(
        self, labels: dict[Any, Any], method: str | None = None, tolerance: float | None = None
    ) -> IndexSelResult:
        """Find tiles by corner.

        Parameters
        ----------
        labels
            ``x`` and ``y``: scalars, or arrays of one shape for pointwise selection.
        method
            None: the corner itself; ``nearest``: the tile whose corner is nearest (Euclidean).
        tolerance
            Largest distance of the nearest corner [px, level 0].

        Raises
        ------
        NotInStoreError
            If there is no such tile (it is a KeyError).
        InputError
            If x or y is missing, or the method is another.
        """
        if set(labels) != {names.X, names.Y}:
            raise InputError("tiles are selected by both x and y: ds.sel(x=…, y=…)")
        if method not in (None, "nearest") or (method is None and tolerance is not None):
            raise InputError(
                "tiles are selected exactly, or with method='nearest' and, if wanted, a tolerance"
            )
        x, y = xr.broadcast(*(self._as_array(labels[name]) for name in (names.X, names.Y)))
        points = np.stack([x.values.ravel(), y.values.ravel()], axis=1).astype(np.float64)
        found = self._exact(points) if method is None else self._nearest(points, tolerance)
        if not x.dims:
            return IndexSelResult({self.dim: int(found[0])})
        return IndexSelResult({self.dim: xr.Variable(x.dims, found.reshape(x.shape))})

    def _as_array(self, label: Any) -> xr.DataArray:
        if isinstance(label, slice):
            raise InputError("tiles of a region are had by ds.tiles.in_bbox(x0, y0, x1, y1)")
        if isinstance(label, xr.DataArray):
            return label.drop_vars(label.coords)
        if isinstance(label, xr.Variable):
            return xr.DataArray(label)
        values = np.asarray(label)
        if values.ndim > 1:
            raise InputError("tiles are selected by scalars, 1-D arrays or DataArrays of x and y")
        return xr.DataArray(values, dims=(self.dim,)[: values.ndim])

    def _exact(self, points: npt.NDArray[np.float64]) -> Positions:
        order, keys = self._sorted
        wanted = _key(points[:, 0], points[:, 1])
        first, last = (np.searchsorted(keys, wanted, side=side) for side in ("left", "right"))
        for point, count in zip(points, last - first, strict=True):
            if count != 1:
                where = f"x={point[0]:g}, y={point[1]:g} [px, level 0]"
                if count:
                    raise NotInStoreError(
                        f"{count} tiles have their corner at {where}: select one slide first"
                    )
                raise NotInStoreError(
                    f"no tile has its corner at {where}: pass method='nearest', or use ds.tiles.at(x, y)"
                )
        return np.asarray(order[first], dtype=np.intp)

    def _nearest(self, points: npt.NDArray[np.float64], tolerance: float | None) -> Positions:
        if not self.x.size:
            raise NotInStoreError("there are no tiles to select from")
        distance, found = self._tree.query(points)
        if tolerance is not None and np.any(distance > tolerance):
            worst = int(np.argmax(distance))
            raise NotInStoreError(
                f"the tile nearest to x={points[worst, 0]:g}, y={points[worst, 1]:g} is {distance[worst]:.1f} px "
                f"(level 0) away, more than the tolerance of {tolerance:g}"
            )
        return np.asarray(found, dtype=np.intp)

    @cached_property
    def _sorted(self) -> tuple[Positions, npt.NDArray[np.complex128]]:
        keys = _key(self.x, self.y)
        order = np.argsort(keys, kind="stable")
        return order, keys[order]

    @cached_property
    def _tree(self) -> KDTree:
        return KDTree(np.stack([self.x, self.y], axis=1))

    def equals(self, other: xr.Index, *, exclude: frozenset[Hashable] | None = None) -> bool:
        """Tell whether another index has the same tiles in the same order."""
        del exclude
        return (
            isinstance(other, TileIndex)
            and np.array_equal(self.x, other.x)
            and np.array_equal(self.y, other.y)
        )

    def rename(self, name_dict: Mapping[Any, Hashable], dims_dict: Mapping[Any, Hashable]) -> Self:
        """Follow a renamed dimension; the coordinates stay x and y."""
        if {names.X, names.Y} & set(name_dict):
            raise InputError(
                "x and y of an indexed dataset keep their names: ds.drop_indexes(['x', 'y']) first"
            )
        return type(self)(self.x, self.y, dims_dict.get(self.dim, self.dim))

    def _repr_inline_(self, max_width: int) -> str:
        return f"TileIndex ({self.x.size} tiles)"[:max_width]


def _key(x: npt.NDArray[Any], y: npt.NDArray[Any]) -> npt.NDArray[np.complex128]:
    """One sortable number per corner: complex numbers sort by real, then by imaginary part."""
    return np.asarray(x, dtype=np.float64) + 1j * np.asarray(y, dtype=np.float64)
