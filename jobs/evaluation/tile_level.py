"""How well a score tells positive tiles from negative ones, of a slide and of several together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jobs.evaluation.burden import NO_TUMOUR, STRATA, burden_of, stratum_of
from models.metrics import roc_auc
from models.overlap import Overlap

ALL = "all"
"""The group of all slides."""

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class SlideTiles:
    """A slide's tiles, to be judged.

    Attributes
    ----------
    slide_id
        The slide.
    score
        float (tile,); what isn't finite is no score.
    truth
        bool (tile,).
    flagged
        bool (tile,), None where nothing was decided.
    """

    slide_id: str
    score: npt.NDArray[np.floating]
    truth: Flags
    flagged: Flags | None = None


@dataclass(frozen=True)
class TileMetrics:
    """How well tiles are told apart.

    Attributes
    ----------
    n_tiles, n_positive
        Tiles with a truth.
    n_without_score
        Those whose score is no number: left out of the areas. They are flagged only where a mask says so.
    auc_roc, auc_pr
        Areas under the ROC curve and (as average precision, without interpolation) under the precision-recall curve;
        None where all tiles with a score are of one kind.
    overlap
        Counts of flagged tiles; None where nothing was decided.
    """

    n_tiles: int
    n_positive: int
    n_without_score: int
    auc_roc: float | None
    auc_pr: float | None
    overlap: Overlap | None = None

    @property
    def burden(self) -> float:
        """Share of the tiles that is positive."""
        return self.n_positive / self.n_tiles if self.n_tiles else 0.0


@dataclass(frozen=True)
class GroupMetrics:
    """Slides of one burden, or all.

    Attributes
    ----------
    group
        :data:`ALL`, or a stratum of :mod:`jobs.evaluation.burden`.
    n_slides
        In it.
    pooled
        All their tiles together: says something only of scores that mean the same on all slides (a probability,
        an attention logit, a z-score), not of an attention that sums to 1 on each.
    mean_auc_roc, mean_auc_pr
        Means over the slides that have both kinds of tiles; None where there are none.
    mean_iou, mean_dice, mean_precision, mean_recall
        Means over the slides that have positive tiles; None where none has, or nothing was decided. Of others they are
        0 by a single false alarm and undefined without: ``pooled.overlap.fp`` counts theirs. Precision is over those
        of them where anything was flagged.
    mean_iou_of_all
        What ``mean_iou`` would be if every tile were flagged: the floor that it must beat. Pooled, that is the
        ``burden`` of ``pooled``.
    """

    group: str
    n_slides: int
    pooled: TileMetrics
    mean_auc_roc: float | None
    mean_auc_pr: float | None
    mean_iou: float | None
    mean_dice: float | None
    mean_precision: float | None
    mean_recall: float | None
    mean_iou_of_all: float | None


def tile_metrics(
    score: npt.NDArray[np.floating], truth: Flags, flagged: Flags | None = None
) -> TileMetrics:
    """Judge tiles; see :class:`SlideTiles`."""
    known = np.isfinite(score)
    kept, positive = score[known], truth[known]
    areas: tuple[float | None, float | None] = None, None
    if positive.any() and not positive.all():
        from sklearn.metrics import average_precision_score

        areas = roc_auc(kept, positive), float(average_precision_score(positive, kept))
    overlap = None if flagged is None else Overlap.of(flagged, truth)
    n_without = int(np.count_nonzero(~known))
    return TileMetrics(truth.size, int(np.count_nonzero(truth)), n_without, *areas, overlap)


def group_metrics(slides: Sequence[SlideTiles]) -> tuple[GroupMetrics, ...]:
    """Judge slides together: all of them first, then those of each tumour burden that there are."""
    if not slides:
        return ()
    strata = [stratum_of(burden_of(slide.truth)) for slide in slides]
    groups = [_group(ALL, slides)]
    for name in (NO_TUMOUR, *STRATA):
        members = [slide for slide, own in zip(slides, strata, strict=True) if own == name]
        if members:
            groups.append(_group(name, members))
    return tuple(groups)


def _group(name: str, slides: Sequence[SlideTiles]) -> GroupMetrics:
    each = [tile_metrics(slide.score, slide.truth, slide.flagged) for slide in slides]
    decided = [slide.flagged for slide in slides if slide.flagged is not None]
    pooled = tile_metrics(
        np.concatenate([slide.score for slide in slides]),
        np.concatenate([slide.truth for slide in slides]),
        np.concatenate(decided) if len(decided) == len(slides) else None,
    )
    overlaps = [one.overlap for one in each if one.overlap is not None and one.n_positive]
    return GroupMetrics(
        name,
        len(slides),
        pooled,
        mean_of([one.auc_roc for one in each]),
        mean_of([one.auc_pr for one in each]),
        mean_of([overlap.iou for overlap in overlaps]),
        mean_of([overlap.dice for overlap in overlaps]),
        mean_of([overlap.precision for overlap in overlaps]),
        mean_of([overlap.recall for overlap in overlaps]),
        mean_of([one.burden for one in each if one.n_positive]),
    )


def mean_of(values: Sequence[float | None]) -> float | None:
    """Return the mean of what is defined, None where nothing is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
