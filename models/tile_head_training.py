"""Training of a classifier on a VAE's latent, on labelled tiles, for ``fit``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from models.fit_spec import FitSpec
from models.metrics import classification_metrics, scores_of
from models.prefetch import prefetched
from models.tile_augment import AugmentSpec, augment
from models.tile_head import TileHead
from models.tile_source import LabelledTiles
from models.training_warnings import overfitting_warnings
from models.vae_training import check_tiles, in_order
from store_schema.errors import InputError

CLASS_NAMES: Final = ("normal", "tumor")
# A number of the latent that hardly varies in training says nothing, and must not be blown up.
_LEAST_DEVIATION: Final = 0.1  # of the mean one


@dataclass(frozen=True)
class TileHeadTrainingSpec:
    """What a head learns by.

    Attributes
    ----------
    augment
        How training tiles are varied.
    balanced
        Weigh tumour tiles by how much rarer they are. Probabilities are then too high where tumour is
        rare, as it is in slides; their order is what it helps.
    batch_size
        Tiles a step.
    """

    augment: AugmentSpec = field(default_factory=AugmentSpec)
    balanced: bool = False
    batch_size: int = 256

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError("The batch size must be 1 or more.")


class LabelledBatch(NamedTuple):
    """uint8 (n, y, x, rgb) and int8 (n,)."""

    tiles: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int8]


class TileHeadTraining:
    """A head's training; the VAE below it stays as it is.

    Parameters
    ----------
    spec, fit_spec
        The settings.
    train, val
        The tiles.
    model
        On a trained VAE of the tiles' size.

    Raises
    ------
    InputError
        If a split has no tiles, labels are not 0 and 1, or training tiles are all of one class.
    ModelError
        If the model was built for another tile size.
    """

    def __init__(
        self,
        spec: TileHeadTrainingSpec,
        fit_spec: FitSpec,
        train: LabelledTiles,
        val: LabelledTiles,
        model: TileHead,
    ) -> None:
        check_tiles(train, val, model.vae)
        _check_labels("training", train)
        _check_labels("validation", val)
        n_tumor = int(train.labels.sum())
        if not 0 < n_tumor < len(train):
            raise InputError(
                f"{n_tumor} of the {len(train)} training tiles are tumour: give tiles of both classes."
            )
        self.model: TileHead = model
        self._spec = spec
        self._fit_spec = fit_spec
        self._train = train
        self._val = val
        self._tumor_weight = (len(train) - n_tumor) / n_tumor if spec.balanced else 1.0
        self._standardize()

    def settings(self) -> Mapping[str, object]:
        """Return the settings, and the fingerprints of the tiles."""
        return {
            "vae": asdict(self.model.vae.config),
            "config": asdict(self.model.config),
            "head": asdict(self._spec),
            "train": self._train.fingerprint,
            "val": self._val.fingerprint,
        }

    def n_batches(self) -> int:
        """Return the steps of an epoch, in which every tile comes once."""
        return -(-len(self._train) // self._spec.batch_size)

    def batches(self, epoch: int) -> Iterable[LabelledBatch]:
        """Yield the epoch's tiles, varied; the next step's are read while this one is computed."""
        rng = self._fit_spec.epoch_rng(epoch)
        order = rng.permutation(len(self._train))

        def load(indices: npt.NDArray[np.int64]) -> LabelledBatch:
            tiles = augment(self._train.read(indices), self._spec.augment, rng)
            return LabelledBatch(tiles, self._train.labels[indices])

        starts = range(0, len(order), self._spec.batch_size)
        return prefetched((order[k : k + self._spec.batch_size] for k in starts), load)

    def loss(self, batch: LabelledBatch) -> Mapping[str, Tensor]:
        """Return the binary cross-entropy of a step."""
        return {"loss": self._entropies(self._logits(batch.tiles), batch.labels).mean()}

    def validate(self, epoch: int) -> Mapping[str, float]:
        """Judge the validation tiles: ``val_loss``, and ``val_<score>`` of ``classification_metrics``."""
        logits = torch.cat([self._logits(tiles).float() for tiles in self._batches_of(self._val)])
        labels = self._val.labels
        p = torch.sigmoid(logits).cpu().numpy()
        metrics = classification_metrics(
            np.stack([1 - p, p], 1), labels.astype(np.int64), CLASS_NAMES, "multiclass"
        )
        scores = {f"val_{name}": score for name, score in scores_of(metrics).items()}
        return {
            "val_loss": float(self._entropies(logits, labels).double().mean()),
            **{name: score for name, score in scores.items() if score is not None},
        }

    def warnings(self, history: Sequence[Mapping[str, float]]) -> Sequence[str]:
        """Warn of overfitting, and in the first epoch of validation tiles that are all of one class."""
        found = overfitting_warnings(history)
        if len(history) == 1 and "val_auc" not in history[0]:
            found.append(
                "validation tiles are all of one class: no AUC can be measured on them; split otherwise"
            )
        return found

    def state(self) -> Mapping[str, Tensor]:
        """Return nothing: an epoch follows from the model and its number."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take nothing back."""

    def _logits(self, tiles: npt.NDArray[np.uint8]) -> Tensor:
        logits: Tensor = self.model(torch.from_numpy(tiles).to(self.model.latent_mean.device))
        return logits

    def _entropies(self, logits: Tensor, labels: npt.NDArray[np.int8]) -> Tensor:
        target = torch.from_numpy(labels.astype(np.float32)).to(logits.device)
        weight = torch.tensor(self._tumor_weight, device=logits.device)
        return F.binary_cross_entropy_with_logits(
            logits.float(), target, pos_weight=weight, reduction="none"
        )

    def _batches_of(self, source: LabelledTiles) -> Iterator[npt.NDArray[np.uint8]]:
        return in_order(source, np.arange(len(source)), self._spec.batch_size)

    def _standardize(self) -> None:
        """Have the head see each number of the latent with mean 0 and deviation 1 over the training tiles."""
        device = self.model.latent_mean.device
        latents = torch.cat(
            [
                self.model.latent(torch.from_numpy(tiles).to(device)).double()
                for tiles in self._batches_of(self._train)
            ]
        )  # (tile, number)
        deviation = latents.std(0, correction=0)
        floor = (_LEAST_DEVIATION * deviation.mean()).clamp_min(1e-6)
        self.model.latent_mean.copy_(latents.mean(0))
        self.model.latent_scale.copy_(deviation.clamp_min(floor).reciprocal())


def _check_labels(split: str, source: LabelledTiles) -> None:
    if source.labels.shape != (len(source),) or not np.isin(source.labels, (0, 1)).all():
        raise InputError(
            f"The labels of the {split} tiles must be 0 or 1, one a tile: 1 is tumour."
        )
