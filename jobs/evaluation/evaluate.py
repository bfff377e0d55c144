"""One evaluation, from its settings to what it leaves."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from jobs.evaluation.bootstrap import Bootstrap, patients_of
from jobs.evaluation.ladder import Ladder, LadderSettings, ladder
from jobs.evaluation.localization import (
    LocalizationSettings,
    evaluate_localization,
    ladder_slides,
)
from jobs.evaluation.pictures import draw_pictures
from jobs.evaluation.report import write_report
from jobs.evaluation.results import Evaluation, write_results
from jobs.evaluation.slide_level import (
    SlideEvaluation,
    SplitChoice,
    evaluate_slides,
    predictions_of_run,
    predictions_of_scores,
    says_of_slides,
)
from jobs.evaluation.slide_truth import WithoutTruth
from jobs.evaluation.split_slides import SplitSlides, slides_to_judge
from jobs.mil.predictions import read_predictions
from jobs.raster_reader import RasterChoice
from jobs.run_config import absolute_url
from jobs.run_places import slides_with
from jobs.same_scores import check_one_scale
from jobs.score_reader import ScoreChoice
from store_schema import names
from store_schema.errors import InputError
from store_schema.labels import some
from store_schema.store import Store, open_store


@dataclass(frozen=True)
class EvaluateConfig:
    """What is judged by what; every field is the option of that name."""

    predictions: Path | None
    run: Path | None
    store: str | None
    score: str | None
    class_name: str | None
    grid: str | None
    slides: tuple[str, ...]
    raster: str | None
    labels: Path | None
    truth: Path | None
    positive_from: float
    without_truth: WithoutTruth
    threshold: float | None
    mask: str | None
    splits: Path | None
    split: SplitChoice
    ladder: bool
    fit_split: Literal["val", "train"]
    per_slide_oracle: bool
    resamples: int
    seed: int
    out: Path | None

    @property
    def choice(self) -> ScoreChoice | None:
        """Which scores of the store."""
        if self.score is None:
            return None
        return ScoreChoice.parse(self.score, self.class_name, self.grid)

    def localization(self, truth: Path, choice: ScoreChoice) -> LocalizationSettings:
        """Return how tiles, pixels and lesions are judged."""
        raster, mask = self.raster, self.mask
        return LocalizationSettings(
            choice,
            truth,
            self.positive_from,
            self.without_truth,
            self.threshold,
            None if mask is None else RasterChoice.parse(f"{mask}/mask", grid=self.grid),
            None if raster is None else RasterChoice.parse(raster, self.class_name, self.grid),
            Bootstrap(self.resamples, self.seed, patients_of(self.labels)),
        )

    def to_json(self, *, of_slides: bool) -> dict[str, Any]:
        """Return what was asked, JSON-able, without what was left open; paths are absolute, to be traced later.

        Parameters
        ----------
        of_slides
            Whether predictions of slides are judged: those of ``split`` are, with ``splits`` or without.
        """
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.store is not None:
            given["store"] = absolute_url(self.store)
        if self.splits is None and not of_slides:
            given["split"] = None
        if not self.ladder:
            given["fit_split"] = None
        if self.truth is not None and self.splits is None and not self.slides:
            with_truth = " and a truth" if self.without_truth == "skip" else ""
            given["judged_slides"] = f"all that have the scores{with_truth}"
        judged = self.score or self.run or self.predictions
        return {"judged": str(judged)} | {
            name: str(value.absolute()) if isinstance(value, Path) else value
            for name, value in given.items()
            if value not in (None, ()) and value is not False  # 0 is a threshold, and a seed
        }


def evaluate_all(config: EvaluateConfig) -> Evaluation:
    """Judge what is asked for and, with ``out``, write files and a page; those of an earlier call are replaced.

    Raises
    ------
    NotInStoreError, InputError
        There is nothing to judge, or a table or the truth can't be read.
    StorageError
        A file can't be written.
    """
    store = None if config.store is None else open_store(absolute_url(config.store))
    localized = None
    if store is not None and config.choice is not None and config.truth is not None:
        localized = config.localization(config.truth, config.choice)
    of_slides = localized is None or (config.labels is not None and _says_of_slides(store, config))
    found = Evaluation(settings=config.to_json(of_slides=of_slides))
    if store is not None and localized is not None:
        found = _localized(store, localized, config, found)
    if of_slides:
        # a threshold of tiles is none of slides
        threshold = config.threshold if localized is None else None
        found = replace(found, slides=_slides(store, config, threshold))
    if config.out is not None:
        write_results(config.out, found)
        pictures = []
        if store is not None and localized is not None and found.localization is not None:
            pictures = draw_pictures(store, localized, found.localization, config.out)
        write_report(config.out, found, pictures)
    return found


def _localized(
    store: Store, settings: LocalizationSettings, config: EvaluateConfig, found: Evaluation
) -> Evaluation:
    chosen = slides_to_judge(
        store, settings.choice, config.slides, config.splits, config.split, config.fit_split
    )
    for region in (settings.mask, settings.raster):
        if (
            region is not None
        ):  # one that no slide has is a slip of the pen, not a problem of each slide
            slides_with(store, names.MASKS, region.name, region.grid)
    check_one_scale([*chosen.judged, *(chosen.fit if config.ladder else ())], settings.choice)
    judged = evaluate_localization(chosen.judged, settings)
    if len(judged.without_truth) == len(chosen.judged):
        raise InputError(
            f"{settings.truth} has the truth of none of the {len(chosen.judged)} slides with scores: name its files "
            f"after slides ({some(judged.without_truth)}), check the path, or say --without-truth negative"
        )
    return replace(
        found,
        localization=judged,
        without_scores=chosen.without_scores,
        ladder=_ladder(chosen, settings, config) if config.ladder else None,
    )


def _ladder(chosen: SplitSlides, settings: LocalizationSettings, config: EvaluateConfig) -> Ladder:
    """Climb the ladder; slides that can't be read are told of where they are judged, but for those that choose."""
    fit, problems = ladder_slides(chosen.fit, settings)
    if problems:
        raise InputError(
            f"slides that choose the ladder's thresholds can't be read: {'; '.join(problems.values())}"
        )
    judged, _ = ladder_slides(chosen.judged, settings)
    return ladder(
        fit, judged, LadderSettings(oracle=config.per_slide_oracle, bootstrap=settings.bootstrap)
    )


def _says_of_slides(store: Store | None, config: EvaluateConfig) -> bool:
    """Tell whether the scores predict slides, so that labels are not there for their patients alone."""
    return (
        store is not None
        and config.choice is not None
        and says_of_slides(store, config.choice, config.slides)
    )


def _slides(
    store: Store | None, config: EvaluateConfig, threshold: float | None
) -> SlideEvaluation:
    if store is not None and config.choice is not None:
        predictions = predictions_of_scores(store, config.choice, config.slides)
    elif config.predictions is not None:
        predictions = read_predictions(config.predictions)
    else:
        assert config.run is not None
        predictions = predictions_of_run(config.run)
    return evaluate_slides(
        predictions,
        config.labels,
        split=config.split,
        threshold=threshold,
        resamples=config.resamples,
        seed=config.seed,
    )
