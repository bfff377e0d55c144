"""Time and peak memory, of all processes, of stitching a generated slide without and with half overlap.

    uv run python -m benchmarks.stitch FOLDER

The slide has no pixels: 100,000 x 100,000 px of 0.25 µm, tiles of 256 px over all of it, each with a random number and
a random map of 16 x 16 (which is as bad as it gets for compression). Stores are made once and kept in FOLDER.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil

from benchmarks.memory import tree_rss
from dataflow.slide import Level, SlideInfo
from dataflow.tiling import make_tiles
from store_schema.specs import ArraySpec, GridSpec, SlideRecord
from store_schema.store import create_store

TILE_PX = 256
MAP_PX = 16
MPP = 0.25
SAMPLE_EVERY_S = 0.02


def make_store(path: Path, side_px: int, stride_px: int) -> None:
    """Write a store of one slide with a score and a map a tile, unless it is there."""
    slide = create_store(path).add_slide(
        SlideRecord("generated", "none", "c0ffee", "none", side_px, side_px, MPP, "user")
    )
    levels = (Level(side_px, side_px, 1.0),)
    info = SlideInfo("none", "none", side_px, side_px, levels, MPP, "user", "generated")
    spec = GridSpec(TILE_PX, MPP, stride_px)
    geometry, table = make_tiles(info, spec, None)
    slide.create_grid(spec, geometry, table, {"stride_px": stride_px})
    arrays = {
        "score": ArraySpec(("tile",), (), "float32"),
        "map": ArraySpec(("tile", "map_y", "map_x"), (MAP_PX, MAP_PX), "float32"),
    }
    group = slide.create_tile_group(spec.name, "scores", "generated", arrays, {})
    for block in group.missing_blocks(verify=False):
        span = group.block_slice(block)
        n_tiles, generator = span.stop - span.start, np.random.default_rng(block)
        values = {
            "score": generator.random(n_tiles, dtype=np.float32),
            "map": generator.random((n_tiles, MAP_PX, MAP_PX), dtype=np.float32),
        }
        group.write_block(block, values)
    print(f"{path}: {len(table):,} tiles, {group.n_blocks} blocks")


def measured(command: list[str]) -> tuple[float, float, int]:
    """Run a command; return its seconds, its processor seconds, and the peak bytes of all its processes together."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    root, peak, cpu = psutil.Process(process.pid), 0, 0.0
    while process.poll() is None:
        try:
            peak = max(peak, tree_rss(root))
            times = root.cpu_times()
            cpu = max(cpu, times.user + times.system)
        except psutil.NoSuchProcess:
            break
        time.sleep(SAMPLE_EVERY_S)
    if process.wait() != 0:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    return time.perf_counter() - start, cpu, peak


def main() -> None:
    """Measure each way of stitching and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side-px", type=int, default=100_000)
    parser.add_argument("--mpp", type=float, default=4.0)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()

    rows = []
    for overlap, stride_px in (("none", TILE_PX), ("half", TILE_PX // 2)):
        store = args.folder / f"{args.side_px}_{stride_px}.zarr"
        make_store(store, args.side_px, stride_px)
        for array, mode in (("score", "mean"), ("map", "mean"), ("map", "gaussian")):
            command = [sys.executable, "-m", "jobs.cli", "stitch", "--store", str(store)]
            command += ["--score", f"generated/{array}", "--mpp", str(args.mpp), "--mode", mode]
            runs = []
            for repeat in range(args.repeats):
                name = f"{array}-{mode}-{repeat}-{time.time_ns()}"
                runs.append(measured([*command, "--name", name]))
            (seconds, cpu), peak = (
                (min(run[i] for run in runs) for i in (0, 1)),
                max(r[2] for r in runs),
            )
            rows.append(
                f"| {overlap} | {array} | {mode} | {seconds:.1f} | {cpu:.1f} | {peak / 2**20:,.0f} |"
            )
    print("| overlap | what | mode | s | CPU s | peak MiB |\n|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
