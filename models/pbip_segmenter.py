"""PBIP networks as a tile model: uint8 tiles in, confidence maps of each class out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from models.pbip import Merge, Pbip
from models.pbip_checkpoint import PBIP, Description, load_pbip, read_pbip_description
from models.pbip_views import ALL_VIEWS, AS_IT_IS, agreement
from models.precision import DeviceType, Precision, PrecisionChoice, arithmetic, resolve_precision
from models.tile_device import (
    DeviceChoice,
    device_note,
    require_device_here,
    resolve_tile_device,
)
from models.tile_outputs import Scores, check_tile_size, stored_arrays
from models.weights import file_digest, require_planned
from store_schema import names
from store_schema.errors import InputError, ModelError
from store_schema.specs import ArraySpec

CONFIDENCE: Final = "confidence"
PROBABILITY: Final = "probability"
ENTROPY: Final = "entropy"
DISAGREEMENT: Final = "disagreement"

# The finest scale that is fused is at stride 8: half of that lets a map's outline run between its pixels.
_PX_A_MAP_PX: Final = 4
# What networks must have in common for their confidences to be averaged.
_SHARED: Final = ("class_names", "tile_px", "mpp", "stain")


@dataclass(frozen=True)
class PbipSegmenterSpec:
    """What was asked for.

    Attributes
    ----------
    checkpoints
        Paths of the ``model.safetensors`` of one network, or of several whose confidences are averaged, with
        their descriptions beside them; workers read them there as well.
    map_px
        Side of the maps that are kept of every tile [px], a divisor of the tile's; None is a quarter of it.
    tta
        Look at each tile turned and mirrored in all eight ways, and average.
    gate_classes
        Classes that are known to be all that there may be, by labels; the confidence and probability of others
        are 0. None gates nothing. Entropy and disagreement are of what the networks say.
    merge
        How a class's map is made of its subclasses', see ``models.pbip.merge_subclasses``.
    precision
        Arithmetic of the backbone; ``auto`` is decided where the factory is made.
    device
        ``auto`` takes CUDA where it is.
    batch_size
        Tiles per call; does not show in the provenance.
    require_gpu
        Raise instead of falling back to the CPU.
    """

    checkpoints: tuple[str, ...]
    map_px: int | None = None
    tta: bool = False
    gate_classes: tuple[str, ...] | None = None
    merge: Merge = "softmax"
    precision: PrecisionChoice = "auto"
    device: DeviceChoice = "auto"
    batch_size: int = 32
    require_gpu: bool = False


@dataclass(frozen=True)
class PbipSegmenterFactory:
    """Everything about a segmenter but its weights; a ``TileModelFactory`` of dataflow.

    Device, precision and the digests of the weights are settled where the factory is made, and travel with it.

    Raises
    ------
    ModelError
        If a checkpoint is missing, damaged, or of another kind, or several don't go together.
    InputError
        If there can't be a map of that size, there is no checkpoint, or a class isn't one of the networks'.
    DeviceError
        If a GPU is required and there is none.
    """

    spec: PbipSegmenterSpec
    device: DeviceType = field(init=False)
    precision: Precision = field(init=False)
    digests: tuple[str, ...] = field(init=False)
    description: Description = field(init=False, compare=False, repr=False)
    warnings: tuple[str, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.spec.checkpoints:
            raise InputError("There is no network to segment with: give one or more runs.")
        device = resolve_tile_device(self.spec.device, require_gpu=self.spec.require_gpu)
        paths = [Path(checkpoint) for checkpoint in self.spec.checkpoints]
        descriptions = [read_pbip_description(path) for path in paths]
        for path, description in zip(paths, descriptions, strict=True):
            _check_alike(descriptions[0], paths[0], description, path)
        object.__setattr__(self, "device", device)
        object.__setattr__(self, "precision", resolve_precision(self.spec.precision, device))
        object.__setattr__(self, "digests", tuple(file_digest(path) for path in paths))
        object.__setattr__(self, "description", descriptions[0])
        object.__setattr__(self, "warnings", _training_warnings(descriptions))
        if self.map_px < 1 or self.tile_px % self.map_px:
            raise InputError(
                f"A map of {self.map_px} px can't be made of tiles of {self.tile_px} px: give a divisor of that."
            )
        gate = self.spec.gate_classes
        if gate is not None and not set(gate) <= set(self.class_names):
            unknown = ", ".join(sorted(set(gate) - set(self.class_names)))
            raise InputError(
                f"{unknown} is no class of {paths[0]}: its classes are {', '.join(self.class_names)}."
            )

    @property
    def tile_px(self) -> int:
        """Side of the tiles that it takes [px]."""
        return int(self.description["tile_px"])

    @property
    def map_px(self) -> int:
        """Side of its maps [px]."""
        return self.tile_px // _PX_A_MAP_PX if self.spec.map_px is None else self.spec.map_px

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the maps, in their order."""
        return tuple(self.description["class_names"])

    @property
    def mpp(self) -> float | None:
        """Pixel size of the tiles that it was trained on [µm/px]; None where that isn't known."""
        mpp = self.description["mpp"]
        return None if mpp is None else float(mpp)

    @property
    def stain(self) -> Description:
        """How the tiles that it was trained on were normalized, as ``StainSpec.provenance``."""
        stain: Description = self.description["stain"]
        return stain

    @property
    def name(self) -> str:
        """Name of the scores' group: the kind, and the beginning of the (first) weights' digest."""
        more = len(self.digests) - 1
        return f"{PBIP}-{self.digests[0].removeprefix('sha256:')[:8]}" + (
            f"-and-{more}" if more else ""
        )

    @property
    def outputs(self) -> Mapping[str, ArraySpec]:
        """``confidence`` (tile, class, map_y, map_x), ``probability`` (tile, class), ``entropy``, ``disagreement``."""
        classes = list(self.class_names)
        side = self.map_px

        def said(long_name: str, units: str = "1") -> dict[str, str]:
            return {"long_name": long_name, "units": units}

        return {
            CONFIDENCE: ArraySpec(
                (names.TILE, names.CLASS, names.MAP_Y, names.MAP_X),
                (len(classes), side, side),
                "float16",
                said("confidence that a pixel is of the class") | {names.CLASS_NAMES: classes},
            ),
            PROBABILITY: ArraySpec(
                (names.TILE, names.CLASS),
                (len(classes),),
                "float32",
                said("probability that the tile holds the class") | {names.CLASS_NAMES: classes},
            ),
            ENTROPY: ArraySpec(
                (names.TILE,),
                (),
                "float32",
                said("entropy of the confidence, a mean over pixels and classes", "nat"),
            ),
            DISAGREEMENT: ArraySpec(
                (names.TILE,),
                (),
                "float32",
                said("mutual information of scales, views and networks, such a mean", "nat"),
            ),
        }

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What decides the numbers."""
        made_by: dict[str, Any] = {
            "model": PBIP,
            "weights": list(self.digests),
            "precision": self.precision,
            "map_px": self.map_px,
            "merge": self.spec.merge,
            "tta": self.spec.tta,
        }
        if self.spec.gate_classes is not None:
            made_by["gate_classes"] = sorted(self.spec.gate_classes)
        return made_by

    @property
    def needs_gpu(self) -> bool:
        """Whether the work goes to a GPU."""
        return self.device == "cuda"

    @property
    def device_note(self) -> str:
        """Where the work goes and why, for a summary."""
        return device_note(self.spec.device, self.device, self.precision)

    def load(self) -> PbipSegmenter:
        """Load the weights and put the networks on the device.

        Raises
        ------
        ModelError
            If a checkpoint can't be had here, doesn't fit, or is another one than where the factory was made.
        DeviceError
            If this process sees no GPU and the factory wants one.
        """
        require_device_here(self.device)
        models = []
        for checkpoint, digest in zip(self.spec.checkpoints, self.digests, strict=True):
            path = Path(checkpoint)
            models.append(load_pbip(path)[0])
            require_planned(path, digest)
        return PbipSegmenter(self, models)


class PbipSegmenter:
    """Loaded networks; a ``TileModel`` of dataflow.

    Parameters
    ----------
    factory
        What to make.
    models
        The networks.
    """

    def __init__(self, factory: PbipSegmenterFactory, models: list[Pbip]) -> None:
        self.factory = factory
        self.device = torch.device(factory.device)
        self.batch_size = factory.spec.batch_size
        # no channels_last here: maps are flattened into tokens, which wants the other order
        self._models = [model.eval().to(self.device) for model in models]
        gate = factory.spec.gate_classes
        allowed = [gate is None or name in gate for name in factory.class_names]
        self._allowed = torch.tensor(allowed, device=self.device)

    def __call__(self, tiles: Tensor) -> Scores:
        """Segment one batch; nothing is random.

        Parameters
        ----------
        tiles
            uint8 (n, y, x, rgb) on ``device``.

        Returns
        -------
        mapping
            As ``PbipSegmenterFactory.outputs``.

        Raises
        ------
        ModelError
            If the tiles are of another size, or a value is not finite.
        """
        check_tile_size(tiles, self.factory.tile_px)
        spec = self.factory.spec
        with (
            torch.inference_mode(),
            arithmetic(self.factory.precision, self.factory.device),
        ):
            said = agreement(
                self._models,
                tiles,
                self.factory.map_px,
                views=ALL_VIEWS if spec.tta else AS_IT_IS,
                merge=spec.merge,
            )
            gated = self._allowed.to(said.probability.dtype)
            scores = {
                CONFIDENCE: said.confidence * gated.view(-1, 1, 1),
                PROBABILITY: said.probability * gated,
                ENTROPY: said.entropy,
                DISAGREEMENT: said.disagreement,
            }
        return stored_arrays(
            scores, self.factory.outputs, self.factory.precision, spec.checkpoints[0]
        )


def _check_alike(first: Description, path: Path, other: Description, other_path: Path) -> None:
    differences = [name for name in _SHARED if first[name] != other[name]]
    if differences:
        told = "; ".join(f"{name} is {other[name]}, not {first[name]}" for name in differences)
        raise ModelError(
            f"{other_path} can't be averaged with {path} ({told}): give networks of the same classes and tiles."
        )


def _training_warnings(descriptions: list[Description]) -> tuple[str, ...]:
    found = [
        warning
        for description in descriptions
        for warning in description.get("trained_on", {}).get("warnings", ())
    ]
    return tuple(dict.fromkeys(found))
