"""What a bank of prototypes asks of a training on it: its encoder, its normalization, its tiles."""

from __future__ import annotations

from typing import Final, cast

from dataflow.stain import FitScope, Method, StainSpec
from jobs.run_config import stain_spec
from jobs.training.stain_settings import StainSettings
from jobs.training.tile_scale import TileScale
from models.encoder import EncoderFactory, EncoderSpec
from models.preprocess import ResizeMode
from models.prompt_encoder import PromptEncoder
from store_schema import names
from store_schema.errors import InputError
from store_schema.prototypes import PrototypeBank

_NONE: Final = "none"


def bank_encoder(bank: PrototypeBank, name: str | None) -> PromptEncoder:
    """Build the encoder that made a bank.

    Parameters
    ----------
    bank
        The prototypes.
    name
        Of the encoder, where it isn't to be found by the bank's own name: the path of a file that has moved.

    Raises
    ------
    ModelError
        It is unknown here, its weights can't be had, or it is another one than that of the bank.
    """
    made_by = bank.encoder
    seed = made_by.get("seed")
    spec = EncoderSpec(
        name=name or str(bank.extra.get("encoder", made_by.get("encoder"))),
        random_weights=seed is not None,
        seed=int(seed or 0),
        resize=cast("ResizeMode", bank.extra.get("resize", "model")),
        precision="fp32",  # gradients pass through it
    )
    return PromptEncoder.of(EncoderFactory(spec), made_by)


def training_stain(settings: StainSettings, bank: PrototypeBank, *, allow_other: bool) -> StainSpec:
    """Return what tiles are normalized by: as the bank's, unless another is told.

    Raises
    ------
    InputError
        Another one is told, or comes from another target, and isn't allowed.
    """
    made = bank.stain
    method = settings.method or cast("Method", made["method"])
    fit = settings.fit or cast("FitScope", made.get("fit", "slide"))
    asked = stain_spec(method, fit, settings.target)
    if asked.provenance != made and not allow_other:
        target = made.get("target", {}).get("name", "")
        raise InputError(
            f"The prototypes of {bank.name} are of tiles with {_said(made['method'], made.get('fit'), target)}, and "
            f"{_said(method, fit, asked.target.name)} is asked for: leave the stain options out (but give the bank's "
            "--stain-target, if it had one), or add --allow-other-stain."
        )
    return asked


def check_bank_scale(bank: PrototypeBank, found: TileScale, *, allow_other: bool) -> None:
    """Refuse tiles of another size or pixel size than those that the prototypes are of.

    Raises
    ------
    InputError
        They differ, and that isn't allowed.
    """
    spec = bank.grid[names.SPEC]
    wanted = TileScale(int(spec["tile_px"]), spec["mpp"])
    if allow_other or wanted.fits(found):
        return
    raise InputError(
        f"There are {found}, and the prototypes of {bank.name} are of {wanted}: take such tiles ({wanted.making}), "
        "make a bank of these, or add --allow-other-grid."
    )


def _said(method: str, fit: str | None, target: str) -> str:
    return "no stain normalization" if method == _NONE else f"{method} per {fit} to {target}"
