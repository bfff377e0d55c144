"""The frozen settings of commands that stream (run, index, encode …), and what they come to for the stream."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jobs.option_types import TILE_PX_RANGE
from store_schema.errors import InputError
from store_schema.ids import check_name
from store_schema.specs import EdgeMode, GridSpec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from dataflow.cluster import ClusterSpec
    from dataflow.stain import FitScope, Method, StainSpec
    from dataflow.stream_spec import EncodeSpec, IndexSpec, StreamSpec
    from dataflow.tissue import TissueMethod, TissueSpec
    from jobs.tile_model_settings import PlacedFactory, TileModelSettings
    from models.encoder import EncoderFactory, FeatureDtype
    from models.precision import PrecisionChoice
    from models.preprocess import ResizeMode

_DEFAULT_TILE_PX = 256


@dataclass(frozen=True)
class GridSettings:
    """What the grid options say; see ``jobs.options.grid_options``."""

    tile_px: int | None
    tile_um: float | None
    mpp: float
    stride_px: int | None
    edge: EdgeMode
    min_tissue: float
    tissue: TissueMethod
    tissue_threshold: float | None
    tissue_mask: str | None
    slide_mpp: float | None
    grid_name: str | None
    block_tiles: int
    qc: bool


@dataclass(frozen=True)
class EncodeSettings:
    """What the encoder options say; see ``jobs.options.encode_options``."""

    encoder: str
    features_name: str | None
    resize: ResizeMode
    stain: Method
    stain_fit: FitScope
    stain_target: str | None
    precision: PrecisionChoice
    batch_size: int
    device: Literal["auto", "cpu", "cuda"]
    require_gpu: bool
    dtype: FeatureDtype
    compile_model: bool
    random_weights: bool
    seed: int
    verify: bool

    def factory(self) -> EncoderFactory:
        """Return the encoder; finds the weights."""
        return encoder_factory(self)

    def encode_spec(self, factory: PlacedFactory, *, overwrite: bool) -> EncodeSpec:
        """Return the second half of the stream."""
        return encode_spec(self, factory, overwrite=overwrite)

    def grid_check(self) -> None:
        """Take any grid: an encoder brings tiles to its own size."""


@dataclass(frozen=True)
class ClusterSettings:
    """What the cluster options say; see ``jobs.options.cluster_options``."""

    scheduler: str | None = None
    workers: int | None = None
    threads: int | None = None
    memory: str = "auto"
    dashboard_port: int | None = None

    def spec(self) -> ClusterSpec:
        """Return the shape of the embedded cluster."""
        from dataflow.cluster import ClusterSpec

        return ClusterSpec(
            self.workers,
            self.threads,
            self.memory,
            self.dashboard_port,
            preload=("jobs.worker_preload",),
            task_retries=0,
        )


@dataclass(frozen=True)
class RunConfig:
    """One call of a command that streams, resolved.

    Attributes
    ----------
    command
        Its name, e.g. ``run`` or ``vae score``.
    slides
        Files, folders, globs; may be empty where the store has them.
    slide_ids
        Only these of the slides that the store has; empty takes all. Of no use where ``grid`` is given.
    store
        Path or URL.
    grid
        How slides become grids; None where the store has those.
    encode
        Which model makes what of tiles; None for index.
    cluster, overwrite, run_dir
        As the options of these names say.
    grid_name
        The grid to work on, where ``grid`` is None.
    """

    command: str
    slides: tuple[str, ...]
    store: str
    grid: GridSettings | None
    encode: TileModelSettings | None
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    grid_name: str | None = None
    overwrite: bool = False
    run_dir: str = ""
    slide_ids: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the settings as a JSON-able mapping."""
        return asdict(self)

    @property
    def store_url(self) -> str:
        """The store as workers on this machine find it, whatever their working directory."""
        return absolute_url(self.store)


def absolute_url(path_or_url: str) -> str:
    """Return URLs as they are and local paths absolute."""
    return path_or_url if "://" in path_or_url else str(Path(path_or_url).expanduser().resolve())


def check_store_place(store: str) -> None:
    """Check that worker processes can write a store there, as far as its path or URL says.

    Raises
    ------
    InputError
        It is in the memory of one process.
    StorageError
        Nothing installed knows URLs of that kind.
    """
    if "memory://" in store:
        raise InputError(
            f"{store} is in the memory of this process, where workers can't see it; give a path or another URL "
            "(memory:// is for use from Python without workers)."
        )
    from store_schema.objects import open_objects

    open_objects(absolute_url(store))


def beside_store(store: str, suffix: str) -> Path:
    """Return the folder that goes with a store: ``cohort.zarr`` → ``cohort_runs`` beside it, for URLs in the cwd."""
    if "://" in store:
        return Path.cwd() / f"{Path(store.rstrip('/')).stem}_{suffix}"
    path = Path(absolute_url(store))
    return path.with_name(f"{path.stem}_{suffix}")


def qc_dir(store: str, grid: str) -> Path:
    """Return the folder of a grid's QC pictures."""
    return beside_store(store, "qc") / grid


