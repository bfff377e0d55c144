"""The VAE and its head as tile models: uint8 tiles in, scores out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from models.precision import DeviceType, Precision, PrecisionChoice, arithmetic, resolve_precision
from models.ssim import structural_similarity
from models.tile_device import (
    DeviceChoice,
    device_note,
    require_device_here,
    resolve_tile_device,
)
from models.tile_head import TileHead
from models.tile_outputs import Scores, check_tile_size, stored_arrays
from models.vae import VaeSkip96
from models.vae_checkpoint import HEAD, Description, load_head, load_vae, read_vae_description
from models.vae_loss import kl_nats
from models.weights import file_digest, require_planned
from store_schema import names
from store_schema.errors import InputError
from store_schema.specs import ArraySpec

L1: Final = "l1"
L2: Final = "l2"
SSIM: Final = "ssim"
KL: Final = "kl"
ERROR_MAP: Final = "error_map"
PROBABILITY: Final = "probability"

_TILE_SCORES: Final[Mapping[str, tuple[str, str]]] = {
    L1: ("mean absolute reconstruction error, in the channels' deviations", "1"),
    L2: ("mean squared reconstruction error, in the channels' deviations", "1"),
    SSIM: ("structural reconstruction error, 1 - SSIM", "1"),
    KL: ("KL divergence of the posterior from the prior", "nat"),
}


@dataclass(frozen=True)
class VaeScorerSpec:
    """What was asked for.

    Attributes
    ----------
    checkpoint
        Path of ``model.safetensors`` of a VAE or of a head, with its description beside it; workers read it
        there as well.
    map_px
        Side of the map of errors that is kept of every tile [px], a divisor of the tile's; None keeps none.
    precision
        Arithmetic of the network; ``auto`` is decided where the factory is made. Errors are float32.
    device
        ``auto`` takes CUDA where it is.
    batch_size
        Tiles per call; does not show in the provenance.
    require_gpu
        Raise instead of falling back to the CPU.
    """

    checkpoint: str
    map_px: int | None = None
    precision: PrecisionChoice = "auto"
    device: DeviceChoice = "auto"
    batch_size: int = 32
    require_gpu: bool = False


@dataclass(frozen=True)
class VaeScorerFactory:
    """Everything about a scorer but its weights; a ``TileModelFactory`` of dataflow.

    Of a VAE it makes the scores of reconstruction, of a head its probability. Device, precision and
    the digest of the weights are settled where the factory is made, and travel with it.

    Raises
    ------
    ModelError
        If the checkpoint is missing, damaged, of another kind, or its weights don't fit this version's network:
        found here, before anything that is stored makes room for what such a model could never write.
    InputError
        If there can't be a map of errors of that size.
    DeviceError
        If a GPU is required and there is none.
    """

    spec: VaeScorerSpec
    device: DeviceType = field(init=False)
    precision: Precision = field(init=False)
    digest: str = field(init=False)
    description: Description = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        device = resolve_tile_device(self.spec.device, require_gpu=self.spec.require_gpu)
        path = Path(self.spec.checkpoint)
        object.__setattr__(self, "device", device)
        object.__setattr__(self, "precision", resolve_precision(self.spec.precision, device))
        object.__setattr__(self, "description", read_vae_description(path))
        object.__setattr__(self, "digest", file_digest(path))
        self._network()
        map_px = self.spec.map_px
        if map_px is None:
            return
        if self.is_head:
            raise InputError("A tile classifier makes no map of errors: leave out the map's size.")
        if map_px < 1 or self.tile_px % map_px:
            raise InputError(
                f"A map of {map_px} px can't be made of tiles of {self.tile_px} px: give a divisor of that."
            )

    @property
    def is_head(self) -> bool:
        """Whether the checkpoint is a head."""
        return bool(self.description["kind"] == HEAD)

    @property
    def tile_px(self) -> int:
        """Side of the tiles that it takes [px]."""
        return int(self.description["tile_px"])

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
        """Name of the scores' group: the kind, and the beginning of the weights' digest."""
        return f"{self.description['kind']}-{self.digest.removeprefix('sha256:')[:8]}"

    @property
    def outputs(self) -> Mapping[str, ArraySpec]:
        """``l1``, ``l2``, ``ssim``, ``kl`` (tile,), perhaps ``error_map`` (tile, map_y, map_x); or ``probability``."""
        if self.is_head:
            return {PROBABILITY: _tile_score("probability of tumour", "1")}
        outputs = {name: _tile_score(*said) for name, said in _TILE_SCORES.items()}
        map_px = self.spec.map_px
        if map_px is not None:
            attrs = {"long_name": _TILE_SCORES[L1][0], "units": "1"}
            dims = (names.TILE, names.MAP_Y, names.MAP_X)
            outputs[ERROR_MAP] = ArraySpec(dims, (map_px, map_px), "float16", attrs)
        return outputs

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What decides the numbers."""
        made_by: dict[str, Any] = {
            "model": self.description["kind"],
            "weights": self.digest,
            "precision": self.precision,
        }
        if self.spec.map_px is not None:
            made_by["map_px"] = self.spec.map_px
        return made_by

    @property
    def needs_gpu(self) -> bool:
        """Whether the work goes to a GPU."""
        return self.device == "cuda"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What its training found wrong with it; none where its description doesn't say."""
        return tuple(self.description.get("trained_on", {}).get("warnings", ()))

    @property
    def device_note(self) -> str:
        """Where the work goes and why, for a summary."""
        return device_note(self.spec.device, self.device, self.precision)

    def load(self) -> VaeScorer | HeadScorer:
        """Load the weights and put the network on the device.

        Raises
        ------
        ModelError
            If the checkpoint can't be had here, doesn't fit, or is another one than where the factory was made.
        DeviceError
            If this process sees no GPU and the factory wants one.
        """
        require_device_here(self.device)
        network = self._network()
        scorer = (
            HeadScorer(self, network) if isinstance(network, TileHead) else VaeScorer(self, network)
        )
        require_planned(Path(self.spec.checkpoint), self.digest)
        return scorer

    def _network(self) -> VaeSkip96 | TileHead:
        path = Path(self.spec.checkpoint)
        return load_head(path)[0] if self.is_head else load_vae(path)[0]


