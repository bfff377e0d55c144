"""What a run tells while it goes, and what it did: results of slides, the report, the callbacks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from dataflow.receipts import BlockReceipt, Failure, SlidePlan


@dataclass
class SlideResult:
    """How far one slide came.

    Attributes
    ----------
    n_tiles, n_blocks
        Size of its grid.
    blocks_before
        Blocks that were stored already.
    blocks_done
        Blocks that this run wrote.
    notes
        Things to say about the slide.
    failures
        What went wrong.
    finished
        Whether all that could be done was done before the run ended.
    """

    slide_id: str
    n_tiles: int = 0
    n_blocks: int = 0
    blocks_before: int = 0
    blocks_done: int = 0
    notes: tuple[str, ...] = ()
    failures: list[Failure] = field(default_factory=list)
    finished: bool = False

    @property
    def complete(self) -> bool:
        """Whether nothing of the slide is missing."""
        return self.finished and not self.failures


@dataclass
class StreamReport:
    """What a run did.

    Attributes
    ----------
    slides
        One result a slide, in the order in which they were planned.
    tiles_done
        Tiles written by this run.
    seconds
        Wall time of the run, and by stage (summed over workers and threads).
    stage_bytes
        Bytes moved by stage.
    stain_methods
        Tiles by stain method that was used on them.
    decoders
        Tiles by what decoded their pixels.
    halvings
        How often a batch was halved for lack of device memory.
    cancelled, stopped
        Whether the run ended early: by the user, or by a failure that every further block would share.
    """

    slides: list[SlideResult] = field(default_factory=list)
    tiles_done: int = 0
    seconds: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=dict)
    stage_bytes: Counter[str] = field(default_factory=Counter)
    stain_methods: Counter[str] = field(default_factory=Counter)
    decoders: Counter[str] = field(default_factory=Counter)
    halvings: int = 0
    cancelled: bool = False
    stopped: Failure | None = None

    @property
    def failures(self) -> list[Failure]:
        """All failures, slide by slide."""
        return [failure for slide in self.slides for failure in slide.failures]


class StreamObserver:
    """Callbacks of a run; the base class ignores everything."""

    def planned(self, plan: SlidePlan) -> None:
        """Take note that a slide is indexed."""

    def block(self, receipt: BlockReceipt) -> None:
        """Take note that a block is done or failed."""

    def slide(self, result: SlideResult) -> None:
        """Take note that a slide is finished, complete or not."""

    def no_workers(self) -> None:
        """Take note that all workers have been gone for some seconds: the run waits for new ones."""

    def cancelled(self) -> bool:
        """Say whether the run is to stop; asked about twice a second."""
        return False
