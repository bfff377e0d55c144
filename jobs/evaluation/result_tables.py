"""An evaluation on the terminal."""

from __future__ import annotations

from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table

from jobs.counted import counted
from jobs.evaluation.bootstrap import RATIOS, interval_text
from jobs.evaluation.froc import SCORE, Froc
from jobs.evaluation.ladder_table import ladder_notes, ladder_table
from jobs.evaluation.localization import Localization
from jobs.evaluation.model_split import model_notes
from jobs.evaluation.pixel_level import PixelMetrics
from jobs.evaluation.results import Evaluation, metric_rows
from jobs.evaluation.slide_level import SlideEvaluation
from jobs.evaluation.tile_level import ALL, TileMetrics
from jobs.tables import new_table, show
from store_schema.labels import some


@dataclass(frozen=True)
class ResultPart:
    """Some tables, and what must be known to read them, in sentences."""

    title: str
    tables: tuple[Table, ...]
    notes: list[str]


def show_results(found: Evaluation) -> None:
    """Print tables, and what must be known to read them."""
    for part in result_parts(found):
        show(*part.tables, *map(escape, part.notes))


def result_parts(found: Evaluation) -> list[ResultPart]:
    """Return what was judged, part by part."""
    parts = []
    if found.slides is not None:
        parts.append(
            ResultPart("Slides", (_metric_table(found.slides),), _metric_notes(found.slides))
        )
    judged = found.localization
    if judged is not None:
        tables = [_localization_table(judged)]
        if judged.froc is not None:
            tables.append(_froc_table(judged.froc))
        parts.append(ResultPart("Tiles, pixels, lesions", tuple(tables), localization_notes(found)))
    if found.ladder is not None:
        table, notes = ladder_table(found.ladder), ladder_notes(found.ladder)
        parts.append(ResultPart("The ladder from scores to a mask", (table,), notes))
    return parts


def localization_notes(found: Evaluation) -> list[str]:
    """Return what must be known to read the tables of tiles, pixels and lesions, in sentences."""
    judged = found.localization
    if judged is None:
        return []
    lines = []
    if judged.upper_bound:
        lines.append(
            "UPPER BOUND: the mask looked at the truth of the slides that it is judged on; it is no method"
        )
    choosers = [slide.slide_id for slide in judged.slides if slide.chose_threshold]
    if choosers and not judged.upper_bound:
        lines.append(
            f"{len(choosers)} of the judged slides chose the threshold of the mask, too, so the numbers are better "
            f"than on new slides: {some(choosers)}"
        )
    lines += model_notes({slide.slide_id: slide.model_split for slide in judged.slides})
    if judged.bootstrap is not None and judged.slides:
        lines += judged.bootstrap.notes(judged.slide_ids)
    every = judged.groups[0] if judged.groups else None
    if every is not None and judged.decided and every.mean_iou_of_all is not None:
        lines.append(
            f"if every tile were flagged, the mean IoU would be {shown(every.mean_iou_of_all)}, and "
            f"{shown(every.pooled.burden)} pooled"
        )
    n_positive = sum(slide.tiles.n_positive > 0 for slide in judged.slides)
    if judged.decided and 0 < n_positive < len(judged.slides):
        lines.append(
            f"means of IoU, Dice, precision and recall are over the {n_positive} of {len(judged.slides)} slides with "
            "positive tiles (precision where anything was flagged); false alarms of others count in pooled ones only"
        )
    if judged.pixels:
        pooled = judged.pixels[ALL]
        lines.append(
            f"pixel AUC is of the pixels that a tile covers, exact to ± {pooled.auc_resolution:.1g}; with the ground "
            f"around them as lowest it would be {shown(pooled.auc_with_background)}"
        )
    if judged.froc is not None:
        lines.append(
            "detections are the regions of flagged tiles, each at its tile of the greatest score"
            if judged.decided
            else "detections are the tiles that score more than all around them"
        )
        lines += _froc_notes(judged.froc)
    lines += [f"{slide.slide_id}: {note}" for slide in judged.slides for note in slide.notes]
    lines += [f"{slide_id}: {problem}" for slide_id, problem in judged.problems.items()]
    for one, many, what, ids in (
        ("slide has", "slides have", "scores but no truth, left out", judged.without_truth),
        ("slide of the split has", "slides of the split have", "no such scores", found.without_scores),
    ):  # fmt: skip
        if ids:
            lines.append(f"{counted(len(ids), one, many)} {what}: {some(ids)}")
    return lines


def _froc_notes(curve: Froc) -> list[str]:
    lines = []
    if curve.chance is not None:
        lines.append(
            f"FROC by chance: the same scores, shuffled among the tiles of each slide, come to "
            f"{shown(curve.chance.score)} (mean of {curve.chance.shuffles}; the highest {shown(curve.chance.highest)})"
        )
    if curve.few_lesions:
        lines.append(
            f"there {'is' if curve.n_lesions == 1 else 'are'} only {counted(curve.n_lesions, 'lesion')}: one more that "
            f"is found is worth {shown(1 / curve.n_lesions)} of sensitivity"
        )
    last = curve.false_alarms[-1]
    if last < max(map(float, curve.at_rates)):
        lines.append(
            f"the FROC curve ends at {last:.3g} false alarms a slide: beyond, sensitivity stays at what was reached, "
            "as CAMELYON16's evaluation reads it"
        )
    return lines


