"""``slidestream jobs list|show|logs|wait|cancel``: what was submitted with ``--detach``."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from jobs.options import existing_scheduler_option, json_option

if TYPE_CHECKING:
    from distributed import Client

    from jobs.detached import JobRecord

job_argument = click.argument("job_id", metavar="JOB")
_POLL_S = 1.0


@contextmanager
def _client(scheduler: str | None) -> Iterator[Client]:
    from dataflow.cluster import answering, connected
    from jobs.background_cluster import background_address

    with connected(scheduler or background_address()) as client, answering(client):
        yield client


@click.group(
    help="Look after what was submitted with --detach; the background cluster's, unless --scheduler says else."
)
def jobs() -> None:
    """Group the job commands."""


def _line(job: JobRecord) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(job.submitted))
    progress = job.progress
    done = (
        f"{progress['slides_done']}/{progress['slides']} slides, {progress['tiles_done']:,} tiles"
        if progress
        else ""
    )
    return f"{job.job_id:<26}{job.state:<10}{when:<20}{job.command:<7} {job.store}  {done}"


@jobs.command("list", help="List all jobs, oldest first.")
@existing_scheduler_option
@json_option
def list_command(scheduler: str | None, as_json: bool) -> int:
    """List jobs."""
    from jobs.detached import list_jobs

    with _client(scheduler) as client:
        found = list_jobs(client)
    if as_json:
        click.echo(json.dumps([asdict(job) for job in found], indent=2))
    else:
        heading = f"{'JOB':<26}{'STATE':<10}{'SUBMITTED':<20}{'COMMAND':<7} STORE, PROGRESS"
        click.echo("\n".join([heading, *map(_line, found)]) if found else "no jobs")
    return 0


@jobs.command(help="Show one job: state, progress, and the summary when it is done.")
@job_argument
@existing_scheduler_option
@json_option
def show(job_id: str, scheduler: str | None, as_json: bool) -> int:
    """Show one job."""
    from jobs.detached import get_job
    from jobs.summary import summary_lines

    with _client(scheduler) as client:
        job = get_job(client, job_id)
    if as_json:
        click.echo(json.dumps(asdict(job), indent=2))
        return 0
    click.echo(_line(job))
    if job.error:
        click.echo(f"Error: {job.error}")
    if job.metrics:
        click.echo("\n".join(summary_lines(job.metrics)))
    return 0


@jobs.command(help="Print what a job said.")
@job_argument
@existing_scheduler_option
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends.")
def logs(job_id: str, scheduler: str | None, follow: bool) -> int:
    """Print the log of a job."""
    from jobs.detached import get_job, job_log

    shown = 0
    with _client(scheduler) as client:
        while True:
            finished = get_job(client, job_id).finished
            lines = job_log(client, job_id)
            for when, line in lines[shown:]:
                click.echo(f"{time.strftime('%H:%M:%S', time.localtime(when))} {line}")
            shown = len(lines)
            if finished or not follow:
                return 0
            time.sleep(_POLL_S)


@jobs.command(help="Wait until a job ends; exit code 0 when it did all of its work.")
@job_argument
@existing_scheduler_option
@click.option(
    "--timeout", type=click.FloatRange(0), help="Give up after so many seconds (exit code 1)."
)
def wait(job_id: str, scheduler: str | None, timeout: float | None) -> int:
    """Wait for a job."""
    from jobs.detached import get_job

    deadline = None if timeout is None else time.monotonic() + timeout
    with _client(scheduler) as client:
        while True:
            job = get_job(client, job_id)
            if job.finished or (deadline is not None and time.monotonic() > deadline):
                break
            time.sleep(_POLL_S)
    click.echo(_line(job))
    return 0 if job.state == "done" else 1


@jobs.command(help="Stop a job; what it stored stays, and running it again goes on from there.")
@job_argument
@existing_scheduler_option
def cancel(job_id: str, scheduler: str | None) -> int:
    """Cancel a job."""
    from jobs.detached import cancel_job

    with _client(scheduler) as client:
        state = cancel_job(client, job_id)
    click.echo(
        f"asked {job_id} to stop" if state is None else f"{job_id} has ended already: {state}"
    )
    return 0
