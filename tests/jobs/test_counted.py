from __future__ import annotations

from jobs.counted import counted


def test_words_agree_with_their_number() -> None:
    assert [counted(n, "slide") for n in (0, 1, 2, 1200)] == [
        "0 slides", "1 slide", "2 slides", "1,200 slides",
    ]  # fmt: skip
    assert counted(1, "slide has", "slides have") == "1 slide has"
    assert counted(3, "slide has", "slides have") == "3 slides have"
