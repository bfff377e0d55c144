"""``slidestream pbip``: the group of the commands for weakly supervised segmentation."""

from __future__ import annotations

from jobs.lazy_group import LazyGroup

pbip = LazyGroup(
    "pbip",
    "Segment slides from labels of images: prototypes of each class, a network that looks for them, masks.",
    {
        "prototypes": (
            "jobs.pbip.prototypes_command:prototypes",
            "Make a bank of prototypes of each class.",
        ),
        "train": (
            "jobs.pbip.train_command:train",
            "Train a network on image-level labels, with the prototypes of a bank.",
        ),
        "segment": (
            "jobs.pbip.segment_command:segment",
            "Segment slides: confidence, masks, and files of them.",
        ),
        "evaluate": (
            "jobs.pbip.evaluate_command:evaluate",
            "Judge masks of a segmentation by what is true of pixels and tiles.",
        ),
        "uncertain": (
            "jobs.pbip.uncertain_command:uncertain",
            "List the tiles that a segmentation is least sure of, to annotate them.",
        ),
    },
)
