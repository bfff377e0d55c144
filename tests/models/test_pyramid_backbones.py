"""Four maps at strides 4 to 32 of any backbone; weights are those of the file, or there is an error."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from models.pretrained import PackagedLite0
from models.pyramid_backbones import PyramidBackbone, pyramid_backbone
from store_schema.errors import ModelError


def maps_of(backbone: PyramidBackbone, tile_px: int = 64) -> list[torch.Tensor]:
    tiles = torch.randint(
        0, 256, (2, tile_px, tile_px, 3), generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        return list(backbone.eval()(backbone.normalize(tiles.to(torch.uint8))))


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("mit_b0", (32, 64, 160, 256)),  # SegFormer, table 6
        ("resnet18", (64, 128, 256, 512)),
        ("tf_efficientnet_lite0", (24, 40, 112, 320)),
        ("test_convnext", (24, 32, 48, 64)),  # its features begin at stride 4
    ],
)
def test_maps_are_at_four_strides(name: str, channels: tuple[int, ...]) -> None:
    backbone = pyramid_backbone(name)
    shapes = [tuple(found.shape) for found in maps_of(backbone, 96)]
    sides = (24, 12, 6, 3)
    assert shapes == [(2, c, side, side) for c, side in zip(channels, sides, strict=True)]
    assert backbone.channels == channels
    assert "random" in backbone.licence


@pytest.mark.parametrize(("name", "layers"), [("mit_b1", 8), ("mit_b3", 28)])
def test_larger_mix_transformers_are_deeper_or_wider(name: str, layers: int) -> None:
    with torch.device("meta"):
        backbone = pyramid_backbone(name)
    blocks = [key for key in backbone.state_dict() if key.endswith("mlp.fc1.weight")]
    assert len(blocks) == layers
    assert backbone.channels == (64, 128, 320, 512)


def test_shipped_weights_are_those_of_the_package() -> None:
    backbone = pyramid_backbone("tf_efficientnet_lite0", pretrained=True)
    whole = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    PackagedLite0.load(whole, PackagedLite0().weights())
    tiles = torch.randint(0, 256, (2, 64, 64, 3)).to(torch.uint8)
    x = (tiles.permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    with torch.no_grad():
        wanted = whole.forward_intermediates(x, intermediates_only=True)[1:]  # type: ignore[operator]
        found = backbone.eval()(backbone.normalize(tiles))
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    assert backbone.licence == "Apache-2.0"


@pytest.mark.filterwarnings("error")
def test_segformers_weights_come_back_from_a_folder_and_from_a_classifier(tmp_path: Path) -> None:
    from transformers import SegformerConfig, SegformerForImageClassification

    config = SegformerConfig(
        hidden_sizes=[16, 32, 40, 64], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 2, 4]
    )
    torch.manual_seed(0)
    classifier = SegformerForImageClassification(config).eval()  # as the published ones are
    classifier.save_pretrained(tmp_path)
    for given in (tmp_path, tmp_path / "model.safetensors"):
        backbone = pyramid_backbone("mit_nano", weights_file=str(given))
        tiles = torch.randint(0, 256, (1, 64, 64, 3)).to(torch.uint8)
        x = backbone.normalize(tiles)
        with torch.no_grad():
            wanted = classifier.segformer(x, output_hidden_states=True).hidden_states
            found = backbone.eval()(x)
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
        assert backbone.licence == "unknown"
    with pytest.raises(ModelError, match="does not fit mit_b0"):
        pyramid_backbone("mit_b0", weights_file=str(tmp_path))


def test_a_file_of_timm_is_loaded_whole_or_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = timm.create_model("test_resnet", pretrained=False).eval()
    path = tmp_path / "weights.safetensors"
    save_file(whole.state_dict(), path)
    backbone = pyramid_backbone("test_resnet", weights_file=str(path)).eval()
    tiles = torch.randint(0, 256, (1, 64, 64, 3)).to(torch.uint8)
    x = backbone.normalize(tiles)
    with torch.no_grad():
        wanted = whole.forward_features(x)  # type: ignore[operator]
        torch.testing.assert_close(backbone(x)[-1], wanted)
    state = load_file(path)
    state.pop("layer4.0.conv1.weight")
    save_file(state, path)
    with pytest.raises(ModelError, match="does not fit"):
        pyramid_backbone("test_resnet", weights_file=str(path))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet_nothing", "no backbone"),
        ("test_vit2", "no map at stride 4"),
        ("test_vit3", "gives no maps of any tile"),
        ("test_mambaout", "no map at stride 4"),  # (y, x, channel)
    ],
)
def test_other_networks_are_refused(name: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        pyramid_backbone(name)


def test_nano_has_no_published_weights() -> None:
    with pytest.raises(ModelError, match="mit_nano"):
        pyramid_backbone("mit_nano", pretrained=True)
