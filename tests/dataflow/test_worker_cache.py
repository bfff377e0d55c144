"""What a worker keeps of slides: few, and none that is in use is taken away."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import psutil
import pytest

from dataflow import worker_cache
from dataflow.keyed_cache import KeyedCache
from dataflow.pyramid_tiff import write_pyramid


def open_times(path: Path) -> int:
    return sum(file.path == str(path) for file in psutil.Process().open_files())


@pytest.mark.parametrize("suffix", [".tiff", ".png"])
def test_a_slide_that_falls_out_is_read_on_and_then_closed(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_cache, "_readers", KeyedCache(2))
    pixels = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    paths = [tmp_path / f"{number}{suffix}" for number in range(4)]
    for path in paths:
        if suffix == ".png":
            from PIL import Image

            Image.fromarray(pixels).save(path)
        else:
            write_pyramid(path, pixels, 0.5, tile_px=64, downsamples=(1,))
    first = worker_cache.slide_reader(str(paths[0]), 0.5, "stamp")
    before = first.read_level(0, 0, 0, 128, 128)
    for path in paths[1:]:
        worker_cache.slide_reader(str(path), 0.5, "stamp").read_level(0, 0, 0, 64, 64)

    np.testing.assert_array_equal(first.read_level(0, 0, 0, 128, 128), before)

    del first
    gc.collect()
    assert open_times(paths[0]) == 0
    assert worker_cache.slide_reader(str(paths[0]), 0.5, "stamp").info.width == 128
