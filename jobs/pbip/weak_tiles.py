"""Tiles of slides in a store with image-level labels, read from the slides when a step asks for them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from dataflow.keyed_cache import KeyedCache
from dataflow.slide import SlideReader, open_slide
from dataflow.slide_stain import fit_stored_slide
from dataflow.stain import StainNormalizer, StainSpec
from dataflow.stored_plan import stored_plan
from dataflow.tile_reader import TilePlan, TileReader
from dataflow.worker_cache import decode_pool
from jobs.training.stored_slides import slide_source
from store_schema import names
from store_schema.slide_view import SlideView
from store_schema.specs import fingerprint

Indices = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]

# far above what the threads of a process read from at one time; what falls out is closed with its last reference
_OPEN_SLIDES: Final = 32


@dataclass(frozen=True, eq=False)
class LabelledSlide:
    """Some tiles of one slide.

    Attributes
    ----------
    slide
        In its store.
    tiles
        int64 (n,), their positions in the grid, ascending.
    labels
        int8 (n, class): 1 where a tile holds the class.
    """

    slide: SlideView
    tiles: Indices
    labels: npt.NDArray[np.int8]


class StoreWeakTiles:
    """The tiles of one side of a training; a ``WeakTiles`` of models.

    No tile is kept: a step's are read from the slides, of which so many stay open, and normalized.

    Parameters
    ----------
    grid
        The grid that tiles are of.
    slides
        Of that grid, all of one tile size; at least one.
    stain
        What tiles are normalized by.

    Attributes
    ----------
    tell
        Takes the number of tiles of each read; may be set.
    """

    def __init__(self, grid: str, slides: Sequence[LabelledSlide], stain: StainSpec) -> None:
        self.grid = grid
        self.slides = tuple(slides)
        self.tell: Callable[[int], None] = lambda _: None
        self._stain = stain
        self._readers: KeyedCache[tuple[SlideReader, TilePlan]] = KeyedCache(_OPEN_SLIDES)
        self._normalizers: KeyedCache[StainNormalizer] = KeyedCache(len(self.slides))
        counts = [len(each.tiles) for each in self.slides]
        self.slide_of = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        self.labels = np.concatenate([each.labels for each in self.slides])
        self.tile = np.concatenate([each.tiles for each in self.slides])
        tables = [each.slide.tile_table(grid) for each in self.slides]
        parts = list(zip(tables, self.slides, strict=True))
        self.x = np.concatenate([table.x[each.tiles] for table, each in parts])
        self.y = np.concatenate([table.y[each.tiles] for table, each in parts])
        self.tile_px = int(self.slides[0].slide.grid_attrs(grid)[names.SPEC]["tile_px"])

    def __len__(self) -> int:
        return len(self.tile)

    @property
    def slide_ids(self) -> list[str]:
        """The slides, in their order."""
        return [each.slide.slide_id for each in self.slides]

    @cached_property
    def fingerprint(self) -> str:
        """Digest of slides, grids, tiles, labels and normalization."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(fingerprint({"stain": self._stain.provenance}).encode())
        for each in self.slides:
            grid = each.slide.grid_attrs(self.grid)[names.FINGERPRINT]
            digest.update(f"{each.slide.slide_id}\n{each.slide.record.fingerprint}{grid}".encode())
            digest.update(np.ascontiguousarray(each.tiles).data)
            digest.update(np.ascontiguousarray(each.labels).data)
        return digest.hexdigest()

    def tile_level0(self, number: int) -> int:
        """Return the side of the square that a tile of a slide covers [px, level 0]."""
        attrs = self.slides[number].slide.grid_attrs(self.grid)
        return int(attrs[names.GEOMETRY]["tile_level0"])

    def read(self, indices: Indices) -> Pixels:
        """Read tiles, in any order: uint8 (n, y, x, rgb).

        Raises
        ------
        SlideError
            A slide's file has gone or can't be read.
        """
        tiles = np.empty((len(indices), self.tile_px, self.tile_px, 3), np.uint8)
        slide_of = self.slide_of[indices]
        by_slide = [(int(n), np.flatnonzero(slide_of == n)) for n in np.unique(slide_of)]
        read = decode_pool().map(lambda part: self._decode(part[0], indices[part[1]]), by_slide)
        for (number, rows), pixels in zip(by_slide, read, strict=True):
            tiles[rows] = self._normalized(number, pixels)
        self.tell(len(indices))
        return tiles

    def _decode(self, number: int, indices: Indices) -> Pixels:
        """Read tiles of one slide, neighbours after each other: decoded blocks are shared."""
        reader, plan = self._readers.get(number, lambda: self._reader(number))
        order = np.argsort(self.tile[indices], kind="stable")
        pixels = np.empty((len(indices), self.tile_px, self.tile_px, 3), np.uint8)
        block = TileReader(reader, plan, self.x[indices[order]], self.y[indices[order]])
        block.read(0, len(order), pixels)
        return pixels[np.argsort(order)]

    def _reader(self, number: int) -> tuple[SlideReader, TilePlan]:
        slide = self.slides[number].slide
        source = slide_source(slide)
        reader = open_slide(source.path, source.mpp)
        return reader, stored_plan(reader.info, slide, self.grid)

    def _normalized(self, number: int, pixels: Pixels) -> Pixels:
        if self._stain.method == "none":
            return pixels
        normalizer = self._normalizers.get(number, lambda: self._normalizer(number))
        return normalizer(torch.from_numpy(pixels))[0].numpy()

    def _normalizer(self, number: int) -> StainNormalizer:
        slide = self.slides[number].slide
        basis = None
        if self._stain.needs_basis:
            basis = fit_stored_slide(slide, self.grid, self._stain, slide_source(slide))
        return StainNormalizer(self._stain, basis, torch.device("cpu"))
