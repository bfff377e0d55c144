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
# banks of prototypes belong to no slide: they lie beside the slides, under a name that no slide can have
PROTOTYPES: Final = ".prototypes"

# dimensions
TILE: Final = "tile"
FEATURE: Final = "feature"
CLASS: Final = "class"
Y: Final = "y"
X: Final = "x"
MAP_Y: Final = "map_y"  # of a map within a tile: xarray takes no dimension called as a coordinate, x and y of tiles
MAP_X: Final = "map_x"
RGB: Final = "rgb"
K: Final = "k"
PROTOTYPE: Final = "prototype"
EXEMPLAR: Final = "exemplar"

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
CLASS_INDEX: Final = "class_index"
CLUSTER_SIZE: Final = "cluster_size"
EXEMPLAR_SLIDE: Final = "exemplar_slide"
EXEMPLAR_TILE: Final = "exemplar_tile"
EXEMPLAR_SIMILARITY: Final = "exemplar_similarity"
TISSUE_RUN: Final = "tissue"  # masks/tissue: the mask that the grid was made from

# attributes of arrays
CLASS_NAMES: Final = "class_names"  # of a dimension ``class``: the classes in their order

# keys inside attrs["slidestream"]
VERSION: Final = "schema_version"
CREATED: Final = "created"
FINGERPRINT: Final = "fingerprint"
DIGEST: Final = "digest"  # of all else that is said in the same document
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
LAYOUTS: Final = "layouts"  # array → dims, shape, dtype, attrs, of a finished mask group
PX_LEVEL0: Final = "px_level0"
ORIGIN_LEVEL0: Final = "origin_level0"
SELECTED: Final = "selected"  # number of tiles of a selection
K_LIST: Final = "k_list"  # of a bank: prototypes of each class, in the order of CLASS_NAMES
OFFSETS: Final = "offsets"  # of a bank: where the prototypes of each class begin, and their number
FEATURE_DIM: Final = "feature_dim"
N_EXEMPLARS: Final = "n_exemplars"
SLIDES: Final = "slides"  # of a bank: slide ids, which EXEMPLAR_SLIDE counts through

DEFAULT_BLOCK_TILES: Final = 1024
