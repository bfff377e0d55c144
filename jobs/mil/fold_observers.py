"""What is told of each epoch of a fold besides its own files: whoever watches, here or through the cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobs.training.observers import epoch_text

if TYPE_CHECKING:
    from models.fit import EpochRecord

EPOCH_TOPIC = "slidestream-mil-epoch"
SHOWN: Final = (
    "train_loss", "val_loss", "val_auc", "val_balanced_accuracy", "val_attention_entropy",
)  # fmt: skip
"""Values that the lines about an epoch show."""


@dataclass(frozen=True)
class TellingObserver:
    """Tells of an epoch in plain values, which can travel between processes.

    Attributes
    ----------
    fold, epochs
        Which fold, and how many epochs it has at the most.
    tell
        Takes the event.
    leaky
        Whether what is called validation is the test fold.
    """

    fold: int
    epochs: int
    tell: Callable[[dict[str, Any]], None]
    leaky: bool = False

    def on_epoch(self, record: EpochRecord) -> None:
        """Tell of an epoch."""
        self.tell(
            {
                "fold": self.fold,
                "epoch": record.epoch,
                "epochs": self.epochs,
                "text": epoch_text(record, SHOWN),
                "best": record.is_best,
                "leaky": self.leaky,
            }
        )


def tell_cluster(event: dict[str, Any]) -> None:
    """Send an event from a Dask worker to the clients that listen."""
    from distributed import get_worker

    get_worker().log_event(EPOCH_TOPIC, event)
