"""What can't work is refused in one sentence, before a cluster is started or a job handed over."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest

from dataflow.pyramid_tiff import write_pyramid
from dataflow.receipts import Failure
from dataflow.stream_report import StreamReport
from jobs import detached, streaming
from jobs.one_line import one_line
from jobs.run_directory import run_directory
from jobs.summary import run_metrics, summary_lines

SMALL = ["--tile-px", 64, "--tissue", "none", "--no-qc", "--block-tiles", 4]
ENCODER = ["--encoder", "timm:test_resnet", "--random-weights", "--resize", "none"]


class Answer(Protocol):
    code: int
    out: str
    err: str


Call = Callable[..., Answer]


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """Return a small white slide of 0.5 µm/px."""
    folder = tmp_path / "in"
    folder.mkdir()
    write_pyramid(folder / "a.tif", np.full((300, 300, 3), 240, np.uint8), 0.5, downsamples=(1,))
    return folder / "a.tif"


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test as soon as a cluster is started or connected to."""

    @contextmanager
    def connect(*_: object) -> Iterator[None]:
        yield pytest.fail("a cluster was started")

    monkeypatch.setattr(streaming, "connect", connect)
    monkeypatch.setattr(detached, "connect_to", lambda _: pytest.fail("a job was handed over"))
    monkeypatch.setattr(detached, "background_address", lambda: "tcp://127.0.0.1:1")


def assert_a_sentence(answer: Answer, *parts: str) -> None:
    assert answer.code in (1, 2), answer.out
    for part in parts:
        assert part in answer.err
    assert "Traceback" not in answer.err
    assert len(answer.err.strip().splitlines()[-1]) < 400


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--tile-um", "inf"], ["--tile-um"]),
        (["--tile-um", "1e12"], ["--tile-um", "8 to 8192 px"]),
        (["--mpp", "1e9"], ["--mpp", "0.01<=x<=1000"]),
        (["--slide-mpp", "nan"], ["--slide-mpp"]),
        (["--min-tissue", "nan"], ["--min-tissue"]),
        (["--features-name", "../x"], ["--features-name '../x'", "separator"]),
        (["--features-name", ""], ["--features-name ''"]),
        (["--grid-name", "a/b"], ["--grid-name 'a/b'", "separator"]),
        (["--memory", "lots"], ["--memory", "8GiB"]),
        (["--memory", "8"], ["--memory", "too little"]),
        (["--store", "foo://bar"], ["foo://", "no file system"]),
        (["--store", ""], ["--store"]),
        (["--store", "memory://x"], ["workers can't see it"]),
    ],
)
def test_options_that_cannot_work(
    slidestream: Call,
    no_cluster: None,
    slide: Path,
    tmp_path: Path,
    options: list[str],
    parts: list[str],
) -> None:
    answer = slidestream("run", slide, "--store", tmp_path / "s.zarr", *ENCODER, *options)

    assert_a_sentence(answer, *parts)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("how", ["--dry-run", "--detach"])
@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--tile-um", "1e12"], "--tile-um"),
        (["--features-name", "../x"], "--features-name"),
        (["--store", "memory://x"], "workers can't see it"),
        (["--encoder", "timm:test_resnett"], "no encoder"),
    ],
)
def test_dry_runs_and_detached_jobs_are_refused_alike(
    slidestream: Call,
    no_cluster: None,
    slide: Path,
    tmp_path: Path,
    how: str,
    options: list[str],
    part: str,
) -> None:
    answer = slidestream("run", slide, "--store", tmp_path / "s.zarr", *ENCODER, *options, how)

    assert_a_sentence(answer, part)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("tile-px: [1]", "tile-px takes one value, not [1]"),
        ("mpp: {a: 1}", "mpp takes one value"),
        ("grid-name: 2024-01-01", "in quotes"),
        ("edge: no", "edge is false"),
        ("qc: maybe", "'maybe' is not a valid boolean"),
        ("memory: 8", "too little"),
        ("slides: [[a]]", "slides takes one value"),
    ],
)
def test_values_of_a_config_that_no_option_takes(
    slidestream: Call, no_cluster: None, slide: Path, tmp_path: Path, text: str, part: str
) -> None:
    (tmp_path / "c.yaml").write_text(text)
    answer = slidestream(
        "run", slide, "--store", tmp_path / "s.zarr", "--config", tmp_path / "c.yaml"
    )
    assert_a_sentence(answer, part)


def test_a_config_may_name_the_slides_and_leave_values_out(
    slidestream: Call, slide: Path, tmp_path: Path
) -> None:
    config = tmp_path / "c.yaml"
    for slides in (slide, [str(slide)]):
        config.write_text(f"slides: {slides}\nmpp:\ntile-px: 64\ntissue: none\nno-qc: true\n")
        answer = slidestream(
            "index", "--store", tmp_path / "s", "--config", config, "--dry-run", "--json"
        )
        assert answer.code == 0, answer.err
        assert json.loads(answer.out)["totals"]["tiles"] == 16


