"""Encoders as tile models: uint8 tiles in, feature vectors out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from models.bf16_check import LEAST_COSINE, bf16_cosine, cpu_is_good_at_bf16
from models.cards import DEFAULT_ENCODER, EncoderCard
from models.precision import DeviceType, Precision, PrecisionChoice, arithmetic, resolve_precision
from models.preprocess import Preprocess, ResizeMode
from models.registry import find_source
from models.tile_device import (
    DeviceChoice,
    device_note,
    require_device_here,
    resolve_tile_device,
)
from models.weights import file_digest
from store_schema import names
from store_schema.errors import ModelError
from store_schema.specs import ArraySpec

FeatureDtype: TypeAlias = Literal["float16", "float32"]
FEATURES = "features"  # the array; its group is called after the encoder


@dataclass(frozen=True)
class EncoderSpec:
    """What was asked for.

    Attributes
    ----------
    name
        Encoder, see :mod:`models.registry`.
    random_weights
        Random instead of pretrained weights.
    seed
        Of the random weights.
    precision
        Arithmetic; ``auto`` is decided where the factory is made.
    batch_size
        Tiles per call; does not show in the provenance.
    compile
        Whether to run the network through ``torch.compile``.
    device
        ``auto`` takes CUDA where it is.
    dtype
        Of the stored features.
    require_gpu
        Raise instead of falling back to the CPU.
    resize
        How tiles become the network's input, see :meth:`models.preprocess.Preprocess.of`.
    """

    name: str = DEFAULT_ENCODER
    random_weights: bool = False
    seed: int = 0
    precision: PrecisionChoice = "auto"
    batch_size: int = 32
    compile: bool = False
    device: DeviceChoice = "auto"
    dtype: FeatureDtype = "float16"
    require_gpu: bool = False
    resize: ResizeMode = "model"


@dataclass(frozen=True)
class EncoderFactory:
    """Everything about an encoder but its weights; a ``TileModelFactory`` of dataflow.

    Device and precision are decided once, where the factory is made, and travel with it: all
    workers of a run do the same arithmetic.

    Raises
    ------
    ModelError
        If the encoder is not known.
    DeviceError
        If a GPU is required and there is none.
    """

    spec: EncoderSpec
    device: DeviceType = field(init=False)
    precision: Precision = field(init=False)
    card: EncoderCard = field(init=False)

    def __post_init__(self) -> None:
        device = resolve_tile_device(self.spec.device, require_gpu=self.spec.require_gpu)
        object.__setattr__(self, "device", device)
        object.__setattr__(self, "card", find_source(self.spec.name).card)
        precision = resolve_precision(self.spec.precision, device)
        if self.spec.precision == "auto" and device == "cpu" and self._bf16_serves():
            precision = "bf16"
        object.__setattr__(self, "precision", precision)

    @property
    def name(self) -> str:
        """Name of the features' group, without what a group name can't hold."""
        label = re.sub(r"[^A-Za-z0-9._-]+", "-", find_source(self.spec.name).label)
        return f"{label}-random{self.spec.seed}" if self.spec.random_weights else label

    @property
    def outputs(self) -> Mapping[str, ArraySpec]:
        """``features`` (tile, feature)."""
        attrs = {"long_name": f"features of {find_source(self.spec.name).label}", "units": "1"}
        spec = ArraySpec((names.TILE, names.FEATURE), (self.card.dim,), self.spec.dtype, attrs)
        return {FEATURES: spec}

    @property
    def preprocess(self) -> Preprocess:
        """What happens to tiles before the network."""
        return Preprocess.of(self.card, self.spec.resize)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What decides the numbers; finds the weights and reads them once for their digest."""
        preprocess = self.preprocess
        made_by: dict[str, Any] = {
            "encoder": find_source(self.spec.name).label,
            "weights": self._weights_digest(),
            "resize_px": preprocess.resize_px,
            "crop_px": preprocess.crop_px,
            "interpolation": preprocess.interpolation if preprocess.resize_px else None,
            "mean": list(preprocess.mean),
            "std": list(preprocess.std),
            "precision": self.precision,
            "dtype": self.spec.dtype,
        }
        if self.spec.random_weights:
            made_by["seed"] = self.spec.seed
        if self.spec.compile:  # fused kernels round otherwise
            made_by["compile"] = True
        return made_by

    @property
    def needs_gpu(self) -> bool:
        """Whether the work goes to a GPU."""
        return self.device == "cuda"

    @property
    def warnings(self) -> tuple[str, ...]:
        """Nothing: encoders are trained elsewhere."""
        return ()

    @property
    def device_note(self) -> str:
        """Where the work goes and why, for a summary."""
        return device_note(self.spec.device, self.device, self.precision)

    def load(self) -> TileEncoder:
        """Build the network, load its weights, put it on the device.

        Raises
        ------
        ModelError
            If the weights can't be had or don't fit, or the network can't be compiled.
        DeviceError
            If this process sees no GPU and the factory wants one.
        """
        require_device_here(self.device)
        return TileEncoder(self, self.network())

    def network(self) -> nn.Module:
        """Build the network with its weights: float32 (n, 3, y, x) → (n, dim), on the CPU.

        Raises
        ------
        ModelError
            If the weights can't be had or don't fit.
        """
        source = find_source(self.spec.name)
        if not self.spec.random_weights:
            return source.network(source.weights())
        with torch.random.fork_rng(devices=[]):  # the caller's generator stays as it was
            torch.default_generator.manual_seed(self.spec.seed)
            return source.network(None)

    def _bf16_serves(self) -> bool:
        """Whether bfloat16 is fast here and leaves the features as they are, which is tried out."""
        if not cpu_is_good_at_bf16():
            return False
        # without a resize tiles may have any size; the model's own is one that it can take
        tile_px = None if self.spec.resize != "none" else self.card.input_px
        return bf16_cosine(self.network().eval(), self.preprocess, tile_px) >= LEAST_COSINE

    def _weights_digest(self) -> str:
        source = find_source(self.spec.name)
        if not self.spec.random_weights:
            return file_digest(source.weights())
        made_by = (source.label, self.spec.seed, torch.__version__, version("timm"))
        return f"random:{hashlib.sha256(repr(made_by).encode()).hexdigest()}"


