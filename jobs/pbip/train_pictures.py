"""Pictures of a PBIP training: what the network makes of validation tiles, and its curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from dataflow.picture_parts import OUTLINE, outline_layer
from jobs.mil.labels import negative_class
from jobs.pbip.train_masks import Masks
from jobs.plots import draw_lines, new_figure, save_png
from jobs.training.history import column
from jobs.training.tile_rows import coloured, save_tile_rows
from models.pbip_training import Examples
from models.weak_tiles import UNKNOWN

History = Sequence[Mapping[str, Any]]
Indices = npt.NDArray[np.int64]

_LEAST_SIDE_PX: Final = 128  # an outline of 2 px hides too much of a smaller tile


def example_tiles(labels: npt.NDArray[np.int8], masks: Masks | None, n: int = 8) -> Indices:
    """Choose tiles to draw: those with several classes in them, and those of each class, in turns.

    Parameters
    ----------
    labels
        int8 (tile, class).
    masks
        uint8 (tile, y, x), where there are any.
    n
        At the most.

    Returns
    -------
    array
        int64 (n,), ascending.
    """
    mixed = labels.sum(1) > 1
    if masks is not None:
        known = np.where(masks == UNKNOWN, masks.min((1, 2), keepdims=True), masks)
        mixed |= known.max((1, 2)) > known.min((1, 2))
    of_class = [(labels[:, k] > 0) & ~mixed for k in range(labels.shape[1])]
    groups = [rows for rows in map(np.flatnonzero, (mixed, *of_class)) if len(rows)]
    chosen: set[int] = set()
    for number, rows in enumerate(groups):
        share = (n - len(chosen)) // (len(groups) - number)  # what a small group leaves, others get
        places = np.linspace(0, len(rows) - 1, min(share, len(rows))).astype(np.int64)
        chosen |= set(rows[places].tolist())
    return np.array(sorted(chosen), np.int64)


def save_examples(
    path: Path, title: str, examples: Examples, masks: Masks | None, class_names: Sequence[str]
) -> None:
    """Save tiles, with the outline of the positive class where masks are, and the confidence of each class.

    Parameters
    ----------
    path
        Of the PNG.
    title
        Over it.
    examples
        Of the validation tiles.
    masks
        uint8 (n, y, x) of these tiles.
    class_names
        In the order of the maps.
    """
    scale = -(-_LEAST_SIDE_PX // examples.tiles.shape[1])
    tiles = examples.tiles.repeat(scale, 1).repeat(scale, 2)
    shown = "tile"
    if masks is not None:
        positive = 1 - negative_class(class_names)  # masks are of two classes
        shown = f"tile, true {class_names[positive]}"
        tiles = np.stack([_outlined(*pair, positive) for pair in zip(tiles, masks, strict=True)])
    rows = {shown: tiles}
    for k, name in enumerate(class_names):
        maps = coloured(examples.confidence[:, k], 1.0)
        rows[f"{name}, 0 to 1"] = maps.repeat(scale, 1).repeat(scale, 2)
    held = [
        " + ".join(name for name, holds in zip(class_names, label, strict=True) if holds)
        for label in examples.labels
    ]
    save_tile_rows(path, title, rows, held)


def _outlined(
    tile: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8], class_index: int
) -> npt.NDArray[np.uint8]:
    height, width = tile.shape[:2]
    inside = (mask == class_index).astype(np.uint8)
    edge = np.asarray(outline_layer(inside, (width, height))) > 0
    drawn = tile.copy()
    drawn[edge] = OUTLINE
    return drawn


def save_curves(
    path: Path, title: str, history: History, best_round: int, floor: Mapping[str, float]
) -> None:
    """Save losses, terms, validation by pixels and by tiles, and the scales, by round.

    Parameters
    ----------
    path
        Of the PNG.
    title
        Over it.
    history
        As of ``history.jsonl``.
    best_round
        Marked; from 0, and drawn from 1.
    floor
        Class → its IoU where every pixel is taken for it; empty where no masks are.
    """
    figure, axes = new_figure(2, 3, title)
    rounds = [epoch["epoch"] + 1 for epoch in history]

    def draw(
        where: Axes,
        panel: str,
        lines: Mapping[str, str],
        constant: Mapping[str, float] | None = None,
        ylim: tuple[float, float] | None = None,
    ) -> None:
        found = {label: column(history, name) for label, name in lines.items()}
        known = {k: v for k, v in found.items() if any(value is not None for value in v)}
        flat = {label: [value] * len(rounds) for label, value in (constant or {}).items()}
        draw_lines(where, rounds, {**known, **flat}, title=panel, dashed=flat, ylim=ylim)
        where.set_xlabel("round (dotted: kept)")
        if known:
            where.axvline(best_round + 1, color="#7b8794", lw=1, ls=":", zorder=0)

    draw(axes[0], "Classification loss", {
        "training": "train_classification", "validation": "val_loss",
    })  # fmt: skip
    draw(axes[1], "Matching (InfoNCE)", {
        "foreground": "train_foreground", "background": "train_background",
    })  # fmt: skip
    draw(axes[2], "Maps (before weights)", {
        "variation": "train_smooth", "mean": "train_sparsity",
    })  # fmt: skip
    ious = {"IoU, mean": "val_iou", **{f"IoU of {name}": f"val_iou_{name}" for name in floor}}
    all_taken = {f"all taken for {name}": share for name, share in floor.items()}
    draw(axes[3], "Validation pixels", ious, all_taken, ylim=(-0.02, 1.04))
    draw(axes[4], "Validation tiles", {"AUC": "val_auc"}, ylim=(-0.02, 1.04))
    draw(axes[5], "Scale of similarities", {
        f"stride {stride}": f"scale_{stride}" for stride in (4, 8, 16, 32)
    })  # fmt: skip
    save_png(figure, path)
