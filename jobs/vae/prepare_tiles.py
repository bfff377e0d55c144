"""One pass from an origin to tiles that a training reads: read → judge colour → normalize stain → one file."""

from __future__ import annotations

import csv
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from dataflow.stain import StainMethod, StainNormalizer, StainSpec
from jobs.vae.prepared_tiles import (
    COLUMNS,
    PIXELS,
    SUMMARY,
    TABLE,
    PreparedTiles,
    digest_of,
    open_prepared,
)
from jobs.vae.saturation import has_colour
from jobs.vae.tile_origin import RawTiles, TileOrigin
from store_schema.errors import InputError, StorageError

PREPARE_VERSION: Final = 1
"""Raised when the same settings give other tiles."""

_PARTIAL: Final = ".partial"


def prepared_tiles(
    origin: TileOrigin,
    stain: StainSpec,
    min_saturation: float,
    directory: Path,
    logger: logging.Logger,
    tell: Callable[[int], None],
) -> PreparedTiles:
    """Return the tiles of a run: those that lie there already, or all prepared anew.

    Parameters
    ----------
    origin
        Where they come from.
    stain
        How they are normalized.
    min_saturation
        Tiles without that much colour are left out, see :func:`jobs.vae.saturation.has_colour`.
    directory
        Of the run; gets ``tiles.npy``, ``tiles.csv`` (which tile each is) and ``tiles.json`` (counts, digest), the
        last one when all is there.
    logger
        Of the run.
    tell
        Takes the number of tiles read, again and again.

    Raises
    ------
    SlidestreamError
        Tiles can't be read or written, or none has colour.
    """
    described = {
        "version": PREPARE_VERSION,
        "origin": dict(origin.describe()),
        "stain": stain.to_json(),
        "min_saturation": min_saturation,
    }
    found = open_prepared(directory, described)
    if found is not None:
        logger.info("%d tiles were prepared before", len(found))
        return found
    try:
        (directory / SUMMARY).unlink(missing_ok=True)
        counts = _prepare(origin, stain, min_saturation, directory, tell)
        summary = {
            "described": described,
            "digest": digest_of(np.load(directory / PIXELS, mmap_mode="r"), directory / TABLE),
            "counts": counts,
            "mpp": origin.mpp,
        }
        (directory / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n")
    except OSError as error:
        raise StorageError(
            f"The prepared tiles can't be written to {directory} ({error.strerror}): free space, or choose another "
            "--run-dir."
        ) from error
    logger.info("prepared %s", json.dumps(counts))
    found = open_prepared(directory, described)
    if found is None:
        raise StorageError(
            f"The tiles that were just written to {directory} can't be read: look at the disk."
        )
    return found


def _prepare(
    origin: TileOrigin,
    stain: StainSpec,
    min_saturation: float,
    directory: Path,
    tell: Callable[[int], None],
) -> dict[str, Any]:
    methods: Counter[str] = Counter()
    n_read = n_kept = 0
    with _TileWriter(directory, origin.tile_px) as writer:
        for part in origin.parts:
            normalizer = StainNormalizer(stain, origin.basis(part, stain), torch.device("cpu"))
            for raw in origin.read(part):
                kept = np.flatnonzero(has_colour(raw.pixels, min_saturation))
                tiles, used = normalizer(torch.from_numpy(raw.pixels[kept]))
                stained = [StainMethod(code).name.lower() for code in used.tolist()]
                writer.add(part, raw, kept, tiles.numpy(), stained)
                methods.update(stained)
                n_read += len(raw.index)
                n_kept += len(kept)
                tell(n_read)
    if not n_kept:
        raise InputError(
            f"None of the {n_read} tiles has colour (a saturation of {min_saturation:g} anywhere): they show no "
            "stained tissue; lower --min-saturation if they do."
        )
    return {
        "read": n_read,
        "without_colour": n_read - n_kept,
        "kept": n_kept,
        "stain": dict(methods),
    }


class _TileWriter:
    """Appends tiles to ``tiles.npy`` and ``tiles.csv``; they get their names when all is written."""

    def __init__(self, directory: Path, tile_px: int) -> None:
        self._paths = directory / PIXELS, directory / TABLE
        self._partial = [path.with_name(path.name + _PARTIAL) for path in self._paths]
        self._tile_px = tile_px
        self._n_tiles = 0

    def __enter__(self) -> _TileWriter:
        self._pixels = self._partial[0].open("wb")
        self._write_header()
        self._table = self._partial[1].open("w", newline="", encoding="utf-8")
        self._rows = csv.writer(self._table, lineterminator="\n")
        self._rows.writerow(COLUMNS)
        return self

    def add(
        self,
        part: str,
        raw: RawTiles,
        kept: npt.NDArray[np.int64],
        tiles: npt.NDArray[np.uint8],
        stained: list[str],
    ) -> None:
        """Append the kept tiles of a batch."""
        self._pixels.write(np.ascontiguousarray(tiles).data)
        self._n_tiles += len(tiles)
        for i, method in zip(kept.tolist(), stained, strict=True):
            self._rows.writerow((part, raw.index[i], raw.groups[i], raw.labels[i], method))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._pixels.seek(0)
            self._write_header()
        self._pixels.close()
        self._table.close()
        for partial, path in zip(self._partial, self._paths, strict=True):
            if kind is None:
                partial.replace(path)
            else:
                partial.unlink(missing_ok=True)

    def _write_header(self) -> None:
        """Write the header of a .npy file; numpy leaves room in it for any number of tiles (GROWTH_AXIS_MAX_DIGITS)."""
        shape = (self._n_tiles, self._tile_px, self._tile_px, 3)
        header: Mapping[str, Any] = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._pixels, dict(header))
