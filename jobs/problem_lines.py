"""What went wrong, slide by slide, in lines that stay readable however many slides there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from jobs.one_line import one_line
from store_schema.labels import some

_SHOWN_LINES: Final = 20


def problem_lines(problems: Mapping[str, str]) -> list[str]:
    """Return a line for each problem: of one slide, or of how many and which.

    Parameters
    ----------
    problems
        Slide id → what went wrong with it.
    """
    slides_of: dict[str, list[str]] = {}
    for slide_id, problem in problems.items():
        slides_of.setdefault(problem, []).append(slide_id)
    lines = [
        one_line(f"failed: {_named(slides)}: {problem}") for problem, slides in slides_of.items()
    ]
    if len(lines) > _SHOWN_LINES:
        n_more = sum(len(slides) for slides in list(slides_of.values())[_SHOWN_LINES:])
        lines[_SHOWN_LINES:] = [f"… and {n_more} more (--json shows all)"]
    return lines


def _named(slides: list[str]) -> str:
    return slides[0] if len(slides) == 1 else f"{len(slides)} slides ({some(slides)})"
