from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
from PIL import Image

from dataflow import demo_slide
from jobs.neighbours import nearest_tiles
from jobs.neighbours_picture import NeighboursPicture
from jobs.shown_session import shown_session


class Answer(Protocol):
    code: int
    out: str
    err: str


Call = Callable[..., Answer]


def test_nearest_tiles_are_those_of_the_smallest_angle() -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(40, 16)).astype(np.float16)
    features[7] = 3 * features[3]  # the same direction, another length
    found = nearest_tiles(features, 3, 5)
    exact = features.astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    cosine = exact @ exact[3]
    expected = sorted((i for i in range(40) if i != 3), key=lambda i: -cosine[i])[:5]
    assert found.tiles.tolist() == expected
    assert found.tiles[0] == 7
    assert found.cosine == pytest.approx(cosine[expected], abs=1e-3)


def test_nearest_tiles_when_there_are_few_or_empty_ones() -> None:
    features = np.array([[1, 0], [0, 0], [1, 1]], np.float32)
    found = nearest_tiles(features, 0, 8)
    assert found.tiles.tolist() == [2, 1]
    assert found.cosine[1] == 0


def test_a_session_shows_what_lines_print() -> None:
    text = shown_session(["import math", "x = math.sqrt(16)", "x", "print('a')", "'a'"])
    assert text == (
        ">>> import math\n>>> x = math.sqrt(16)\n>>> x\n4.0\n>>> print('a')\na\n>>> 'a'\n'a'"
    )


@pytest.mark.parametrize("n_tiles", [1, 3, 9])
def test_the_picture_shows_all_tiles(tmp_path: Path, n_tiles: int) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (n_tiles, 3), dtype=np.uint8)
    pixels = np.broadcast_to(colours[:, None, None], (n_tiles, 32, 32, 3))
    path = tmp_path / "new" / "picture.png"
    NeighboursPicture(
        slide_id="s",
        features="f",
        thumbnail=np.full((300, 100, 3), 250, np.uint8),  # higher than wide
        px_level0=10.0,
        pixels=pixels,
        corners_level0=np.full((n_tiles, 2), 100, np.int32),
        tile_level0=256,
        tile_um=128.0,
        cosine=np.linspace(1, 0.5, n_tiles - 1, dtype=np.float32),
    ).save(path)
    drawn = np.asarray(Image.open(path).convert("RGB"))
    for colour in colours:
        assert np.all(drawn == colour, axis=-1).sum() > 2000


@pytest.fixture
def small_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the sample slide small."""
    image = demo_slide.demo_image(1536, 1280)
    monkeypatch.setattr(demo_slide, "demo_image", lambda: image)


@pytest.mark.usefixtures("small_sample")
def test_the_demo_works_and_works_again(
    slidestream: Call, scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIDESTREAM_SCHEDULER", scheduler)
    monkeypatch.chdir(tmp_path)
    first = slidestream("demo")
    assert first.code == 0
    assert "nothing to do" not in first.out
    assert "dashboard http://127.0.0.1" in first.err
    assert "features/efficientnet-lite0: 1/1 slides complete" in first.out
    assert "((1280,), array([" in first.out
    out = tmp_path / "slidestream-demo"
    pictures = [next((out / "demo_qc").rglob("demo.png")), out / "neighbours" / "demo.png"]
    for picture in pictures:
        assert str(picture.relative_to(tmp_path)) in first.out
        assert np.asarray(Image.open(picture)).std() > 10
    again = slidestream("demo")
    assert again.code == 0
    assert "nothing to do" in again.out
    assert again.out.split("What was stored")[1] == first.out.split("What was stored")[1]


def test_a_slide_without_tissue(
    slidestream: Call, scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIDESTREAM_SCHEDULER", scheduler)
    Image.new("RGB", (600, 500), "white").save(tmp_path / "white.png")
    arguments = ["demo", tmp_path / "white.png", "--out", tmp_path / "out"]
    refused = slidestream(*arguments)
    assert refused.code == 1
    assert "--slide-mpp" in refused.out
    shown = slidestream(*arguments, "--slide-mpp", 0.5)
    assert shown.code == 0
    assert "no tissue was found" in shown.out


def test_a_folder_is_not_one_slide(slidestream: Call, slides: Path, tmp_path: Path) -> None:
    answer = slidestream("demo", slides, "--out", tmp_path / "out")
    assert answer.code == 1
    assert "takes one slide" in answer.err
    assert not (tmp_path / "out").exists()
