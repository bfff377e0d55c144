"""``select top-k``: the best tiles of each slide, written to the store as a selection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from dataflow.receipts import Failure
from jobs.mil.finite import first_not_finite
from jobs.mil.ranking import (
    Scores,
    attention_score,
    feature_norms,
    how_many,
    top_k,
    weighted,
)
from jobs.mil.selection_leak import MET
from jobs.run_config import absolute_url
from store_schema import names
from store_schema.bags import Bag
from store_schema.errors import IncompleteError, InputError, SlidestreamError
from store_schema.ids import check_name
from store_schema.store import open_store

Rank: TypeAlias = Literal["feature-norm", "attention", "weighted"]


class AttentionSource(Protocol):
    """Where the attention of tiles comes from: a trained model, behind one method."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What decides the numbers, JSON-able: digests of the weights."""
        ...

    def attention(self, bag: Bag) -> npt.NDArray[np.floating]:
        """Return the attention over the whole slide, float (tile,) or (tile, class)."""
        ...

    def met(self, slide_id: str) -> Mapping[str, Any]:
        """Return which models rank a slide's tiles, and which learned from it; see :mod:`jobs.mil.selection_leak`."""
        ...


@dataclass(frozen=True)
class SelectConfig:
    """One call of ``select top-k``.

    Attributes
    ----------
    store, features, grid
        Which features; None takes the only ones of the store.
    name
        Of the selection.
    rank
        ``feature-norm``, ``attention``, or ``weighted``: ``alpha`` of the attention and ``1 - alpha`` of the norm.
    k, fraction
        How many tiles of a slide, or which part of them; exactly one is given.
    overwrite
        Replace a selection of other settings.
    """

    store: str
    name: str
    rank: Rank = "feature-norm"
    features: str | None = None
    grid: str | None = None
    alpha: float = 0.7
    k: int | None = None
    fraction: float | None = None
    overwrite: bool = False


def select_top_k(config: SelectConfig, source: AttentionSource | None = None) -> dict[str, Any]:
    """Rank the tiles of every slide that has the features, and keep the best.

    Parameters
    ----------
    config
        The call.
    source
        Gives the attention; needed for every rank but ``feature-norm``.

    Returns
    -------
    dict
        JSON-able summary; ``failures`` lists the slides that could not be ranked, and why.

    Raises
    ------
    InputError
        If the settings make no sense.
    NotInStoreError
        If there is no such grid or feature set; names near ones.
    """
    check_name(config.name, "selection name")
    how_many(1, config.k, config.fraction)
    if not 0 <= config.alpha <= 1:
        raise InputError(f"--alpha {config.alpha:g} is not within 0 to 1")
    if (source is None) != (config.rank == "feature-norm"):
        raise InputError(
            f"--rank {config.rank} "
            + (
                "needs a trained model: name its --run"
                if source is None
                else "takes no --run: leave it out"
            )
        )
    store = open_store(absolute_url(config.store), mode="r+")
    bags = store.bags(config.features, config.grid, allow_incomplete=True)
    if not bags:
        raise InputError(f"{store.url} has no slides with features: import or encode some first")
    kept: dict[str, tuple[int, int]] = {}
    failures = []
    for bag in bags:
        try:
            kept[bag.slide_id] = _select(config, bag, source)
        except SlidestreamError as error:
            if error.fatal:
                raise
            failures.append(Failure.of(bag.slide_id, error))
    return {
        "command": "select top-k",
        "store": store.url,
        "grid": bags[0].grid,
        "features": bags[0].group.path.rpartition("/")[2],
        "selection": config.name,
        "rank": config.rank,
        "alpha": config.alpha if config.rank == "weighted" else None,
        "k": config.k,
        "fraction": config.fraction,
        "ok": not failures,
        "slides": {
            "asked": len(bags),
            "complete": len(kept),
            "failed": len(failures),
            "all_tiles_kept": sum(chosen == total for chosen, total in kept.values()),
            "without_features": list(bags.absent),
        },
        "tiles": {
            "selected": sum(chosen for chosen, _ in kept.values()),
            "of": sum(total for _, total in kept.values()),
        },
        "failures": [asdict(failure) for failure in failures],
    }


def _select(config: SelectConfig, bag: Bag, source: AttentionSource | None) -> tuple[int, int]:
    """Write one slide's selection; return how many tiles it has, and of how many."""
    if bag.partial:
        done, total = bag.group.done()
        raise IncompleteError(
            f"{bag.group.path} has {done}/{total} blocks: run the encoding again to complete it"
        )
    scores = _scores(config, bag, source)
    chosen = top_k(scores, how_many(len(bag), config.k, config.fraction))
    bag.slide.write_selection(
        bag.grid,
        config.name,
        chosen,
        scores[chosen],
        {
            names.GRID_MADE_BY: bag.slide.grid_attrs(bag.grid)[names.FINGERPRINT],
            "features": bag.group.attrs[names.FINGERPRINT],
            "rank": config.rank,
            "alpha": config.alpha if config.rank == "weighted" else None,
            "k": config.k,
            "fraction": config.fraction,
            "model": None if source is None else dict(source.provenance),
        },
        extra=None if source is None else {MET: dict(source.met(bag.slide_id))},
        overwrite=config.overwrite,
    )
    return len(chosen), len(bag)


def _scores(config: SelectConfig, bag: Bag, source: AttentionSource | None) -> Scores:
    if not len(bag):
        return np.zeros(0, np.float32)
    if source is None:
        return _norms(bag)
    attention = attention_score(source.attention(bag))
    if attention.shape != (len(bag),) or first_not_finite(attention[:, None]) is not None:
        raise InputError(
            f"the model's attention over slide {bag.slide_id} is {attention.shape} for {len(bag)} tiles, or not "
            "finite: look at the run's log"
        )
    if config.rank == "attention":
        return attention
    return weighted(attention, _norms(bag), config.alpha)


def _norms(bag: Bag) -> Scores:
    """Read a slide's features block by block and return their norms."""
    group, norms = bag.group, np.empty(len(bag), np.float32)
    main = next(iter(group.arrays))
    for block in range(group.n_blocks):
        span = group.block_slice(block)
        norms[span] = feature_norms(group.read_array(main, block))
    wrong = first_not_finite(norms[:, None])
    if wrong is not None:
        raise InputError(
            f"features of slide {bag.slide_id} ({group.path}) are not finite at tile {wrong}: encode the slide again "
            "with --overwrite"
        )
    return norms
