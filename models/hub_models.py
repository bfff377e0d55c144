"""The pathology models of the hub: how each network is built, how its file becomes timm's tensors.

Architectures are those of the models' own cards (hyperparameters are facts); every file is loaded
strictly, so that a wrong one is an error and never a half-random network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import timm
import torch
from timm.layers.mlp import SwiGLUPacked
from timm.models.swin_transformer import checkpoint_filter_fn as swin_names
from torch import nn

from models.cards import CARDS, EncoderCard
from models.vit_names import timm_names
from models.weights import StateDict, hub_weights, load_strictly, local_weights, read_state
from store_schema.errors import ModelError

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
CLIP_HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


class ClassAndMean(nn.Module):
    """Class token and mean patch token side by side: (n, 3, y, x) → (n, 2 · width)."""

    def __init__(self, vit: nn.Module) -> None:
        super().__init__()
        self.vit = vit

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embed a batch."""
        tokens: torch.Tensor = self.vit(x)  # (n, class token + registers + patches, width)
        first_patch: int = self.vit.num_prefix_tokens  # type: ignore[assignment]
        return torch.cat([tokens[:, 0], tokens[:, first_patch:].mean(dim=1)], dim=-1)


class ConvStem(nn.Module):
    """CTransPath's stem in place of Swin's patch projection: three convolutions.

    Wang et al., Medical Image Analysis 81 (2022) 102559. The signature is timm's ``PatchEmbed``'s.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        *,
        patch_size: int = 4,
        in_chans: int = 3,
        embed_dim: int = 96,
        norm_layer: Callable[[int], nn.Module] | None = None,
        output_fmt: str = "NHWC",
        strict_img_size: bool = True,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        rows, cols = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.img_size = (rows, cols)
        self.patch_size = (patch_size, patch_size)
        self.grid_size = (rows // patch_size, cols // patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        narrow, wide = embed_dim // 8, embed_dim // 4
        self.proj = nn.Sequential(
            nn.Conv2d(in_chans, narrow, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(narrow),
            nn.ReLU(),
            nn.Conv2d(narrow, wide, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.Conv2d(wide, embed_dim, 1),
        )
        self.norm = norm_layer(embed_dim) if norm_layer is not None else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 3, y, x) → (n, y/4, x/4, embed_dim)."""
        embedded: torch.Tensor = self.norm(self.proj(x).permute(0, 2, 3, 1))
        return embedded


def _uni() -> nn.Module:
    return timm.create_model(
        "vit_large_patch16_224", num_classes=0, init_values=1e-5, dynamic_img_size=True
    )


def _uni2_h() -> nn.Module:
    return timm.create_model(
        "vit_giant_patch14_224",
        num_classes=0,
        img_size=224,
        depth=24,
        num_heads=24,
        embed_dim=1536,
        mlp_ratio=2.66667 * 2,
        init_values=1e-5,
        mlp_layer=SwiGLUPacked,
        act_layer=nn.SiLU,
        reg_tokens=8,
        no_embed_class=True,
        dynamic_img_size=True,
    )


def _virchow(registers: int) -> nn.Module:
    vit = timm.create_model(
        "vit_huge_patch14_224",
        num_classes=0,
        global_pool="",
        mlp_ratio=5.3375,
        init_values=1e-5,
        mlp_layer=SwiGLUPacked,
        act_layer=nn.SiLU,
        reg_tokens=registers,
        dynamic_img_size=True,
    )
    return ClassAndMean(vit)


def _gigapath() -> nn.Module:
    return timm.create_model(
        "vit_giant_patch14_dinov2",
        num_classes=0,
        img_size=224,
        patch_size=16,
        depth=40,
        num_heads=24,
        embed_dim=1536,
        mlp_ratio=5.33334,
    )


def _h_optimus() -> nn.Module:
    return timm.create_model(
        "vit_giant_patch14_reg4_dinov2",
        num_classes=0,
        img_size=224,
        global_pool="token",
        init_values=1e-5,
        dynamic_img_size=False,
    )


def _phikon() -> nn.Module:
    norm = partial(nn.LayerNorm, eps=1e-12)  # transformers' ViT
    return timm.create_model("vit_base_patch16_224", num_classes=0, norm_layer=norm)


def _phikon_v2() -> nn.Module:
    return timm.create_model("vit_large_patch16_224", num_classes=0, init_values=1.0)


def _ctranspath() -> nn.Module:
    return timm.create_model(
        "swin_tiny_patch4_window7_224", num_classes=0, embed_layer=ConvStem, strict_img_size=True
    )


def _plain(model: str) -> nn.Module:
    return timm.create_model(model, num_classes=0)


