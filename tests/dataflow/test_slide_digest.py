from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dataflow.slide_digest import slide_digest
from store_schema.errors import UnreadableSlideError


def big_file(path: Path, n_bytes: int = 30 << 20) -> Path:
    path.write_bytes(np.random.default_rng(0).bytes(n_bytes))
    return path


def test_the_content_counts_not_the_name(make_slide: Callable[..., Path], tmp_path: Path) -> None:
    path = make_slide("a.tif")
    copy = tmp_path / "elsewhere.tif"
    shutil.copy(path, copy)
    assert slide_digest(path) == slide_digest(str(copy))
    assert len(slide_digest(path)) == 32
    assert slide_digest(make_slide("b.tif", mpp=0.25)) != slide_digest(path)


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (2 << 20) + 5, (2 << 20) + (1 << 17)])
def test_every_byte_of_a_small_file_counts(tmp_path: Path, size: int) -> None:
    path = big_file(tmp_path / "a.svs", size)
    digest = slide_digest(path)
    for at in {0, size // 3, size // 2, size - 1} if size else ():
        content = bytearray(path.read_bytes())
        content[at] ^= 1
        (tmp_path / "b.svs").write_bytes(content)
        assert slide_digest(tmp_path / "b.svs") != digest
    path.write_bytes(path.read_bytes() + b"\0")
    assert slide_digest(path) != digest


def test_a_large_file_is_sampled_at_its_ends_and_between(tmp_path: Path) -> None:
    path = big_file(tmp_path / "a.svs")
    digest = slide_digest(path)
    with path.open("r+b") as file:
        for at in (0, 1 << 20, 29 << 20, (30 << 20) - 1):
            file.seek(at)
            old = file.read(1)
            file.seek(at)
            file.write(bytes([old[0] ^ 1]))
            file.flush()
            assert slide_digest(path) != digest
            file.seek(at)
            file.write(old)
    assert slide_digest(path) == digest


def test_companions_count(tmp_path: Path) -> None:
    slide = tmp_path / "m.mrxs"
    slide.write_bytes(b"x")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "Data0000.dat").write_bytes(b"1234")
    digest = slide_digest(slide)
    (tmp_path / "m" / "Data0000.dat").write_bytes(b"12345")
    assert slide_digest(slide) != digest


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(UnreadableSlideError, match="can't be read"):
        slide_digest(tmp_path / "a.svs")


def test_a_dicom_slide(test_data: Path, tmp_path: Path) -> None:
    dcm = test_data / "slides" / "camelyon_multiframe_j2k.dcm"
    for name in ("a.dcm", "b.dcm"):
        shutil.copy(dcm, tmp_path / name)
    # two files of one series: whichever is given, the slide is the same
    assert slide_digest(tmp_path / "a.dcm") == slide_digest(tmp_path / "b.dcm")
    assert slide_digest(tmp_path / "a.dcm") != slide_digest(dcm)


def test_a_pipe_in_the_place_of_a_slide_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "slide.svs")
    with pytest.raises(UnreadableSlideError, match="not a regular file"):
        slide_digest(tmp_path / "slide.svs")
