"""An evaluation of a segmentation as tables and sentences, for the terminal, the text report and the page."""

from __future__ import annotations

from typing import Final

from rich.table import Table

from jobs.counted import counted
from jobs.evaluation.bootstrap import interval_text
from jobs.evaluation.model_split import model_notes
from jobs.evaluation.report import Card
from jobs.evaluation.result_tables import ResultPart, shown
from jobs.pbip.evaluation import ACCURACY, PbipEvaluation, Scores, scores_of
from jobs.tables import new_table
from models.confusion import METRICS
from store_schema.labels import some

LEAKY: Final = (
    "LEAKY: the published protocol tells the maps of each tile which classes its truth holds, so no class can be found "
    "where it isn't; compare these numbers with none that aren't told"
)
_HEADINGS: Final = {"iou": "IoU", "dice": "Dice = F1", "precision": "precision", "recall": "recall"}


def warning_of(found: PbipEvaluation) -> str:
    """Return why the numbers are no result of finding anything; empty where there is no reason."""
    if found.published:
        return LEAKY
    if found.gated:
        return (
            f"GATED BY LABELS: of {counted(len(found.gated), 'slide')} classes that the slide's label doesn't name "
            "were taken out of the mask; compare these numbers with none that aren't gated"
        )
    return ""


def evaluation_parts(found: PbipEvaluation) -> list[ResultPart]:
    """Return all tables, with what must be known to read them."""
    return [
        ResultPart(
            "Segmentation", (_overview(found), _classes(found), _matrix(found)), _notes(found)
        ),
        ResultPart("Slides", (_slides(found),), _slide_notes(found)),
    ]


def evaluation_cards(found: PbipEvaluation) -> list[Card]:
    """Return the numbers that are looked at first."""
    pooled, known = found.pooled, found.intervals
    cards = [
        Card("mean IoU of classes", pooled.macro("iou"), known.get("iou"), _best_floor(found)),
        Card("mean Dice of classes", pooled.macro("dice"), known.get("dice")),
    ]
    for k in pooled.present:
        if k != found.background:
            name = found.class_names[k]
            floor = f"all of it {name}: {shown(pooled.all_taken_for(k).overlaps[k].iou)}"
            value = pooled.overlaps[k].iou
            cards.append(Card(f"IoU of {name}", value, known.get(f"{name}/iou"), floor))
    return cards


def _best_floor(found: PbipEvaluation) -> str:
    pooled, classes = found.pooled, range(len(found.class_names))
    floors = {k: pooled.all_taken_for(k).macro("iou") or 0.0 for k in classes}
    best = max(floors, key=lambda k: floors[k])
    return f"all of it {found.class_names[best]}: {shown(floors[best])}"


def _overview(found: PbipEvaluation) -> Table:
    """Means over the classes, of the segmentation and of what needs none."""
    without = f"IoU without {found.class_names[found.background]}"
    numbers = (*(f"mean {name}" for name in _HEADINGS.values()), without, "accuracy")
    table = new_table("", *numbers, right=numbers)
    pooled = found.pooled
    whose = "published protocol (LEAKY)" if found.published else "segmentation"
    if found.gated and not found.published:
        whose += " (GATED BY LABELS)"

    def row(title: str, scores: Scores, bare: float | None) -> None:
        values = [shown(scores.get(metric)) for metric in METRICS]
        table.add_row(title, *values, shown(bare), shown(scores.get(ACCURACY)))

    row(
        f"{whose}, all pixels",
        scores_of(pooled, found.class_names),
        pooled.macro("iou", found.background),
    )
    if found.intervals:
        ends = [interval_text(found.intervals.get(metric)) for metric in METRICS]
        table.add_row("95 % interval", *ends, "", interval_text(found.intervals.get(ACCURACY)))
    weighted = {metric: pooled.weighted(metric) for metric in METRICS}
    row("weighted by pixels of truth", weighted, None)
    row("mean of slides", found.of_slides, None)
    row("mean of tiles", found.of_tiles, None)
    for k in sorted(range(len(found.class_names)), key=lambda k: k == found.background):
        floor = pooled.all_taken_for(k)
        title = f"all tissue is {found.class_names[k]} (floor)"
        row(title, scores_of(floor, found.class_names), floor.macro("iou", found.background))
    return table


