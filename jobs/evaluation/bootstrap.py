"""Intervals of what is measured on slides: whole patients are drawn, each with all of its slides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from jobs.counted import counted
from jobs.mil.labels import read_label_table
from models.metrics import Interval, bootstrap_intervals
from models.overlap import Overlap

Intervals: TypeAlias = Mapping[str, Interval]
"""Metric → its 95 % interval; a metric without one is missing."""

Drawn: TypeAlias = npt.NDArray[np.int64]
"""Numbers of slides, with repeats, int64 (k,)."""

Measure: TypeAlias = Callable[[Drawn], Mapping[str, float | None]]

RATIOS: Final = ("iou", "dice", "precision", "recall")

_FEW: Final = 5
_PATIENT: Final = "patient"


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made: percentiles 2.5 and 97.5 over resamples (Efron 1979).

    Attributes
    ----------
    resamples, seed
        How many, and of the draws.
    patients
        Slide id → patient. A slide of which the patient isn't known is a patient of its own.
    """

    resamples: int = 1000
    seed: int = 0
    patients: Mapping[str, str] = field(default_factory=dict)

    def intervals(self, slide_ids: Sequence[str], measure: Measure) -> Intervals:
        """Return the intervals of what slides are measured by; of one patient there are none.

        Parameters
        ----------
        slide_ids
            The slides, in the order of their numbers.
        measure
            Takes numbers of drawn slides, and returns metric → value, None where it isn't defined.
        """
        patients = [self.patients.get(slide_id, slide_id) for slide_id in slide_ids]
        if len(set(patients)) < 2:
            return {}
        return bootstrap_intervals(measure, patients, self.resamples, self.seed)

    def notes(self, slide_ids: Sequence[str]) -> list[str]:
        """Return how intervals of these slides are to be read, in sentences."""
        n, unit = self._drawn_of(slide_ids)
        drawn = counted(n, unit)
        if n < 2:
            return [f"there are no intervals: nothing can be drawn from {drawn}"]
        said = [f"95 % intervals by drawing {drawn}, {counted(self.resamples, 'time')}"]
        if unit != _PATIENT:
            said[0] += "; --labels with the column patient_id keeps slides of a patient together"
        if n < _FEW:
            said.append(f"intervals of {drawn} mean little: they are too narrow")
        return said

    def to_json(self, slide_ids: Sequence[str]) -> dict[str, Any]:
        """Return how intervals of these slides were made, JSON-able."""
        n, unit = self._drawn_of(slide_ids)
        return {"drawn": f"{unit}s", "n": n, "resamples": self.resamples, "seed": self.seed}

    def _drawn_of(self, slide_ids: Sequence[str]) -> tuple[int, str]:
        known = any(self.patients.get(slide_id, slide_id) != slide_id for slide_id in slide_ids)
        units = {self.patients.get(slide_id, slide_id) for slide_id in slide_ids}
        return len(units), _PATIENT if known else "slide"


def patients_of(labels: Path | None) -> dict[str, str]:
    """Return slide id → patient, as far as a table of labels says; see :func:`jobs.mil.labels.read_label_table`."""
    if labels is None:
        return {}
    table = read_label_table(labels)
    return dict(zip(table.slide_ids, table.patient_ids, strict=True))


def overlap_measure(overlaps: Sequence[Overlap]) -> Measure:
    """Return what gives :data:`RATIOS` of drawn slides, as ``pooled_<ratio>`` and ``mean_<ratio>``.

    Parameters
    ----------
    overlaps
        Of each slide. Means are over the drawn slides with anything positive.
    """
    counts = np.array([(each.tp, each.fp, each.fn, each.tn) for each in overlaps], np.int64)
    values = np.array([positive_ratios(each) for each in overlaps], np.float64)

    def measure(drawn: Drawn) -> dict[str, float | None]:
        pooled = Overlap(*counts[drawn].sum(axis=0).tolist())
        found: dict[str, float | None] = {
            f"pooled_{name}": getattr(pooled, name) for name in RATIOS
        }
        return found | means_of(values[drawn], [f"mean_{name}" for name in RATIOS])

    return measure


def positive_ratios(overlap: Overlap | None) -> list[float]:
    """Return :data:`RATIOS` of a slide, NaN where they aren't defined or it has nothing positive."""
    if overlap is None or not overlap.tp + overlap.fn:
        return [np.nan] * len(RATIOS)
    ratios = (getattr(overlap, name) for name in RATIOS)
    return [np.nan if ratio is None else ratio for ratio in ratios]


def means_of(values: npt.NDArray[np.float64], names: Sequence[str]) -> dict[str, float | None]:
    """Return the mean of each column, float64 (slide, metric), over what isn't NaN; None where nothing is."""
    known = np.isfinite(values)
    n, total = known.sum(axis=0), np.where(known, values, 0.0).sum(axis=0)
    return {name: float(total[i] / n[i]) if n[i] else None for i, name in enumerate(names)}


def interval_text(interval: Interval | None) -> str:
    """Spell an interval; empty where there is none."""
    if interval is None or interval.low is None or interval.high is None:
        return ""
    return f"{interval.low:.3f}-{interval.high:.3f}"


def interval_columns(intervals: Intervals, names: Sequence[str]) -> dict[str, float | None]:
    """Return ``<name>_low_95`` and ``<name>_high_95`` of metrics, None where there is no interval."""
    ends: dict[str, float | None] = {}
    for name in names:
        interval = intervals.get(name)
        ends[f"{name}_low_95"] = None if interval is None else interval.low
        ends[f"{name}_high_95"] = None if interval is None else interval.high
    return ends
