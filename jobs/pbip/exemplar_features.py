"""Features of chosen tiles: those of the store where it has them, else encoded from the slides' pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from dataflow.discover import SlideSource
from dataflow.slide_stain import fit_stored_slide
from dataflow.stain import StainNormalizer, StainSpec
from models.encoder import FEATURES, EncoderFactory, TileEncoder
from models.preprocess import ResizeMode
from store_schema import names
from store_schema.bags import Bag
from store_schema.claims import differences
from store_schema.prototypes import ARITHMETIC
from store_schema.slide_view import SlideView
from store_schema.store import Store

Features = npt.NDArray[np.float32]
Tiles = npt.NDArray[np.int64]

_MODEL: Final = "model"
_STAIN: Final = "stain"
_ENCODER: Final = "encoder"


@dataclass(frozen=True)
class StoredFeatures:
    """Features of a store that are those of an encoder.

    Attributes
    ----------
    name
        Of the feature set.
    encoder, stain
        Their parts of the provenance; the encoder's may be of other arithmetic than would be used here.
    resize
        How tiles became the encoder's input.
    """

    name: str
    encoder: Mapping[str, Any]
    stain: Mapping[str, Any]
    resize: ResizeMode


def find_stored(
    store: Store,
    grid: str,
    slide_ids: Sequence[str],
    factories: Sequence[EncoderFactory],
    stain: StainSpec | None,
) -> tuple[StoredFeatures | None, str]:
    """Look for complete features of an encoder, all made in the same way.

    Parameters
    ----------
    store, grid, slide_ids
        Where to look.
    factories
        The encoder with each way to resize that will do, the best one first. Network, weights and preprocessing must be
        those of the features; of several that differ in precision only, those of the factory's precision are taken.
    stain
        What they must have been normalized by; None takes any, but no normalization first.

    Returns
    -------
    StoredFeatures or None, str
        And why there are none, in words.
    """
    slides = [store[slide_id] for slide_id in slide_ids]
    runs = sorted({name for slide in slides for name in slide.runs(grid, names.FEATURES)})
    wanted = [_Wanted(factory, stain) for factory in factories]
    label = wanted[0].encoder[_ENCODER]
    found: list[tuple[tuple[int, bool, bool, str], StoredFeatures]] = []
    not_these: list[str] = []
    for name in runs:
        made = [m for m in (_made_by(slide, grid, name) for slide in slides) if m is not None]
        if not any(m[_MODEL].get(_ENCODER) == label for m in made):
            continue
        problems = [{phrase for m in made for phrase in want.differences(m)} for want in wanted]
        fitting = next((i for i, problem in enumerate(problems) if not problem), None)
        n_done = sum(_is_complete(slide, grid, name) for slide in slides)
        if fitting is None:
            not_these.append(f"{name} was made otherwise ({'; '.join(sorted(problems[0]))})")
        elif n_done < len(slides):
            not_these.append(f"{name} is complete on {n_done} of {len(slides)} slides")
        elif any(m != made[0] for m in made):
            not_these.append(f"{name} was not made in one way on all slides")
        else:
            encoder, by = made[0][_MODEL], made[0][_STAIN]
            stored = StoredFeatures(name, encoder, by, factories[fitting].spec.resize)
            order = (
                fitting,
                by != StainSpec().provenance,
                encoder != wanted[fitting].encoder,
                name,
            )
            found.append((order, stored))
    if found:
        return min(found, key=lambda item: item[0])[1], ""
    return None, "; ".join(not_these) or f"the store has no features of {label} on {grid}"


def _made_by(slide: SlideView, grid: str, name: str) -> dict[str, Any] | None:
    if name not in slide.runs(grid, names.FEATURES):
        return None
    provenance: Mapping[str, Any] = slide.run_attrs(grid, names.FEATURES, name)[names.PROVENANCE]
    if _MODEL not in provenance:  # imported: which network made them is not known
        return None
    return {_MODEL: provenance[_MODEL], _STAIN: provenance.get(_STAIN)}


class _Wanted:
    """What features must have been made with."""

    def __init__(self, factory: EncoderFactory, stain: StainSpec | None) -> None:
        self.encoder = dict(factory.provenance)
        self._stain = None if stain is None else stain.provenance

    def differences(self, made: Mapping[str, Any]) -> Iterator[str]:
        """Yield what differs, arithmetic aside."""
        stored, asked = (
            {key: value for key, value in encoder.items() if key not in ARITHMETIC}
            for encoder in (made[_MODEL], self.encoder)
        )
        yield from differences(stored, asked)
        if self._stain is not None:
            yield from differences(made[_STAIN], self._stain, _STAIN)


def _is_complete(slide: SlideView, grid: str, name: str) -> bool:
    if name not in slide.runs(grid, names.FEATURES):
        return False
    done, total = slide.block_group(grid, names.FEATURES, name).done()
    return done == total


def read_stored(
    store: Store, grid: str, name: str, tiles: Mapping[str, Tiles]
) -> Iterator[tuple[str, Features]]:
    """Yield slide id and float32 (tile, feature) of chosen tiles; no pixels are read."""
    for slide_id, chosen in tiles.items():
        slide = store[slide_id]
        bag = Bag(slide, grid, slide.block_group(grid, names.FEATURES, name), tiles=chosen)
        yield slide_id, bag.load().astype(np.float32)


def encode_tiles(
    store: Store,
    grid: str,
    tiles: Mapping[str, Tiles],
    factory: EncoderFactory,
    stain: StainSpec,
    at: Callable[[int], None] = lambda _: None,
) -> Iterator[tuple[str, Features]]:
    """Yield slide id and float32 (tile, feature) of chosen tiles, read from the slides batch by batch.

    Parameters
    ----------
    store, grid, tiles
        Slide id → positions in its grid.
    factory, stain
        The encoder, and what tiles are normalized by, as in the stream.
    at
        Is told how many tiles are done.

    Raises
    ------
    SlideError
        A slide's file has gone, is another one, or can't be read.
    """
    model = factory.load()
    done = 0
    for slide_id, chosen in tiles.items():
        parts = []
        for features in _encode_slide(store[slide_id], grid, chosen, model, stain):
            parts.append(features)
            done += len(features)
            at(done)
        yield slide_id, np.concatenate(parts)


def _encode_slide(
    slide: SlideView, grid: str, chosen: Tiles, model: TileEncoder, stain: StainSpec
) -> Iterator[Features]:
    record = slide.record
    basis = None
    if stain.needs_basis:
        mpp = record.mpp if record.mpp_source == "user" else None
        basis = fit_stored_slide(
            slide, grid, stain, SlideSource(slide.slide_id, record.source, mpp)
        )
    normalizer = StainNormalizer(stain, basis, model.device)
    dataset = slide.tiles(grid, features=False, scores=False)
    for start in range(0, len(chosen), model.batch_size):
        part = dataset.isel({names.TILE: chosen[start : start + model.batch_size]})
        batch = torch.from_numpy(part.tiles.pixels().values).to(model.device)
        yield model(normalizer(batch)[0])[FEATURES].astype(np.float32)
