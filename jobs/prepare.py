"""All that can be checked of a call before a cluster is started, a job handed over, or a store made."""

from __future__ import annotations

from dataclasses import dataclass

from dataflow.discover import SlideSource
from dataflow.receipts import Failure
from dataflow.stream_spec import StreamSpec
from jobs.find_slides import find_slides
from jobs.run_config import RunConfig, check_store_place, encoder_factory, stream_spec
from models.encoder import EncoderFactory
from store_schema.errors import InputError


@dataclass(frozen=True)
class Prepared:
    """A call that has passed all checks that need no cluster.

    Attributes
    ----------
    sources
        Slides to try.
    refused
        Slides that can't be tried.
    factory
        The encoder, its weights found; None for index.
    spec
        The run of the stream.
    """

    sources: list[SlideSource]
    refused: list[Failure]
    factory: EncoderFactory | None
    spec: StreamSpec


def prepare(config: RunConfig) -> Prepared:
    """Check all that can be checked before a cluster is started or a store is made.

    Raises
    ------
    SlidestreamError
        Nothing can be started: no slides, no store or none that workers could reach, no such encoder or no weights,
        options that contradict.
    """
    check_store_place(config.store)
    factory = None if config.encode is None else encoder_factory(config.encode)
    if factory is not None:
        _ = factory.provenance  # finds the weights, or says what is missing
    spec = stream_spec(config, factory)
    sources, refused = find_slides(config)
    if not sources and not refused:
        raise InputError(
            f"{config.store} holds no slide with grid {config.grid_name!r}; index slides first."
        )
    return Prepared(sources, refused, factory, spec)
