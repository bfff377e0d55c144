"""How much of tumour/normal a linear model finds in stored features; masks are the truth, splits are by patient.

    uv run python -m benchmarks.linear_probe STORE COHORT --features efficientnet-lite0

COHORT holds ``splits.csv`` (columns train, val, test of slide ids) and ``masks/<slide>.png``, one pixel per tile of
``--lattice`` level-0 pixels, 255 for tumour; slides without a mask have none.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from store_schema import open_store
from store_schema.store import Store

Labelled = tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]


def tiles_of(
    store: Store, slide_id: str, grid: str | None, features: str, cohort: Path, lattice: int
) -> Labelled:
    """Return a slide's features (tile, feature) and whether the mask has tumour at each tile's centre."""
    tiles = store[slide_id].tiles(grid, features=features)
    values = tiles["features"].to_numpy().astype(np.float32)
    mask_file = cohort / "masks" / f"{slide_id}.png"
    if not mask_file.is_file():
        return values, np.zeros(len(values), dtype=bool)
    mask = np.asarray(Image.open(mask_file)) > 0
    half = tiles.attrs["tile_level0"] // 2
    return values, mask[
        (tiles["y"].to_numpy() + half) // lattice, (tiles["x"].to_numpy() + half) // lattice
    ]


def main() -> None:
    """Fit on the train split, choose the penalty on val, touch test once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--features", default="efficientnet-lite0")
    parser.add_argument("--grid")
    parser.add_argument("--lattice", type=int, default=96)
    args = parser.parse_args()

    store = open_store(args.store)
    splits = pd.read_csv(args.cohort / "splits.csv")

    def split(name: str) -> Labelled:
        parts = [
            tiles_of(store, slide_id, args.grid, args.features, args.cohort, args.lattice)
            for slide_id in splits[name].dropna()
        ]
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    train, val, test = split("train"), split("val"), split("test")
    best, best_auc = None, 0.0
    for penalty in (1e-4, 1e-3, 1e-2, 1e-1):
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=2000))
        probe.fit(*train)
        auc = float(roc_auc_score(val[1], probe.predict_proba(val[0])[:, 1]))
        print(f"C {penalty:g}: val AUC {auc:.4f}")
        if auc > best_auc:
            best, best_auc = probe, auc
    assert best is not None
    scores = best.predict_proba(test[0])[:, 1]
    print(
        f"tiles: train {len(train[1])}, val {len(val[1])}, test {len(test[1])} ({test[1].mean():.1%} tumour)"
    )
    print(
        f"test AUC {roc_auc_score(test[1], scores):.4f}, AP {average_precision_score(test[1], scores):.4f}"
    )


if __name__ == "__main__":
    main()
