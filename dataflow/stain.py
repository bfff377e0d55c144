"""Stain normalization as the stream uses it: per slide or per tile, falling back on evidence.

Macenko → Reinhard → untouched. With ``fit="tile"`` each tile is judged by itself. With ``fit="slide"`` the slide is
judged once, from pooled tissue pixels, and all of its tiles get the same map: neighbours stay
comparable, and a tile of clear glass, whose optical density is about 0, stays clear glass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import torch

from dataflow import macenko, reinhard
from dataflow.lab_passes import lab_passes
from dataflow.optical_density import OPAQUE_MAX
from dataflow.pixel_passes import pixel_passes
from dataflow.stain_target import StainTarget, check_possible
from store_schema import names
from store_schema.specs import ArraySpec

Method: TypeAlias = Literal["none", "macenko", "reinhard"]
FitScope: TypeAlias = Literal["slide", "tile"]

FILL: Final = 255
_MAX_POOLED_PX: Final = 1 << 20
_GPU_PX: Final = 1 << 23
"""Pixels that torch makes temporaries for at a time; what is compiled for the CPU makes none."""


class StainMethod(IntEnum):
    """What was done to a tile; the values are stored."""

    NONE = 0
    MACENKO = 1
    REINHARD = 2
    UNTOUCHED = 3


def stain_method_array_spec() -> ArraySpec:
    """Declare the stored array ``stain_method`` (tile,), uint8 CF flags."""
    return ArraySpec(
        dims=(names.TILE,),
        shape=(),
        dtype="uint8",
        attrs={
            "long_name": "stain normalization used on the tile",
            "flag_values": [int(method) for method in StainMethod],
            "flag_meanings": "not_asked macenko reinhard untouched",
        },
    )


@dataclass(frozen=True)
class StainSpec:
    """What was asked of stain normalization: the same for all slides of a run.

    Attributes
    ----------
    method
        ``none``, ``macenko`` (falling back to Reinhard, then to the untouched tile) or
        ``reinhard`` (falling back to the untouched tile).
    fit
        ``slide``: one basis per slide; ``tile``: each tile by itself.
    target
        What to normalize to.
    """

    method: Method = "none"
    fit: FitScope = "slide"
    target: StainTarget = field(default_factory=StainTarget.default)

    @property
    def needs_basis(self) -> bool:
        """Whether :func:`fit_slide` has to see the slide first."""
        return self.method != "none" and self.fit == "slide"

    @property
    def wanted_method(self) -> StainMethod:
        """What tiles get where nothing speaks against it."""
        return StainMethod[self.method.upper()]

    @property
    def provenance(self) -> dict[str, Any]:
        """What decides the pixels, JSON-able."""
        if self.method == "none":
            return {"method": "none"}
        target = {"name": self.target.name, "digest": self.target.digest}
        return {"method": self.method, "fit": self.fit, "target": target}

    def to_json(self) -> dict[str, Any]:
        """Return the spec with all numbers of its target: enough to normalize in the same way elsewhere."""
        if self.method == "none":
            return {"method": "none"}
        return {"method": self.method, "fit": self.fit, "target": self.target.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StainSpec:
        """Read what :meth:`to_json` gave, also after a trip through JSON text.

        Raises
        ------
        ValueError, KeyError, TypeError
            Something else was given.
        """
        method = data["method"]
        if method not in get_args(Method):
            raise ValueError(f"no stain normalization {method!r}")
        if method == "none":
            return cls()
        if data["fit"] not in get_args(FitScope):
            raise ValueError(f"no stain fit {data['fit']!r}")
        return cls(method, data["fit"], StainTarget.from_json(data["target"]))


@dataclass(frozen=True)
class StainEvidence:
    """What a slide's basis rests on.

    Attributes
    ----------
    tissue_px
        Pooled tissue pixels that were looked at.
    stained_fraction
        Share of them that is not transparent in any channel.
    eigenvalue_ratio
        Second to first eigenvalue of their optical densities' covariance.
    angle_degrees
        Between the two stain vectors.
    """

    tissue_px: int
    stained_fraction: float
    eigenvalue_ratio: float
    angle_degrees: float


@dataclass(frozen=True)
class StainBasis:
    """One slide's stains, small and JSON-able: it travels with the slide's block tasks.

    Attributes
    ----------
    method
        What the whole slide gets: the outcome of the cascade.
    stains, max_concentrations
        As in :class:`~dataflow.stain_target.StainTarget`.
    lab_mean, lab_std
        CIE Lab statistics of the tissue.
    evidence
        What that rests on.
    reason
        What spoke against the method that was asked for; empty where it is used.
    """

    method: StainMethod
    stains: tuple[tuple[float, ...], tuple[float, ...]]
    max_concentrations: tuple[float, ...]
    lab_mean: tuple[float, ...]
    lab_std: tuple[float, ...]
    evidence: StainEvidence
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the basis as a JSON-able mapping."""
        return {**asdict(self), "method": self.method.name.lower()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> StainBasis:
        """Read what :meth:`to_json` gave, also after a trip through JSON text.

        Raises
        ------
        ValueError, KeyError, TypeError
            Something else was given.
        """
        haematoxylin, eosin = data["stains"]
        numbers = (data["max_concentrations"], data["lab_mean"], data["lab_std"])
        check_possible(haematoxylin, eosin, *numbers)
        return cls(
            method=StainMethod[data["method"].upper()],
            stains=(tuple(haematoxylin), tuple(eosin)),
            max_concentrations=tuple(data["max_concentrations"]),
            lab_mean=tuple(data["lab_mean"]),
            lab_std=tuple(data["lab_std"]),
            evidence=StainEvidence(**data["evidence"]),
            reason=data["reason"],
        )


def fit_slide(tiles: npt.NDArray[np.uint8], spec: StainSpec) -> StainBasis:
    """Fit one basis to a slide's pooled tissue pixels, and decide what the slide gets.

    Parameters
    ----------
    tiles
        uint8 (n, y, x, rgb), a sample of tissue tiles; n may be 0. About a million tissue pixels
        of it are used, evenly spread.
    spec
        What was asked.

    Returns
    -------
    StainBasis
        Its ``method`` is ``UNTOUCHED`` where the evidence is good enough for neither method.
    """
    pixels = tiles.reshape(-1, 3)
    pixels = pixels[pixels.min(axis=1) <= OPAQUE_MAX] if len(pixels) else pixels
    pooled = pixels[:: len(pixels) // _MAX_POOLED_PX + 1]
    if len(pooled) == 0:
        pooled = np.full((1, 3), 255, dtype=np.uint8)  # nothing to see: no evidence for anything
    image = torch.from_numpy(np.ascontiguousarray(pooled))[None, None]
    fit = macenko.fit(pixel_passes(image), spec.target.macenko_tensors()[1])
    lab = reinhard.fit(lab_passes(image))
    if spec.method == "none":
        method = StainMethod.NONE
    elif spec.method == "macenko" and bool(fit.trusted[0]):
        method = StainMethod.MACENKO
    elif bool(lab.trusted[0]):
        method = StainMethod.REINHARD
    else:
        method = StainMethod.UNTOUCHED
    haematoxylin, eosin = fit.stains[0].T.tolist()
    return StainBasis(
        method=method,
        stains=(tuple(haematoxylin), tuple(eosin)),
        max_concentrations=tuple(fit.max_concentrations[0].tolist()),
        lab_mean=tuple(lab.mean[0].tolist()),
        lab_std=tuple(lab.std[0].tolist()),
        evidence=StainEvidence(
            tissue_px=len(pooled) if len(pixels) else 0,
            stained_fraction=float(fit.stained_fraction[0]),
            eigenvalue_ratio=float(fit.eigenvalue_ratio[0]),
            angle_degrees=float(fit.angle_degrees[0]),
        ),
        reason=_reason(spec.wanted_method, method, fit),
    )


def _reason(wanted: StainMethod, method: StainMethod, fit: macenko.MacenkoFit) -> str:
    if method is wanted:
        return ""
    objections = fit.objections(0) if wanted is StainMethod.MACENKO else []
    if method is StainMethod.UNTOUCHED:
        objections.append("too little coloured tissue for Reinhard")
    return "; ".join(objections)


class StainNormalizer:
    """Normalizes batches of tiles on one device.

    Threads may share one: it keeps nothing of a call.

    Parameters
    ----------
    spec
        What was asked.
    basis
        The slide's, from :func:`fit_slide`; needed for ``fit="slide"``, unused otherwise.
    device
        Where the tiles of the calls are.
    """

    def __init__(self, spec: StainSpec, basis: StainBasis | None, device: torch.device) -> None:
        if spec.needs_basis and basis is None:
            raise ValueError("a normalization per slide needs the slide's basis: call fit_slide")
        self._spec = spec
        self._part_px = None if device.type == "cpu" else _GPU_PX
        self._stains, self._concentrations = spec.target.macenko_tensors()
        self._lab_mean, self._lab_std = spec.target.reinhard_tensors()
        self._slide_method = basis.method if spec.needs_basis and basis is not None else None
        if basis is not None:
            self._slide_lab = reinhard.transfer(
                torch.tensor([basis.lab_mean], dtype=torch.float64),
                torch.tensor([basis.lab_std], dtype=torch.float64),
                self._lab_mean,
                self._lab_std,
            )
            self._slide_transfer = macenko.transfer(
                torch.tensor([basis.stains], dtype=torch.float64).transpose(1, 2),
                torch.tensor([basis.max_concentrations], dtype=torch.float64),
                self._stains,
                self._concentrations,
            )
        if spec.method != "none":
            _warm_up(device)

    def __call__(
        self, tiles: torch.Tensor, out: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, npt.NDArray[np.uint8]]:
        """Normalize a batch; a tile's result does not depend on its neighbours in the batch.

        Parameters
        ----------
        tiles
            uint8 (n, y, x, rgb) on the device; left as it is, unless it is also ``out``.
        out
            Where to write the result: contiguous, uint8 (n, y, x, rgb) on the device. May be
            ``tiles`` itself, but not overlap it otherwise. Without it, a new tensor is made.

        Returns
        -------
        tuple
            ``out``, or the new tensor, and the :class:`StainMethod` used on each tile, uint8 (n,).
            Where nothing is to be done and no ``out`` is given, the tiles are returned as they
            came, not copied.

        Raises
        ------
        ValueError
            ``out`` doesn't fit the tiles.
        """
        n = tiles.shape[0]
        if out is not None:
            _check_fits(out, tiles)
        wanted = self._spec.wanted_method if self._slide_method is None else self._slide_method
        if n == 0 or wanted in (StainMethod.NONE, StainMethod.UNTOUCHED):
            method = StainMethod.NONE if self._spec.method == "none" else StainMethod.UNTOUCHED
            if out is not None and out is not tiles:
                out.copy_(tiles)
            return tiles if out is None else out, np.full(n, method, dtype=np.uint8)
        if out is None:
            out = torch.empty_like(tiles, memory_format=torch.contiguous_format)
        used = np.full(n, StainMethod.UNTOUCHED, dtype=np.uint8)
        step = self._macenko if wanted is StainMethod.MACENKO else self._reinhard
        for part in _parts(tiles, n, self._part_px):
            used[part][step(tiles[part], out[part])] = wanted
        rest = np.flatnonzero(used == StainMethod.UNTOUCHED)  # so far as they came
        if wanted is StainMethod.MACENKO and len(rest) > 0:
            self._fall_back(out, used, rest)
        return out, used

    def _macenko(self, tiles: torch.Tensor, out: torch.Tensor) -> npt.NDArray[np.bool_]:
        """Write tiles, normalized where that can be trusted; return bool (n,), which."""
        passes = pixel_passes(tiles)
        if self._slide_method is not None:
            normalized = np.ones(len(tiles), dtype=np.bool_)
            passes.apply(*self._slide_transfer, normalized, out)
            return normalized
        fit = macenko.fit(passes, self._concentrations)
        matrix, bias = macenko.transfer(
            fit.stains, fit.max_concentrations, self._stains, self._concentrations
        )
        finite = matrix.isfinite().flatten(1).all(dim=1) & bias.isfinite().all(dim=1)
        normalized = (fit.trusted & finite).numpy()
        passes.apply(matrix.nan_to_num(), bias.nan_to_num(), normalized, out)
        return normalized

    def _reinhard(self, tiles: torch.Tensor, out: torch.Tensor) -> npt.NDArray[np.bool_]:
        """Write tiles, normalized where that can be trusted; return bool (n,), which."""
        passes = lab_passes(tiles)
        if self._slide_method is not None:
            normalized = np.ones(len(tiles), dtype=np.bool_)
            passes.apply(*self._slide_lab, normalized, out)
            return normalized
        fit = reinhard.fit(passes)
        normalized = fit.trusted.numpy()
        gain, offset = reinhard.transfer(fit.mean, fit.std, self._lab_mean, self._lab_std)
        passes.apply(gain, offset, normalized, out)
        return normalized

    def _fall_back(
        self, out: torch.Tensor, used: npt.NDArray[np.uint8], rest: npt.NDArray[np.int64]
    ) -> None:
        """Give Reinhard the tiles that Macenko's evidence was not good enough for, in place."""
        for part in _parts(out, len(rest), self._part_px):
            index = torch.from_numpy(rest[part]).to(out.device)
            tiles = out[index]
            used[rest[part][self._reinhard(tiles, tiles)]] = StainMethod.REINHARD
            out[index] = tiles


def _warm_up(device: torch.device) -> None:
    """Make the first batch on a device as fast as the next: what is to be compiled is compiled now."""
    pixel = torch.zeros((1, 1, 1, 3), dtype=torch.uint8, device=device)
    pixel_passes(pixel)
    lab_passes(pixel)


def _check_fits(out: torch.Tensor, tiles: torch.Tensor) -> None:
    same = out.shape == tiles.shape and out.dtype == tiles.dtype and out.device == tiles.device
    if not (same and out.is_contiguous()):
        raise ValueError(
            f"out must be contiguous, uint8 {tuple(tiles.shape)} on {tiles.device}, not {out.dtype} "
            f"{tuple(out.shape)} on {out.device}"
        )


def _parts(tiles: torch.Tensor, count: int, most_px: int | None) -> Iterator[slice]:
    """Yield slices of ``count`` tiles, of at most ``most_px`` pixels or one tile; None is no limit."""
    step = count if most_px is None else most_px // (tiles.shape[1] * tiles.shape[2])
    for start in range(0, count, max(1, step)):
        yield slice(start, start + max(1, step))
