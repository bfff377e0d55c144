from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from jobs.mil.run_attention import attention_of_run
from jobs.mil.select import SelectConfig, select_top_k
from models.checkpoint import save_model
from models.slide_models import build_slide_model
from store_schema.bags import Bag
from store_schema.errors import InputError, NotInStoreError, SettingsConflictError
from store_schema.store import open_store
from store_schema.validate import validate

FeatureStore = Callable[..., str]
GRID = "32px_0.500mpp"
COUNTS = {"a": 11, "b": 3, "c": 0}
FEATURES = {
    slide_id: np.random.default_rng(seed).normal(size=(n_tiles, 5)).astype(np.float16)
    for seed, (slide_id, n_tiles) in enumerate(COUNTS.items())
}


class Falling:
    """Attention that falls with the tile; of two classes the second has all of it."""

    provenance: Mapping[str, Any] = {"weights": "0123"}

    def met(self, slide_id: str) -> Mapping[str, Any]:
        return {"ranked_by": ["0"]}

    def attention(self, bag: Bag) -> npt.NDArray[np.floating]:
        falling = np.linspace(1, 0, len(bag), dtype=np.float32)
        return np.stack([np.zeros_like(falling), falling], axis=1)


def norms(slide_id: str) -> npt.NDArray[np.float64]:
    found: npt.NDArray[np.float64] = np.linalg.norm(FEATURES[slide_id].astype(float), axis=1)
    return found


def test_by_norm(feature_store: FeatureStore) -> None:
    url = feature_store(FEATURES)
    summary = select_top_k(SelectConfig(url, "top", k=4))
    assert summary["ok"]
    assert summary["tiles"] == {"selected": 7, "of": 14}
    assert summary["slides"]["all_tiles_kept"] == 2
    store = open_store(url)
    index, score = store["a"].selection(GRID, "top")
    np.testing.assert_array_equal(index, np.argsort(-norms("a"))[:4])
    np.testing.assert_allclose(score, np.sort(norms("a"))[::-1][:4], rtol=1e-6)
    assert store["b"].selection(GRID, "top")[0].size == 3
    assert store["c"].selection(GRID, "top")[0].size == 0
    attrs = store["a"].run_attrs(GRID, "selections", "top")
    group = store["a"].block_group(GRID, "features", "enc")
    assert attrs["provenance"]["features"] == group.attrs["fingerprint"]
    assert attrs["provenance"]["rank"] == "feature-norm"
    assert not validate(url)


def test_again_is_nothing_and_otherwise_a_conflict(
    feature_store: FeatureStore, store_digests: Callable[[Path], dict[str, str]]
) -> None:
    url = feature_store(FEATURES)
    select_top_k(SelectConfig(url, "top", k=4))
    before = store_digests(Path(url))
    select_top_k(SelectConfig(url, "top", k=4))
    assert store_digests(Path(url)) == before
    other = select_top_k(SelectConfig(url, "top", k=5))
    assert [f["reason"] for f in other["failures"]] == [SettingsConflictError.reason] * 3
    assert select_top_k(SelectConfig(url, "top", fraction=0.5, overwrite=True))["ok"]
    assert open_store(url)["a"].selection(GRID, "top")[0].size == 6


def test_by_attention(feature_store: FeatureStore) -> None:
    url = feature_store(FEATURES)
    select_top_k(SelectConfig(url, "att", rank="attention", k=3), Falling())
    slide = open_store(url)["a"]
    np.testing.assert_array_equal(slide.selection(GRID, "att")[0], [0, 1, 2])
    provenance = slide.run_attrs(GRID, "selections", "att")["provenance"]
    assert provenance["model"] == {"weights": "0123"}
    assert provenance["alpha"] is None


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_by_both(feature_store: FeatureStore, alpha: float) -> None:
    url = feature_store(FEATURES)
    select_top_k(SelectConfig(url, "both", rank="weighted", alpha=alpha, k=99), Falling())
    found = norms("a")
    expected = alpha * np.linspace(1, 0, 11)
    expected += (1 - alpha) * (found - found.min()) / (found.max() - found.min())
    index, score = open_store(url)["a"].selection(GRID, "both")
    np.testing.assert_array_equal(index, np.argsort(-expected))
    np.testing.assert_allclose(score, np.sort(expected)[::-1], atol=1e-6)


def test_what_cannot_be_ranked_is_named_and_the_rest_goes_on(feature_store: FeatureStore) -> None:
    broken = FEATURES["b"].copy()
    broken[1, 1] = np.nan
    url = feature_store({**FEATURES, "b": broken, "d": FEATURES["a"]}, blocks={"d": [0, 1]})
    summary = select_top_k(SelectConfig(url, "top", k=4))
    assert not summary["ok"]
    failures = {f["slide_id"]: (f["reason"], f["message"]) for f in summary["failures"]}
    assert failures["b"][0] == "input"
    assert "not finite at tile 1" in failures["b"][1]
    assert failures["d"][0] == "incomplete"
    assert "2/3 blocks" in failures["d"][1]
    assert open_store(url)["a"].selection(GRID, "top")[0].size == 4


