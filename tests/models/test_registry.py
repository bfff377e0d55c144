"""Names of encoders: what is found, what is near, and what a listing costs."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from models.cards import CARDS, DEFAULT_ENCODER
from models.registry import find_card, find_source, list_cards
from store_schema.errors import ModelError


def test_listing_cards_imports_no_model_library() -> None:
    code = (
        "import sys; from models.registry import list_cards, find_card; list_cards(); find_card('uni')\n"
        "heavy = {'torch', 'timm', 'open_clip', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_cards_are_sound() -> None:
    assert len({card.name for card in CARDS}) == len(CARDS)
    assert list_cards()[0].name == DEFAULT_ENCODER
    for card in CARDS:
        assert card.dim > 0
        assert 0.5 < card.crop_pct <= 1
        assert card.resize_px >= card.input_px
        assert all(0 < m < 1 for m in card.mean)
        assert all(0 < s < 1 for s in card.std)
        assert card.licence
        assert card.gated <= card.needs_network


@pytest.mark.parametrize("name", [c.name for c in CARDS if c.name not in {"conch", "quilt-b32"}])
def test_card_says_what_its_network_gives(name: str) -> None:
    card = find_card(name)
    with torch.device("meta"), torch.inference_mode():  # shapes only: no memory, no arithmetic
        network = find_source(name).network(None).eval()
        features = network(torch.empty(1, 3, card.input_px, card.input_px))
    assert features.shape == (1, card.dim)


@pytest.mark.parametrize(
    ("name", "parameters"),  # millions, as the authors report them
    [("uni", 303), ("uni2-h", 681), ("virchow", 631), ("prov-gigapath", 1135), ("phikon", 86)],
)
def test_architectures_have_the_reported_size(name: str, parameters: int) -> None:
    with torch.device("meta"):
        network = find_source(name).network(None)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(parameters, abs=1)


def test_timm_card_is_made_of_timms_configuration() -> None:
    card = find_card("timm:mobilenetv3_large_100")
    assert card.dim == 1280  # after the head convolution: not timm's num_features of 960
    assert (card.input_px, card.crop_pct, card.resize_px) == (224, 0.875, 256)
    assert card.licence == "apache-2.0"
    assert card.source == "hf-hub:timm/mobilenetv3_large_100.ra_in1k"


def test_timm_weights_tags_have_their_own_preprocessing() -> None:
    assert find_card("timm:resnet18.tv_in1k").interpolation == "bilinear"
    assert find_card("timm:resnet18.a1_in1k").interpolation == "bicubic"


def test_open_clip_card() -> None:
    card = find_card("open_clip:ViT-B-32/openai")
    assert (card.dim, card.input_px, card.interpolation) == (512, 224, "bicubic")
    assert card.source == "hf-hub:timm/vit_base_patch32_clip_224.openai"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("efficientnet_lite0", "efficientnet-lite0"),
        ("resnet18", "timm:resnet18"),
        ("timm:resnet81", "timm:resnet18"),
        ("virchow3", "virchow2"),
        ("open_clip:ViT-B-23", "open_clip:ViT-B-32"),
    ],
)
def test_unknown_name_gets_near_ones(name: str, near: str) -> None:
    with pytest.raises(ModelError, match="did you mean") as caught:
        find_card(name)
    assert near in str(caught.value)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("timm:resnet18.nonsense", "resnet18.a1_in1k"),
        ("open_clip:ViT-B-32/nonsense", "openai"),
        ("timm:resnet18@", "names no file"),
        ("~~~", "slidestream encoders"),
    ],
)
def test_half_known_names(name: str, sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        _ = find_source(name).card
