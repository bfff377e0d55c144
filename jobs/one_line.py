"""Text of others, e.g. names of files, made fit for a line of a terminal or a log."""

from __future__ import annotations


def one_line(text: str) -> str:
    """Return the text with line ends, control characters and undecodable bytes written as escapes."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )
