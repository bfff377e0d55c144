"""``pbip prototypes``: from labelled slides to a bank of prototypes in the store, and its contact sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from dataflow.stain import StainSpec
from jobs.evaluation.truth import open_truth
from jobs.find_slides import only_grid
from jobs.mil.labels import LabelTable
from jobs.mil.splits import read_splits
from jobs.pbip.bank import Features, check_enough, check_k, make_bank
from jobs.pbip.class_tiles import ClassTiles, SampleSpec, sample_class_tiles
from jobs.pbip.classes import read_classes
from jobs.pbip.exemplar_features import (
    StoredFeatures,
    encode_tiles,
    find_stored,
    read_stored,
)
from jobs.pbip.prototype_sheet import draw_sheet
from jobs.run_config import absolute_url, beside_store, stain_spec
from jobs.training.progress import StepProgress, shown_steps
from jobs.training.stain_settings import StainSettings
from models.encoder import EncoderFactory, EncoderSpec
from models.preprocess import ResizeMode
from store_schema import names
from store_schema.errors import InputError, SlideError, StoreError
from store_schema.ids import check_name
from store_schema.labels import some
from store_schema.prototypes import PrototypeBank
from store_schema.specs import fingerprint
from store_schema.store import Store, open_store

# Raised when the same settings would come to other prototypes.
BANK_VERSION: Final = 1


@dataclass(frozen=True)
class PrototypesConfig:
    """One call of ``pbip prototypes``, resolved.

    Attributes
    ----------
    store, grid
        Where the tiles are; grid may be None where the store has only one.
    labels, splits
        Tables of slides; without splits all labelled slides are training slides.
    encoder
        Which, and how it computes; not how tiles are resized for it.
    resize
        How tiles may become its input, the best way first: features of the store that were made in any of them will do.
    class_order
        The classes; empty takes those of the labels, in their order.
    k
        Prototypes of all classes, or of each.
    sample
        Which tiles.
    truth
        Folder or file that says which tiles are positive; see :func:`jobs.evaluation.truth.open_truth`.
    coordinates
        Folder of coordinate files that make the grid.
    name
        Of the bank.
    stain
        Normalization before the encoder; without a method that of the store's features, or none.
    n_exemplars
        Nearest tiles that are kept of each prototype, and drawn.
    sheet
        File of the contact sheet; None draws it beside the store.
    overwrite
        Replace a bank of that name that was made otherwise.
    """

    store: str
    labels: str
    grid: str | None = None
    splits: str | None = None
    encoder: EncoderSpec = field(default_factory=EncoderSpec)
    resize: tuple[ResizeMode, ...] = ("model", "fit", "none")
    class_order: tuple[str, ...] = ()
    k: tuple[int, ...] = (3,)
    sample: SampleSpec = field(default_factory=SampleSpec)
    truth: str | None = None
    coordinates: str | None = None
    name: str = "prototypes"
    stain: StainSettings = field(default_factory=StainSettings)
    n_exemplars: int = 10
    sheet: str | None = None
    overwrite: bool = False


def make_prototypes(config: PrototypesConfig, *, quiet: bool) -> dict[str, Any]:
    """Make a bank, unless the store has it already.

    Parameters
    ----------
    config
        The call.
    quiet
        No progress (``--json``).

    Returns
    -------
    dict
        JSON-able summary.

    Raises
    ------
    InputError
        What is asked for contradicts the labels, splits or tiles: see the functions that this calls.
    ModelError
        The encoder or its weights can't be had.
    SettingsConflictError
        The store has a bank of that name that was made otherwise.
    """
    check_name(config.name, "--name")
    table, said = read_classes(Path(config.labels), config.class_order)
    k_list = check_k(config.k, table.class_names)
    factories = [EncoderFactory(replace(config.encoder, resize=mode)) for mode in config.resize]
    stain = _stain(config.stain)
    store = open_store(absolute_url(config.store), mode="r+")
    notes = [said] if said else []
    grid = _grid(store, config, notes)
    slide_ids = _training_slides(store, grid, config, table, notes)
    truth = None if config.truth is None else open_truth(Path(config.truth))
    classes = sample_class_tiles(store, grid, table, slide_ids, config.sample, truth)
    check_enough(classes, k_list)
    used = sorted({slide_id for tiles in classes for slide_id in tiles.tiles})
    stored, why = find_stored(store, grid, used, factories, stain)
    source = _Source.of(factories[0], stain or StainSpec(), stored)
    provenance = _provenance(store, grid, classes, k_list, source, config)
    origin = why if stored is None else stored.name
    with shown_steps(quiet=quiet) as progress:
        bank = _stored_bank(store, config.name, provenance)
        there = bank is not None
        if bank is None:
            features = [source.features(store, grid, tiles, progress) for tiles in classes]
            extra = {
                "encoder": config.encoder.name,
                "resize": source.resize,
                "features": None if stored is None else stored.name,
                "settings": asdict(config.sample),
                "slides": {tiles.class_name: _tiles_of(store, grid, tiles) for tiles in classes},
            }
            bank = make_bank(
                config.name,
                classes,
                features,
                k_list,
                seed=config.sample.seed,
                n_exemplars=config.n_exemplars,
                provenance=provenance,
                extra=extra,
            )
            store.write_prototypes(bank, overwrite=config.overwrite)
    sheet = Path(config.sheet or beside_store(config.store, "prototypes") / f"{config.name}.png")
    if not (there and sheet.exists()):
        try:
            draw_sheet(store, bank, sheet)
        except SlideError as error:
            notes.append(f"the contact sheet was not drawn: {error}")
    return {
        "command": "pbip prototypes",
        "store": store.url,
        "bank": config.name,
        "there": there,
        "grid": grid,
        "classes": _class_summaries(bank, classes),
        "feature_dim": bank.feature_dim,
        "encoder": bank.encoder["encoder"],
        "features": {"stored": stored is not None, "origin": origin},
        "sheet": str(sheet) if sheet.exists() else None,
        "notes": notes,
    }


def _grid(store: Store, config: PrototypesConfig, notes: list[str]) -> str:
    if config.coordinates is None:
        return only_grid(store.url, config.grid)
    from jobs.coordinates.call import lay_stored

    laid = lay_stored(store, Path(config.coordinates), config.grid)
    notes += laid.notes
    return laid.grid


def _training_slides(
    store: Store, grid: str, config: PrototypesConfig, table: LabelTable, notes: list[str]
) -> list[str]:
    """Return the labelled slides of the train split that have the grid."""
    wanted = table.slide_ids if config.splits is None else read_splits(config.splits, table).train
    there = set(store.slides)
    absent = [i for i in wanted if i not in there or grid not in store[i].grids]
    if len(absent) == len(wanted):
        raise InputError(
            f"none of the {len(wanted)} labelled training slides ({some(wanted)}) has the grid {grid} in {store.url}: "
            "slide ids of labels and store must be the same"
        )
    if absent:
        notes.append(
            f"{len(absent)} training slides without the grid were left out ({some(absent)})"
        )
    lost = set(absent)
    return [slide_id for slide_id in wanted if slide_id not in lost]


@dataclass(frozen=True)
class _Source:
    """Where features come from, and what they are."""

    encoder: Mapping[str, Any]
    stain: Mapping[str, Any]
    resize: str
    factory: EncoderFactory
    normalization: StainSpec
    stored: str | None

    @classmethod
    def of(
        cls, factory: EncoderFactory, stain: StainSpec, stored: StoredFeatures | None
    ) -> _Source:
        if stored is None:
            made = factory.provenance, stain.provenance, factory.spec.resize
            return cls(*made, factory, stain, None)
        return cls(stored.encoder, stored.stain, stored.resize, factory, stain, stored.name)

    def features(
        self, store: Store, grid: str, tiles: ClassTiles, progress: StepProgress
    ) -> dict[str, Features]:
        if self.stored is not None:
            return dict(read_stored(store, grid, self.stored, tiles.tiles))
        progress.begin(f"encoding tiles of {tiles.class_name}", tiles.n_tiles)
        encoded = encode_tiles(
            store, grid, tiles.tiles, self.factory, self.normalization, progress.at
        )
        return dict(encoded)


def _stain(settings: StainSettings) -> StainSpec | None:
    """Return what was asked of normalization, None where nothing was."""
    if settings.method is None:
        if settings != StainSettings():
            raise InputError(
                "--stain-fit and --stain-target go with --stain: add it, or leave them out."
            )
        return None
    return stain_spec(settings.method, settings.fit or "slide", settings.target)


def _provenance(
    store: Store,
    grid: str,
    classes: Sequence[ClassTiles],
    k_list: Sequence[int],
    source: _Source,
    config: PrototypesConfig,
) -> dict[str, Any]:
    """Return what decides the prototypes: not the files that say which tiles, but the tiles."""
    attrs = {i: store[i].grid_attrs(grid) for tiles in classes for i in tiles.tiles}
    spec = next(iter(attrs.values()))[names.SPEC]
    odd = [i for i, of_slide in attrs.items() if of_slide[names.SPEC]["tile_px"] != spec["tile_px"]]
    if odd:
        raise InputError(
            f"the grid {grid} of {len(odd)} slides ({some(odd)}) has tiles of another size than that of the others: "
            "index them alike, or leave them out of the labels"
        )
    return {
        "encoder": dict(source.encoder),
        "stain": dict(source.stain),
        "grid": {"name": grid, "spec": spec},
        "class_names": [tiles.class_name for tiles in classes],
        "k": list(k_list),
        "seed": config.sample.seed,
        "n_exemplars": config.n_exemplars,
        # digests: a difference is to fit a sentence, and what they are of stands in extra
        "tiles": {
            tiles.class_name: {
                "slides": len(tiles.tiles),
                "tiles": tiles.n_tiles,
                "digest": fingerprint(_tiles_of(store, grid, tiles)),
            }
            for tiles in classes
        },
        "bank_version": BANK_VERSION,
    }


def _tiles_of(store: Store, grid: str, tiles: ClassTiles) -> dict[str, Any]:
    """Return slide id → what the slide's tiles of a class are: slide, grid, number, and a digest of their positions."""
    return {
        slide_id: {
            "slide": store[slide_id].record.fingerprint,
            "grid": store[slide_id].grid_attrs(grid)[names.FINGERPRINT],
            "n_tiles": len(chosen),
            "tiles": fingerprint({"tiles": chosen.tolist()}),
        }
        for slide_id, chosen in tiles.tiles.items()
    }


