"""What the store holds and how it is read and written.

The names below are loaded when they are first used, so that ``import store_schema.errors`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from store_schema.bags import Bag, Bags
    from store_schema.blocks import BlockGroup, open_block_group
    from store_schema.inventory import slide_contents, store_contents
    from store_schema.leftovers import remove_leftovers
    from store_schema.slide_view import SlideView
    from store_schema.store import Store, create_store, open_store
    from store_schema.validate import Violation

_HOMES = {
    "Bag": "bags",
    "Bags": "bags",
    "BlockGroup": "blocks",
    "SlideView": "slide_view",
    "Store": "store",
    "Violation": "validate",
    "create_store": "store",
    "open_block_group": "blocks",
    "open_store": "store",
    "remove_leftovers": "leftovers",
    "slide_contents": "inventory",
    "store_contents": "inventory",
}

__all__ = [
    "Bag",
    "Bags",
    "BlockGroup",
    "SlideView",
    "Store",
    "Violation",
    "create_store",
    "open_block_group",
    "open_store",
    "remove_leftovers",
    "slide_contents",
    "store_contents",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"store_schema.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
