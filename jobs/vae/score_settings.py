"""``vae score`` as a tile model of the stream: the settings, and what they refuse."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from jobs.training.stain_settings import StainSettings
from store_schema.ids import check_name

if TYPE_CHECKING:
    from dataflow.stream_spec import EncodeSpec
    from jobs.tile_model_settings import GridCheck
    from models.precision import PrecisionChoice
    from models.vae_scorer import VaeScorerFactory


@dataclass(frozen=True)
class VaeScoreSettings:
    """What the options of ``vae score`` say; a ``TileModelSettings`` of jobs.

    Attributes
    ----------
    checkpoint
        Path of ``model.safetensors``, as workers find it, too.
    name
        Of the scores in the store.
    map_px
        Values along a side of the map of errors that is kept of every tile; None keeps none.
    stain
        Another normalization than that of the training.
    allow_other_grid, allow_other_stain
        Take tiles of another pixel size, or of another normalization, than the model was trained on.
    precision, batch_size, device, require_gpu
        As in :class:`models.vae_scorer.VaeScorerSpec`.
    verify
        Check the checksums of blocks that are stored already.
    """

    checkpoint: str
    name: str
    map_px: int | None = None
    stain: StainSettings = field(default_factory=StainSettings)
    allow_other_grid: bool = False
    allow_other_stain: bool = False
    precision: PrecisionChoice = "auto"
    batch_size: int = 32
    device: Literal["auto", "cpu", "cuda"] = "auto"
    require_gpu: bool = False
    verify: bool = True

    def factory(self) -> VaeScorerFactory:
        """Return the scorer; reads the checkpoint's description."""
        from models.vae_scorer import VaeScorerFactory, VaeScorerSpec

        return VaeScorerFactory(
            VaeScorerSpec(
                checkpoint=self.checkpoint,
                map_px=self.map_px,
                precision=self.precision,
                device=self.device,
                batch_size=self.batch_size,
                require_gpu=self.require_gpu,
            )
        )

    def encode_spec(self, factory: VaeScorerFactory, *, overwrite: bool) -> EncodeSpec:
        """Return the second half of the stream: into ``scores/<name>``, normalized as in the training."""
        from dataflow.stream_spec import EncodeSpec
        from jobs.training.stains import checkpoint_stain, scoring_stain
        from jobs.training.tile_checkpoint import model_slides
        from store_schema.names import SCORES

        stain = scoring_stain(
            self.stain,
            checkpoint_stain(factory.description, self.checkpoint),
            knows_slides=True,
            allow_other=self.allow_other_stain,
            where=self.checkpoint,
        )
        name = check_name(self.name, "--name")
        return EncodeSpec(
            name,
            factory,
            stain,
            SCORES,
            verify=self.verify,
            overwrite=overwrite,
            model_slides=model_slides(factory.description),
        )

    def grid_check(self) -> GridCheck:
        """Return what refuses grids of another tile size, or, unless that is allowed, of another pixel size."""
        from pathlib import Path

        from jobs.training.tile_checkpoint import scale_check, scale_of
        from models.vae_checkpoint import read_vae_description

        wanted = scale_of(read_vae_description(Path(self.checkpoint)))

        return scale_check(self.checkpoint, wanted, allow_other_mpp=self.allow_other_grid)
