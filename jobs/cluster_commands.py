"""``slidestream cluster start|status|stop``: a local Dask cluster that outlives the commands."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from jobs import background_cluster
from jobs.option_types import MemoryLimit
from jobs.options import config_option, json_option
from store_schema.errors import ClusterError


@click.group(help="A local Dask cluster in the background, with its dashboard.")
def cluster() -> None:
    """Group the cluster commands."""


@cluster.command(help="Start it; without --host everything listens on 127.0.0.1 only.")
@click.option("--workers", type=click.IntRange(1), help="Worker processes.")
@click.option("--threads", type=click.IntRange(1), help="Cores per worker.")
@click.option(
    "--memory",
    type=MemoryLimit(),
    default="auto",
    show_default=True,
    help="Memory limit per worker, e.g. 8GiB.",
)
@click.option("--dashboard-port", type=click.IntRange(0, 65535), help="Port of the dashboard.")
@click.option(
    "--host",
    default=background_cluster.LOOPBACK,
    show_default=True,
    help="Address of this machine that scheduler and workers listen on; takes TLS in Dask's settings.",
)
@click.option(
    "--dashboard-host",
    default=background_cluster.LOOPBACK,
    show_default=True,
    help="Address that the dashboard listens on: it has no password.",
)
@json_option
@config_option
def start(
    workers: int | None,
    threads: int | None,
    memory: str,
    dashboard_port: int | None,
    host: str,
    dashboard_host: str,
    as_json: bool,
) -> int:
    """Start the background cluster."""
    state = background_cluster.start(
        background_cluster.BackgroundSettings(
            workers=workers,
            threads=threads,
            memory=memory,
            dashboard_port=dashboard_port,
            host=host,
            dashboard_host=dashboard_host,
        )
    )
    if as_json:
        click.echo(json.dumps(asdict(state)))
    else:
        click.echo(f"scheduler {state.scheduler}\ndashboard {state.dashboard}")
        click.echo(f"use it with: slidestream run … --scheduler {state.scheduler}  (or --detach)")
    return 0


@cluster.command(help="Say whether it runs, and what its workers do.")
@json_option
def status(as_json: bool) -> int:
    """Show the background cluster; exit code 1 when there is none."""
    state = background_cluster.find()
    if state is None:
        click.echo(
            json.dumps({"running": False})
            if as_json
            else "no background cluster; start one with: slidestream cluster start"
        )
        return 1
    from dataflow.cluster import answering, connect_to

    client = connect_to(state.scheduler)
    try:
        with answering(client):
            workers = client.scheduler_info(n_workers=-1)["workers"]
            processing = {address: len(keys) for address, keys in client.processing().items()}
    finally:
        client.close()
    if as_json:
        described = {
            address: {
                "threads": worker["nthreads"],
                "memory_limit": worker["memory_limit"],
                "memory": worker["metrics"].get("memory"),
                "processing": processing.get(address, 0),
                "resources": worker["resources"],
            }
            for address, worker in workers.items()
        }
        click.echo(json.dumps({"running": True, **asdict(state), "workers": described}))
        return 0
    click.echo(f"scheduler {state.scheduler}\ndashboard {state.dashboard}")
    for address, worker in workers.items():
        memory = worker["metrics"].get("memory", 0) / 2**30
        limit = (worker["memory_limit"] or 0) / 2**30
        click.echo(
            f"worker    {address}  {worker['nthreads']} threads, {memory:.1f} of {limit:.1f} GiB, "
            f"{processing.get(address, 0)} tasks"
        )
    return 0


@cluster.command(help="Stop it; jobs that run on it are lost, what they stored is not.")
def stop() -> int:
    """Stop the background cluster."""
    stopped = background_cluster.stop()
    if stopped is None:
        raise ClusterError("No background cluster is running.")
    click.echo(f"stopped {stopped.scheduler}")
    return 0
