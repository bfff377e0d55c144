"""Checks of the machine: that it has room for a run, and what will do the work."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from jobs.checks import Check, Status
from jobs.library_checks import one_line

_GIB: Final = 2**30
_LOW_MEMORY: Final = 4 * _GIB
_LOW_DISK: Final = 10 * _GIB
_NO_DISK: Final = _GIB // 2


def machine_checks(store: str | None) -> Iterator[Check]:
    """Look at this machine, one check after the other.

    Parameters
    ----------
    store
        Path or URL of the store that a run would write, or None.
    """
    from dataflow.cluster import DASHBOARD_PORT

    yield cpu_check()
    yield gpu_check()
    yield disk_check("disk, here", Path.cwd())
    if store is not None and "://" not in store:
        yield disk_check("disk, store", Path(store).expanduser().absolute())
    yield port_check(DASHBOARD_PORT)
    yield cluster_check()


def cpu_check() -> Check:
    """Say how many cores and how much memory a run may use, container limits respected."""
    from dask.system import CPU_COUNT
    from distributed.system import MEMORY_LIMIT

    memory = int(MEMORY_LIMIT)
    facts = {"cores": CPU_COUNT, "memory_bytes": memory}
    says = f"{CPU_COUNT} core{'s' if CPU_COUNT > 1 else ''}, {memory / _GIB:.1f} GiB memory"
    if memory < _LOW_MEMORY:
        return Check("CPU", "warn", f"{says}, which is little; use --batch-size 16", facts)
    return Check("CPU", "ok", says, facts)


def gpu_check() -> Check:
    """Say what GPU torch can use, and with what precision a run would."""
    import torch

    from models.bf16_check import cpu_is_good_at_bf16
    from models.precision import resolve_precision

    with warnings.catch_warnings(record=True) as said:  # torch warns of a driver that is too old
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    if not usable:
        bf16 = cpu_is_good_at_bf16()
        facts = {"gpus": [], "bf16": bf16, "precision": resolve_precision("auto", "cpu")}
        says = f"no GPU: everything runs on the CPU, in {facts['precision']}"
        if bf16:
            says += " (encoders in bf16 where that leaves their features as they are)"
        if said or Path("/proc/driver/nvidia").exists():
            why = f" ({one_line(said[0].message)})" if said else ""
            says = (
                f"there is an NVIDIA driver, but this torch can't use it{why}; {says} until "
                "driver and torch match"
            )
            return Check("GPU", "warn", says, facts)
        return Check("GPU", "ok", says, facts)
    gpus = []
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        gpus.append((str(properties.name), int(properties.total_memory)))
    precision = resolve_precision("auto", "cuda")
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    facts = {
        "gpus": [{"name": name, "memory_bytes": memory} for name, memory in gpus],
        "bf16": bf16,
        "precision": precision,
    }
    named = ", ".join(f"{name} ({memory / _GIB:.0f} GiB)" for name, memory in gpus)
    says = f"{named}; runs in {precision}, bf16 {'too' if bf16 else 'is not supported'}"
    if len(gpus) > 1:
        advice = "choose one with CUDA_VISIBLE_DEVICES, or start one worker for each and pass --scheduler"
        return Check("GPU", "warn", f"{says}; the embedded cluster uses one: {advice}", facts)
    return Check("GPU", "ok", says, facts)


def disk_check(name: str, path: Path) -> Check:
    """Tell whether there is room, and permission to write, where ``path`` is or will be."""
    there = existing_folder(path)
    free = shutil.disk_usage(there).free
    facts = {"path": str(path), "free_bytes": free, "writable": os.access(there, os.W_OK)}
    says = f"{free / _GIB:,.0f} GiB free at {there}"
    if not facts["writable"]:
        return Check(name, "fail", f"{there} can't be written; choose another place", facts)
    status: Status = "fail" if free < _NO_DISK else "warn" if free < _LOW_DISK else "ok"
    advice = "" if status == "ok" else "; free some, or write elsewhere (sizes: --dry-run)"
    return Check(name, status, says + advice, facts)


def existing_folder(path: Path) -> Path:
    """Return the nearest folder above an absolute path, or the path itself, that is there."""
    return next(parent for parent in (path, *path.parents) if parent.exists())


def port_check(port: int) -> Check:
    """Tell whether the dashboard gets its usual port."""
    from dataflow.cluster import free_port

    free = free_port(port) == port
    facts = {"port": port, "free": free}
    if free:
        return Check("dashboard", "ok", f"port {port} is free on 127.0.0.1", facts)
    says = f"port {port} is taken: a run takes another, and prints its address"
    return Check("dashboard", "ok", says, facts)


def cluster_check() -> Check:
    """Say whether a background cluster runs."""
    from jobs.background_cluster import find

    running = find()
    if running is None:
        says = "none runs; a run starts its own (`slidestream cluster start` keeps one)"
        return Check("background cluster", "ok", says, {"running": False})
    facts = {"running": True, "scheduler": running.scheduler, "dashboard": running.dashboard}
    says = f"runs at {running.scheduler}, dashboard {running.dashboard}"
    return Check("background cluster", "ok", says, facts)
