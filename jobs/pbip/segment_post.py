"""A slide's mask after post-processing: ``masks/<name>``, with each step recorded; what it was made of is kept."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dataflow.mask_components import small_pieces
from dataflow.mask_refine import (
    Mask,
    RefineSpec,
    edges_refined,
    greatest,
    opened_or_closed,
    replaced,
)
from dataflow.padded_window import Box, inner, padded, windows
from jobs.pbip.confidence import Confidence, provenance
from store_schema import names

_WINDOW_PX: Final = 1024
_LEAST: Final = 1e-6  # what gating leaves of a class that may be there, so that it wins over others


@dataclass(frozen=True)
class PostSpec:
    """What becomes of a slide's confidence, in the order of the attributes.

    Attributes
    ----------
    allowed
        Positions of the classes that may be there, by the slide's label; None allows all.
    refine
        Closing or opening, small components, borders.
    background
        Position of the class that regions grow into.
    """

    allowed: tuple[int, ...] | None
    refine: RefineSpec
    background: int

    @property
    def does_something(self) -> bool:
        """Whether the mask could come out otherwise than the greatest class."""
        return self.allowed is not None or self.refine.does_something

    def steps(self, class_names: Sequence[str]) -> list[dict[str, Any]]:
        """Return each step that is taken, in words and numbers, JSON-able."""
        refine, settings = self.refine, self.refine.provenance
        steps: list[dict[str, Any]] = []
        if self.allowed is not None:
            kept = [class_names[number] for number in self.allowed]
            steps.append({"step": "gate-by-label", "classes": kept})
        if refine.operation != "none":
            steps.append({"step": refine.operation, "kernel_px": refine.kernel_px})
        if refine.min_component_px > 1:
            least = {"min_component_px": refine.min_component_px}
            steps.append({"step": "drop-small-components", **least, "connectivity": 8})
        if refine.edge:
            edge = {key: settings[key] for key in ("edge_px", "edge_sigma_px", "edge_drop")}
            steps.append({"step": "refine-edges", **edge})
        version = settings["refine_version"]
        background = class_names[self.background]
        return [{**step, "background": background, "version": version} for step in steps]


def post_process(source: Confidence, name: str, spec: PostSpec, *, overwrite: bool) -> float:
    """Write ``masks/<name>/mask`` (y, x) uint8; the same again is a no-op.

    Parameters
    ----------
    source
        The confidence that it is made of.
    name
        Of the group.
    spec
        What to do.
    overwrite
        Replace one of other settings.

    Returns
    -------
    float
        Seconds that it took.

    Raises
    ------
    SettingsConflictError
        There is a group of that name that was made otherwise.
    """
    started = time.perf_counter()
    group = source.slide.create_raster_group(
        source.grid,
        name,
        {names.MASK: source.mask_spec()},
        provenance(source, steps=spec.steps(source.class_names)),
        extra={"source": f"{names.MASKS}/{source.name}/{names.CONFIDENCE}"},
        overwrite=overwrite,
    )
    if not group.is_sound():
        group.write_array(names.MASK, post_processed(source, spec))
        group.finish()
    return time.perf_counter() - started


def post_processed(source: Confidence, spec: PostSpec) -> Mask:
    """Return a slide's mask, uint8 (y, x).

    The mask is in memory as a whole, twice at one byte a pixel; confidence is read window by window.
    """
    shape, refine, background = source.shape, spec.refine, 1 + spec.background

    def confidence(box: Box) -> npt.NDArray[np.float32]:
        return gated(source.read(box), spec.allowed)

    mask = np.zeros(shape, np.uint8)
    margin_px = refine.operation_margin_px
    for box in windows(shape, _WINDOW_PX):
        around = padded(confidence, shape, box, margin_px, np.nan)
        if not np.isnan(around).all():
            done = opened_or_closed(greatest(around), around, background, refine)
            mask[box] = inner(done, margin_px)
    if refine.min_component_px > 1:
        bands = [slice(top, top + _WINDOW_PX) for top in range(0, shape[0], _WINDOW_PX)]
        pieces = small_pieces((mask[band] for band in bands), background, refine.min_component_px)
        for number, band in enumerate(bands):
            small = pieces.of(number, mask[band])
            for box in windows(small.shape, _WINDOW_PX):
                if small[box].any():
                    rows = slice(band.start + box[0].start, band.start + box[0].stop)
                    here = (rows, box[1])
                    mask[here] = replaced(mask[here], small[box], confidence(here), background)
    if not refine.edge:
        return mask
    refined = mask.copy()
    margin_px = refine.edge_margin_px
    for box in windows(shape, _WINDOW_PX):
        before = padded(mask.__getitem__, shape, box, margin_px, 0)
        if (before > 0).any():
            around = padded(confidence, shape, box, margin_px, np.nan)
            refined[box] = inner(edges_refined(before, around, background, refine), margin_px)
    return refined


def gated(
    confidence: npt.NDArray[np.float32], allowed: tuple[int, ...] | None
) -> npt.NDArray[np.float32]:
    """Take classes that a slide's label doesn't name out of a confidence (class, y, x); None allows all."""
    if allowed is None:
        return confidence
    out = np.where(np.isnan(confidence), np.nan, np.float32(0))
    for number in allowed:
        out[number] = np.maximum(confidence[number], np.float32(_LEAST))  # NaN stays
    return out
