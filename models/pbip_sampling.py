"""Which tiles a training step sees: a new random tile of each slide, or every tile once an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from models.weak_tiles import WeakTiles

Sampling: TypeAlias = Literal["slide", "tile"]
Indices: TypeAlias = npt.NDArray[np.int64]

# seeds of what is random here, apart from each other and from the epochs' own
_PASSES, _TILES = 1, 2


def batches_an_epoch(source: WeakTiles, sampling: Sampling, batch_size: int) -> int:
    """Return the steps in which every slide, or every tile, is drawn once."""
    n = len(np.unique(source.slide_of)) if sampling == "slide" else len(source)
    return -(-n // batch_size)


def rounds_of(
    epoch_batches: int, round_batches: int, epochs: float, warmup_epochs: float
) -> tuple[int, float]:
    """Return how many rounds, which is what ``fit`` calls epochs, make up some epochs, and their warm-up.

    Parameters
    ----------
    epoch_batches, round_batches
        Steps of each.
    epochs, warmup_epochs
        To be turned into rounds; the last round is trained to its end.
    """
    rounds = max(1, -(-round(epochs * epoch_batches) // round_batches))
    return rounds, warmup_epochs * epoch_batches / round_batches


def round_indices(
    source: WeakTiles,
    sampling: Sampling,
    batch_size: int,
    n_batches: int,
    *,
    seed: int,
    number: int,
) -> Iterator[Indices]:
    """Yield the tiles of each step of a round, int64 (n,); all follow from the seed and the round's number.

    Slides, or tiles, come in passes: each once in an order of its own, then the next pass. Rounds cut the
    passes wherever they end.

    Parameters
    ----------
    source
        Of the tiles.
    sampling
        ``slide``: one random tile of each slide that comes; ``tile``: the tiles themselves.
    batch_size
        Tiles a step; with ``tile`` the last step of a pass has what is left.
    n_batches
        Steps of a round.
    seed, number
        Of the training; of the round, from 0.
    """
    first = number * n_batches
    if sampling == "tile":
        a_pass = batches_an_epoch(source, "tile", batch_size)
        for step in range(first, first + n_batches):
            start = step % a_pass * batch_size
            yield _pass_order(len(source), seed, step // a_pass)[start : start + batch_size]
        return
    by_slide = tiles_by_slide(source)
    rng = np.random.default_rng([seed, _TILES, number])
    for step in range(first, first + n_batches):
        positions = range(step * batch_size, (step + 1) * batch_size)
        slides = [
            by_slide[_pass_order(len(by_slide), seed, p // len(by_slide))[p % len(by_slide)]]
            for p in positions
        ]
        yield np.array([tiles[rng.integers(len(tiles))] for tiles in slides], np.int64)


def tiles_by_slide(source: WeakTiles) -> list[Indices]:
    """Return the tiles of each slide that has any, int64 (n,)."""
    order = np.argsort(source.slide_of, kind="stable").astype(np.int64)
    _, starts = np.unique(source.slide_of[order], return_index=True)
    return list(np.split(order, starts[1:]))


@lru_cache(maxsize=4)  # every step asks, and a pass may have a million tiles
def _pass_order(n: int, seed: int, number: int) -> Indices:
    return np.random.default_rng([seed, _PASSES, number]).permutation(n)
