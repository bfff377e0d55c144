"""What a check of the doctor comes back with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Status: TypeAlias = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes
    ----------
    name
        What, in a word or two.
    status
        ``fail`` is what stops a run, ``warn`` what a person should know before one.
    says
        What was found; where not ``ok``, also what to do.
    facts
        The same for machines, JSON-able.
    """

    name: str
    status: Status
    says: str
    facts: Mapping[str, Any] = field(default_factory=dict)
