"""What ``pbip train`` says at its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from jobs.training.history import warning_text

_SHOWN: Final = (
    ("val_auc", "AUC of tiles {:.3f}"),
    ("val_iou", "IoU {:.3f}"),
    ("val_dice", "Dice {:.3f}"),
    ("val_precision", "precision {:.3f}"),
    ("val_recall", "recall {:.3f}"),
    ("val_loss", "loss {:.4f}"),
)


def training_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Write the summary that a person reads.

    Parameters
    ----------
    metrics
        As in ``metrics.json``, with ``run_dir``.
    """
    rounds, best, floor = metrics["epoch"], metrics["best"], metrics["floor"]
    early = ", stopped early" if rounds["stopped_early"] else ""
    values = [text.format(best[name]) for name, text in _SHOWN if best.get(name) is not None]
    by_class = ", ".join(
        f"{name} {best[f'val_iou_{name}']:.3f} (all of it {share:.3f})"
        for name, share in floor.items()
        if best.get(f"val_iou_{name}") is not None
    )
    return [
        *(_side_line(side, metrics["tiles"][side]) for side in ("train", "val")),
        f"rounds   {rounds['trained']} trained{early}; the best is {rounds['best'] + 1}, by {rounds['monitor']}",
        f"best     {', '.join(values)}",
        *([f"IoU      {by_class}"] if by_class else []),
        *(f"note     {note}" for note in metrics["notes"]),
        *(f"warning  {warning_text(warning, 'round')}" for warning in metrics["warnings"]),
        f"run_dir  {metrics['run_dir']}",
    ]


def _side_line(side: str, counts: Mapping[str, Any]) -> str:
    held = ", ".join(f"{n:,} of {name}" for name, n in counts["holding"].items())
    return f"{side:<8} {counts['tiles']:,} tiles of {counts['slides']:,} slides: {held}"