def test_slides_of_one_id_are_reported_and_counted_and_the_rest_is_planned(
    slidestream: Call, slide: Path, tmp_path: Path
) -> None:
    for name in ("x/b.tif", "y/B.tif"):
        (slide.parent / name).parent.mkdir()
        (slide.parent / name).write_bytes(slide.read_bytes())

    answer = slidestream(
        "index", slide.parent, "--store", tmp_path / "s.zarr", *SMALL, "--dry-run", "--json"
    )

    assert answer.code == 1
    found = json.loads(answer.out)
    assert [each["slide_id"] for each in found["slides"]] == ["a"]
    assert [each["reason"] for each in found["failures"]] == ["duplicate-id"] * 2


def test_a_slide_that_is_too_coarse_has_a_reason_of_its_own(
    slidestream: Call, slide: Path, tmp_path: Path
) -> None:
    answer = slidestream(
        "index", slide, "--store", tmp_path / "s.zarr", *SMALL, "--mpp", 0.25, "--dry-run", "--json"
    )
    assert [each["reason"] for each in json.loads(answer.out)["failures"]] == ["too-coarse"]


def test_an_encode_is_planned_from_the_store(
    slidestream: Call, scheduler: str, slide: Path, tmp_path: Path
) -> None:
    store = tmp_path / "s.zarr"
    indexed = slidestream("index", slide, "--store", store, *SMALL, "--scheduler", scheduler)
    assert indexed.code == 0, indexed.err
    encode = ["encode", "--store", store, *ENCODER, "--dry-run", "--json"]
    before = sorted(store.rglob("*"))

    planned = slidestream(*encode)

    assert planned.code == 0, planned.err
    (found,) = json.loads(planned.out)["slides"]
    assert (found["tiles"], found["blocks"]) == (16, 4)
    assert found["bytes_at_most"] > 16 * 2
    assert sorted(store.rglob("*")) == before
    bad = slidestream(*encode, "--grid", "../x")
    assert_a_sentence(bad, "--grid '../x'")

    write_pyramid(slide, np.full((300, 300, 3), 99, np.uint8), 0.5, downsamples=(1,))
    changed = slidestream(*encode)
    assert changed.code == 1
    assert json.loads(changed.out)["failures"][0]["reason"] == "slide-changed"


def test_refused_slides_of_one_id_count_each() -> None:
    refused = [Failure("a", "duplicate-id", "…"), Failure("a", "duplicate-id", "…")]
    metrics = run_metrics(StreamReport(), refused, 1, {"grid": "g"})
    assert metrics["slides"]["failed"] == 2
    assert metrics["slides"]["asked"] == 3


def test_what_hits_many_slides_is_said_once() -> None:
    failures = [
        *(Failure(f"s{i:02}", "settings-conflict", "taken") for i in range(30)),
        Failure("s00", "input", "taken"),
        *(Failure("s00", "read-failed", "gone", block) for block in (2, 3)),
    ]
    said = summary_lines(run_metrics(StreamReport(), failures, 0, {"grid": "g"}))
    lines = [line for line in said if line.startswith("failed")]
    assert len(lines) == 3
    assert lines[0].startswith("failed   30 slides (s00, s01, ")
    assert lines[0].endswith(" more) [settings-conflict]: taken")
    assert lines[1] == "failed   s00 [input]: taken"
    assert lines[2] == "failed   2 blocks (s00 block 2, s00 block 3) [read-failed]: gone"
    each = [Failure(f"s{i}", "input", f"no {i}") for i in range(23)]
    assert summary_lines(run_metrics(StreamReport(), each, 0, {"grid": "g"}))[-1] == (
        "         … and 3 more, see metrics.json"
    )


def test_names_that_are_no_text_are_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert one_line("a\udcff\nb\x1b[0m é") == r"a\udcff\nb\x1b[0m é"
    failure = Failure("bad\udcff\n", "unreadable", "/x/bad\udcff\n: no")
    lines = summary_lines(run_metrics(StreamReport(), [failure], 0, {"grid": "g"}))
    assert r"failed   bad\udcff\n [unreadable]: /x/bad\udcff\n: no" in lines
    raised = logging.raiseExceptions
    assert raised, "the logging module would hide its errors"
    with run_directory(tmp_path / "r", {"slides": ["bad\udcff"]}) as directory:
        directory.logger.error("%s", "bad\udcff")
        directory.write_metrics({"slide": "bad\udcff"})
    assert r"bad\udcff" in (tmp_path / "r" / "run.log").read_text()
    assert "Logging error" not in capsys.readouterr().err


def test_a_failure_with_brackets_in_its_message_shows_in_the_bar() -> None:
    import io

    from rich.console import Console

    from dataflow.stream_report import SlideResult
    from jobs.progress import BarObserver

    out = io.StringIO()
    bar = BarObserver(1, logging.getLogger("test-bar"), Console(file=out, width=200))
    bar.slide(SlideResult("a[/x]", failures=[Failure("a[/x]", "unreadable", "/d/[/x].tif: no")]))
    assert "failed a[/x] (unreadable): /d/[/x].tif: no" in out.getvalue()
