"""Pictures of a VAE's training: what it makes of tiles, and its curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from matplotlib.axes import Axes

from jobs.plots import draw_lines, new_figure, save_png
from jobs.training.history import column
from jobs.training.tile_rows import coloured, save_tile_rows

if TYPE_CHECKING:
    from models.vae_training import Examples

History = Sequence[Mapping[str, Any]]

_ERROR_LIMIT: Final = (
    1.0  # [deviations of a channel]; the same in all pictures, so that epochs can be compared
)


def save_examples(path: Path, title: str, examples: Examples) -> None:
    """Save tiles, their reconstructions and errors, one column a tile.

    Parameters
    ----------
    path
        Of the PNG.
    title
        Over it.
    examples
        Of the validation tiles.
    """
    rows = {
        "tile": examples.tiles,
        "reconstruction": examples.reconstructions,
        f"error, 0 to {_ERROR_LIMIT:g}": coloured(examples.errors, _ERROR_LIMIT),
    }
    save_tile_rows(path, title, rows)


def save_curves(path: Path, title: str, history: History, best_epoch: int) -> None:
    """Save loss, reconstruction error, KL against C, β, active numbers and the error of the prior's z by epoch.

    Parameters
    ----------
    path
        Of the PNG.
    title
        Over it.
    history
        As of ``history.jsonl``.
    best_epoch
        Marked; from 0, and drawn from 1.
    """
    figure, axes = new_figure(2, 3, title)
    epochs = [epoch["epoch"] + 1 for epoch in history]

    def draw(where: Axes, panel: str, lines: Mapping[str, str]) -> None:
        values = {label: column(history, name) for label, name in lines.items()}
        draw_lines(where, epochs, values, title=panel, best_epoch=best_epoch + 1)

    draw(axes[0], "Loss", {
        "training (β, C of the epoch)": "train_loss", "validation (final β, C)": "val_loss",
    })  # fmt: skip
    # in the first epoch β is 0: its KL, paid for at the end's β, would flatten all others on a linear axis
    axes[0].set_yscale("log")
    draw(axes[1], "Reconstruction error", {"training": "train_recon", "validation": "val_recon"})
    draw(axes[2], "KL and capacity [nats a tile]", {
        "KL, training": "train_kl", "KL, validation": "val_kl", "C": "capacity",
    })  # fmt: skip
    draw(axes[3], "β", {"β": "beta"})
    draw(axes[4], "Active numbers of the latent", {"variance above 0.01": "active_units"})
    draw(axes[5], "Error with z of the prior", {"times that with its own": "prior_recon_ratio"})
    axes[5].axhline(1.0, color="#9aa5b1", lw=1, ls=":")
    low, high = axes[5].get_ylim()
    axes[5].set_ylim(min(low, 0.9), max(high, 1.2))  # differences in the third digit say nothing
    axes[5].set_ylim(bottom=0.9, top=max(1.1, axes[5].get_ylim()[1]))
    save_png(figure, path)


def save_head_curves(path: Path, title: str, history: History, best_epoch: int) -> None:
    """Save loss and AUC of a classifier by epoch; parameters as of :func:`save_curves`."""
    figure, axes = new_figure(1, 2, title)
    epochs = [epoch["epoch"] + 1 for epoch in history]
    losses = {"training": column(history, "train_loss"), "validation": column(history, "val_loss")}
    draw_lines(axes[0], epochs, losses, title="Cross-entropy", best_epoch=best_epoch + 1)
    metrics = {
        "AUC": column(history, "val_auc"),
        "average precision": column(history, "val_average_precision"),
    }
    shown = {name: values for name, values in metrics.items() if any(v is not None for v in values)}
    draw_lines(
        axes[1],
        epochs,
        shown,
        title="Validation tiles",
        ylim=(-0.02, 1.04),
        best_epoch=best_epoch + 1,
    )
    save_png(figure, path)