def test_settings_that_make_no_sense(feature_store: FeatureStore) -> None:
    url = feature_store(FEATURES)
    for config in (
        SelectConfig(url, "x"),
        SelectConfig(url, "x", k=1, fraction=0.5),
        SelectConfig(url, "x", k=1, rank="attention"),
        SelectConfig(url, "x", k=1, alpha=2),
        SelectConfig(url, "a/b", k=1),
    ):
        with pytest.raises(ValueError):  # noqa: PT011  # InputError and InvalidNameError are
            select_top_k(config)
    with pytest.raises(InputError, match="takes no --run"):
        select_top_k(SelectConfig(url, "x", k=1), Falling())
    with pytest.raises(NotInStoreError, match="did you mean enc"):
        select_top_k(SelectConfig(url, "x", k=1, features="enk"))
    with pytest.raises(NotInStoreError, match=f"has no grid '32px': .*{GRID}"):
        select_top_k(SelectConfig(url, "x", k=1, grid="32px", features="enc"))


def save_fold(
    directory: Path, seed: int, test_slide_ids: list[str], fingerprint: str | None = None
) -> None:
    torch.manual_seed(seed)
    model = build_slide_model("dsmil", 5, 2, {})
    description = {
        "kind": "mil",
        "model": "dsmil",
        "model_config": {"n_features": 5, "n_classes": 2},
        "task": "multiclass",
        "class_names": ["0", "1"],
        "n_features": 5,
        "l2_normalize": True,
        "features": {"name": "enc", "grid": GRID, "fingerprint": fingerprint},
        "threshold": None,
        "bag_level": "slide",
        "fold": seed,
        "train_slide_ids": [],
        "val_slide_ids": [],
        "test_slide_ids": test_slide_ids,
    }
    directory.mkdir(parents=True)
    save_model(directory / "model.safetensors", model, description)


def test_attention_of_a_run(feature_store: FeatureStore, tmp_path: Path) -> None:
    url = feature_store(FEATURES)
    bags = {bag.slide_id: bag for bag in open_store(url).bags()}
    for fold in (0, 1):
        save_fold(tmp_path / "cv" / f"fold_{fold}", fold, ["a"] if fold else [])
    run = attention_of_run(tmp_path / "cv", "cpu")
    alone = [attention_of_run(tmp_path / "cv" / f"fold_{fold}", "cpu") for fold in (0, 1)]
    assert run.attention(bags["a"]).shape == (11,)
    # fold 1 tested slide a; slide b was tested by none
    np.testing.assert_array_equal(run.attention(bags["a"]), alone[1].attention(bags["a"]))
    both = [each.attention(bags["b"]) for each in alone]
    np.testing.assert_allclose(run.attention(bags["b"]), np.mean(both, axis=0), rtol=1e-6)
    assert not np.array_equal(both[0], both[1])
    digests = [fold["weights"] for fold in run.provenance["folds"]]
    assert len(set(digests)) == 2


def test_attention_over_features_of_another_making(
    feature_store: FeatureStore, tmp_path: Path
) -> None:
    url = feature_store(FEATURES)
    save_fold(tmp_path / "run", 0, [], fingerprint="of another encoder")
    source = attention_of_run(tmp_path / "run", "cpu")
    summary = select_top_k(SelectConfig(url, "x", rank="attention", k=1), source)
    assert summary["slides"]["complete"] == sum(len(each) == 0 for each in FEATURES.values())
    assert all("made otherwise" in failure["message"] for failure in summary["failures"])
    assert summary["failures"]


def test_the_command(
    feature_store: FeatureStore, tmp_path: Path, slidestream: Callable[..., Any]
) -> None:
    url = feature_store(FEATURES)
    save_fold(tmp_path / "run", 0, [])
    common = ("select", "top-k", "--store", url)
    answer = slidestream(*common, "--name", "top", "--json")
    assert answer.code == 0
    assert json.loads(answer.out)["k"] == 512
    answer = slidestream(
        *common, "--name", "w", "--rank", "weighted", "--fraction", 0.5, "--run", tmp_path / "run"
    )
    assert answer.code == 0
    assert "8 of 14 tiles" in answer.out
    answer = slidestream(*common, "--name", "x", "--rank", "attention")
    assert answer.code == 1
    assert "needs a trained model: name its --run" in answer.err
    (tmp_path / "s.yaml").write_text("k: 2\nname: top\n")
    answer = slidestream(*common, "--config", tmp_path / "s.yaml")
    assert answer.code == 1  # made with another k
    assert "settings-conflict" in answer.out
