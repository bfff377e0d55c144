"""What is said where scores or features of a name were made otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from dataflow.group_conflict import conflict

TARGET = {"name": "reference", "digest": "aa"}
MADE: dict[str, Any] = {
    "slide": "of s",
    "grid": "of g",
    "stain": {"method": "macenko", "fit": "slide", "target": TARGET},
    "model": {"model": "vae", "weights": "sha256:1", "precision": "fp32", "mean": [0.5]},
    "stream_version": 1,
}


def made(**changes: Any) -> dict[str, Any]:
    return {**MADE, **changes}


def model(**changes: Any) -> dict[str, Any]:
    return made(model={**MADE["model"], **changes})


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            model(map_px=4),
            "was made with no --map-px, and is asked for with --map-px 4: pass --overwrite",
        ),
        (model(weights="sha256:2"), "was made with other weights: "),
        (
            model(weights="sha256:2", precision="bf16"),
            "with other weights, --precision fp32, and is asked for with --precision bf16: ",
        ),
        (model(model="head"), "with model vae, and is asked for with model head: "),
        (model(mean=[0.4]), "was made with other mean: "),
        (
            made(stain={"method": "none"}),
            "with --stain macenko, and is asked for with --stain none: ",
        ),
        (
            made(stain={**MADE["stain"], "fit": "tile"}),
            "with --stain-fit slide, and is asked for with --stain-fit tile: ",
        ),
        (
            made(stain={**MADE["stain"], "target": {"name": "mine", "digest": "bb"}}),
            "with --stain-target reference, and is asked for with --stain-target mine: ",
        ),
        (
            made(stain={**MADE["stain"], "target": {**TARGET, "digest": "bb"}}),
            "was made with other contents of --stain-target: ",
        ),
        (made(stream_version=2), "was made by another version: "),
        (made(grid="of another"), "was made before the grid or the slide changed: "),
        (MADE, "has arrays of another layout, "),
    ],
)
def test_what_differs_is_said_in_options(asked: dict[str, Any], said: str) -> None:
    sentence = conflict("scores/b1", {"provenance": MADE}, asked)
    assert sentence.startswith("scores/b1 ")
    assert said in sentence
    assert sentence.endswith("choose another name")
    assert "sha256" not in sentence


def test_what_other_commands_made() -> None:
    stored = {"provenance": {"slide": "of s", "run": "abmil"}}
    assert "was made by another command: " in conflict("scores/abmil", stored, MADE)
