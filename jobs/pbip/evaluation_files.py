"""What ``pbip evaluate`` leaves: the reference's metrics.json, tables, a text report and a page."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich.markup import escape

from jobs.evaluation.bootstrap import Intervals
from jobs.evaluation.pictures import Picture
from jobs.evaluation.report import Page, write_page
from jobs.pbip.evaluation import ACCURACY, PbipEvaluation, Scores, scores_of
from jobs.pbip.evaluation_tables import evaluation_cards, evaluation_parts, warning_of
from jobs.tables import text_of
from models.confusion import METRICS
from store_schema.errors import StorageError

METRICS_JSON: Final = "metrics.json"
CONFUSION_CSV: Final = "confusion_matrix.csv"
SLIDES_CSV: Final = "slide_metrics.csv"
TILES_CSV: Final = "tile_metrics.csv"
REPORT_TXT: Final = "evaluation_report.txt"

_KEYS: Final = {f"val_{name}": name for name in METRICS} | {"val_f1": "dice"}
_READING: Final = (
    "A class's numbers are of its pixels against all others. Means over classes leave out those that the truth doesn't "
    "have. Floors say what each class would come to if all tissue were taken for it: what a segmentation must beat."
)
_SAMPLES: Final = (
    "Tiles that hold, or were said to hold, more than the background: from the greatest mean IoU of their classes to "
    "the least. Left as scanned, middle the truth, right what was said."
)


def write_evaluation(
    out: Path, found: PbipEvaluation, settings: Mapping[str, Any], pictures: Sequence[Picture]
) -> None:
    """Write all files but the pictures.

    Raises
    ------
    StorageError
        A file can't be written.
    """
    columns = ("mean", *found.class_names)
    head = [f"{name}_{metric}" for name in columns for metric in METRICS]
    try:
        out.mkdir(parents=True, exist_ok=True)
        said = json.dumps(evaluation_json(found, settings), indent=2, allow_nan=False)
        (out / METRICS_JSON).write_text(said + "\n", encoding="utf-8")
        rows = zip(found.class_names, found.pooled.counts.tolist(), strict=True)
        _write_csv(
            out / CONFUSION_CSV,
            ("truth \\ predicted", *found.class_names, "nothing"),
            ([name, *counts] for name, counts in rows),
        )
        _write_csv(out / SLIDES_CSV, ("slide_id", "pixels", ACCURACY, *head), _slide_rows(found))
        places = ("slide_id", "grid", "tile", "x", "y", "tile_level0")
        _write_csv(out / TILES_CSV, (*places, "pixels", ACCURACY, *head), _tile_rows(found))
        (out / REPORT_TXT).write_text(_text(found), encoding="utf-8")
    except OSError as error:
        raise StorageError(f"the results can't be written to {out}: {error.strerror}") from error
    page = Page(
        title=f"Evaluation of {settings['name']}",
        cards=evaluation_cards(found),
        parts=evaluation_parts(found),
        pictures=pictures,
        settings=settings,
        which_pictures=_SAMPLES,
        reading=_READING,
        warning=warning_of(found),
    )
    write_page(out, page)


def evaluation_json(found: PbipEvaluation, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that was found, JSON-able; ``val_…`` and ``per_class_metrics`` are the reference's keys."""
    pooled, names = found.pooled, found.class_names
    scores = scores_of(pooled, names)
    of_truth = pooled.of_truth.tolist()
    per_class = {
        name: {
            **_of(scores, f"{name}/"),
            "f1": scores[f"{name}/dice"],
            "pixels": of_truth[k],
            "slides_mean": _of(found.of_slides, f"{name}/"),
            "intervals": _intervals(found.intervals, f"{name}/"),
        }
        for k, name in enumerate(names)
    }
    floors = {name: scores_of(pooled.all_taken_for(k), names) for k, name in enumerate(names)}
    return {
        "schema": 1,
        "protocol": "published" if found.published else "own",
        "warning": warning_of(found),
        **{key: scores[name] for key, name in _KEYS.items()},
        "val_accuracy": scores[ACCURACY],
        "intervals": _intervals(found.intervals, "") | found.bootstrap.to_json(found.slide_ids),
        "weighted": _of(scores, "weighted_"),
        "iou_without_background": pooled.macro("iou", found.background),
        "per_class_metrics": per_class,
        "slides_mean": _of(found.of_slides, ""),
        "tiles_mean": _of(found.of_tiles, ""),
        "floors": {f"all {name}": dict(values) for name, values in floors.items()},
        "class_order": list(names),
        "background": names[found.background],
        "confusion": pooled.counts.tolist(),
        "n_pixels": pooled.n_pixels,
        "slides": {
            slide.slide_id: {
                "pixels": slide.confusion.n_pixels,
                **scores_of(slide.confusion, names),
                "model_split": slide.model_split,
                "gated": slide.gated,
                "notes": list(slide.notes),
            }
            for slide in found.slides
        },
        "without_truth": list(found.without_truth),
        "without_masks": list(found.lacking),
        "problems": dict(found.problems),
        "settings": dict(settings),
    }


def _of(scores: Scores, prefix: str) -> dict[str, float | None]:
    return {metric: scores.get(f"{prefix}{metric}") for metric in METRICS}


def _intervals(known: Intervals, prefix: str) -> dict[str, Any]:
    found = {metric: known.get(f"{prefix}{metric}") for metric in METRICS}
    return {
        metric: [each.low, each.high]
        for metric, each in found.items()
        if each and each.low is not None
    }


def _slide_rows(found: PbipEvaluation) -> Iterable[list[Any]]:
    for slide in found.slides:
        scores = scores_of(slide.confusion, found.class_names)
        yield [slide.slide_id, slide.confusion.n_pixels, *_values(scores, found.class_names)]


def _tile_rows(found: PbipEvaluation) -> Iterable[list[Any]]:
    for slide in found.slides:
        tiles = slide.tiles
        corners = zip(tiles.table.x.tolist(), tiles.table.y.tolist(), strict=True)
        for i, ((x, y), of_tile) in enumerate(zip(corners, slide.of_tiles, strict=True)):
            place = [slide.slide_id, tiles.grid, i, x, y, tiles.tile_level0]
            scores = scores_of(of_tile, found.class_names)
            yield [*place, of_tile.n_pixels, *_values(scores, found.class_names)]


def _values(scores: Scores, class_names: Sequence[str]) -> list[float | None]:
    values = [scores[ACCURACY], *(scores[metric] for metric in METRICS)]
    return values + [scores[f"{name}/{metric}"] for name in class_names for metric in METRICS]


def _text(found: PbipEvaluation) -> str:
    parts = evaluation_parts(found)
    return "\n".join(text_of(part.title, *part.tables, *map(escape, part.notes)) for part in parts)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
