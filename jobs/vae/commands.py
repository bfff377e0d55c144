"""``slidestream vae``: the group of the commands for unsupervised tile models."""

from __future__ import annotations

from jobs.lazy_group import LazyGroup

vae = LazyGroup(
    "vae",
    "Learn what normal tissue looks like, and score tiles by how far they are from it.",
    {
        "train": ("jobs.vae.train_command:train", "Train a β-VAE on normal tiles."),
        "score": (
            "jobs.vae.score_command:score",
            "Score the tiles of a store: reconstruction errors and KL, or a classifier's probability.",
        ),
        "finetune": (
            "jobs.vae.finetune_command:finetune",
            "Train a classifier of labelled tiles on a trained VAE's encoder.",
        ),
    },
)
