"""A checkpoint is weights and a description that belong together, and never code."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from models.checkpoint import load_description, load_weights, save_model
from store_schema.errors import ModelError


class Tied(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.a = nn.Linear(width, width, bias=False)
        self.b = nn.Linear(width, width, bias=False)
        self.b.weight = self.a.weight


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = Tied(3)
    save_model(path, model, {"kind": "mil", "classes": ["a", "b"]})
    description = load_description(path)
    assert description["kind"] == "mil"
    assert description["classes"] == ["a", "b"]
    assert description["schema"] == 1
    again = Tied(3)
    load_weights(again, path)
    assert torch.equal(again.a.weight, model.a.weight)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "model.safetensors"]


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("exploded"),)  # type: ignore[return-value]


@pytest.mark.parametrize("name", ["model.safetensors", "best.pth", "best.PT"])
@pytest.mark.parametrize("how", ["pickle", "torch", "old torch"])
def test_code_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, how: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    if how == "pickle":
        path.write_bytes(pickle.dumps(Bomb(), protocol=4))
    else:
        torch.save({"state": Bomb()}, path, _use_new_zipfile_serialization=how == "torch")
    path.with_suffix(".json").write_text("{}")
    for read in (load_description, lambda p: load_weights(Tied(3), p)):
        with pytest.raises(ModelError, match="is a pickle, which can run any code"):
            read(path)
    assert not Path("exploded").exists()


def test_weights_of_another_width_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, nn.Linear(4, 2), {})
    with pytest.raises(ModelError, match=r"weight is \(2, 4\) in the file, \(2, 5\) in the model"):
        load_weights(nn.Linear(5, 2), path)
    with pytest.raises(ModelError, match=r"bias is only in the file"):
        load_weights(nn.Linear(4, 2, bias=False), path)
    other = nn.Linear(4, 2)
    other.register_buffer("extra", torch.zeros(1))
    with pytest.raises(ModelError, match=r"extra is missing in the file"):
        load_weights(other, path)


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, nn.Linear(4, 2), {})
    sidecar = path.with_suffix(".json")
    good = sidecar.read_text()
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    with pytest.raises(ModelError, match=r"not the file that model.json describes"):
        load_description(path)
    sidecar.write_text(json.dumps({**json.loads(good), "schema": 2}))
    with pytest.raises(ModelError, match="is of schema 2, this version reads 1"):
        load_description(path)
    sidecar.write_text(good[:20])
    with pytest.raises(ModelError, match="is damaged"):
        load_description(path)
    sidecar.unlink()
    with pytest.raises(ModelError, match=r"has no description model.json"):
        load_description(path)
    path.write_bytes(b"\0" * 30)
    with pytest.raises(ModelError, match="is damaged"):
        load_weights(nn.Linear(4, 2), path)
    path.unlink()
    with pytest.raises(ModelError, match="no checkpoint at"):
        load_description(path)
