"""What to say when a name isn't there: the near ones, or all."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

MOST = 8


def near(name: str, known: Sequence[str]) -> str:
    """Return the end of a sentence that names what was probably meant.

    Parameters
    ----------
    name
        What was asked for.
    known
        What there is.
    """
    if not known:
        return "there are none yet"
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    more = f" and {len(known) - MOST} more" if len(known) > MOST else ""
    return f"there are {', '.join(known[:MOST])}{more}"
