"""``mil two-pass``: attention needs a model, and a good model needs the tiles that attention would choose.

Four passes break the circle: (1) select tiles by the L2 norm of their features, (2) train on them, (3) select again
by the attention of that model and the norm, over whole slides, (4) train on that selection.

What the attention of pass 3 has seen: on each split it is that of the model which pass 2 trained on the same split.
The slides that the split holds out were seen by neither training, so nothing of their labels gets into either
selection; the split's own training slides are ranked by a model that learned from them, as they would be in use. In a
cross-validation each fold therefore has a selection of its own: one for all folds would rank a fold's training tiles
by models that learned from its test slides.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from jobs.mil.config import MilConfig
from jobs.mil.cv import cross_validate_here
from jobs.mil.fold_metrics import holds_at_an_end, summarize
from jobs.mil.run_attention import attention_of_run
from jobs.mil.run_files import FREE, TWO_PASS
from jobs.mil.select import AttentionSource, SelectConfig, select_top_k
from jobs.mil.train_here import train_here
from jobs.run_directory import run_directory, write_whole
from jobs.run_lock import alone_in
from jobs.training.run_files import check_same_settings
from models.determinism import resolve_device
from store_schema.errors import InputError, ModelError, SettingsConflictError

_NEARLY_ALL: Final = 0.9  # of the slides


@dataclass(frozen=True)
class TwoPassConfig:
    """One call of ``mil two-pass``.

    Attributes
    ----------
    name
        What the selections' names begin with: ``<name>-pass1``, and ``<name>-pass3`` of a single split or
        ``<name>-pass3-fold<i>`` of a cross-validation.
    k, fraction
        Tiles that a selection takes of a slide; exactly one is given.
    alpha
        Weight of the attention in pass 3; the norm has the rest.
    epochs
        Of the first and of the second training.
    training
        All other settings of both; its ``run_dir`` is the folder of the whole.
    """

    name: str
    k: int | None
    fraction: float | None
    alpha: float
    epochs: tuple[int, int]
    training: MilConfig

    def to_json(self) -> dict[str, Any]:
        """Return the settings as a JSON-able mapping."""
        own = {key: value for key, value in asdict(self).items() if key != "training"}
        training = self.training.to_json()
        del training["fit"]["epochs"]  # each training has its own: epochs
        return {**own, **training, "command": "mil two-pass"}


@dataclass(frozen=True)
class PassRecord:
    """What one pass took and gave.

    Attributes
    ----------
    number, what
        1 to 4, and what it does.
    seconds
        Wall time of the session that finished it.
    device
        Where it computed.
    output
        Path of the run, or ``selections/<name>``.
    warnings
        What is to be said of it, in sentences.
    test
        Metric → mean, sd, n, min and max over the test folds of a training; None of a selection.
    flags
        Fold → what is wrong with its test predictions; None of a selection.
    """

    number: int
    what: str
    seconds: float
    device: str
    output: str
    warnings: tuple[str, ...] = ()
    test: dict[str, Any] | None = None
    flags: dict[str, list[str]] | None = None


def two_pass(
    config: TwoPassConfig,
    *,
    quiet: bool,
    trained: Callable[[Mapping[str, Any]], None] = lambda _: None,
) -> list[PassRecord]:
    """Select, train, select by attention, train; what is done already is left as it is.

    Parameters
    ----------
    config
        The call. The store must have the features; its selections of these names must be ours or not there.
    quiet
        No progress.
    trained
        Is told the metrics of each training.

    Returns
    -------
    list of PassRecord
        The four passes; also in ``two_pass.json`` of the run's folder.

    Raises
    ------
    SettingsConflictError
        The folder was begun, or a selection of that name was made, with other settings.
    InputError
        A slide can't be ranked, or settings make no sense.
    ModelError
        A fold could not be trained.
    """
    directory = Path(config.training.run_dir)
    described = config.to_json()
    check_same_settings(directory, described, (*FREE, "fit.epochs"))
    with alone_in(directory), run_directory(directory, described) as run:
        records = _recorded(directory)

        def record(number: int, what: str, work: Callable[[], _Outcome]) -> None:
            started = time.perf_counter()
            outcome = work()
            seconds = round(time.perf_counter() - started, 2)
            if number in records:
                # a pass that was done before did nothing now: what it took is what it took then
                seconds = records[number].seconds
            entry = PassRecord(number, what, seconds, *outcome)
            records[number] = entry
            table = [asdict(records[each]) for each in sorted(records)]
            write_whole(directory / TWO_PASS, json.dumps(table, indent=2) + "\n")
            run.logger.info(
                "pass %d: %s on %s, %.2f s", number, entry.output, entry.device, entry.seconds
            )
            for warning in entry.warnings:
                run.logger.warning("pass %d: %s", number, warning)

        passes = _Passes(config, directory, quiet, trained)
        record(1, "select by feature norm", passes.by_norm)
        record(2, "train on pass 1", passes.first_training)
        record(
            3,
            f"select by {config.alpha:g} attention + {1 - config.alpha:g} norm",
            passes.by_attention,
        )
        record(4, "train on pass 3", passes.second_training)
        run.write_metrics({"kind": "mil-two-pass", "passes": [asdict(r) for r in records.values()]})
    return [records[number] for number in sorted(records)]


def _recorded(directory: Path) -> dict[int, PassRecord]:
    path = directory / TWO_PASS
    if not path.exists():
        return {}
    try:
        entries = [PassRecord(**entry) for entry in json.loads(path.read_text())]
        return {entry.number: entry for entry in entries}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} can't be read; remove it and run the command again") from error


class _Outcome(NamedTuple):
    """The part of a pass's record that its work tells."""

    device: str
    output: str
    warnings: tuple[str, ...] = ()
    test: dict[str, Any] | None = None
    flags: dict[str, list[str]] | None = None


