"""What a run says at its end, to people and to machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dataflow.receipts import Failure
from dataflow.stream_report import StreamReport
from jobs.one_line import one_line
from jobs.tile_maps import map_line
from store_schema.labels import some

_SHOWN_FAILURES = 20


def run_metrics(
    report: StreamReport, refused: Sequence[Failure], n_sources: int, extra: dict[str, Any]
) -> dict[str, Any]:
    """Bring a report into the stable, JSON-able form of ``--json`` and ``metrics.json``.

    Parameters
    ----------
    report
        Of the stream.
    refused
        Slides that were not tried at all.
    n_sources
        Slides that were to be tried.
    extra
        What the run adds: store, grid, features or scores, device, run directory …

    Returns
    -------
    dict
        ``seconds`` by stage are summed over threads, so they can exceed the wall time.
    """
    failures = [*refused, *report.failures]
    if report.stopped is not None and report.stopped not in failures:
        failures.append(report.stopped)
    encoded_s = {name: s for name, s in report.stage_seconds.items() if name != "index"}
    return {
        **extra,
        "ok": not failures and not report.cancelled and report.stopped is None,
        "cancelled": report.cancelled,
        "slides": {
            "asked": n_sources + len(refused),
            "complete": sum(slide.complete for slide in report.slides),
            # each refused slide counts, also when several would have one id
            "failed": len(refused) + len({f.slide_id for f in report.failures if f.slide_id}),
            "interrupted": sum(not (s.finished or s.failures) for s in report.slides),
            "not_started": n_sources - len(report.slides),
        },
        "tiles": {
            "in_grids": sum(slide.n_tiles for slide in report.slides),
            "done": report.tiles_done,
        },
        "blocks": {
            "total": sum(slide.n_blocks for slide in report.slides),
            "already_stored": sum(slide.blocks_before for slide in report.slides),
            "done": sum(slide.blocks_done for slide in report.slides),
        },
        "wall_seconds": round(report.seconds, 3),
        "tiles_per_second": _rate(report.tiles_done, report.seconds),
        "stage_seconds": {name: round(s, 3) for name, s in report.stage_seconds.items()},
        "stage_tiles_per_second": {
            name: _rate(report.tiles_done, s) for name, s in encoded_s.items()
        },
        "stage_bytes": dict(report.stage_bytes),
        "decoders": dict(report.decoders),
        "stain_methods": dict(report.stain_methods),
        "batch_halvings": report.halvings,
        "notes": {slide.slide_id: list(slide.notes) for slide in report.slides if slide.notes},
        "failures_by_reason": dict(Counter(failure.reason for failure in failures)),
        "failures": [asdict(failure) for failure in failures],
    }


def _rate(count: int, seconds: float) -> float | None:
    return round(count / seconds, 1) if seconds > 0 and count else None


def summary_lines(metrics: dict[str, Any]) -> list[str]:
    """Write the summary that a person reads.

    Parameters
    ----------
    metrics
        As of :func:`run_metrics`.
    """
    slides, tiles, blocks = metrics["slides"], metrics["tiles"], metrics["blocks"]
    lines = [
        f"slides   {slides['complete']} of {slides['asked']} complete"
        + (f", {slides['failed']} failed" if slides["failed"] else "")
        + (f", {slides['interrupted']} interrupted" if slides["interrupted"] else "")
        + (f", {slides['not_started']} not started" if slides["not_started"] else "")
    ]
    if blocks["total"]:
        verb = "scored" if metrics.get("scores") else "encoded"
        lines.append(
            f"tiles    {tiles['done']:,} {verb} now of {tiles['in_grids']:,}"
            f" (blocks: {blocks['done']} now, {blocks['already_stored']} already stored, {blocks['total']} in all)"
        )
    else:
        lines.append(f"tiles    {tiles['in_grids']:,} in {metrics['grid']}")
    speed = metrics["tiles_per_second"]
    lines.append(
        f"time     {metrics['wall_seconds']:.1f} s of streaming"
        + (f", {speed:,.0f} tiles/s" if speed else "")
    )
    if metrics["stage_tiles_per_second"]:
        rates = ", ".join(
            f"{name} {rate:,.0f}"
            for name, rate in metrics["stage_tiles_per_second"].items()
            if rate
        )
        if rates:
            lines.append(f"stages   {rates} tiles/s (each stage by itself, in one thread)")
    methods = {name: n for name, n in metrics["stain_methods"].items() if name != "none"}
    for label, counts in (("pixels", metrics["decoders"]), ("stain", methods)):
        if counts:
            total = sum(counts.values())
            parts = (f"{name} {n:,} ({n / total:.1%})" for name, n in counts.items())
            lines.append(f"{label:<8} {', '.join(parts)}")
    if metrics["batch_halvings"]:
        lines.append(
            f"memory   the batch was halved {metrics['batch_halvings']}x for lack of device memory"
        )
    lines += [f"maps     {map_line(name, of)}" for name, of in metrics.get("maps", {}).items()]
    for slide_id, notes in metrics["notes"].items():
        lines += [f"note     {one_line(slide_id)}: {one_line(note)}" for note in notes]
    lines += [f"warning  of the model: {one_line(said)}" for said in metrics.get("warnings", ())]
    lines += _failure_lines(metrics["failures"])
    if metrics["cancelled"]:
        lines.append("cancelled; run the same command again to go on")
    lines += [
        f"{name:<8} {metrics[name]}"
        for name in ("store", "scores", "qc", "run_dir")
        if metrics.get(name)
    ]
    return lines


def _failure_lines(failures: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each reason: of one slide, or of how many and which."""
    places: dict[tuple[str, str, str], dict[str, None]] = {}  # several files may be one slide
    for failure in failures:
        block = "" if failure["block"] is None else f" block {failure['block']}"
        place = f"{one_line(failure['slide_id']) or 'the run'}{block}"
        unit = "blocks" if block else "slides"
        places.setdefault((failure["reason"], failure["message"], unit), {})[place] = None
    lines = []
    for (reason, message, unit), where in places.items():
        listed = list(where)
        named = listed[0] if len(listed) == 1 else f"{len(listed)} {unit} ({some(listed)})"
        lines.append(f"failed   {named} [{reason}]: {one_line(message)}")
    if len(lines) > _SHOWN_FAILURES:
        n_more = sum(len(where) for where in list(places.values())[_SHOWN_FAILURES:])
        lines[_SHOWN_FAILURES:] = [f"         … and {n_more} more, see metrics.json"]
    return lines
