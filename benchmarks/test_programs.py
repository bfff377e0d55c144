"""The arithmetic of the programs here: what they print must be what they say it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.dask_share import DaskShare, add_records
from benchmarks.flow import StageTimes, ideal
from benchmarks.peers.adapters.job import in_order
from benchmarks.peers.peer import PEERS, settings_of
from benchmarks.slide import benchmark_slide, small_slides
from benchmarks.timing import Timing, repeated


def test_the_ideal_is_what_the_slowest_resource_needs() -> None:
    read = StageTimes("read", Timing(100, 1.0, 1.0), Timing(200, 1.0, 2.0))
    write = StageTimes("write", Timing(100, 0.1, 0.01), Timing(100, 0.1, 0.02))
    model = StageTimes("model", Timing(100, 2.0, 0.1), Timing(100, 2.0, 0.1), on_gpu=True)
    bound = ideal([read, model, write], 1000, 2, Timing(1, 0.3, 0.4))
    cpu_s = 1000 * (2.0 / 200 + 0.1 / 100 + 0.02 / 100) + 0.4
    assert bound.cores_s == pytest.approx(cpu_s / 2)
    assert bound.gpu_s == pytest.approx(1000 / 50)
    assert bound.disk_s == pytest.approx(1000 / 1000)
    assert bound.seconds == bound.gpu_s
    assert ideal([read], 1000, 2, None).seconds == pytest.approx(5.0)


def test_time_between_tasks_is_of_each_thread() -> None:
    def record(thread: int, start: float, stop: float) -> dict[str, object]:
        spent = {"action": "compute", "start": start, "stop": stop}
        sent = {"action": "transfer", "start": start - 0.1, "stop": start}
        return {"worker": "w", "thread": thread, "startstops": [sent, spent]}

    share = DaskShare()
    add_records(share, [record(1, 5.0, 8.0), record(1, 0.0, 4.0), record(2, 3.0, 9.0)])
    assert (share.n_tasks, share.n_threads) == (3, 2)
    assert share.busy_s == pytest.approx(13.0)
    assert share.between == pytest.approx(1 / 14)


def test_repeated_does_all_items_at_least_once() -> None:
    seen: list[int] = []

    def work(item: int) -> int:
        seen.append(item)
        return 2

    timing = repeated([work, work], n_items=5, at_least_s=0.0)
    assert sorted(seen) == [0, 0, 0, 1, 2, 3, 4]  # each worker's warm-up is not counted
    assert timing.tiles == 10


def test_a_peers_tiles_are_brought_to_our_order() -> None:
    wanted = np.array([[0, 0], [256, 0], [0, 256]])
    found = np.array([[0, 256], [0, 0], [256, 0]])
    np.testing.assert_array_equal(found[in_order(found, wanted)], wanted)
    with pytest.raises(ValueError, match="aren't the 3 of the list"):
        in_order(found + 1, wanted)


def test_every_reader_of_a_peer_is_tried_with_and_without_workers() -> None:
    for peer in PEERS:
        tried = settings_of(peer, 2, 32)
        assert {s.reader for s in tried} == set(peer.readers)
        assert {s.num_workers for s in tried} == {0, 1, 2}
        adapter = Path(__file__).parent / "peers" / "adapters" / f"{peer.name}_flow.py"
        assert adapter.is_file()


def test_slides_are_made_once_and_differ(tmp_path: Path) -> None:
    slide = benchmark_slide(tmp_path, 4)
    before = slide.stat().st_mtime_ns
    assert benchmark_slide(tmp_path, 4).stat().st_mtime_ns == before
    first, second = small_slides(tmp_path, 2, side_tiles=1)
    assert first.read_bytes() != second.read_bytes()
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [first.parent]
