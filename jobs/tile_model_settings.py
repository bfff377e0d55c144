"""The seam between the job path of the stream and every command that sends tiles through a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from dataflow.stream_spec import EncodeSpec
from dataflow.tile_model import TileModelFactory
from store_schema.specs import GridSpec

GridCheck: TypeAlias = Callable[[GridSpec], None]
"""Raises InputError, which says what of a grid differs from what the model takes, and what to do."""


class PlacedFactory(TileModelFactory, Protocol):
    """A tile model's factory that says where it computes, and how exactly: what a run's metrics tell."""

    @property
    def device(self) -> str:
        """``cpu`` or ``cuda``."""
        ...

    @property
    def precision(self) -> str:
        """``fp32``, ``bf16`` or ``fp16``."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong with the model as far as its training knows, in sentences."""
        ...


class TileModelSettings(Protocol):
    """What a command's options say of its model: a frozen dataclass, since it travels to the cluster with the call.

    A command of a new model is such a class, and a :class:`jobs.run_config.RunConfig` with it: ``--scheduler``,
    ``--detach``, ``--dry-run``, resuming, progress and metrics are those of every run.
    """

    def factory(self) -> PlacedFactory:
        """Return what travels to the workers.

        Raises
        ------
        SlidestreamError
            There is no such model, or it can't be used here.
        """
        ...

    def encode_spec(self, factory: Any, *, overwrite: bool) -> EncodeSpec:
        """Return the second half of the stream.

        Parameters
        ----------
        factory
            What :meth:`factory` gave.
        overwrite
            Replace what was made otherwise.
        """
        ...

    def grid_check(self) -> GridCheck | None:
        """Return what refuses grids whose tiles are not what the model takes; None takes all."""
        ...
