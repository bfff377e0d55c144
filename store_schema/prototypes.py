"""Banks of prototypes: typical feature vectors of each class, and the tiles that are most like them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from store_schema import names
from store_schema.chunks import read_blocks
from store_schema.claims import group_attrs
from store_schema.errors import IncompleteError, InputError, InvalidNameError, NotInStoreError
from store_schema.ids import check_name
from store_schema.layout import ArrayLayout
from store_schema.near_names import near
from store_schema.objects import Objects
from store_schema.specs import fingerprint
from store_schema.whole_groups import write_whole_group

NO_EXEMPLAR = -1  # of a cluster with fewer tiles than there are places for exemplars

_ENCODER, _STAIN, _GRID = "encoder", "stain", "grid"
_NORM_TOLERANCE = 1e-3

_ARRAYS: Mapping[str, tuple[tuple[str, ...], str, Mapping[str, Any]]] = {
    names.FEATURES: (
        (names.PROTOTYPE, names.FEATURE),
        "float32",
        {
            "long_name": "prototype: unit vector in the direction of its cluster's mean",
            "units": "1",
        },
    ),
    names.CLASS_INDEX: (
        (names.PROTOTYPE,),
        "int32",
        {"long_name": "class of the prototype, counted in class_names", "units": "1"},
    ),
    names.CLUSTER_SIZE: (
        (names.PROTOTYPE,),
        "int32",
        {"long_name": "tiles of the prototype's cluster", "units": "1"},
    ),
    names.EXEMPLAR_SLIDE: (
        (names.PROTOTYPE, names.EXEMPLAR),
        "int32",
        {"long_name": "slide of the nearest tiles, counted in slides; -1: none", "units": "1"},
    ),
    names.EXEMPLAR_TILE: (
        (names.PROTOTYPE, names.EXEMPLAR),
        "int32",
        {"long_name": "position of the nearest tiles in their grid; -1: none", "units": "1"},
    ),
    names.EXEMPLAR_SIMILARITY: (
        (names.PROTOTYPE, names.EXEMPLAR),
        "float32",
        {"long_name": "cosine of the nearest tiles to the prototype", "units": "1"},
    ),
}


@dataclass(frozen=True, eq=False)
class PrototypeBank:
    """Prototypes of several classes.

    Attributes
    ----------
    name
        Of the bank in its store.
    features
        float32 (prototype, feature), of unit length; those of a class follow each other.
    class_names
        The classes in their order.
    k_list
        Prototypes of each class.
    cluster_size
        int32 (prototype,), tiles of each cluster.
    slides
        Slide ids that tiles were taken from, sorted.
    exemplar_slide, exemplar_tile
        int32 (prototype, exemplar), the tiles of the cluster that are nearest to the prototype, nearest first:
        position in ``slides``, and position in the grid; -1 where the cluster has no more.
    exemplar_similarity
        float32 (prototype, exemplar), their cosine to the prototype; NaN where there is none.
    provenance
        What decides the prototypes, JSON-able: at least ``encoder``, ``stain`` and ``grid``.
    extra
        What else is to be known, JSON-able.
    """

    name: str
    features: npt.NDArray[np.float32]
    class_names: tuple[str, ...]
    k_list: tuple[int, ...]
    cluster_size: npt.NDArray[np.int32]
    slides: tuple[str, ...]
    exemplar_slide: npt.NDArray[np.int32]
    exemplar_tile: npt.NDArray[np.int32]
    exemplar_similarity: npt.NDArray[np.float32]
    provenance: Mapping[str, Any]
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = sum(self.k_list)
        lengths = np.linalg.norm(self.features, axis=1)
        if (
            len(self.features) != n
            or len(self.k_list) != len(self.class_names)
            or not np.all(np.abs(lengths - 1) < _NORM_TOLERANCE)  # NaN is not, either
        ):
            raise ValueError(
                f"a bank of {self.k_list} prototypes has that many unit vectors, not {self.features.shape}"
            )

    def __repr__(self) -> str:
        classes = ", ".join(
            f"{k} of {c}" for c, k in zip(self.class_names, self.k_list, strict=True)
        )
        return f"<PrototypeBank {self.name}: {classes}; {self.encoder.get('encoder')}>"

    def __len__(self) -> int:
        return len(self.features)

    @property
    def feature_dim(self) -> int:
        """Length of a feature vector."""
        return int(self.features.shape[1])

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where the prototypes of each class begin, and at the end their number: (0, 3, 6)."""
        return tuple(int(offset) for offset in np.cumsum([0, *self.k_list]))

    @property
    def class_index(self) -> npt.NDArray[np.int32]:
        """int32 (prototype,), the class of each."""
        return np.repeat(np.arange(len(self.k_list), dtype=np.int32), self.k_list)

    @property
    def encoder(self) -> Mapping[str, Any]:
        """What made the features: the encoder's part of the provenance of a feature set."""
        return dict(self.provenance[_ENCODER])

    @property
    def stain(self) -> Mapping[str, Any]:
        """How tiles were normalized before the encoder."""
        return dict(self.provenance[_STAIN])

    @property
    def grid(self) -> Mapping[str, Any]:
        """``name`` and ``spec`` of the grid that tiles were taken from."""
        return dict(self.provenance[_GRID])

    @property
    def fingerprint(self) -> str:
        """Digest of the provenance."""
        return fingerprint(self.provenance)

    def require_classes(self, class_names: Sequence[str]) -> None:
        """Raise InputError unless the classes are those of the bank, in the same order."""
        if tuple(class_names) != self.class_names:
            raise InputError(
                f"the bank {self.name} has the classes {', '.join(self.class_names)}, in this order, and "
                f"{', '.join(class_names)} are asked for: give those of the bank, or make another with "
                "`slidestream pbip prototypes --class-order`"
            )

    def require_encoder(self, encoder: Mapping[str, Any]) -> None:
        """Raise InputError unless an encoder is the one that made the bank: the same network, weights and input.

        Parameters
        ----------
        encoder
            Its provenance; arithmetic and dtype are not looked at.
        """
        differing = [
            key
            for key in sorted({*self.encoder, *encoder} - ARITHMETIC)
            if self.encoder.get(key) != encoder.get(key)
        ]
        if differing:
            said = "; ".join(
                f"{key} {self.encoder.get(key)!r}, not {encoder.get(key)!r}"
                for key in differing[:2]
            )
            raise InputError(
                f"the bank {self.name} was made by another encoder ({said}): use that one, or make another bank with "
                "`slidestream pbip prototypes --encoder`"
            )


