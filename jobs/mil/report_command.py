"""``slidestream mil report``: folds and runs together."""

from __future__ import annotations

import json
from pathlib import Path

import click

from jobs.options import json_option, verbose_option


@click.command(
    help="Put folds and runs together: mean ± sd, patient-level intervals, class balance, failed folds; "
    "writes report.csv and one page report.html. RUNS are folders of `mil train` and `mil cv`."
)
@click.argument("runs", nargs=-1, required=True, type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the report.  [default: the run, or mil_report for several]",
)
@click.option(
    "--resamples",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="Of the bootstrap.",
)
@json_option
@verbose_option
def report(
    runs: tuple[Path, ...], out: Path | None, resamples: int, as_json: bool, verbose: bool
) -> int:
    """Write the report."""
    from jobs.mil.fold_metrics import has_failed, summarize
    from jobs.mil.report import write_report
    from jobs.mil.results_table import show_runs

    place = out or (runs[0] if len(runs) == 1 else Path("mil_report"))
    found = write_report([run.absolute() for run in runs], place, resamples=resamples)
    if as_json:
        listed = [
            {
                "run": str(run.path),
                "model": run.folds[0]["model"],
                "slides": len(run.slide_ids),
                "patients": run.n_patients,
                "leaky": run.leaky,
                "summary": summarize(run.folds),
                "sd_ddof": 1,
                "out_of_fold": run.pooled,
                "intervals_95": run.intervals,
                "flags": {str(fold["fold"]): fold["flags"] for fold in run.folds if fold["flags"]},
            }
            for run in found
        ]
        click.echo(json.dumps({"runs": listed, "report": str(place / "report.html")}, indent=2))
    else:
        show_runs(found, place / "report.html")
    return 1 if any(has_failed(fold) for run in found for fold in run.folds) else 0
