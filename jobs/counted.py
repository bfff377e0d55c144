"""Numbers of things, in words that agree with them."""

from __future__ import annotations


def counted(n: int, one: str, many: str | None = None) -> str:
    """Spell how many there are: ``1 slide``, ``2 slides``, ``1 slide has``, ``1,200 slides have``.

    Parameters
    ----------
    n
        How many.
    one, many
        What they are, of one and of any other number; None adds an s to ``one``.
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"
