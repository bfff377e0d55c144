from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from jobs.encoders import encoders
from jobs.weights_at_hand import weights_at_hand
from models.registry import find_card, list_cards
from store_schema.errors import ModelError


def test_lists_every_card_with_its_facts() -> None:
    result = CliRunner().invoke(encoders, [], standalone_mode=False)
    assert result.exception is None
    lines = {line.split()[0]: line.split() for line in result.output.splitlines() if line.strip()}
    for card in list_cards():
        assert lines[card.name][1] == str(card.input_px)
        assert lines[card.name][2] == f"{card.dim:,}"
    assert lines["efficientnet-lite0"][-1] == "ready"


def test_json_says_what_can_be_used_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--owkin--phikon" / "snapshots" / "abc"
    cached.mkdir(parents=True)
    (cached / "model.safetensors").touch()
    result = CliRunner().invoke(encoders, ["--json"], standalone_mode=False)
    usable = {card["name"]: card["usable"] for card in json.loads(result.output)}
    assert usable["efficientnet-lite0"] == "ready"
    assert usable["phikon"] == "ready"
    assert usable["phikon-v2"] == "download"
    assert usable["uni"] == "gated"


def test_a_configuration_without_weights_is_not_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--owkin--phikon" / "snapshots" / "abc"
    cached.mkdir(parents=True)
    (cached / "config.json").touch()
    assert not weights_at_hand(find_card("phikon"))


def test_one_encoder() -> None:
    result = CliRunner().invoke(encoders, ["uni", "--json"], standalone_mode=False)
    card = json.loads(result.output)
    assert (card["dim"], card["source"]) == (1024, "hf-hub:MahmoodLab/UNI")
    text = CliRunner().invoke(encoders, ["uni"], standalone_mode=False).output
    assert "CC-BY-NC-ND-4.0" in text
    assert "class token" in text


def test_an_unknown_name_gets_near_ones() -> None:
    result = CliRunner().invoke(encoders, ["h-optimus0"], standalone_mode=False)
    assert isinstance(result.exception, ModelError)
    assert "h-optimus-0" in str(result.exception)


def test_the_list_needs_no_model_library() -> None:
    code = (
        "import sys; from jobs.encoders import encoders; "
        "encoders.main([], standalone_mode=False); "
        "sys.exit(1 if {'torch', 'timm', 'open_clip'} & set(sys.modules) else 0)"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL)
    assert ran.returncode == 0
