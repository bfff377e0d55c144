"""``slidestream mil``: the group of the commands for slide models."""

from __future__ import annotations

from jobs.lazy_group import LazyGroup

mil = LazyGroup(
    "mil",
    "Train slide models on the features of a store, and judge and use them.",
    {
        "train": ("jobs.mil.training_commands:train", "Train one model on one split."),
        "cv": ("jobs.mil.training_commands:cv", "Cross-validate: the folds are parallel tasks."),
        "score": (
            "jobs.mil.score_command:score",
            "Judge slides by trained models; scores and predictions go into the store.",
        ),
        "two-pass": (
            "jobs.mil.two_pass_command:two_pass",
            "Select by norm, train, select by attention, train: the best tiles in four passes.",
        ),
        "report": (
            "jobs.mil.report_command:report",
            "Folds and runs together: mean ± sd, intervals, class balance, one HTML page.",
        ),
    },
)
