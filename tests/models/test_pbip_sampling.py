"""Slides and tiles come in turn, rounds cut the passes anywhere, and the seed decides all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from models.pbip_sampling import batches_an_epoch, round_indices, rounds_of

MakeTiles = Callable[..., Any]


def drawn(
    source: Any, sampling: Any, batch_size: int, n_batches: int, rounds: range, seed: int = 0
) -> list[npt.NDArray[np.int64]]:
    return [
        indices
        for number in rounds
        for indices in round_indices(
            source, sampling, batch_size, n_batches, seed=seed, number=number
        )
    ]


def test_every_tile_comes_once_an_epoch_whatever_the_rounds(textured_tiles: MakeTiles) -> None:
    source = textured_tiles(25, 32)
    assert batches_an_epoch(source, "tile", 4) == 7
    batches = drawn(source, "tile", 4, 3, range(7))  # three passes in seven rounds
    assert len(batches) == 21
    passes = [np.concatenate(batches[7 * k : 7 * k + 7]).tolist() for k in range(3)]
    assert all(sorted(tiles) == list(range(25)) for tiles in passes)
    assert passes[0] != passes[1]


def test_slides_come_in_turn_with_a_new_tile_each(textured_tiles: MakeTiles) -> None:
    source = textured_tiles(26, 32, per_slide=5)  # five slides of five tiles, one of a single one
    batches = drawn(source, "slide", 4, 3, range(8))  # 96 draws: 16 of each of six slides
    slides = source.slide_of[np.concatenate(batches)]
    assert set(Counter(slides.tolist()).values()) == {16}
    assert batches_an_epoch(source, "slide", 4) == 2
    # 16 draws of five tiles: a tile is left out once in 35 times
    assert len(set(np.concatenate(batches).tolist())) > 20
    first = np.concatenate(batches)[:6]
    assert len(set(source.slide_of[first].tolist())) == 6


def test_a_round_follows_from_its_number_and_the_seed(textured_tiles: MakeTiles) -> None:
    source = textured_tiles(25, 32)
    for sampling in ("slide", "tile"):
        whole = drawn(source, sampling, 4, 3, range(3))
        alone = drawn(source, sampling, 4, 3, range(2, 3))
        assert all(np.array_equal(a, b) for a, b in zip(whole[6:], alone, strict=True))
        other = drawn(source, sampling, 4, 3, range(3), seed=1)
        assert not all(np.array_equal(a, b) for a, b in zip(whole, other, strict=True))


def test_epochs_are_so_many_rounds() -> None:
    assert rounds_of(epoch_batches=1000, round_batches=100, epochs=8, warmup_epochs=1) == (80, 10)
    assert rounds_of(epoch_batches=7, round_batches=3, epochs=2, warmup_epochs=0.5) == (5, 3.5 / 3)
    assert rounds_of(epoch_batches=1, round_batches=100, epochs=1, warmup_epochs=0) == (1, 0)
