"""Backbones of four scales: maps at strides 4, 8, 16 and 32, by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor, nn

from models.cards import IMAGENET_MEAN, IMAGENET_STD, RGB
from models.pretrained import PackagedLite0
from models.weights import hub_weights, local_weights, read_state
from store_schema.errors import ModelError

Maps: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]
"""The finest first: float (n, channel, y, x) at strides 4, 8, 16, 32."""

STRIDES: Final = (4, 8, 16, 32)
PACKAGED: Final = "tf_efficientnet_lite0"
NO_WEIGHTS: Final = "none: random weights"
_MIT_LICENCE: Final = "NVIDIA Source Code License (non-commercial)"


class _Mit(NamedTuple):
    """Widths and depths of a Mix Transformer (Xie et al., SegFormer, NeurIPS 2021, table 6)."""

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int, int] = (1, 2, 5, 8)


_WIDE: Final = (64, 128, 320, 512)
_MITS: Final[dict[str, _Mit]] = {
    # no paper's: quick trials, and tests
    "mit_nano": _Mit((16, 32, 40, 64), (1, 1, 1, 1), (1, 2, 2, 4)),
    "mit_b0": _Mit((32, 64, 160, 256), (2, 2, 2, 2)),
    "mit_b1": _Mit(_WIDE, (2, 2, 2, 2)),
    "mit_b2": _Mit(_WIDE, (3, 4, 6, 3)),
    "mit_b3": _Mit(_WIDE, (3, 4, 18, 3)),
    "mit_b4": _Mit(_WIDE, (3, 8, 27, 3)),
    "mit_b5": _Mit(_WIDE, (3, 6, 40, 3)),
}


@dataclass(frozen=True)
class BackboneCard:
    """Facts of a backbone with its weights.

    Attributes
    ----------
    name
        As ``pyramid_backbone`` takes it.
    channels
        Of the four maps.
    mean, std
        Normalization of RGB in 0 to 1.
    licence
        Of the weights.
    """

    name: str
    channels: tuple[int, int, int, int]
    mean: RGB
    std: RGB
    licence: str


class PyramidBackbone(nn.Module):
    """A network that gives maps at strides 4, 8, 16 and 32.

    Parameters
    ----------
    card
        What is known of it.
    network
        float (n, 3, y, x) → the four maps, the finest first.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, card: BackboneCard, network: nn.Module) -> None:
        super().__init__()
        self.card = card
        self.channels = card.channels
        self.licence = card.licence
        self.network = network
        self.register_buffer("pixel_mean", torch.tensor(card.mean))
        self.register_buffer("pixel_std", torch.tensor(card.std))

    def normalize(self, tiles: Tensor) -> Tensor:
        """Bring pixels to the network's space: uint8 (n, y, x, rgb) → float32 (n, 3, y, x), channels last."""
        scale = (255 * self.pixel_std).reciprocal()
        shift = self.pixel_mean / self.pixel_std
        x = tiles.permute(0, 3, 1, 2).float()  # NHWC memory is channels_last
        return x.mul_(scale.view(-1, 1, 1)).sub_(shift.view(-1, 1, 1))

    def forward(self, x: Tensor) -> Maps:
        """Return the maps of normalized float (n, 3, y, x), whose sides are multiples of 32 px."""
        return cast("Maps", tuple(self.network(x)))


def pyramid_backbone(
    name: str, *, pretrained: bool = False, weights_file: str | None = None
) -> PyramidBackbone:
    """Build a backbone.

    Parameters
    ----------
    name
        ``mit_b0`` to ``mit_b5`` (``mit_nano`` for trials), or a model of timm that has maps at strides 4, 8,
        16 and 32 among its features: ``resnet18``, ``convnext_tiny``, ``pvt_v2_b1``, ``tf_efficientnet_lite0`` …
    pretrained
        Take the published weights: of ``tf_efficientnet_lite0`` they are installed, of others on the hub.
        Else weights are random, drawn from torch's default generator.
    weights_file
        Take the weights of a local file instead: safetensors of the timm model, or a SegFormer's
        safetensors or folder as ``transformers`` writes it, of ``mit_…``.

    Raises
    ------
    ModelError
        If there is no such backbone, its maps are at other strides, or weights can't be had or don't fit.
    """
    if name in _MITS:
        return _mit(name, pretrained=pretrained, weights_file=weights_file)
    return _of_timm(name, pretrained=pretrained, weights_file=weights_file)


class _SegformerMaps(nn.Module):
    """A SegFormer encoder's stages, one after the other."""

    def __init__(self, stages: nn.ModuleList) -> None:
        super().__init__()
        self.stages = stages

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


