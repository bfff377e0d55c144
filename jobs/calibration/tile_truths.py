"""Which tiles of a scored slide are positive, by a truth of any kind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jobs.evaluation.slide_truth import SlideTruth, WithoutTruth, truth_of_slide
from jobs.evaluation.truth import Truth, open_truth
from jobs.score_reader import SlideScore


@dataclass(frozen=True)
class TruthSettings:
    """Where truth is, and how tiles are judged by it.

    Attributes
    ----------
    path
        What :func:`jobs.evaluation.truth.open_truth` takes.
    positive_from
        A tile is positive if more of its area than this is.
    without_truth
        What is made of slides without truth.
    """

    path: Path
    positive_from: float = 0.5
    without_truth: WithoutTruth = "skip"

    def open(self) -> TileTruths:
        """Open it; InputError if there is nothing such."""
        return TileTruths(open_truth(self.path), self)


@dataclass(frozen=True)
class TileTruths:
    """An opened truth."""

    truth: Truth
    settings: TruthSettings

    def of(self, score: SlideScore) -> SlideTruth | None:
        """Return what is true of a slide's tiles; None where nothing is known of the slide.

        Raises
        ------
        InputError
            The truth of this slide can't be read, or doesn't fit it.
        """
        choice = self.settings
        return truth_of_slide(self.truth, score, choice.positive_from, choice.without_truth)
