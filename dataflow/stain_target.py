"""What stains are normalized to: the shipped target, or one made from an image."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from dataflow import macenko, reinhard
from dataflow.lab_passes import lab_passes
from store_schema.errors import InputError

_LARGEST: Final = 1000.0


@dataclass(frozen=True)
class StainTarget:
    """The colours that every slide is brought to.

    Attributes
    ----------
    name
        ``default``, or where the target comes from.
    stains
        Optical-density vectors: one (r, g, b) of haematoxylin, one of eosin.
    max_concentrations
        99th percentile of the concentration of haematoxylin and eosin.
    lab_mean, lab_std
        CIE Lab statistics (L 0 to 100, a, b) for Reinhard's method.
    """

    name: str
    stains: tuple[tuple[float, float, float], tuple[float, float, float]]
    max_concentrations: tuple[float, float]
    lab_mean: tuple[float, float, float]
    lab_std: tuple[float, float, float]

    @classmethod
    def default(cls) -> StainTarget:
        """Return the shipped target.

        Stains and concentrations are those of Macenko's reference image, as in torchstain. The Lab
        statistics are those of the tissue in the 24 most stained tiles (256 px, 0.5 µm/px) of
        OpenSlide's CMU-1-Small-Region, brought to that Macenko target: so both methods lead to the
        same colours.
        """
        return cls(
            name="default",
            stains=((0.5626, 0.7201, 0.4062), (0.2159, 0.8012, 0.5581)),
            max_concentrations=(1.9705, 1.0308),
            lab_mean=(62.13, 20.45, -9.24),
            lab_std=(14.86, 5.40, 5.26),
        )

    @classmethod
    def from_image(cls, rgb: npt.NDArray[np.uint8], name: str = "image") -> StainTarget:
        """Make a target from an image of stained tissue.

        Parameters
        ----------
        rgb
            uint8 (y, x, rgb).
        name
            What to call the target in provenance.

        Raises
        ------
        InputError
            The image isn't RGB, or doesn't show two stains.
        """
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
            raise InputError(
                f"the stain target must be an 8-bit RGB image, not {rgb.dtype} of shape {rgb.shape}"
            )
        pixels = torch.from_numpy(np.ascontiguousarray(rgb))
        fit = macenko.fit_image(pixels)
        lab = reinhard.fit(lab_passes(pixels[None]))
        if not (bool(fit.trusted[0]) and bool(lab.trusted[0])):
            raise InputError(
                f"the stain target {name} doesn't show haematoxylin and eosin well enough "
                f"({float(fit.stained_fraction[0]):.1%} of it is stained); choose an image filled "
                "with H&E tissue"
            )
        haematoxylin, eosin = fit.stains[0].T.tolist()
        return cls(
            name=name,
            stains=(tuple(haematoxylin), tuple(eosin)),
            max_concentrations=tuple(fit.max_concentrations[0].tolist()),
            lab_mean=tuple(lab.mean[0].tolist()),
            lab_std=tuple(lab.std[0].tolist()),
        )

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of the numbers, whatever the name."""
        numbers = {key: value for key, value in asdict(self).items() if key != "name"}
        return hashlib.blake2b(json.dumps(numbers).encode(), digest_size=8).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return the target, with its digest, as a JSON-able mapping."""
        return {**asdict(self), "digest": self.digest}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StainTarget:
        """Read what :meth:`to_json` gave, also after a trip through JSON text.

        Raises
        ------
        ValueError, KeyError, TypeError
            Something else was given, or its digest is of other numbers.
        """
        haematoxylin, eosin = data["stains"]
        target = cls(
            name=str(data["name"]),
            stains=(_three(haematoxylin), _three(eosin)),
            max_concentrations=(
                float(data["max_concentrations"][0]),
                float(data["max_concentrations"][1]),
            ),
            lab_mean=_three(data["lab_mean"]),
            lab_std=_three(data["lab_std"]),
        )
        check_possible(*target.stains, target.max_concentrations, target.lab_mean, target.lab_std)
        if target.digest != data["digest"]:
            raise ValueError("the stain target was altered: its digest is of other numbers")
        return target

    def macenko_tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Stains (rgb 3, stain 2) and maximal concentrations (2,), float64."""
        return (
            torch.tensor(self.stains, dtype=torch.float64).T.contiguous(),
            torch.tensor(self.max_concentrations, dtype=torch.float64),
        )

    def reinhard_tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Lab mean (3,) and standard deviation (3,), float64."""
        return (
            torch.tensor(self.lab_mean, dtype=torch.float64),
            torch.tensor(self.lab_std, dtype=torch.float64),
        )


def check_possible(*numbers: Sequence[float]) -> None:
    """Refuse numbers that no stain or colour can have: parts of unit vectors, concentrations, CIE Lab.

    Raises
    ------
    ValueError
        One is not a number, or beyond a thousand.
    """
    for number in (number for group in numbers for number in group):
        if not abs(number) <= _LARGEST:  # so is what is not a number
            raise ValueError(f"no stain has {number}")


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    first, second, third = values
    return float(first), float(second), float(third)
