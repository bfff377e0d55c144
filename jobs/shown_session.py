"""Python lines together with what they really print, as an interpreter would show them."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence


def shown_session(lines: Sequence[str]) -> str:
    """Run lines one after the other in a fresh namespace.

    Parameters
    ----------
    lines
        One statement or expression each; written by us, never by a user.

    Returns
    -------
    str
        Each line after ``>>>``, followed by what it printed or, for an expression, its repr.
    """
    namespace: dict[str, object] = {}
    text = []
    for line in lines:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(line, "<session>", "single"), namespace)
        text.append(f">>> {line}")
        if printed.getvalue():
            text.append(printed.getvalue().rstrip())
    return "\n".join(text)
