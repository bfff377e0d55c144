"""Peak memory of a command with all its processes, sampled ten times a second.

uv run python -m benchmarks.memory -- slidestream run SLIDES --store /tmp/s.zarr …
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import psutil


def tree_rss(root: psutil.Process) -> int:
    """Return the resident bytes of a process and its descendants; shared pages count in each."""
    total = 0
    for process in [root, *root.children(recursive=True)]:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def main() -> None:
    """Run the command and print its peak, and the largest single process' peak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    process = subprocess.Popen(args.command, stdout=subprocess.DEVNULL)
    root, peak, samples = psutil.Process(process.pid), 0, 0
    start = time.perf_counter()
    while process.poll() is None:
        try:
            peak = max(peak, tree_rss(root))
        except psutil.NoSuchProcess:
            break
        samples += 1
        time.sleep(0.1)
    seconds = time.perf_counter() - start
    print(f"exit code {process.returncode}, {seconds:.1f} s, {samples} samples")
    print(f"peak of all processes together: {peak / 2**20:,.0f} MiB")
    sys.exit(process.returncode)


if __name__ == "__main__":
    main()