def _mit(name: str, *, pretrained: bool, weights_file: str | None) -> PyramidBackbone:
    # here: importing transformers' models takes seconds, and only who builds one must wait for it
    from transformers import SegformerConfig, SegformerModel

    mit = _MITS[name]
    config = SegformerConfig(
        hidden_sizes=list(mit.widths), depths=list(mit.depths), num_attention_heads=list(mit.heads)
    )
    licence = NO_WEIGHTS
    if weights_file is not None or pretrained:
        folder = _mit_folder(name, weights_file)
        model = _loaded_segformer(name, config, folder)
        licence = "unknown" if weights_file is not None else _MIT_LICENCE
    else:
        model = SegformerModel(config)
    card = BackboneCard(name, mit.widths, IMAGENET_MEAN, IMAGENET_STD, licence)
    return PyramidBackbone(card, _SegformerMaps(model.stages))


def _mit_folder(name: str, weights_file: str | None) -> Path:
    """Return the file of a SegFormer's weights."""
    from models.timm_models import HUB_FILES

    if weights_file is not None:
        path = Path(weights_file).expanduser()
        return local_weights(str(path / HUB_FILES[0] if path.is_dir() else path))
    if name == "mit_nano":
        raise ModelError(
            "There are no published weights of mit_nano: use mit_b0, or random weights."
        )
    advice = f"give a local file of {name}'s weights, use tf_efficientnet_lite0, or random weights"
    return hub_weights(f"nvidia/{name.replace('_', '-')}", HUB_FILES, gated=False, advice=advice)


def _loaded_segformer(name: str, config: Any, path: Path) -> Any:
    from transformers import SegformerModel

    # by way of from_pretrained, which knows the names that earlier versions gave to the same tensors
    with _without_its_report():
        model, report = SegformerModel.from_pretrained(
            None,
            config=config,
            state_dict=read_state(path),
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    other_shape = [mismatch[0] for mismatch in report["mismatched_keys"]]
    misfits = sorted([*report["missing_keys"], *other_shape])
    if misfits:
        raise ModelError(
            f"{path} does not fit {name} ({len(misfits)} tensors are missing or of another shape, {misfits[0]} "
            "among them): name the backbone that it was made with."
        )
    return model


@contextmanager
def _without_its_report() -> Iterator[None]:
    """Keep transformers' table of misfits and its progress bar off the terminal: the error says it."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def _of_timm(name: str, *, pretrained: bool, weights_file: str | None) -> PyramidBackbone:
    # here and below: a client that only plans must not wait for timm
    import timm

    from models.timm_models import TimmSource

    levels, channels = _pyramid_levels(name)
    if name == PACKAGED and weights_file is None:
        source = PackagedLite0()
        network = timm.create_model(name, pretrained=False, features_only=True, out_indices=levels)
        if pretrained:
            whole = timm.create_model(name, pretrained=False)
            source.load(whole, source.weights())
            state = whole.state_dict()  # the head's tensors are of no use here
            network.load_state_dict({key: state[key] for key in network.state_dict()})
        card = source.card
        licence = card.licence if pretrained else NO_WEIGHTS
        return PyramidBackbone(BackboneCard(name, channels, card.mean, card.std, licence), network)
    of_timm = TimmSource(name, weights_file)
    card = of_timm.card
    overlay = None
    if pretrained or weights_file is not None:
        weights = of_timm.weights()
        of_timm.network(weights)  # strict; below timm leaves random what it doesn't find
        overlay = {"file": str(weights), "custom_load": False}
    network = timm.create_model(
        name,
        pretrained=overlay is not None,
        features_only=True,
        out_indices=levels,
        pretrained_cfg_overlay=overlay,
    )
    licence = card.licence if overlay is not None else NO_WEIGHTS
    return PyramidBackbone(BackboneCard(name, channels, card.mean, card.std, licence), network)


def _pyramid_levels(name: str) -> tuple[tuple[int, ...], tuple[int, int, int, int]]:
    """Return which features of a timm model are at the four strides, and their channels."""
    import timm

    if not timm.is_model(name.partition(".")[0]):
        raise ModelError(
            f"There is no backbone {name}: give mit_b0 to mit_b5, or a model of timm, e.g. tf_efficientnet_lite0."
        )
    advice = "give mit_b0 to mit_b5, or a model such as resnet18, convnext_tiny or pvt_v2_b1"
    px = 4 * STRIDES[-1]
    try:
        with torch.device("meta"):
            network = timm.create_model(name, pretrained=False, features_only=True).eval()
            maps = network(torch.empty(1, 3, px, px))
    except (RuntimeError, AssertionError, AttributeError, NotImplementedError, TypeError) as error:
        # how timm's models say that they have no maps of features, or take tiles of one size alone
        detail = " ".join(str(error).split())[:200]
        raise ModelError(f"{name} gives no maps of any tile ({detail}): {advice}.") from error
    shapes = [tuple(found.shape[1:]) for found in maps]
    levels = []
    for stride in STRIDES:
        side = px // stride
        at = [k for k, shape in enumerate(shapes) if shape[1:] == (side, side)]
        if not at:
            raise ModelError(
                f"{name} has no map at stride {stride} (maps are (channel, y, x) {shapes} of a tile of {px} px): "
                f"{advice}."
            )
        levels.append(at[-1])
    channels = tuple(shapes[k][0] for k in levels)
    return tuple(levels), cast("tuple[int, int, int, int]", channels)
