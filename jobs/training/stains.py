"""Which stain normalization tiles get: that of the options, or that of the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dataflow.stain import FitScope, StainSpec
from jobs.run_config import stain_spec
from jobs.training.stain_settings import StainSettings
from store_schema.errors import InputError, ModelError


def training_stain(settings: StainSettings, *, knows_slides: bool) -> StainSpec:
    """Return what training tiles are normalized by: Macenko where nothing is said.

    Parameters
    ----------
    settings
        The options.
    knows_slides
        Whether tiles come slide by slide, so that one basis a slide can be fitted.

    Raises
    ------
    InputError
        One basis a slide is asked for, and slides aren't known.
    """
    default: FitScope = "slide" if knows_slides else "tile"
    if settings.fit == "slide" and not knows_slides:
        raise InputError(
            "--stain-fit slide needs slides, and these are single tiles: leave it out, each tile is fitted by itself."
        )
    return stain_spec(settings.method or "macenko", settings.fit or default, settings.target)


def checkpoint_stain(description: Mapping[str, Any], where: str) -> StainSpec:
    """Return what a checkpoint's tiles were normalized by.

    Raises
    ------
    ModelError
        The description is damaged.
    """
    try:
        return StainSpec.from_json(description["stain"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"The description beside {where} is damaged (stain: {error}): restore it, or train again."
        ) from error


def scoring_stain(
    settings: StainSettings,
    trained: StainSpec,
    *,
    knows_slides: bool,
    allow_other: bool,
    where: str,
) -> StainSpec:
    """Return what tiles are normalized by for a trained model: as in its training, unless another is told.

    Parameters
    ----------
    settings
        The options; what isn't said is as in the training.
    trained
        Of the checkpoint.
    knows_slides
        Whether one basis a slide can be fitted.
    allow_other
        Whether another one may be told.
    where
        The checkpoint, for the sentence.

    Raises
    ------
    InputError
        Another one is told, and not allowed.
    """
    if not knows_slides and (settings.fit or trained.fit) == "slide" and trained.needs_basis:
        raise InputError(
            f"{where} was trained on tiles that were normalized slide by slide, and the slides of these aren't known: "
            "add --stain-fit tile --allow-other-stain, or give slides."
        )
    if settings == StainSettings():
        return trained
    asked = stain_spec(
        settings.method or trained.method, settings.fit or trained.fit, settings.target
    )
    if settings.target is None and asked.method != "none" and trained.method != "none":
        asked = StainSpec(asked.method, asked.fit, trained.target)
    if asked.provenance != trained.provenance and not allow_other:
        raise InputError(
            f"{where} was trained on tiles with {_said(trained)}, and {_said(asked)} is asked for, which would "
            "change every score: leave the stain options out, or add --allow-other-stain."
        )
    return asked


def _said(stain: StainSpec) -> str:
    if stain.method == "none":
        return "no stain normalization"
    return f"{stain.method} normalization per {stain.fit} to the target {stain.target.name}"