class VaeScorer:
    """A loaded VAE; a ``TileModel`` of dataflow.

    Parameters
    ----------
    factory
        What to make.
    model
        The network.
    """

    def __init__(self, factory: VaeScorerFactory, model: VaeSkip96) -> None:
        self.factory = factory
        self.device = torch.device(factory.device)
        self.batch_size = factory.spec.batch_size
        self._model = _placed(model, self.device)

    def __call__(self, tiles: Tensor) -> Scores:
        """Score one batch by the posterior's mean and all skips: nothing is random.

        Parameters
        ----------
        tiles
            uint8 (n, y, x, rgb) on ``device``.

        Returns
        -------
        mapping
            As ``VaeScorerFactory.outputs``.

        Raises
        ------
        ModelError
            If the tiles are of another size, or a score is not finite.
        """
        check_tile_size(tiles, self.factory.tile_px)
        with torch.inference_mode():
            x = self._model.normalize(tiles)
            with arithmetic(self.factory.precision, self.factory.device):
                output = self._model(x)
            with arithmetic("fp32", self.factory.device):
                scores = self._scores(x, output.reconstruction)
                scores[KL] = kl_nats(output.mean, output.logvar)
        return _stored(scores, self.factory)

    def _scores(self, x: Tensor, reconstruction: Tensor) -> dict[str, Tensor]:
        shown = self._model.denormalize(x), self._model.denormalize(reconstruction)
        error = (reconstruction.float() - x).abs_()
        scores = {
            SSIM: 1 - structural_similarity(*shown),
            L1: error.mean((1, 2, 3)),
            L2: error.square().mean((1, 2, 3)),
        }
        if self.factory.spec.map_px is not None:
            side_px = self.factory.tile_px // self.factory.spec.map_px
            scores[ERROR_MAP] = F.avg_pool2d(error.mean(1, keepdim=True), side_px).squeeze(1)
        return scores


class HeadScorer:
    """A loaded head; a ``TileModel`` of dataflow. Parameters and errors are those of ``VaeScorer``."""

    def __init__(self, factory: VaeScorerFactory, model: TileHead) -> None:
        self.factory = factory
        self.device = torch.device(factory.device)
        self.batch_size = factory.spec.batch_size
        self._model = _placed(model, self.device)

    def __call__(self, tiles: Tensor) -> Scores:
        """Return the probability of tumour of uint8 (n, y, x, rgb)."""
        check_tile_size(tiles, self.factory.tile_px)
        with torch.inference_mode(), arithmetic(self.factory.precision, self.factory.device):
            logits = self._model(tiles).float()
        return _stored({PROBABILITY: torch.sigmoid(logits)}, self.factory)


def _placed(model: Any, device: torch.device) -> Any:
    return model.eval().to(device, memory_format=torch.channels_last)


def _tile_score(long_name: str, units: str) -> ArraySpec:
    return ArraySpec((names.TILE,), (), "float32", {"long_name": long_name, "units": units})


def _stored(scores: Mapping[str, Tensor], factory: VaeScorerFactory) -> Scores:
    return stored_arrays(scores, factory.outputs, factory.precision, factory.spec.checkpoint)