def _classes(found: PbipEvaluation) -> Table:
    numbers = (
        "pixels of truth", "share", "IoU", "95 % interval", "IoU, mean of slides", *list(_HEADINGS.values())[1:],
        "IoU if all were it",
    )  # fmt: skip
    table = new_table("class", *numbers, right=numbers)
    pooled = found.pooled
    scores, of_truth = scores_of(pooled, found.class_names), pooled.of_truth.tolist()
    for k, name in enumerate(found.class_names):
        ends = interval_text(found.intervals.get(f"{name}/iou")) if of_truth[k] else ""
        table.add_row(
            name,
            f"{of_truth[k]:,}",
            f"{of_truth[k] / pooled.n_pixels:.1%}" if pooled.n_pixels else "-",
            shown(scores[f"{name}/iou"]),
            ends,
            shown(found.of_slides.get(f"{name}/iou")),
            *(shown(scores[f"{name}/{metric}"]) for metric in METRICS[1:]),
            shown(pooled.all_taken_for(k).overlaps[k].iou if of_truth[k] else None),
        )
    return table


def _matrix(found: PbipEvaluation) -> Table:
    said = tuple(f"said to be {name}" for name in found.class_names)
    said += ("nothing said",) * bool(found.pooled.counts[:, -1].any())
    table = new_table("pixels of", *said, right=said)
    for name, row in zip(found.class_names, found.pooled.counts.tolist(), strict=True):
        table.add_row(name, *(f"{count:,}" for count in row[: len(said)]))
    return table


def _slides(found: PbipEvaluation) -> Table:
    numbers = ("tiles", "pixels", "mean IoU", *(f"IoU {name}" for name in found.class_names))
    table = new_table("slide", *numbers, right=numbers)
    for slide in found.slides:
        confusion = slide.confusion
        scores = scores_of(confusion, found.class_names)
        table.add_row(
            slide.slide_id,
            f"{len(slide.of_tiles):,}",
            f"{confusion.n_pixels:,}",
            shown(scores["iou"]),
            *(shown(scores[f"{name}/iou"]) for name in found.class_names),
        )
    return table


def _notes(found: PbipEvaluation) -> list[str]:
    warning = warning_of(found)
    notes = [warning] if warning else []
    if found.published:
        tiles = [tile for slide in found.slides for tile in slide.of_tiles]
        sure = sum(len(tile.present) == 1 for tile in tiles)
        notes.append(
            f"{sure:,} of {counted(len(tiles), 'tile')} hold one class by the truth: of these nothing can be wrong, "
            "but where the map of that class is 0"
        )
    notes += model_notes({slide.slide_id: slide.model_split for slide in found.slides})
    notes += found.bootstrap.notes(found.slide_ids)
    notes.append(
        "pixels count that lie in a tile and of which the truth is known; means are over the classes that the truth "
        "has, and what is undefined (the precision of a class that nothing was taken for) is 0"
    )
    absent = [n for k, n in enumerate(found.class_names) if k not in found.pooled.present]
    if absent:
        notes.append(f"the truth has nothing of {', '.join(absent)}: false alarms alone tell of it")
    return notes


def _slide_notes(found: PbipEvaluation) -> list[str]:
    lines = [f"{slide.slide_id}: {note}" for slide in found.slides for note in slide.notes]
    lines += [f"{slide_id}: {problem}" for slide_id, problem in found.problems.items()]
    for one, many, what, ids in (
        ("slide has", "slides have", "masks but no truth, left out", found.without_truth),
        ("slide of the split has", "slides of the split have", "no such masks", found.lacking),
    ):
        if ids:
            lines.append(f"{counted(len(ids), one, many)} {what}: {some(ids)}")
    return lines
