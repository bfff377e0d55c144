"""The page of an evaluation: its tables, curves, and the best, median and worst slide."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from jobs.evaluation.curves import curves_figure
from jobs.evaluation.pictures import Picture
from jobs.evaluation.result_tables import ResultPart, result_parts, shown
from jobs.evaluation.results import Evaluation
from jobs.page import png_file_url, render_page
from jobs.plots import png_data_url
from store_schema.errors import StorageError

REPORT: Final = "report.html"


def write_report(out: Path, found: Evaluation, pictures: Sequence[Picture]) -> Path:
    """Write ``report.html``: one file, with its pictures in it.

    Raises
    ------
    StorageError
        It can't be written.
    """
    judged = found.localization
    curves = None if judged is None or not judged.tiles else curves_figure(judged)
    context = {
        "title": f"Evaluation of {found.settings.get('judged', 'predictions')}",
        "subtitle": f"slidestream {version('slidestream')} · {time.strftime('%Y-%m-%d %H:%M')}",
        "upper_bound": judged is not None and judged.upper_bound,
        "cards": _cards(found),
        "parts": [_part(part) for part in result_parts(found)],
        "curves": None if curves is None else png_data_url(curves, dpi=130),
        "pictures": [
            {
                "title": picture.title,
                "note": picture.note,
                "url": None if picture.path is None else png_file_url(picture.path),
            }
            for picture in pictures
        ],
        "settings": "\n".join(f"{key}: {value}" for key, value in found.settings.items()),
    }
    path = out / REPORT
    try:
        path.write_text(render_page("evaluation/report.html.j2", context), encoding="utf-8")
    except OSError as error:
        raise StorageError(f"the report {path} can't be written: {error.strerror}") from error
    return path


def _cards(found: Evaluation) -> list[dict[str, str]]:
    """Return the numbers that are looked at first."""
    cards: list[tuple[str, float | None]] = []
    if found.slides is not None:
        cards.append(("AUC of slides", found.slides.metrics["auc"]))
    judged = found.localization
    if judged is not None and judged.groups:
        every = judged.groups[0]
        cards += [
            ("AUC-ROC of tiles, mean of slides", every.mean_auc_roc),
            ("PR-AUC of tiles, mean of slides", every.mean_auc_pr),
            ("IoU of tiles, mean of slides", every.mean_iou),
        ]
        pixels = judged.pixels.get(every.group)
        cards.append(("AUC of pixels, pooled", None if pixels is None else pixels.auc_roc))
        cards.append(("FROC score", None if judged.froc is None else judged.froc.score))
    return [{"what": what, "value": shown(value)} for what, value in cards if value is not None]


def _part(part: ResultPart) -> dict[str, Any]:
    return {
        "title": part.title,
        "tables": [_table(table) for table in part.tables],
        "notes": part.notes,
    }


def _table(table: Table) -> dict[str, Any]:
    """Return a table of the terminal as text: headings, which of them are of numbers, and rows."""
    columns = [[_plain(cell) for cell in column.cells] for column in table.columns]
    return {
        "headings": [_plain(column.header) for column in table.columns],
        "numbers": [column.justify == "right" for column in table.columns],
        "rows": list(zip(*columns, strict=True)),
        "ends": [row.end_section for row in table.rows],
    }


def _plain(cell: object) -> str:
    return Text.from_markup(str(cell)).plain
