"""From the features of each class's tiles to a bank: k-means by cosine, and the tiles nearest to each centre."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.pbip.class_tiles import ClassTiles
from models.cosine_kmeans import cosine_kmeans, unit_rows
from store_schema.errors import InputError
from store_schema.prototypes import NO_EXEMPLAR, PrototypeBank

Features = npt.NDArray[np.float32]


def check_k(k: Sequence[int], classes: Sequence[str]) -> tuple[int, ...]:
    """Return the number of prototypes of each class; one number is that of all.

    Raises
    ------
    InputError
        There are neither one nor as many as classes.
    """
    if len(k) not in (1, len(classes)):
        raise InputError(
            f"--k has {len(k)} numbers, and there are {len(classes)} classes ({', '.join(classes)}): give one number "
            "for all, or one a class in their order"
        )
    return tuple(k) * len(classes) if len(k) == 1 else tuple(k)


def check_enough(classes: Sequence[ClassTiles], k_list: Sequence[int]) -> None:
    """Raise InputError if a class has fewer tiles than prototypes, before anything is encoded."""
    for tiles, k in zip(classes, k_list, strict=True):
        if tiles.n_tiles < k:
            raise InputError(
                f"the class {tiles.class_name} has {tiles.n_tiles} tiles, fewer than its {k} prototypes: ask for fewer "
                "with --k, or take more tiles or slides"
            )


def make_bank(
    name: str,
    classes: Sequence[ClassTiles],
    features: Sequence[Mapping[str, Features]],
    k_list: Sequence[int],
    *,
    seed: int,
    n_exemplars: int,
    provenance: Mapping[str, Any],
    extra: Mapping[str, Any],
) -> PrototypeBank:
    """Cluster the tiles of each class.

    Parameters
    ----------
    name
        Of the bank.
    classes
        Tiles of each class.
    features
        Of each class: slide id → float32 (tile, feature), in the order of its tiles.
    k_list
        Prototypes of each class.
    seed
        Of the clustering.
    n_exemplars
        How many of the nearest tiles are kept of each prototype.
    provenance, extra
        As of :class:`store_schema.prototypes.PrototypeBank`.

    Raises
    ------
    InputError
        Tiles of a class point in fewer directions than it is to have prototypes, or have no direction.
    """
    slides = tuple(sorted({slide_id for tiles in classes for slide_id in tiles.tiles}))
    place = {slide_id: number for number, slide_id in enumerate(slides)}
    centres, sizes, nearest = [], [], []
    for tiles, of_class, k in zip(classes, features, k_list, strict=True):
        rows = np.concatenate([of_class[slide_id] for slide_id in tiles.tiles])
        slide = np.concatenate(
            [np.full(len(t), place[i], np.int32) for i, t in tiles.tiles.items()]
        )
        tile = np.concatenate(list(tiles.tiles.values())).astype(np.int32)
        try:
            clusters = cosine_kmeans(rows, k, seed=seed)
        except InputError as error:
            raise InputError(f"of the class {tiles.class_name}: {error}") from error
        similarity = np.einsum("ij,ij->i", unit_rows(rows), clusters.centres[clusters.labels])
        centres.append(clusters.centres)
        sizes.append(clusters.sizes)
        for cluster in range(k):
            members = np.flatnonzero(clusters.labels == cluster)
            best = members[np.argsort(-similarity[members], kind="stable")][:n_exemplars]
            nearest.append(_row(n_exemplars, slide[best], tile[best], similarity[best]))
    exemplar_slide, exemplar_tile, exemplar_similarity = map(np.stack, zip(*nearest, strict=True))
    return PrototypeBank(
        name=name,
        features=np.concatenate(centres),
        class_names=tuple(tiles.class_name for tiles in classes),
        k_list=tuple(k_list),
        cluster_size=np.concatenate(sizes),
        slides=slides,
        exemplar_slide=exemplar_slide,
        exemplar_tile=exemplar_tile,
        exemplar_similarity=exemplar_similarity,
        provenance=provenance,
        extra=extra,
    )


def _row(
    n: int, slide: npt.NDArray[np.int32], tile: npt.NDArray[np.int32], similarity: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Return one prototype's exemplars, with nothing in the places that it has no tiles for."""
    left = n - len(slide)
    nothing = np.full(left, NO_EXEMPLAR, np.int32)
    unlike = np.full(left, np.nan, np.float32)
    return (
        np.concatenate([slide, nothing]),
        np.concatenate([tile, nothing]),
        np.concatenate([similarity.astype(np.float32), unlike]),
    )
