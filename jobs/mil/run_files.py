"""The files of a slide model's run directory, besides those of every training."""

from __future__ import annotations

from typing import Final

PREDICTIONS: Final = "predictions.csv"
SPLITS: Final = "splits.csv"
TWO_PASS: Final = "two_pass.json"

FREE: Final = (
    "cluster.", "plot_every", "tensorboard", "preset", "command", "splits.files", "splits.fold",
    "splits.repeat",
)  # fmt: skip
"""What a run directory may be entered again with, since no result follows from it; splits are compared as such."""
