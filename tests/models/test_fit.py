"""The loop: resume is bit for bit, the best epoch is what comes out, what diverges is said."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from models.checkpoint import read_tensors
from models.fit import EpochRecord, FitResult, FitSpec, checkpoint_paths, fit
from models.fit_state import read_history
from store_schema.errors import InputError, ModelError, SettingsConflictError


class LineJob:
    """Learn y = x·w with dropout, from noise drawn by epoch; remembers something of its own."""

    def __init__(self, spec: FitSpec, width: int = 4) -> None:
        torch.manual_seed(99)
        self.model: nn.Module = nn.Sequential(
            nn.Linear(3, width), nn.BatchNorm1d(width), nn.Dropout(0.3), nn.Linear(width, 1)
        )
        self.spec = spec
        self.seen = torch.zeros(2)
        self.val_losses: dict[int, float] = {}
        self.bad_batch: tuple[int, int] | None = None
        self.epoch = 0

    def settings(self) -> Mapping[str, object]:
        return {"kind": "line", "sizes": (1, 2)}

    def n_batches(self) -> int:
        return 3

    def batches(self, epoch: int) -> Iterable[Tensor]:
        rng = self.spec.epoch_rng(epoch)
        self.epoch = epoch
        for number in range(3):
            batch = torch.from_numpy(rng.normal(size=(8, 3)).astype(np.float32))
            yield batch * math.nan if self.bad_batch == (epoch, number) else batch

    def loss(self, batch: Tensor) -> Mapping[str, Tensor]:
        error = self.model(batch).squeeze(1) - batch.sum(1)
        return {"loss": error.square().mean(), "absolute": error.abs().mean()}

    def validate(self, epoch: int) -> Mapping[str, float]:
        assert not self.model.training
        assert not torch.is_grad_enabled()
        self.seen += torch.rand(2)  # random, and kept from epoch to epoch
        loss = self.val_losses.get(epoch, 1 / (1 + epoch))
        return {"val_loss": loss, "val_seen": float(self.seen.sum())}

    def warnings(self, history: Sequence[Mapping[str, float]]) -> Sequence[str]:
        return [f"that was {len(history)}: {history[0]['val_loss']}"]

    def state(self) -> Mapping[str, Tensor]:
        return {"seen": self.seen}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.seen = state["seen"]


class Recorder:
    def __init__(self, killed_after: int | None = None) -> None:
        self.epochs: list[int] = []
        self.killed_after = killed_after

    def on_epoch(self, record: EpochRecord) -> None:
        self.epochs.append(record.epoch)
        if record.epoch == self.killed_after:
            raise KeyboardInterrupt


def comparable(result: FitResult) -> list[object]:
    """Return everything of a result but how long it took."""
    records = [
        dataclasses.replace(r, values={k: v for k, v in r.values.items() if k != "seconds"})
        for r in result.history
    ]
    return [result.best_epoch, result.best_value, records, result.stopped_early]


def train(
    spec: FitSpec, directory: Path, killed_after: int | None = None
) -> tuple[LineJob, list[object]]:
    job = LineJob(spec)
    return job, comparable(fit(job, spec, directory, [Recorder(killed_after)]))


@pytest.mark.parametrize("amp", [False, True])
def test_resumed_training_is_the_same_bit_for_bit(tmp_path: Path, amp: bool) -> None:
    spec = FitSpec(epochs=5, lr=0.03, grad_clip=0.5, amp=amp, patience=4)
    whole, expected = train(spec, tmp_path / "whole")
    for killed_after in (0, 2, 3):
        directory = tmp_path / f"killed{killed_after}"
        with pytest.raises(KeyboardInterrupt):
            train(spec, directory, killed_after)
        torch.manual_seed(killed_after)  # the generator's state must not matter
        resumed, result = train(spec, directory)
        assert result == expected
        for name in ("model.safetensors", "last.safetensors"):
            ours, _ = read_tensors(directory / name)
            theirs, _ = read_tensors(tmp_path / "whole" / name)
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
        for key, tensor in whole.model.state_dict().items():
            assert torch.equal(resumed.model.state_dict()[key], tensor), key


def test_a_kill_between_best_weights_and_state_costs_only_the_epoch(tmp_path: Path) -> None:
    spec = FitSpec(epochs=4, lr=0.03)
    _, expected = train(spec, tmp_path / "whole")
    directory = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        train(spec, directory, 1)
    before = (directory / "last.safetensors").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        train(spec, directory, 2)
    (directory / "last.safetensors").write_bytes(before)  # the state of epoch 2 was never written
    assert train(spec, directory)[1] == expected


@pytest.mark.parametrize("name", ["model.safetensors", "last.safetensors"])
def test_a_flipped_bit_in_a_checkpoint_is_noticed(tmp_path: Path, name: str) -> None:
    spec = FitSpec(epochs=4, lr=0.03)
    with pytest.raises(KeyboardInterrupt):
        train(spec, tmp_path, 2)
    job = LineJob(spec)
    job.val_losses = dict.fromkeys(range(4), 9.0)  # the best epoch is past
    path = tmp_path / name
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"safetensors (is damaged|does not hold).*(and|to) train"):
        fit(job, spec, tmp_path)


def test_a_folder_for_a_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "last.safetensors").mkdir()
    with pytest.raises(ModelError, match="no checkpoint at"):
        train(FitSpec(epochs=2), tmp_path)


def test_a_finished_training_is_not_trained_again(tmp_path: Path) -> None:
    spec = FitSpec(epochs=3)
    _, expected = train(spec, tmp_path)
    job, recorder = LineJob(spec), Recorder()
    assert comparable(fit(job, spec, tmp_path, [recorder])) == expected
    assert recorder.epochs == []
    best, _ = read_tensors(tmp_path / "model.safetensors")
    assert all(torch.equal(best[key], tensor) for key, tensor in job.model.state_dict().items())
    fit(job, spec, tmp_path, [recorder], resume=False)
    assert recorder.epochs == [0, 1, 2]


def test_history_is_in_the_state_and_nothing_partial_stays(tmp_path: Path) -> None:
    _, expected = train(FitSpec(epochs=2), tmp_path)
    history = read_history(checkpoint_paths(tmp_path)[1])
    assert comparable(FitResult(1, 0.5, history, False)) == expected
    assert history[0].warnings == ("that was 1: 1.0",)
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "last.safetensors"}
    with safe_open(tmp_path / "last.safetensors", framework="pt") as file:
        document = json.loads(file.metadata()["slidestream"])
    assert document["best_epoch"] == 1


def test_other_settings_or_another_model_are_refused_by_name(tmp_path: Path) -> None:
    spec = FitSpec(epochs=2, lr=0.1)
    train(spec, tmp_path)
    other = dataclasses.replace(spec, lr=0.2)
    with pytest.raises(SettingsConflictError, match=r"lr is 0.2, was 0.1.*without resuming"):
        fit(LineJob(other), other, tmp_path)
    with pytest.raises(SettingsConflictError, match=r"0.bias is \(4,\) in the file, \(5,\) in the"):
        fit(LineJob(spec, width=5), spec, tmp_path)
    job = LineJob(spec)
    job.settings = lambda: {"kind": "curve", "sizes": [1, 2]}  # type: ignore[method-assign]
    with pytest.raises(SettingsConflictError, match=r'\(job.kind is "curve", was "line"\)'):
        fit(job, spec, tmp_path)


def test_best_epoch_comes_out_and_patience_stops(tmp_path: Path) -> None:
    spec = FitSpec(epochs=20, lr=0.05, patience=3)
    job = LineJob(spec)
    job.val_losses = {0: 0.9, 1: 0.2, 2: 0.2, 3: 0.8, 4: 0.3}
    short = LineJob(spec)
    short.val_losses = job.val_losses
    with pytest.raises(KeyboardInterrupt):
        fit(short, spec, tmp_path / "short", [Recorder(killed_after=1)])
    result = fit(job, spec, tmp_path / "long")
    assert (result.best_epoch, result.best_value, result.stopped_early) == (1, 0.2, True)
    assert [r.is_best for r in result.history] == [True, True, False, False, False]
    for key, tensor in short.model.state_dict().items():
        assert torch.equal(job.model.state_dict()[key], tensor)


def test_more_can_be_better(tmp_path: Path) -> None:
    spec = FitSpec(epochs=3, monitor="val_seen", mode="max")
    assert fit(LineJob(spec), spec, tmp_path).best_epoch == 2


def test_values_of_an_epoch(tmp_path: Path) -> None:
    spec = FitSpec(epochs=1, lr=0.5, warmup_epochs=0)
    values = fit(LineJob(spec), spec, tmp_path).history[0].values
    assert values["loss_gap"] == values["val_loss"] - values["train_loss"]
    assert values["train_absolute"] > 0
    assert values["lr"] == pytest.approx(0.5 * 0.5 * (1 + math.cos(math.pi * 2 / 3)))


def test_schedule_rises_linearly_then_falls_as_a_cosine() -> None:
    spec = FitSpec(epochs=10, warmup_epochs=2)
    factors = [spec.lr_factor(step, 4) for step in range(40)]
    assert factors[:8] == [k / 8 for k in range(1, 9)]
    assert factors[8] == 1
    assert factors[24] == pytest.approx(0.5)
    assert 0 < factors[-1] < 0.01
    assert factors[8:] == sorted(factors[8:], reverse=True)
    assert FitSpec(epochs=1, warmup_epochs=5).lr_factor(0, 2) == pytest.approx(0.1)


def test_a_loss_that_is_not_finite_is_named(tmp_path: Path) -> None:
    spec = FitSpec(epochs=3)
    job = LineJob(spec)
    job.bad_batch = (1, 2)
    with pytest.raises(ModelError, match="not finite in epoch 2, batch 3"):
        fit(job, spec, tmp_path)
    assert len(read_history(tmp_path / "last.safetensors")) == 1  # what was good is kept


def test_monitored_value_missing_or_not_finite(tmp_path: Path) -> None:
    spec = FitSpec(epochs=2, monitor="val_auc", mode="max")
    with pytest.raises(ModelError, match=r"gives no val_auc.*\(there are .*val_loss, val_seen\)"):
        fit(LineJob(spec), spec, tmp_path)
    spec = FitSpec(epochs=2)
    job = LineJob(spec)
    job.val_losses = {1: math.nan}
    with pytest.raises(ModelError, match="val_loss is nan after epoch 2"):
        fit(job, spec, tmp_path)


def test_torch_is_left_as_it_was(tmp_path: Path) -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    spec = FitSpec(epochs=1, threads=threads + 1)
    job = LineJob(spec)
    torch.set_rng_state(state)
    seen = []
    original = job.loss
    job.loss = lambda batch: (seen.append(torch.get_num_threads()), original(batch))[1]  # type: ignore[method-assign,func-returns-value]
    fit(job, spec, tmp_path)
    assert set(seen) == {threads + 1}
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "change", [{"epochs": 0}, {"lr": 0.0}, {"lr": math.nan}, {"patience": 0}, {"seed": -1}]
)
def test_senseless_numbers_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(change))):
        dataclasses.replace(FitSpec(), **change)  # type: ignore[arg-type]
