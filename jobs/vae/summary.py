"""What ``vae train`` and ``vae finetune`` say at their end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from jobs.training.history import warning_text

_SHOWN: Final = (
    ("val_recon", "reconstruction error {:.4f}"),
    ("val_kl", "KL {:.1f} nats"),
    ("capacity", "C {:.0f}"),
    ("active_units", "{:.0f} active numbers of the latent"),
    ("prior_recon_ratio", "{:.3f} x the error with z of the prior"),
    ("val_auc", "AUC {:.3f}"),
    ("val_average_precision", "average precision {:.3f}"),
    ("val_loss", "loss {:.4f}"),
)


def training_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Write the summary that a person reads.

    Parameters
    ----------
    metrics
        As in ``metrics.json``, with ``run_dir``.
    """
    tiles, epoch, best = metrics["tiles"], metrics["epoch"], metrics["best"]
    stains = ", ".join(f"{name} {n:,}" for name, n in tiles["stain"].items())
    tumour = tiles["train_tumour"] + tiles["val_tumour"]
    early = ", stopped early" if epoch["stopped_early"] else ""
    values = [text.format(best[name]) for name, text in _SHOWN if best.get(name) is not None]
    return [
        f"tiles    {tiles['kept']:,} of {tiles['read']:,} ({tiles['without_colour']:,} without colour), "
        f"{tiles['train']:,} to train and {tiles['val']:,} to validate, split by {tiles['split_by']}"
        + (f"; {tumour:,} of tumour" if tumour else ""),
        f"stain    {stains}",
        f"epochs   {epoch['trained']} trained{early}; the best is {epoch['best'] + 1}",
        f"best     {', '.join(values)}",
        *(f"note     {note}" for note in tiles["notes"]),
        *(f"warning  {warning_text(warning)}" for warning in metrics["warnings"]),
        f"run_dir  {metrics['run_dir']}",
    ]
