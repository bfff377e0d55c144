"""The spelling of every group, dimension, array and attribute of schema version 1.

Nothing else spells them.
"""

from __future__ import annotations

from typing import Final

SCHEMA_VERSION: Final = 1

# attributes: everything of ours lives under one key, so that foreign attributes can be told apart
ATTR: Final = "slidestream"
COORDINATES: Final = "coordinates"  # CF: which variables are coordinates; xarray reads it

# kinds of groups, the value of attrs["slidestream"]["kind"]
KIND: Final = "kind"
KIND_STORE: Final = "store"
KIND_SLIDE: Final = "slide"
KIND_GRID: Final = "grid"
KIND_CONTAINER: Final = "container"  # <grid>/features and so on: holds runs, nothing of its own
FEATURES: Final = "features"
SCORES: Final = "scores"
SELECTIONS: Final = "selections"
MASKS: Final = "masks"
CONTAINERS: Final = (FEATURES, SCORES, SELECTIONS, MASKS)  # groups of a grid that hold runs

# dimensions
TILE: Final = "tile"
FEATURE: Final = "feature"
CLASS: Final = "class"
Y: Final = "y"
X: Final = "x"
RGB: Final = "rgb"
K: Final = "k"

# arrays of a grid
ROW: Final = "row"
COL: Final = "col"
TISSUE: Final = "tissue"
GRID_COORDINATES: Final = (X, Y, ROW, COL)

# arrays of runs
STAIN_METHOD: Final = "stain_method"
SCORE: Final = "score"
MASK: Final = "mask"
CONFIDENCE: Final = "confidence"
TILE_INDEX: Final = "tile_index"
RANK_SCORE: Final = "rank_score"
TISSUE_RUN: Final = "tissue"  # masks/tissue: the mask that the grid was made from

# attributes of arrays
CLASS_NAMES: Final = "class_names"  # of a dimension ``class``: the classes in their order

# keys inside attrs["slidestream"]
VERSION: Final = "schema_version"
CREATED: Final = "created"
FINGERPRINT: Final = "fingerprint"
PROVENANCE: Final = "provenance"
GRID_MADE_BY: Final = "grid"  # in the provenance of a run: the fingerprint of its grid
N_TILES: Final = "n_tiles"
BLOCK_TILES: Final = "block_tiles"
ARRAYS: Final = "arrays"
ARRAY_ORDER: Final = "array_order"  # JSON objects are stored with sorted keys
SPEC: Final = "spec"
GEOMETRY: Final = "geometry"
COUNTS: Final = "counts"
RASTERS: Final = "rasters"
EXTRA: Final = "extra"
# in extra: the slide's fitted stain, so that a resumed run uses the same
STAIN_BASIS: Final = "stain_basis"
COMPLETE: Final = "complete"  # of groups that are written whole (masks, selections); set last
CHUNKS: Final = (
    "chunks"  # array → stored chunks of a finished mask group: empty ones have no object
)
PX_LEVEL0: Final = "px_level0"
ORIGIN_LEVEL0: Final = "origin_level0"
SELECTED: Final = "selected"  # number of tiles of a selection

DEFAULT_BLOCK_TILES: Final = 1024
