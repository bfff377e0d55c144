"""Training of PBIP on image-level labels, for ``fit``, whose epochs are rounds of so many batches here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.fit_spec import FitSpec
from models.pbip import (
    Pbip,
    PbipOutput,
    class_probabilities,
    confidence,
    resized,
)
from models.pbip_diagnostics import (
    PixelOverlaps,
    round_warnings,
    source_warnings,
    tile_scores,
)
from models.pbip_losses import (
    classification_loss,
    foreground_masks,
    map_mean,
    map_variation,
    matching_losses,
    selected_subclasses,
)
from models.pbip_sampling import Indices, round_indices
from models.pbip_training_spec import PbipTrainingSpec, check_training
from models.prefetch import prefetched
from models.prompt_encoder import PromptEncoder
from models.tile_augment import augment
from models.weak_tiles import TileMasks, WeakTiles
from store_schema.errors import ModelError

_COARSEST: Final = -1


class WeakBatch(NamedTuple):
    """uint8 (n, y, x, rgb) and float32 (n, class)."""

    tiles: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.float32]


class Examples(NamedTuple):
    """Tiles and what the network makes of them, for pictures.

    ``tiles`` are uint8 (n, y, x, rgb), ``labels`` int8 (n, class), ``confidence`` float32 (n, class, y, x).
    """

    tiles: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int8]
    confidence: npt.NDArray[np.float32]


class PbipTraining:
    """A network's training.

    Parameters
    ----------
    spec, fit_spec
        The settings.
    train, val
        The tiles.
    model
        Of the tiles' size and classes.
    encoder
        Of the prototypes, for the contrastive part; None where that has no weight.
    val_masks
        Of the validation tiles, where there are any.

    Raises
    ------
    InputError
        If a split has no tiles, labels are not 0 and 1, all training tiles have the same labels, or what is to be
        matched can't be.
    ModelError
        If the network was built for another tile size, or the encoder isn't the prototypes'.
    """

    def __init__(
        self,
        spec: PbipTrainingSpec,
        fit_spec: FitSpec,
        train: WeakTiles,
        val: WeakTiles,
        model: Pbip,
        encoder: PromptEncoder | None = None,
        val_masks: TileMasks | None = None,
    ) -> None:
        self.model: Pbip = model
        self._spec = spec
        self._fit_spec = fit_spec
        self._train = train
        self._val = val
        self._encoder = encoder
        self._val_masks = val_masks
        self._one_class_batches = 0.0
        check_training(spec, train, val, model, encoder)
        names = model.config.class_names
        self._source_warnings = [
            *source_warnings("training", train.labels, names),
            *source_warnings("validation", val.labels, names),
        ]

    def settings(self) -> Mapping[str, object]:
        """Return the settings, and the fingerprints of tiles and masks."""
        return {
            "config": asdict(self.model.config),
            "pbip": asdict(self._spec),
            "train": self._train.fingerprint,
            "val": self._val.fingerprint,
            "val_masks": None if self._val_masks is None else self._val_masks.fingerprint,
        }

    def n_batches(self) -> int:
        """Return the steps of a round."""
        return self._spec.round_batches

    def batches(self, epoch: int) -> Iterator[WeakBatch]:
        """Yield the round's tiles, varied; the next step's are read while this one is computed."""
        spec = self._spec
        rng = self._fit_spec.epoch_rng(epoch)
        chosen = round_indices(
            self._train,
            spec.sampling,
            spec.batch_size,
            spec.round_batches,
            seed=self._fit_spec.seed,
            number=epoch,
        )

        def load(indices: Indices) -> WeakBatch:
            tiles = augment(self._train.read(indices), spec.augment, rng)
            return WeakBatch(tiles, self._train.labels[indices].astype(np.float32))

        one_class = 0
        for batch in prefetched(chosen, load):
            one_class += bool((batch.labels == batch.labels[0]).all())
            self._one_class_batches = one_class / spec.round_batches
            yield batch

    def loss(self, batch: WeakBatch) -> Mapping[str, Tensor]:
        """Return ``loss`` and its terms without their weights.

        ``classification`` (with those of the scales), ``foreground`` and ``background`` of the matching, ``matched``
        (tiles with something to match, a share), ``smooth`` and ``sparsity`` of the maps. Terms of weight 0 are
        left out.
        """
        spec, config = self._spec.loss, self.model.config
        tiles = torch.from_numpy(batch.tiles).to(self._device)
        labels = torch.from_numpy(batch.labels).to(self._device)
        output: PbipOutput = self.model(self.model.normalize(tiles))
        terms = {"classification": classification_loss(output.logits, config, labels, spec)}
        total = terms["classification"]
        if spec.contrastive:
            terms |= self._matching(tiles, labels, output)
            total = total + spec.contrastive * (terms["foreground"] + terms["background"])
        if spec.cam_smooth:
            terms["smooth"] = map_variation(output, config)
            total = total + spec.cam_smooth * terms["smooth"]
        if spec.cam_sparsity:
            terms["sparsity"] = map_mean(output, config)
            total = total + spec.cam_sparsity * terms["sparsity"]
        return {"loss": total, **terms}

    def validate(self, epoch: int) -> Mapping[str, float]:
        """Judge the validation tiles, in the order in which they are.

        Returns
        -------
        dict
            ``val_loss``, the classification loss alone; what ``tile_scores`` and, where masks are,
            ``PixelOverlaps.values`` say, of the most confident class of each pixel; ``one_class_batches``, the share
            of the round's batches whose tiles all had the same labels; ``scale_4`` to ``scale_32``, what
            similarities are multiplied with.
        """
        config, merge = self.model.config, self._spec.merge
        overlaps = PixelOverlaps(config.class_names)
        loss = 0.0
        probabilities = []
        for indices in self._val_batches():
            output = self._output(self._val.read(indices))
            labels = torch.from_numpy(self._val.labels[indices]).float().to(self._device)
            mean = classification_loss(output.logits, config, labels, self._spec.loss)
            loss += len(indices) * float(mean)
            probabilities.append(class_probabilities(output, config, merge).cpu().numpy())
            if self._val_masks is not None:
                truth = self._val_masks.read_masks(indices)
                maps = confidence(output, config, truth.shape[-1], merge)
                overlaps.add(maps.argmax(1).cpu().numpy(), truth)
        scales = self.model.log_scale.detach().exp().tolist()
        return {
            "val_loss": loss / len(self._val),
            **tile_scores(np.concatenate(probabilities), self._val.labels, config.class_names),
            **overlaps.values(),
            "one_class_batches": self._one_class_batches,
            **{f"scale_{4 * 2**k}": scale for k, scale in enumerate(scales)},
        }

    def warnings(self, history: Sequence[Mapping[str, float]]) -> Sequence[str]:
        """Return what holds now of ``pbip_diagnostics``."""
        return [
            *self._source_warnings,
            *round_warnings(history, self.model.config.class_names),
        ]

    def state(self) -> Mapping[str, Tensor]:
        """Return nothing: a round follows from the model and its number."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take nothing back."""

    def examples(self, indices: Indices | None = None) -> Examples:
        """Segment some validation tiles; maps are of the tiles' size.

        Parameters
        ----------
        indices
            int64 (n,), of the tiles; None takes eight that are spread over them.
        """
        if indices is None:
            indices = np.unique(np.linspace(0, len(self._val) - 1, 8).astype(np.int64))
        tiles = self._val.read(indices)
        config = self.model.config
        with torch.no_grad():
            maps = confidence(self._output(tiles), config, config.tile_px, self._spec.merge)
        return Examples(tiles, self._val.labels[indices], maps.float().cpu().numpy())

    def _matching(self, tiles: Tensor, labels: Tensor, output: PbipOutput) -> dict[str, Tensor]:
        """Return the matching's terms; a tile without anything to match takes no part."""
        spec, config = self._spec.loss, self.model.config
        encoder = self._placed_encoder()
        coarse = output.maps[_COARSEST]
        selected = selected_subclasses(output.logits[_COARSEST], config, labels)
        selected &= coarse.amax((2, 3)) > 0  # nowhere above 0: there is no foreground
        tile_of, subclass = selected.nonzero(as_tuple=True)
        matched = selected.any(1).float().mean()
        if not len(tile_of):
            nothing = torch.zeros((), device=self._device)
            return {"foreground": nothing, "background": nothing, "matched": matched}
        maps = resized(coarse[tile_of, subclass].unsqueeze(1), encoder.frame_px(config.tile_px))
        masks = foreground_masks(maps, spec.mask_alpha)
        features = encoder(tiles, tile_of.repeat(2), torch.cat(masks))
        foreground, background = features.chunk(2)
        losses = matching_losses(
            foreground, background, self.model.prototypes, subclass, spec.temperature
        )
        return {"foreground": losses[0], "background": losses[1], "matched": matched}

    def _placed_encoder(self) -> PromptEncoder:
        if self._encoder is None:  # checked when the training was made
            raise ModelError("The contrastive part has no encoder: give the prototypes'.")
        return self._encoder.to(self._device)

    def _output(self, tiles: npt.NDArray[np.uint8]) -> PbipOutput:
        x = self.model.normalize(torch.from_numpy(tiles).to(self._device))
        output: PbipOutput = self.model(x)
        return output

    def _val_batches(self) -> Iterator[Indices]:
        size = 4 * self._spec.batch_size  # no gradients are kept
        for start in range(0, len(self._val), size):
            yield np.arange(start, min(start + size, len(self._val)))

    @property
    def _device(self) -> torch.device:
        return self.model.prototypes.device