class TileEncoder:
    """A loaded encoder; a ``TileModel`` of dataflow.

    Parameters
    ----------
    factory
        What to do with tiles and features.
    network
        float32 (n, 3, y, x) → (n, dim).
    """

    def __init__(self, factory: EncoderFactory, network: nn.Module) -> None:
        self.factory = factory
        self.device = torch.device(factory.device)
        self.batch_size = factory.spec.batch_size
        self._preprocess = factory.preprocess
        self._padded_to = 0  # tiles of each batch, where kernels are compiled for one size
        # convolutions are fastest on the memory order that tiles have anyway
        self._network: nn.Module = network.eval().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if factory.spec.compile:
            self._compile()

    def __call__(self, tiles: torch.Tensor) -> Mapping[str, npt.NDArray[np.generic]]:
        """Encode one batch.

        Parameters
        ----------
        tiles
            uint8 (n, y, x, rgb) on ``device``.

        Returns
        -------
        mapping
            ``features``: (n, dim) of the spec's dtype.

        Raises
        ------
        ModelError
            If the network can't take tiles of that size, or a feature is not finite in the spec's
            dtype.
        """
        with torch.inference_mode():
            try:
                whole = self._forward(self._preprocess(self._padded(tiles)))
            except torch.OutOfMemoryError:  # the stream halves the batch
                self._padded_to //= 2
                raise
            features = whole[: len(tiles)].float()
        if features.shape != (len(tiles), self.factory.card.dim):
            raise ModelError(
                f"{self.factory.spec.name} gave {tuple(features.shape)} for {len(tiles)} tiles "
                f"instead of {self.factory.card.dim} features each: report this encoder."
            )
        stored = features.to(getattr(torch, self.factory.spec.dtype))
        if not bool(torch.isfinite(stored).all()):
            raise self._not_finite(features)
        return {FEATURES: stored.cpu().numpy()}

    def _padded(self, tiles: torch.Tensor) -> torch.Tensor:
        """Fill up a short batch: another size would be compiled anew, for longer than the tiles take."""
        n_missing = self._padded_to - len(tiles)
        if n_missing <= 0:
            return tiles
        return torch.cat((tiles, tiles[-1:].expand(n_missing, -1, -1, -1)))

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        try:
            with arithmetic(self.factory.precision, self.factory.device):
                features: torch.Tensor = self._network(x)
        except torch.OutOfMemoryError:
            raise
        except (AssertionError, RuntimeError) as error:  # how models say that the size is wrong
            if x.shape[-1] == self.factory.card.input_px:
                raise
            detail = " ".join(str(error).split())[:200]
            raise ModelError(
                f"{self.factory.spec.name} takes no tiles of {x.shape[-1]} px: "
                f"use --resize model ({detail})."
            ) from error
        return features

    def _not_finite(self, features: torch.Tensor) -> ModelError:
        name = self.factory.spec.name
        if bool(torch.isfinite(features).all()):
            largest = float(features.abs().max())
            return ModelError(
                f"A feature of {name} reaches {largest:.4g}, beyond float16's 65504: "
                "use --dtype float32."
            )
        if self.factory.precision == "fp32":
            return ModelError(
                f"{name} gives features that are not finite: its weights are damaged."
            )
        return ModelError(
            f"{name} gives features that are not finite in {self.factory.precision}: "
            "use --precision fp32."
        )

    def _compile(self) -> None:
        px = self.factory.card.input_px
        eager = self._network
        self._network = torch.compile(eager)  # type: ignore[assignment]
        self._padded_to = self.batch_size
        try:  # compilation happens at the first call: have it fail here, not in the middle of a run
            self(torch.zeros(self.batch_size, px, px, 3, dtype=torch.uint8, device=self.device))
        except torch.OutOfMemoryError:
            return  # no matter of compiling: the stream finds the batch that fits
        except (RuntimeError, ImportError, OSError) as error:
            detail = " ".join(str(error).split())[:200]
            raise ModelError(
                f"{self.factory.spec.name} can't be compiled here, torch.compile needs a C++ "
                f"compiler: leave out --compile ({detail})."
            ) from error
