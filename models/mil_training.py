"""Training of a slide model on bags: balanced sampling, sub-bags, validation, diagnostics."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.attention_diagnostics import OutputStatistics, Target, class_counts
from models.bag_losses import LossSpec, make_bag_loss
from models.bag_sampling import Draw, draw_bags
from models.bag_source import BagSource
from models.bag_tensor import bag_tensor, check_width
from models.feature_statistics import feature_statistics
from models.fit_spec import FitSpec
from models.metrics import classification_metrics, scores_of
from models.prefetch import prefetched
from models.slide_model import BagLoss, SlideModel, SlideOutput, TaskKind, probabilities
from models.training_warnings import (
    attention_warnings,
    missing_class_warnings,
    overfitting_warnings,
    prediction_warnings,
)
from store_schema.errors import InputError


@dataclass(frozen=True)
class MilSpec:
    """What a slide model learns, and how its bags are drawn.

    Attributes
    ----------
    task, class_names
        The classes, in the order of the logits.
    model, model_settings
        What ``build_slide_model`` was asked for.
    loss
        On a bag's logits.
    balanced_sampler
        Draw training bags with replacement, inversely to how frequent their class is; else each once.
    bag_size
        Tiles that are drawn from a training bag anew in each epoch; None takes all. Validation takes all.
    batch_size
        Bags a step; their losses are averaged.
    l2_normalize
        Bring each tile's features to length 1.
    standardize
        Then bring each feature to mean 0 and standard deviation 1 over the training tiles.
    """

    task: TaskKind
    class_names: tuple[str, ...]
    model: str
    model_settings: Mapping[str, object] = field(default_factory=dict)
    loss: LossSpec = field(default_factory=LossSpec)
    balanced_sampler: bool = True
    bag_size: int | None = None
    batch_size: int = 1
    l2_normalize: bool = True
    standardize: bool = True

    def __post_init__(self) -> None:
        if len(self.class_names) < (2 if self.task == "multiclass" else 1):
            raise InputError(f"There are too few classes to learn: {', '.join(self.class_names)}.")
        if self.batch_size < 1 or (self.bag_size is not None and self.bag_size < 1):
            raise InputError("The bag size and the batch size must be 1 or more.")


class LoadedBag(NamedTuple):
    """A bag on the CPU, as it was stored."""

    bag: int
    features: npt.NDArray[np.floating]


class MilTraining:
    """A slide model's training, for ``fit``.

    Parameters
    ----------
    spec, fit_spec
        The settings.
    train, val
        The bags.
    model
        Built for the source's width and the spec's classes.

    Raises
    ------
    InputError
        If a split has no bags, or its targets don't fit the classes.
    ModelError
        If the model was built for another width than the bags have.
    """

    def __init__(
        self,
        spec: MilSpec,
        fit_spec: FitSpec,
        train: BagSource,
        val: BagSource,
        model: SlideModel,
    ) -> None:
        for split, source in (("training", train), ("validation", val)):
            _check_targets(split, source, spec)
            check_width(model, source)
        if spec.standardize:
            mean, scale = feature_statistics(train, l2_normalize=spec.l2_normalize)
            model.feature_mean.copy_(torch.from_numpy(mean))
            model.feature_scale.copy_(torch.from_numpy(scale))
        self.model: SlideModel = model
        self._spec = spec
        self._fit_spec = fit_spec
        self._train = train
        self._val = val
        shape = (spec.task, spec.class_names)
        whole = spec.bag_size is None
        self._seen = OutputStatistics("train", *shape, len(train.ids), follow=whole)
        self._judged = OutputStatistics("val", *shape, len(val.ids), follow=True)
        self._bag_loss = self._loss_of(0)
        self.judged: tuple[npt.NDArray[np.float32], Target] | None = None
        """Probabilities (bag, class) and targets of the last validation, for pictures of it."""

    def settings(self) -> Mapping[str, object]:
        """Return the spec, and digests of what the splits hold."""
        return {
            "mil": asdict(self._spec),
            "train": _source_digest(self._train),
            "val": _source_digest(self._val),
        }

    def n_batches(self) -> int:
        """Return the steps of an epoch, in which as many bags are drawn as there are."""
        return -(-len(self._train.ids) // self._spec.batch_size)

    def batches(self, epoch: int) -> Iterable[Sequence[LoadedBag]]:
        """Yield the epoch's bags; the next step's are read while this one is computed."""
        self._bag_loss = self._loss_of(epoch)
        self._seen.clear()
        drawn = draw_bags(
            self._train,
            self._fit_spec.epoch_rng(epoch),
            balanced=self._spec.balanced_sampler,
            bag_size=self._spec.bag_size,
            batch_size=self._spec.batch_size,
        )
        return prefetched(drawn, self._load)

    def loss(self, batch: Sequence[LoadedBag]) -> Mapping[str, Tensor]:
        """Return the mean loss of a step's bags."""
        losses = [self._judge(bag, self._train, self._seen) for bag in batch]
        return {"loss": torch.stack(losses).mean()}

    def validate(self, epoch: int) -> Mapping[str, float]:
        """Judge all validation bags whole.

        Returns
        -------
        dict
            ``train_…`` and ``val_…`` of ``OutputStatistics``; ``val_loss``, by the epoch's training
            loss; ``val_<score>`` of ``classification_metrics``, but those that the split does not define.
        """
        bags = prefetched(
            range(len(self._val.ids)), lambda bag: LoadedBag(bag, self._val.load(bag))
        )
        self._judged.clear()
        losses = [self._judge(bag, self._val, self._judged) for bag in bags]
        values, _, _ = self._seen.finish()
        judged, logits, targets = self._judged.finish()
        p = probabilities(torch.from_numpy(logits), self._spec.task).numpy()
        self.judged = (p, targets)
        scores = scores_of(
            classification_metrics(p, targets, self._spec.class_names, self._spec.task)
        )
        return {
            **values,
            **judged,
            "val_loss": float(torch.stack(losses).mean()),
            **{f"val_{name}": score for name, score in scores.items() if score is not None},
        }

    def warnings(self, history: Sequence[Mapping[str, float]]) -> Sequence[str]:
        """Return what holds now of ``training_warnings``; of missing classes in the first epoch only."""
        found = []
        n_classes = len(self._spec.class_names)
        if len(history) == 1:
            for split, source in (("training", self._train), ("validation", self._val)):
                found += missing_class_warnings(
                    split, self._spec.class_names, class_counts(source.targets, n_classes)
                )
        if self.model.learns_attention:
            found += attention_warnings(history)
        found += prediction_warnings(history, self._spec.class_names)
        return [*found, *overfitting_warnings(history)]

    def state(self) -> Mapping[str, Tensor]:
        """Return the critical tiles of the last epoch."""
        critical = {"train_critical": self._seen.critical, "val_critical": self._judged.critical}
        return {name: torch.from_numpy(tiles) for name, tiles in critical.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back what ``state`` returned."""
        self._seen.critical = state["train_critical"].numpy()
        self._judged.critical = state["val_critical"].numpy()

    def _judge(self, loaded: LoadedBag, source: BagSource, statistics: OutputStatistics) -> Tensor:
        device = next(self.model.parameters()).device
        features = bag_tensor(loaded.features, self.model, l2_normalize=self._spec.l2_normalize)
        output: SlideOutput = self.model(features)
        target = source.targets[loaded.bag]
        statistics.add(loaded.bag, target, output)
        return self.model.loss(output, torch.as_tensor(target, device=device), self._bag_loss)

    def _load(self, draws: Sequence[Draw]) -> list[LoadedBag]:
        return [LoadedBag(draw.bag, self._train.load(*draw)) for draw in draws]

    def _loss_of(self, epoch: int) -> BagLoss:
        return make_bag_loss(
            self._spec.loss,
            self._spec.task,
            class_counts(self._train.targets, len(self._spec.class_names)),
            epoch,
            self._fit_spec.epochs,
            len(self._train.ids),
        )


def _check_targets(split: str, source: BagSource, spec: MilSpec) -> None:
    n, n_classes = len(source.ids), len(spec.class_names)
    if not n:
        raise InputError(f"The {split} split has no bags: check its ids, labels and features.")
    shape = (n,) if spec.task == "multiclass" else (n, n_classes)
    beyond = (
        spec.task == "multiclass"
        and not 0 <= source.targets.min() <= source.targets.max() < n_classes
    )
    if source.targets.shape != shape or beyond:
        raise InputError(
            f"The targets of the {split} split don't fit {n_classes} classes ({spec.task}): give one class "
            "index a bag, or one 0 or 1 a bag and label."
        )


def _source_digest(source: BagSource) -> str:
    digest = hashlib.sha256("\n".join(source.ids).encode())
    digest.update(np.ascontiguousarray(source.targets).tobytes())
    digest.update(np.ascontiguousarray(source.lengths).tobytes())
    return f"sha256:{digest.hexdigest()}"