def shown(value: float | None) -> str:
    """Spell a metric, or a dash where there is none."""
    return "-" if value is None else f"{value:.3f}"


def _metric_table(slides: SlideEvaluation) -> Table:
    table = new_table("metric", "value", "95 % interval", right=("value", "95 % interval"))
    for name, value, low, high in metric_rows(slides)[1:]:
        interval = "" if low is None else f"{low:.3f} to {high:.3f}"
        table.add_row(name, shown(value), interval)
    return table


def _metric_notes(slides: SlideEvaluation) -> list[str]:
    metrics = slides.metrics
    balance = ", ".join(
        f"{name} {metrics['predicted_per_class'][name]} of {metrics['actual_per_class'][name]}"
        for name in slides.class_names
    )
    lines = [
        f"{counted(metrics['n'], 'slide')} of {counted(slides.n_patients, 'patient')}; predicted of actual: {balance}",
        *metrics["notes"],
    ]
    if slides.other_splits:
        lines.append(f"left out: {counted(slides.other_splits, 'prediction')} of other splits")
    for one, many, what, ids in (
        ("slide was", "slides were", "predicted without a label", slides.without_label),
        ("slide has", "slides have", "a label but no prediction", slides.without_prediction),
    ):
        if ids:
            lines.append(f"{counted(len(ids), one, many)} {what}: {some(ids)}")
    return lines


def _localization_table(found: Localization) -> Table:
    """Return a table of all slides, then of slides together: pooled, and the mean of the slides."""
    decided = found.decided
    numbers = ["tiles", "positive", "AUC-ROC", "PR-AUC"]
    numbers += ["IoU", "Dice", "precision", "recall"] if decided else []
    numbers += ["pixel AUC", "pixel IoU"] if found.pixels else []
    table = new_table("slide", *numbers, right=tuple(numbers))

    def add(name: str, tiles: TileMetrics, pixels: PixelMetrics | None) -> None:
        counts, of_pixels = tiles.overlap, None if pixels is None else pixels.overlap
        values = [tiles.auc_roc, tiles.auc_pr]
        if decided:
            values += [None if counts is None else getattr(counts, name) for name in RATIOS]
        if found.pixels:
            values.append(None if pixels is None else pixels.auc_roc)
            values.append(None if of_pixels is None else of_pixels.iou)
        positive = f"{tiles.n_positive:,} ({tiles.burden:.1%})" if tiles.n_positive else "0"
        table.add_row(escape(name), f"{tiles.n_tiles:,}", positive, *map(shown, values))

    of_tiles = ("auc_roc", "auc_pr", *(RATIOS if decided else ()))

    def add_intervals(group: str, keys: list[str]) -> None:
        known = found.intervals.get(group, {})
        ends = [interval_text(known.get(key)) for key in keys]
        if any(ends):
            table.add_row("  95 % interval", "", "", *ends)

    for slide in found.slides:
        add(slide.slide_id, slide.tiles, slide.pixels)
    table.add_section()
    for group in found.groups:
        of_group = "all" if group.group == ALL else f"burden {group.group}"
        add(
            f"{of_group}: {counted(group.n_slides, 'slide')} pooled",
            group.pooled,
            found.pixels.get(group.group),
        )
        pooled = [f"pooled_{name}" for name in of_tiles]
        pooled += ["pooled_pixel_auc_roc", "pooled_pixel_iou"] if found.pixels else []
        add_intervals(group.group, pooled)
        means = [getattr(group, f"mean_{name}") for name in of_tiles]
        if any(mean is not None for mean in means):
            table.add_row(f"{of_group}: mean of slides", "", "", *map(shown, means))
            add_intervals(group.group, [f"mean_{name}" for name in of_tiles])
    return table


def _froc_table(curve: Froc) -> Table:
    """Return sensitivities, the mean of them first, since a page may not be wide enough for all."""
    numbers = ["lesions", "isolated", "detections", "mean", *(f"at {r}" for r in curve.at_rates)]
    table = new_table("FROC, by false alarms a slide", *numbers, right=tuple(numbers))
    table.add_row(
        counted(curve.n_slides, "slide"),
        str(curve.n_lesions),
        str(curve.n_isolated),
        str(curve.n_detections),
        *map(shown, (curve.score, *curve.at_rates.values())),
    )
    ends = [interval_text(curve.intervals.get(key)) for key in (SCORE, *curve.at_rates)]
    if any(ends):
        table.add_row("  95 % interval", "", "", "", *ends)
    if curve.chance is not None:
        values = (curve.chance.score, *curve.chance.at_rates.values())
        table.add_row("scores shuffled (chance)", "", "", "", *map(shown, values))
    return table
