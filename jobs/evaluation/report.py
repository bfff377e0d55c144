"""The page of an evaluation: its tables, curves, and the best, median and worst slide."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from jobs.counted import counted
from jobs.evaluation.bootstrap import interval_text
from jobs.evaluation.curves import curves_figure
from jobs.evaluation.froc import SCORE
from jobs.evaluation.localization import Localization
from jobs.evaluation.pictures import Picture
from jobs.evaluation.result_tables import ResultPart, result_parts, shown
from jobs.evaluation.results import Evaluation
from jobs.page import png_file_url, render_page
from jobs.plots import png_data_url
from models.metrics import Interval
from store_schema.errors import StorageError

REPORT: Final = "report.html"

_UPPER_BOUND: Final = (
    "UPPER BOUND: the mask looked at the truth of the slides that it is judged on. It is no method."
)
_READING: Final = (
    "Means of IoU, Dice, precision and recall are over slides with positive tiles, precision where anything was "
    "flagged; false alarms of other slides count in pooled numbers only. Pooled numbers take all tiles together, which says "
    "something only of scores that mean the same on all slides. Lesions and false alarms are counted as CAMELYON16 "
    "does: regions less than 75 µm apart are one lesion, isolated tumour cells (below 275 µm) are neither to be found "
    "nor false alarms."
)


def write_report(out: Path, found: Evaluation, pictures: Sequence[Picture]) -> Path:
    """Write ``report.html``: one file, with its pictures in it.

    Raises
    ------
    StorageError
        It can't be written.
    """
    judged = found.localization
    curves = None if judged is None or not judged.tiles else curves_figure(judged)
    page = Page(
        title=f"Evaluation of {found.settings.get('judged', 'predictions')}",
        cards=_cards(found),
        parts=result_parts(found),
        pictures=pictures,
        settings=found.settings,
        which_pictures="The slides of the greatest, the median and the least value among those with anything positive.",
        reading=_READING,
        warning=_UPPER_BOUND if judged is not None and judged.upper_bound else "",
        curves=None if curves is None else png_data_url(curves, dpi=130),
    )
    return write_page(out, page)


@dataclass(frozen=True)
class Page:
    """What the page of an evaluation shows.

    Attributes
    ----------
    title
        What was judged.
    cards
        Numbers that are looked at first.
    parts
        Tables and notes.
    pictures
        In their order.
    settings
        What was asked.
    which_pictures
        What they are, in a sentence.
    reading
        How numbers are to be read; stands at the end.
    warning
        Why the numbers are no result, if they aren't; stands above all others.
    curves
        ``data:`` URL.
    """

    title: str
    cards: Sequence[Card]
    parts: Sequence[ResultPart]
    pictures: Sequence[Picture]
    settings: Mapping[str, Any]
    which_pictures: str
    reading: str
    warning: str = ""
    curves: str | None = None


def write_page(out: Path, page: Page) -> Path:
    """Write ``report.html``; StorageError if it can't be written."""
    context = {
        "title": page.title,
        "subtitle": f"slidestream {version('slidestream')} · {time.strftime('%Y-%m-%d %H:%M')}",
        "warning": page.warning,
        "cards": [card.to_json() for card in page.cards if card.value is not None],
        "parts": [_part(part) for part in page.parts],
        "curves": page.curves,
        "which_pictures": page.which_pictures,
        "pictures": [
            {
                "title": picture.title,
                "note": picture.note,
                "url": None if picture.path is None else png_file_url(picture.path),
            }
            for picture in page.pictures
        ],
        "settings": "\n".join(f"{key}: {value}" for key, value in page.settings.items()),
        "reading": page.reading,
    }
    path = out / REPORT
    try:
        path.write_text(render_page("evaluation/report.html.j2", context), encoding="utf-8")
    except OSError as error:
        raise StorageError(f"the report {path} can't be written: {error.strerror}") from error
    return path


@dataclass(frozen=True)
class Card:
    """A number that is looked at first, what it is of, and what it is to be held against; of None there is no card."""

    what: str
    value: float | None
    interval: Interval | None = None
    reference: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as the page's template takes it."""
        ends = interval_text(self.interval)
        notes = (f"95 %: {ends}" if ends else "", self.reference)
        return {
            "what": self.what,
            "value": shown(self.value),
            "notes": [note for note in notes if note],
        }


def _cards(found: Evaluation) -> list[Card]:
    """Return the numbers that are looked at first."""
    cards: list[Card] = []
    if found.slides is not None:
        ends = found.slides.intervals.get("auc", {})
        interval = Interval(ends.get("low"), ends.get("high"), 0, 0)
        cards.append(Card("AUC of slides", found.slides.metrics["auc"], interval))
    if found.localization is not None and found.localization.groups:
        cards += _localization_cards(found.localization)
    return cards


def _localization_cards(judged: Localization) -> list[Card]:
    every = judged.groups[0]
    known = judged.intervals.get(every.group, {})
    of_all = shown(every.mean_iou_of_all)
    where = "of tiles, mean of slides"
    cards = [
        Card(f"AUC-ROC {where}", every.mean_auc_roc, known.get("mean_auc_roc"), "chance: 0.5"),
        Card(
            f"PR-AUC {where}",
            every.mean_auc_pr,
            known.get("mean_auc_pr"),
            f"positive tiles: {of_all}",
        ),
        Card(
            f"IoU {where}", every.mean_iou, known.get("mean_iou"), f"every tile flagged: {of_all}"
        ),
    ]
    pixels = judged.pixels.get(every.group)
    if pixels is not None:
        interval = known.get("pooled_pixel_auc_roc")
        cards.append(Card("AUC of pixels, pooled", pixels.auc_roc, interval, "chance: 0.5"))
    curve = judged.froc
    if curve is not None:
        by_chance = "" if curve.chance is None else f"scores shuffled: {shown(curve.chance.score)}"
        said = f"FROC score, {counted(curve.n_lesions, 'lesion')}"
        cards.append(Card(said, curve.score, curve.intervals.get(SCORE), by_chance))
    return cards


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
