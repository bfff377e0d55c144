"""Slide models of finished runs: one of ``mil train``, one a fold of ``mil cv``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from jobs.mil.model_description import check_description
from jobs.mil.run_files import TWO_PASS
from jobs.training.run_files import read_metrics
from models.checkpoint import load_description, load_weights
from models.fit import checkpoint_paths
from models.slide_model import SlideModel, TaskKind
from models.slide_models import build_slide_model
from store_schema.errors import InputError, ModelError

Part: TypeAlias = Literal["train", "val", "test"]

_FOLD: Final = "fold_"


@dataclass(frozen=True)
class TrainedFold:
    """A trained slide model, and what it was trained for.

    Attributes
    ----------
    directory
        Where its files are.
    description
        As it was saved; see ``model.json`` in docs/slide-models.md.
    model
        With its weights, on the CPU.
    """

    directory: Path
    description: Mapping[str, Any]
    model: SlideModel

    @property
    def task(self) -> TaskKind:
        """Whether classes exclude each other."""
        task: TaskKind = self.description["task"]
        return task

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes, in the order of the logits."""
        return tuple(self.description["class_names"])

    @property
    def fold(self) -> str:
        """Name of the fold within its run."""
        return str(self.description.get("fold", 0))

    @property
    def threshold(self) -> float | None:
        """From which probability on the positive class is predicted, None where the likeliest class is."""
        value = self.description.get("threshold")
        return None if value is None else float(value)

    @property
    def bag_level(self) -> Literal["slide", "patient"]:
        """What a bag was."""
        return "patient" if self.description.get("bag_level") == "patient" else "slide"

    @property
    def features(self) -> Mapping[str, str | None]:
        """Name, grid and fingerprint of the features that it was trained on."""
        features: Mapping[str, str | None] = self.description.get("features") or {}
        return features

    @property
    def leaky(self) -> bool:
        """Whether its test slides took part in choosing epoch and threshold."""
        return bool(self.description.get("leaky", False))

    @property
    def provenance(self) -> dict[str, Any]:
        """What decides its numbers: JSON-able."""
        return {
            "weights": self.description["sha256"],
            "model": self.description["model"],
            "l2_normalize": bool(self.description["l2_normalize"]),
            "amp": bool(self.description.get("amp", False)),
            "threshold": self.threshold,
            "fold": self.fold,
        }

    def part_of(self, slide_ids: Iterable[str]) -> Part | Literal[""]:
        """Return which part of its split slides were in: the one that it learned most from, if they differ."""
        ids = set(slide_ids)
        for part, members in self._parts.items():
            if not members.isdisjoint(ids):
                return part
        return ""

    @cached_property
    def _parts(self) -> dict[Part, frozenset[str]]:
        parts: tuple[Part, ...] = ("train", "val", "test")
        return {part: frozenset(self.description.get(f"{part}_slide_ids", ())) for part in parts}


def load_trained(run_dir: Path) -> list[TrainedFold]:
    """Load the models of a run.

    Parameters
    ----------
    run_dir
        Of ``mil train`` or ``mil cv``, or of one fold, or a ``model.safetensors`` with its description beside it.

    Returns
    -------
    list of TrainedFold
        One, or one a fold in the order of their numbers.

    Raises
    ------
    ModelError
        There is no finished run, a fold of it isn't finished, or a checkpoint is damaged or a pickle (which isn't
        opened).
    """
    if not run_dir.is_dir():
        return [_load(run_dir)]
    path, _ = checkpoint_paths(run_dir)
    if path.is_file():
        return [_load(path)]
    folds = [each for each in run_dir.glob(f"{_FOLD}*") if each.name[len(_FOLD) :].isdecimal()]
    folds.sort(key=lambda each: int(each.name[len(_FOLD) :]))
    # the description comes last: without it training goes on, or was stopped
    unfinished = [
        each.name for each in folds if not checkpoint_paths(each)[0].with_suffix(".json").is_file()
    ]
    if not folds and (run_dir / TWO_PASS).exists():
        raise ModelError(f"{run_dir} is a run of `mil two-pass`: name pass2 or pass4 in it")
    if not folds or unfinished:
        what = f"unfinished folds ({', '.join(unfinished)})" if folds else "no trained model"
        raise ModelError(
            f"{run_dir} has {what}: run `mil train` or `mil cv` with this --run-dir again to finish it"
        )
    # a slide would be judged by the models that are left, as if it had been in none of their test folds
    metrics = read_metrics(run_dir) or {}
    there = {each.name for each in folds}
    lost = [
        f"{_FOLD}{f['fold']}"
        for f in metrics.get("folds", ())
        if f"{_FOLD}{f['fold']}" not in there
    ]
    if lost:
        raise ModelError(
            f"{run_dir} has lost {', '.join(lost)}: restore what is missing, or run `mil cv` with this --run-dir "
            "again to train it anew"
        )
    return [_load(checkpoint_paths(each)[0]) for each in folds]


def _load(path: Path) -> TrainedFold:
    description: Mapping[str, Any] = load_description(path)
    check_description(description, str(path))
    model = build_slide_model(
        description["model"],
        description["n_features"],
        len(description["class_names"]),
        description["model_config"],
    )
    load_weights(model, path)
    model.eval()
    return TrainedFold(path.parent, description, model)


def check_alike(folds: Sequence[TrainedFold]) -> None:
    """Check that models can be averaged and take the same bags.

    Raises
    ------
    InputError
        They differ in classes, task, kind of bag, or features; names what.
    """
    first = folds[0]
    for fold in folds[1:]:
        for what, one, other in (
            ("classes", first.class_names, fold.class_names),
            ("tasks", first.task, fold.task),
            ("kinds of bags", first.bag_level, fold.bag_level),
            ("features", dict(first.features), dict(fold.features)),
        ):
            if one != other:
                raise InputError(
                    f"{first.directory} and {fold.directory} have different {what} ({one} and {other}): their "
                    "predictions can't be averaged"
                )