def _same(state: StateDict, network: nn.Module) -> StateDict:
    return state


def _virchow_names(state: StateDict, network: nn.Module) -> StateDict:
    return {f"vit.{name}": tensor for name, tensor in state.items()}


def _vit_names(state: StateDict, network: nn.Module) -> StateDict:
    return timm_names(state)


def _swin_names(state: StateDict, network: nn.Module) -> StateDict:
    renamed: StateDict = swin_names(dict(state), network)
    return {name: tensor for name, tensor in renamed.items() if not name.startswith("head.")}


def _headless(state: StateDict, network: nn.Module) -> StateDict:
    return {name: tensor for name, tensor in state.items() if not name.startswith("head.")}


@dataclass(frozen=True)
class Recipe:
    """How to build one network with timm, and how to rename its file's tensors."""

    build: Callable[[], nn.Module]
    names: Callable[[StateDict, nn.Module], StateDict] = _same


RECIPES: Final[dict[str, Recipe]] = {
    "uni": Recipe(_uni),
    "uni2-h": Recipe(_uni2_h),
    "virchow": Recipe(partial(_virchow, 0), _virchow_names),
    "virchow2": Recipe(partial(_virchow, 4), _virchow_names),
    "prov-gigapath": Recipe(_gigapath),
    "h-optimus-0": Recipe(_h_optimus),
    "h-optimus-1": Recipe(_h_optimus),
    "phikon": Recipe(_phikon, _vit_names),
    "phikon-v2": Recipe(_phikon_v2, _vit_names),
    "ctranspath": Recipe(_ctranspath, _swin_names),
    "lunit-vits16": Recipe(partial(_plain, "vit_small_patch16_224"), _headless),
    "lunit-vits8": Recipe(partial(_plain, "vit_small_patch8_224"), _headless),
    "kaiko-vits16": Recipe(partial(_plain, "vit_small_patch16_224"), _headless),
    "kaiko-vitb16": Recipe(partial(_plain, "vit_base_patch16_224"), _headless),
}


@dataclass(frozen=True)
class HubSource:
    """A model of :data:`models.cards.CARDS` that lives on the hub.

    Attributes
    ----------
    name
        The card's name.
    checkpoint
        The user's copy of the weights; None to take them from the hub's cache or the network.
    """

    name: str
    checkpoint: str | None = None

    @property
    def card(self) -> EncoderCard:
        """The card of that name."""
        return next(card for card in CARDS if card.name == self.name)

    @property
    def label(self) -> str:
        """The card's name."""
        return self.name

    def weights(self) -> Path:
        """Return the user's file, or the hub's."""
        if self.checkpoint is not None:
            return local_weights(self.checkpoint)
        repo = self.card.source.removeprefix("hf-hub:")
        advice = f"give a downloaded file as '{self.name}@path/to/the/weights'"
        if self.name == "quilt-b32":  # open_clip reads its configuration beside the weights
            hub_weights(repo, ("open_clip_config.json",), gated=False, advice=advice)
            return hub_weights(repo, CLIP_HUB_FILES, gated=False, advice=advice)
        return hub_weights(repo, HUB_FILES, gated=self.card.gated, advice=advice)

    def network(self, weights: Path | None) -> nn.Module:
        """Build the network, without weights if ``weights`` is None."""
        if self.name == "quilt-b32":
            from models.open_clip_models import image_tower

            return image_tower(f"local-dir:{weights.parent}" if weights else "ViT-B-32", weights)
        if self.name == "conch":
            return _conch(weights)
        recipe = RECIPES[self.name]
        network = recipe.build()
        if weights is not None:
            load_strictly(network, recipe.names(read_state(weights), network), weights)
        return network


class ConchImage(nn.Module):
    """CONCH's image embedding before the contrastive projection: (n, 3, 448, 448) → (n, 512)."""

    def __init__(self, conch: nn.Module) -> None:
        super().__init__()
        self.conch = conch

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embed a batch."""
        embedding: torch.Tensor = self.conch.encode_image(  # type: ignore[operator]
            x, proj_contrast=False, normalize=False
        )
        return embedding


def _conch(weights: Path | None) -> nn.Module:
    try:
        from conch.open_clip_custom import create_model_from_pretrained  # type: ignore[import-not-found]
    except ImportError as error:
        raise ModelError(
            "conch needs its authors' package: 'pip install git+https://github.com/mahmoodlab/CONCH.git'."
        ) from error
    if weights is None:
        raise ModelError("conch has no random weights: leave out --random-weights.")
    model, _ = create_model_from_pretrained("conch_ViT-B-16", checkpoint_path=str(weights))
    return ConchImage(model)