def _stored_bank(store: Store, name: str, provenance: Mapping[str, Any]) -> PrototypeBank | None:
    """Return the bank if it is there, whole, sound and made in the same way."""
    if name not in store.banks:
        return None
    try:
        bank = store.prototypes(name)
    except StoreError as error:
        if error.fatal:
            raise
        return None  # writing it again mends it
    return bank if bank.fingerprint == fingerprint(provenance) else None


def _class_summaries(bank: PrototypeBank, classes: Sequence[ClassTiles]) -> dict[str, Any]:
    return {
        tiles.class_name: {
            "slides": list(tiles.tiles),
            "tiles": tiles.n_tiles,
            "prototypes": bank.cluster_size[bank.class_index == number].tolist(),
        }
        for number, tiles in enumerate(classes)
    }


def summary_lines(summary: Mapping[str, Any]) -> list[str]:
    """Write the summary that a person reads.

    Parameters
    ----------
    summary
        As :func:`make_prototypes` gave it.
    """
    features = summary["features"]
    n_prototypes = sum(len(found["prototypes"]) for found in summary["classes"].values())
    origin = (
        f"of the store ({features['origin']}), no pixels read"
        if features["stored"]
        else f"encoded here, since {features['origin']}"
    )
    return [
        f"bank {summary['bank']} {'was there' if summary['there'] else 'written'}: "
        f"{n_prototypes} prototypes of {summary['feature_dim']} numbers, {summary['encoder']} on {summary['grid']}",
        *(
            f"  {name}: {found['tiles']:,} tiles of {len(found['slides'])} slides, clusters of "
            f"{', '.join(f'{size:,}' for size in found['prototypes'])}"
            for name, found in summary["classes"].items()
        ),
        *([] if summary["there"] else [f"  features {origin}"]),
        *(f"  note: {note}" for note in summary["notes"]),
        *([f"  contact sheet {summary['sheet']}"] if summary["sheet"] else []),
    ]
