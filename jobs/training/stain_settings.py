"""What the stain options of a training say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataflow.stain import FitScope, Method


@dataclass(frozen=True)
class StainSettings:
    """What the stain options say; None is what goes without saying: of a store's slides ``slide``, else ``tile``.

    Of a scorer or a classifier None is what the checkpoint was trained with, of a bank of prototypes what that was
    made with.
    """

    method: Method | None = None
    fit: FitScope | None = None
    target: str | None = None
