"""What the store holds and how it is read and written.

The names below are loaded when they are first used, so that ``import store_schema.errors`` costs
nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from store_schema.blocks import BlockGroup, open_block_group
    from store_schema.slide_view import SlideView
    from store_schema.store import Store, create_store, open_store

_HOMES = {
    "BlockGroup": "store_schema.blocks",
    "SlideView": "store_schema.slide_view",
    "Store": "store_schema.store",
    "create_store": "store_schema.store",
    "open_block_group": "store_schema.blocks",
    "open_store": "store_schema.store",
}

__all__ = [
    "BlockGroup",
    "SlideView",
    "Store",
    "create_store",
    "open_block_group",
    "open_store",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
