"""One call of ``pbip evaluate``, from its settings to what it leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jobs.evaluation.bootstrap import Bootstrap, patients_of
from jobs.evaluation.slide_level import SplitChoice
from jobs.evaluation.slide_truth import WithoutTruth
from jobs.evaluation.split_slides import SplitSlides, slides_of_split
from jobs.pbip.class_truth import ClassTruth, GridTiles, SlideClasses, open_class_truth
from jobs.pbip.evaluation import PbipEvaluation, judge_slides
from jobs.pbip.evaluation_files import write_evaluation
from jobs.pbip.judged_published import PublishedProtocol
from jobs.pbip.judged_slide import JudgedSlide, judge_mask
from jobs.pbip.sample_pictures import Sample, Sampler, draw_samples, mask_sample
from jobs.pbip.segment import background_class
from jobs.pbip.segmented_mask import SegmentedMask, segmented_mask
from jobs.run_config import absolute_url
from jobs.same_scores import check_one_scale
from jobs.score_reader import ScoreChoice
from store_schema import names
from store_schema.errors import InputError, NotInStoreError
from store_schema.labels import some
from store_schema.near_names import near
from store_schema.slide_view import SlideView
from store_schema.store import open_store


@dataclass(frozen=True)
class PbipEvaluateConfig:
    """What is judged by what.

    Attributes
    ----------
    store, name, grid
        Where the masks are, and which; None takes the only grid that has them.
    tiles
        Grid whose tiles are judged; None takes that of the masks.
    truth
        Class (None of two) and path; see :func:`jobs.pbip.class_truth.open_class_truth`.
    without_truth, background, slides, splits, split
        As the options of these names.
    protocol
        ``own`` judges the masks; ``published`` the maps of a network that are told what the truth of each tile holds.
    checkpoint
        Of that network.
    labels
        Table that says which slides are of one patient.
    resamples, seed
        Of the intervals.
    samples
        How many tiles are drawn.
    out
        Folder of the files.
    """

    store: str
    name: str
    grid: str | None
    tiles: str | None
    truth: tuple[tuple[str | None, Path], ...]
    without_truth: WithoutTruth
    background: str | None
    slides: tuple[str, ...]
    splits: Path | None
    split: SplitChoice
    protocol: Literal["own", "published"]
    checkpoint: str | None
    labels: Path | None
    resamples: int
    seed: int
    samples: int
    out: Path

    def to_json(self) -> dict[str, Any]:
        """Return what was asked, JSON-able, without what was left open; paths are absolute."""
        given: dict[str, Any] = {
            "store": absolute_url(self.store),
            "name": self.name,
            "grid": self.grid,
            "tiles": self.tiles,
            "truth": [
                f"{path.absolute()}" if name is None else f"{name}={path.absolute()}"
                for name, path in self.truth
            ],
            "without_truth": self.without_truth,
            "background": self.background,
            "slides": list(self.slides) or None,
            "splits": None if self.splits is None else str(self.splits.absolute()),
            "split": None if self.splits is None else self.split,
            "protocol": self.protocol,
            "network": self.checkpoint,
            "labels": None if self.labels is None else str(self.labels.absolute()),
            "resamples": self.resamples,
            "seed": self.seed,
        }
        return {key: value for key, value in given.items() if value is not None}


@dataclass(frozen=True)
class _Call:
    """A call with all that was looked up for it."""

    config: PbipEvaluateConfig
    class_names: tuple[str, ...]
    truth: ClassTruth
    network: PublishedProtocol | None

    def judge(self, slide: SlideView) -> JudgedSlide | None:
        mask = self.mask(slide)
        known = self.known(slide, mask)
        if known is None:
            return None
        return judge_mask(mask, known) if self.network is None else self.network.judge(known)

    def mask(self, slide: SlideView) -> SegmentedMask:
        mask = segmented_mask(slide, self.config.name, self.config.grid)
        if mask.class_names != self.class_names:
            raise InputError(
                f"the mask of slide {slide.slide_id} has the classes {', '.join(mask.class_names)}, and that of the "
                f"first slide {', '.join(self.class_names)}: segment them with the same network"
            )
        return mask

    def known(self, slide: SlideView, mask: SegmentedMask) -> SlideClasses | None:
        grid = self.config.tiles or mask.raster.grid
        if grid not in slide.grids:
            raise NotInStoreError(
                f"slide {slide.slide_id} has no grid {grid!r}: {near(grid, sorted(slide.grids))}"
            )
        return self.truth.of_slide(GridTiles.of(slide, grid))

    def sampler(self) -> Sampler:
        """Return what reads the pictures of a tile."""

        def sample(judged: JudgedSlide, tile: int) -> Sample:
            slide = judged.tiles.slide
            mask = self.mask(slide)
            known = self.known(slide, mask)
            assert known is not None  # it was, when it was judged
            if self.network is not None:
                return self.network.sample(known, tile)
            return mask_sample(mask, known, tile)

        return sample


def evaluate_pbip(config: PbipEvaluateConfig, tell: Callable[[str], None]) -> PbipEvaluation:
    """Judge a segmentation, and write files, pictures and a page.

    Parameters
    ----------
    config
        The call.
    tell
        Takes lines of progress.

    Raises
    ------
    NotInStoreError, InputError
        There is nothing to judge, or nothing to judge it by.
    ModelError
        The network can't be loaded, or has other classes than the masks.
    StorageError
        A file can't be written.
    """
    store = open_store(absolute_url(config.store))
    chosen = slides_of_split(
        store, names.MASKS, config.name, config.grid, config.slides, config.splits, config.split
    )
    call = _call(config, chosen)
    judged = judge_slides(chosen.judged, call.judge, tell)
    if not judged.slides:
        raise InputError(_nothing_judged(config, judged.without_truth, judged.problems))
    background = call.truth.background
    found = PbipEvaluation(
        call.class_names,
        background,
        judged.slides,
        call.network is not None,
        Bootstrap(config.resamples, config.seed, patients_of(config.labels)),
        judged.without_truth,
        chosen.without_scores,
        judged.problems,
    )
    pictures = draw_samples(found, call.sampler(), config.samples, config.out)
    write_evaluation(config.out, found, config.to_json(), pictures)
    return found


def _call(config: PbipEvaluateConfig, chosen: SplitSlides) -> _Call:
    first = segmented_mask(chosen.judged[0], config.name, config.grid)
    class_names = first.class_names
    if first.scores_run is not None:  # masks of several networks can't be pooled either
        check_one_scale(chosen.judged, ScoreChoice(first.scores_run, grid=first.raster.grid))
    network = None
    if config.protocol == "published":
        assert config.checkpoint is not None  # the command asks for it
        network = PublishedProtocol.of(config.checkpoint)
        network.require_classes(class_names)
    background = background_class(class_names, config.background)
    truth = open_class_truth(config.truth, class_names, background, config.without_truth)
    return _Call(config, class_names, truth, network)


def _nothing_judged(
    config: PbipEvaluateConfig, without: tuple[str, ...], problems: Mapping[str, str]
) -> str:
    if problems:
        slide_id, problem = next(iter(problems.items()))
        return f"none of {len(problems) + len(without)} slides can be judged; {slide_id}: {problem}"
    paths = ", ".join(str(path) for _, path in config.truth)
    return (
        f"{paths} has the truth of none of the {len(without)} slides with masks: name its files after slides "
        f"({some(without)}), check the path, or say --without-truth negative"
    )