def grid_spec(settings: GridSettings) -> GridSpec:
    """Turn the grid options into the grid that is asked for."""
    if settings.tile_px is not None and settings.tile_um is not None:
        raise InputError("--tile-px and --tile-um say the same thing twice; give one of them.")
    tile_px = _DEFAULT_TILE_PX if settings.tile_px is None else settings.tile_px
    if settings.tile_um is not None:
        tile_px = round(settings.tile_um / settings.mpp)
        if not TILE_PX_RANGE[0] <= tile_px <= TILE_PX_RANGE[1]:
            raise InputError(
                f"--tile-um {settings.tile_um:g} is {tile_px} px at --mpp {settings.mpp:g}; tiles have "
                f"{TILE_PX_RANGE[0]} to {TILE_PX_RANGE[1]} px: ask for another tile or another --mpp."
            )
    return GridSpec(
        tile_px=tile_px,
        mpp=settings.mpp,
        stride_px=tile_px if settings.stride_px is None else settings.stride_px,
        edge=settings.edge,
        min_tissue=settings.min_tissue,
        tissue=_tissue_spec(settings).to_json(),
        label=None if settings.grid_name is None else check_name(settings.grid_name, "--grid-name"),
    )


def _tissue_spec(settings: GridSettings) -> TissueSpec:
    from dataflow.tissue import TissueSpec

    if settings.tissue_mask is not None and settings.tissue != "mask":
        raise InputError("--tissue-mask goes with --tissue mask; add it, or leave the mask out.")
    if settings.tissue == "mask" and settings.tissue_mask is None:
        raise InputError(
            "--tissue mask needs --tissue-mask: a mask image, a GeoJSON file, or a folder of them."
        )
    if settings.tissue_threshold is not None and settings.tissue != "threshold":
        raise InputError(
            "--tissue-threshold goes with --tissue threshold; add it, or leave the threshold out."
        )
    return TissueSpec(
        method=settings.tissue, threshold=settings.tissue_threshold, mask_path=settings.tissue_mask
    )


def index_spec(settings: GridSettings, store: str, *, overwrite: bool) -> IndexSpec:
    """Turn the grid options into the first half of the stream."""
    from dataflow.stream_spec import IndexSpec
    from dataflow.tiling import check_spec

    spec = grid_spec(settings)
    check_spec(spec)
    return IndexSpec(
        grid=spec,
        tissue=_tissue_spec(settings),
        qc_dir=str(qc_dir(store, spec.name)) if settings.qc else None,
        block_tiles=settings.block_tiles,
        overwrite=overwrite,
    )


def encoder_factory(settings: EncodeSettings) -> EncoderFactory:
    """Turn the encoder options into the factory that travels to the workers; finds the weights."""
    from models.encoder import EncoderFactory, EncoderSpec

    return EncoderFactory(
        EncoderSpec(
            name=settings.encoder,
            random_weights=settings.random_weights,
            seed=settings.seed,
            precision=settings.precision,
            batch_size=settings.batch_size,
            compile=settings.compile_model,
            device=settings.device,
            dtype=settings.dtype,
            require_gpu=settings.require_gpu,
            resize=settings.resize,
        )
    )


def encode_spec(settings: EncodeSettings, factory: PlacedFactory, *, overwrite: bool) -> EncodeSpec:
    """Turn the encoder options into the second half of the stream."""
    from dataflow.stream_spec import EncodeSpec

    stain = stain_spec(settings.stain, settings.stain_fit, settings.stain_target)
    return EncodeSpec(
        name=factory.name
        if settings.features_name is None
        else check_name(settings.features_name, "--features-name"),
        model=factory,
        stain=stain,
        verify=settings.verify,
        overwrite=overwrite,
    )


def stain_spec(method: Method, fit: FitScope, target_image: str | None) -> StainSpec:
    """Turn the stain options into what the stream asks of normalization.

    Parameters
    ----------
    method, fit
        As in :class:`dataflow.stain.StainSpec`.
    target_image
        Path of a reference image, or None for the shipped target.
    """
    from dataflow.stain import StainSpec
    from dataflow.stain_target import StainTarget

    if target_image is None:
        return StainSpec(method, fit)
    return StainSpec(method, fit, StainTarget.from_image(*_whole_image(Path(target_image))))


def _whole_image(path: Path) -> tuple[npt.NDArray[np.uint8], str]:
    """Read a reference image, whatever a slide may be, and its name."""
    from dataflow.slide import open_slide

    reader = open_slide(str(path))
    try:
        pixels = reader.read_level(0, 0, 0, reader.info.width, reader.info.height)
    finally:
        reader.close()
    return pixels, path.name


def stream_spec(config: RunConfig, factory: PlacedFactory | None) -> StreamSpec:
    """Turn a call into a run of the stream."""
    from dataflow.stream_spec import StreamSpec

    index = (
        None
        if config.grid is None
        else index_spec(config.grid, config.store, overwrite=config.overwrite)
    )
    grid_name = config.grid_name if index is None else index.grid.name
    if grid_name is None:
        raise ValueError("encode needs the name of a grid")
    encode = None
    if config.encode is not None and factory is not None:
        encode = config.encode.encode_spec(factory, overwrite=config.overwrite)
    return StreamSpec(config.store_url, grid_name, index, encode)
