"""What comes back from the workers: small, frozen, and enough to say what was done and what was not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from store_schema.errors import SlidestreamError


@dataclass(frozen=True)
class Failure:
    """Something that was not done, and why.

    Attributes
    ----------
    slide_id
        The slide concerned.
    reason
        Stable code, e.g. ``unreadable``, ``no-mpp``, ``read-failed``, ``storage``, ``worker-died``.
    message
        One sentence for people.
    block
        Index of the block, or None when the whole slide is concerned.
    fatal
        Whether every further task would fail in the same way (full disk, no permission).
    traceback
        For bugs only: what ``-v`` shows.
    """

    slide_id: str
    reason: str
    message: str
    block: int | None = None
    fatal: bool = False
    traceback: str | None = None

    @classmethod
    def of(cls, slide_id: str, error: SlidestreamError, block: int | None = None) -> Failure:
        """Make a failure of one of our errors."""
        return cls(slide_id, error.reason, str(error), block, fatal=error.fatal)


@dataclass(frozen=True)
class SlidePlan:
    """A slide that is indexed (and claimed, when it is to be encoded).

    Attributes
    ----------
    slide_id
        The slide.
    n_tiles, n_blocks
        Size of its grid.
    missing
        Blocks that are still to be done; empty when there is nothing to encode.
    stamp
        Digest of slide, grid and settings (see ``BlockTask.stamp``).
    notes
        Things to say about the slide: derived mpp, no tissue, stain fit fell back.
    failure
        Set when the slide can't be processed; the rest is then empty.
    seconds
        Time that the plan took on the worker.
    """

    slide_id: str
    n_tiles: int = 0
    n_blocks: int = 0
    missing: tuple[int, ...] = ()
    stamp: str = ""
    notes: tuple[str, ...] = ()
    failure: Failure | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class BlockReceipt:
    """One block, done or failed.

    Attributes
    ----------
    slide_id, block
        Which block.
    n_tiles
        Tiles that were written.
    seconds, nbytes
        By stage (``dataflow.meters.STAGES``); read seconds are summed over the decode threads.
    stain_methods
        Tiles by name of the stain method used.
    decoders
        Tiles by what decoded their pixels (``SlideInfo.decoder``).
    halvings
        How often the batch had to be halved for lack of device memory.
    already_stored
        Somebody else stored the block since it was planned: another run, or this task before its worker died.
    failure
        Set when nothing was written.
    """

    slide_id: str
    block: int
    n_tiles: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    nbytes: Mapping[str, int] = field(default_factory=dict)
    stain_methods: Mapping[str, int] = field(default_factory=dict)
    decoders: Mapping[str, int] = field(default_factory=dict)
    halvings: int = 0
    already_stored: bool = False
    failure: Failure | None = None
