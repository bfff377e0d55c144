"""All that can be checked of a call before a cluster is started, a job handed over, or a store made."""

from __future__ import annotations

from dataclasses import dataclass

from dataflow.discover import SlideSource
from dataflow.receipts import Failure
from dataflow.stream_spec import StreamSpec
from jobs.find_slides import find_slides
from jobs.run_config import RunConfig, check_store_place, stream_spec
from jobs.tile_model_settings import GridCheck, PlacedFactory
from store_schema import names
from store_schema.errors import InputError, SlidestreamError
from store_schema.specs import GridSpec
from store_schema.store import open_store


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
        The model, its weights found; None for index.
    spec
        The run of the stream.
    grid
        What the first slide's grid was asked as; None where nothing has looked.
    """

    sources: list[SlideSource]
    refused: list[Failure]
    factory: PlacedFactory | None
    spec: StreamSpec
    grid: GridSpec | None = None


def prepare(config: RunConfig) -> Prepared:
    """Check all that can be checked before a cluster is started or a store is made.

    Raises
    ------
    SlidestreamError
        Nothing can be started: no slides, no store or none that workers could reach, no such model or no weights,
        no grid that the model takes, options that contradict.
    """
    check_store_place(config.store)
    factory = None if config.encode is None else config.encode.factory()
    if factory is not None:
        _ = factory.provenance  # finds the weights, or says what is missing
    spec = stream_spec(config, factory)
    sources, refused = find_slides(config)
    if not sources and not refused:
        raise InputError(
            f"{config.store} holds no slide with grid {config.grid_name!r}; index slides first."
        )
    check = None if config.encode is None else config.encode.grid_check()
    grid: GridSpec | None = None
    if check is not None:
        sources, unfit, grid = _fitting(config, spec, sources, check)
        refused = [*refused, *unfit]
    return Prepared(sources, refused, factory, spec, grid)


def _fitting(
    config: RunConfig, spec: StreamSpec, sources: list[SlideSource], check: GridCheck
) -> tuple[list[SlideSource], list[Failure], GridSpec | None]:
    """Part slides whose grid the model takes from the others, and give such a grid; raise if there are only others."""
    if spec.index is not None:
        check(spec.index.grid)
        return sources, [], spec.index.grid
    store = open_store(config.store_url)
    fitting, unfit = [], []
    problem: InputError | None = None
    taken: GridSpec | None = None
    for source in sources:
        try:
            grid = GridSpec(**store[source.slide_id].grid_attrs(spec.grid_name)[names.SPEC])
            check(grid)
        except InputError as error:
            problem = error
            unfit.append(Failure.of(source.slide_id, error))
        except SlidestreamError:
            fitting.append(source)  # its plan will say what is damaged
        else:
            taken = taken or grid
            fitting.append(source)
    if problem is not None and not fitting:
        raise problem
    return fitting, unfit, taken
