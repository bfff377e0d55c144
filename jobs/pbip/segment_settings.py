"""``pbip segment`` as a tile model of the stream: the settings, and what they refuse."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from store_schema.ids import check_name

if TYPE_CHECKING:
    from dataflow.stream_spec import EncodeSpec, ModelSlides
    from jobs.tile_model_settings import GridCheck
    from models.pbip import Merge
    from models.pbip_segmenter import PbipSegmenterFactory
    from models.precision import PrecisionChoice


@dataclass(frozen=True)
class PbipSegmentSettings:
    """What the options of ``pbip segment`` say of its networks; a ``TileModelSettings`` of jobs.

    Attributes
    ----------
    checkpoints
        Paths of ``model.safetensors``, as workers find them, too; of several the mean confidence is taken.
    name
        Of the scores in the store.
    map_px, tta, merge
        As in :class:`models.pbip_segmenter.PbipSegmenterSpec`.
    allow_other_grid
        Take tiles of another pixel size than the networks were trained on.
    precision, batch_size, device, require_gpu
        As in :class:`models.pbip_segmenter.PbipSegmenterSpec`.
    verify
        Check the checksums of blocks that are stored already.
    """

    checkpoints: tuple[str, ...]
    name: str
    map_px: int | None = None
    tta: bool = False
    merge: Merge = "softmax"
    allow_other_grid: bool = False
    precision: PrecisionChoice = "auto"
    batch_size: int = 32
    device: Literal["auto", "cpu", "cuda"] = "auto"
    require_gpu: bool = False
    verify: bool = True

    def factory(self) -> PbipSegmenterFactory:
        """Return the segmenter; reads the checkpoints' descriptions."""
        from models.pbip_segmenter import PbipSegmenterFactory, PbipSegmenterSpec

        return PbipSegmenterFactory(
            PbipSegmenterSpec(
                checkpoints=self.checkpoints,
                map_px=self.map_px,
                tta=self.tta,
                merge=self.merge,
                precision=self.precision,
                device=self.device,
                batch_size=self.batch_size,
                require_gpu=self.require_gpu,
            )
        )

    def encode_spec(self, factory: PbipSegmenterFactory, *, overwrite: bool) -> EncodeSpec:
        """Return the second half of the stream: into ``scores/<name>``, normalized as in the training."""
        from dataflow.stream_spec import EncodeSpec
        from jobs.training.stains import checkpoint_stain
        from store_schema.names import SCORES

        return EncodeSpec(
            check_name(self.name, "--name"),
            factory,
            checkpoint_stain(factory.description, self.checkpoints[0]),
            SCORES,
            verify=self.verify,
            overwrite=overwrite,
            model_slides=self._model_slides(),
        )

    def grid_check(self) -> GridCheck:
        """Return what refuses grids of another tile size, or, unless that is allowed, of another pixel size."""
        from jobs.training.tile_checkpoint import scale_check, scale_of
        from models.pbip_checkpoint import read_pbip_description

        wanted = scale_of(read_pbip_description(Path(self.checkpoints[0])))

        return scale_check(self.checkpoints[0], wanted, allow_other_mpp=self.allow_other_grid)

    def _model_slides(self) -> ModelSlides | None:
        """Return the slides that any of the networks was trained with; None where one doesn't say."""
        from dataflow.stream_spec import ModelSlides
        from jobs.training.tile_checkpoint import model_slides
        from models.pbip_checkpoint import read_pbip_description

        train, val = frozenset[str](), frozenset[str]()
        for checkpoint in self.checkpoints:
            known = model_slides(read_pbip_description(Path(checkpoint)))
            if known is None:
                return None
            train, val = train | known.train, val | known.val
        return ModelSlides(train, val - train)