@dataclass(frozen=True)
class _Passes:
    """The work of the passes."""

    config: TwoPassConfig
    directory: Path
    quiet: bool
    trained: Callable[[Mapping[str, Any]], None]

    @property
    def _names(self) -> tuple[str, str]:
        """Names of the two selections; that of the second has a place for the fold in a cross-validation."""
        third = "pass3" if self.config.training.command == "train" else "pass3-fold{fold}"
        return f"{self.config.name}-pass1", f"{self.config.name}-{third}"

    def by_norm(self) -> _Outcome:
        warnings = self._select(self._names[0], None)
        return _Outcome("cpu", f"selections/{self._names[0]}", warnings)

    def first_training(self) -> _Outcome:
        return self._train("pass2", self._names[0], self.config.epochs[0])

    def by_attention(self) -> _Outcome:
        device = self.config.training.fit.device
        run = self.directory / "pass2"
        folds = sorted(run.glob("fold_*"), key=lambda each: int(each.name.removeprefix("fold_")))
        runs: Sequence[Path] = folds if self.config.training.command == "cv" else [run]
        for number, each in enumerate(runs):
            name = self._names[1].replace("{fold}", str(number))
            self._select(name, attention_of_run(each, device))
        return _Outcome(str(resolve_device(device)), f"selections/{self._names[1]}")

    def second_training(self) -> _Outcome:
        return self._train("pass4", self._names[1], self.config.epochs[1])

    def _select(self, name: str, source: AttentionSource | None) -> tuple[str, ...]:
        config, bags = self.config, self.config.training.bags
        if bags.store is None:
            raise InputError("the two passes write selections: name the --store that they go to")
        summary = select_top_k(
            SelectConfig(
                store=bags.store,
                name=name,
                rank="feature-norm" if source is None else "weighted",
                features=bags.features,
                grid=bags.grid,
                alpha=config.alpha,
                k=config.k,
                fraction=config.fraction,
            ),
            source,
        )
        if not summary["ok"]:
            first = summary["failures"][0]
            if first["reason"] == SettingsConflictError.reason:
                raise SettingsConflictError(
                    f"the selection {name} is there already, made with other settings: choose another --name"
                )
            raise InputError(
                f"{len(summary['failures'])} slides could not be ranked; {first['slide_id']}: {first['message']}"
            )
        slides = summary["slides"]
        if slides["all_tiles_kept"] < _NEARLY_ALL * slides["complete"]:
            return ()
        return (
            f"{slides['all_tiles_kept']} of {slides['complete']} slides have no more tiles than are selected, so that "
            "the passes choose nothing there: give a smaller --k, or --fraction",
        )

    def _train(self, folder: str, selection: str, epochs: int) -> _Outcome:
        training = self.config.training
        own = replace(
            training,
            bags=replace(training.bags, selection=selection),
            fit=replace(training.fit, epochs=epochs),
            run_dir=str(self.directory / folder),
        )
        if training.command == "train":
            metrics = train_here(own, quiet=self.quiet)
            folds = [metrics]
        else:
            metrics = cross_validate_here(own, quiet=self.quiet)
            folds = metrics["folds"]
        failed = [fold for fold in folds if fold["status"] == "failed"]
        if failed:
            raise ModelError(
                f"{own.run_dir}: fold {failed[0]['fold']}: {failed[0]['error']['message']}"
            )
        self.trained(metrics)
        return _Outcome(
            ", ".join(sorted({fold["device"] for fold in folds})),
            own.run_dir,
            tuple(
                f"fold {fold['fold']}: {warning['message']}"
                for fold in folds
                for warning in fold["warnings"]
                if holds_at_an_end(warning, fold)
            ),
            summarize(folds),
            {str(fold["fold"]): fold["flags"] for fold in folds if fold["flags"]},
        )