# how exactly an encoder computes, not what
ARITHMETIC = frozenset(("precision", "dtype", "compile"))


def prototype_layouts(attrs: Mapping[str, Any]) -> dict[str, ArrayLayout]:
    """Return how the arrays of a bank are stored: one chunk each.

    Parameters
    ----------
    attrs
        What the store says of the bank, or will say.
    """
    sizes = {
        names.PROTOTYPE: sum(attrs[names.K_LIST]),
        names.FEATURE: attrs[names.FEATURE_DIM],
        names.EXEMPLAR: attrs[names.N_EXEMPLARS],
    }
    layouts = {}
    for name, (dims, dtype, said) in _ARRAYS.items():
        shape = tuple(sizes[dim] for dim in dims)
        layouts[name] = ArrayLayout(dims, shape, shape, dtype, said, compressed=dtype != "float32")
    return layouts


def write_prototypes(objects: Objects, bank: PrototypeBank, *, overwrite: bool = False) -> None:
    """Write ``.prototypes/<name>`` whole; the same again is a no-op.

    Parameters
    ----------
    objects
        The store's.
    bank
        What to write.
    overwrite
        Replace a bank of other settings.

    Raises
    ------
    SettingsConflictError
        The bank was made otherwise; names what differs.
    """
    facts: dict[str, Any] = {
        names.CLASS_NAMES: list(bank.class_names),
        names.K_LIST: list(bank.k_list),
        names.OFFSETS: list(bank.offsets),
        names.FEATURE_DIM: bank.feature_dim,
        names.N_EXEMPLARS: int(bank.exemplar_slide.shape[1]),
        names.SLIDES: list(bank.slides),
    }
    write_whole_group(
        objects,
        "",
        names.PROTOTYPES,
        bank.name,
        {
            name: (layout, np.asarray(getattr(bank, name), layout.dtype))
            for name, layout in prototype_layouts(facts).items()
        },
        provenance=bank.provenance,
        facts=facts,
        extra=bank.extra,
        overwrite=overwrite,
    )


def prototype_attrs(objects: Objects, name: str) -> dict[str, Any]:
    """Return what the store says of a bank.

    Raises
    ------
    NotInStoreError
        There is no such bank; names near ones.
    """
    try:
        attrs = group_attrs(objects, _path(check_name(name, "bank name")), names.PROTOTYPES)
    except InvalidNameError:
        attrs = None
    if attrs is None:
        raise NotInStoreError(
            f"{objects.url} has no bank of prototypes {name!r}: {near(name, bank_names(objects))}; "
            "`slidestream pbip prototypes` makes one"
        )
    return attrs


def bank_names(objects: Objects) -> list[str]:
    """Return the names of a store's banks, sorted."""
    return [
        name
        for name in objects.children(names.PROTOTYPES)
        if group_attrs(objects, _path(name), names.PROTOTYPES) is not None
    ]


def read_prototypes(objects: Objects, name: str) -> PrototypeBank:
    """Read a bank.

    Raises
    ------
    NotInStoreError
        There is no such bank; names near ones.
    IncompleteError, DamagedBlockError
        It isn't wholly written, or an object of it is lost or damaged.
    """
    attrs = prototype_attrs(objects, name)
    again = "run the command that makes it again"
    if not attrs[names.COMPLETE]:
        raise IncompleteError(
            f"the bank {name} of {objects.url} is not wholly written yet: {again}"
        )
    arrays: dict[str, Any] = {
        array: read_blocks(objects, f"{_path(name)}/{array}", layout)
        for array, layout in prototype_layouts(attrs).items()
    }
    del arrays[names.CLASS_INDEX]  # follows from k_list
    return PrototypeBank(
        name=name,
        class_names=tuple(attrs[names.CLASS_NAMES]),
        k_list=tuple(attrs[names.K_LIST]),
        slides=tuple(attrs[names.SLIDES]),
        provenance=attrs[names.PROVENANCE],
        extra=attrs.get(names.EXTRA, {}),
        **arrays,
    )


def _path(name: str) -> str:
    return f"{names.PROTOTYPES}/{name}"
