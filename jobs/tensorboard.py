"""Epochs of a training as TensorBoard event files, where the extra is installed."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import TYPE_CHECKING

from store_schema.errors import InputError

if TYPE_CHECKING:
    from models.fit import EpochRecord


def require_tensorboard() -> None:
    """Check that TensorBoard is installed.

    Raises
    ------
    InputError
        It is not; the sentence says how to install it.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise InputError(
            "--tensorboard needs the package tensorboard: pip install 'slidestream[tensorboard]', "
            "or leave the option out."
        )


class TensorBoardObserver:
    """Writes every value of an epoch as a scalar; epochs count from 1.

    Parameters
    ----------
    directory
        Of the event files.
    """

    def __init__(self, directory: Path) -> None:
        require_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(directory))

    def on_epoch(self, record: EpochRecord) -> None:
        """Write an epoch; values that are not finite are left out."""
        for name, value in record.values.items():
            if math.isfinite(value):
                self._writer.add_scalar(name.replace("_", "/", 1), value, record.epoch + 1)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
