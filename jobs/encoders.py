"""``slidestream encoders``: what can be used as encoder, and what it takes to use it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click
from rich.markup import escape

from jobs.options import json_option
from jobs.weights_at_hand import weights_at_hand
from models.cards import EncoderCard
from models.registry import find_card, list_cards


@click.command(
    help="List the encoders with a name of their own, or show one: also timm:MODEL, "
    "open_clip:MODEL/TAG, and NAME@weights-file."
)
@click.argument("name", required=False)
@json_option
def encoders(name: str | None, as_json: bool) -> int:
    """Show one encoder or all."""
    cards = list_cards() if name is None else (find_card(name),)
    described = [describe(card) for card in cards]
    if as_json:
        click.echo(json.dumps(described if name is None else described[0], indent=2))
    elif name is None:
        _show_all(described)
    else:
        _show_one(described[0])
    return 0


def describe(card: EncoderCard) -> dict[str, Any]:
    """Bring a card into the stable, JSON-able form of ``--json``.

    Parameters
    ----------
    card
        Of any encoder.

    Returns
    -------
    dict
        The card's fields, with ``ready`` (usable now, without a network) and ``usable``: ``ready``,
        ``download``, ``gated`` (accept the licence, then download) or ``no weights``.
    """
    ready = weights_at_hand(card)
    if ready:
        usable = "ready"
    elif card.gated:
        usable = "gated"
    elif card.source.startswith("hf-hub:"):
        usable = "download"
    else:
        usable = "no weights"
    return {**asdict(card), "ready": ready, "usable": usable}


_STYLES = {"ready": "green", "download": "yellow", "gated": "yellow", "no weights": "red"}
_MEANINGS = {
    "ready": "usable now, also without a network",
    "download": "weights come from the hub at first use; needs a network once",
    "gated": "accept the licence on the hub and log in (`hf auth login`); needs a network once",
    "no weights": "no pretrained weights to be had; give a file as NAME@FILE, or --random-weights",
}


def _show_all(described: list[dict[str, Any]]) -> None:
    from jobs.tables import new_table, show

    table = new_table(
        "encoder", "input px", "dim", "µm/px", "licence", "usable",
        right=("input px", "dim", "µm/px"),
    )  # fmt: skip
    for card in described:
        table.add_row(
            card["name"],
            str(card["input_px"]),
            f"{card['dim']:,}",
            _mpp(card),
            card["licence"],
            _usable(card),
        )
    shown = {card["usable"] for card in described}
    legend = [
        f"[{_STYLES[word]}]{word:<11}[/]{text}" for word, text in _MEANINGS.items() if word in shown
    ]
    show(
        table,
        *legend,
        "\nAlso: timm:MODEL, open_clip:MODEL/TAG, and any of them with a file of weights: NAME@FILE.\n"
        "More on one: slidestream encoders NAME",
    )


def _show_one(card: dict[str, Any]) -> None:
    from jobs.tables import show

    rows = {
        "input": f"{card['input_px']} x {card['input_px']} px, "
        f"{card['interpolation']}, centre crop {card['crop_pct']:g}",
        "dim": f"{card['dim']:,}",
        "µm/px": _mpp(card),
        "mean, std": f"{_triple(card['mean'])}, {_triple(card['std'])}",
        "licence": card["licence"],
        "source": card["source"],
        "usable": f"{card['usable']}: {_MEANINGS[card['usable']]}",
        "notes": card["notes"],
    }
    lines = (f"{key:<11}{escape(value)}" for key, value in rows.items() if value)
    show(f"[bold]{escape(card['name'])}[/]", *lines)


def _mpp(card: dict[str, Any]) -> str:
    return "any" if card["mpp"] is None else f"{card['mpp']:g}"


def _usable(card: dict[str, Any]) -> str:
    return f"[{_STYLES[card['usable']]}]{card['usable']}[/]"


def _triple(values: tuple[float, float, float]) -> str:
    return "(" + ", ".join(f"{value:.3g}" for value in values) + ")"
