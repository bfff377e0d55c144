"""Whether a network may compute in bfloat16: where the processor is fast at it, and features stay what they are."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from models.precision import arithmetic
from models.preprocess import Preprocess

LEAST_COSINE: Final = 0.9999
"""Between a tile's features in bfloat16 and in float32."""

_SIDE_PX: Final = 256
_INSTRUCTIONS: Final = ("avx512_bf16", "amx_bf16", "sve_bf16", "bf16")


def cpu_is_good_at_bf16() -> bool:
    """Whether this processor has instructions for bfloat16; without them it is several times slower than float32."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in _INSTRUCTIONS)


def bf16_cosine(network: nn.Module, preprocess: Preprocess, tile_px: int | None = None) -> float:
    """Compare a network's features in bfloat16 with those in float32, on the CPU and on real tissue.

    Parameters
    ----------
    network
        float32 (n, 3, y, x) → (n, dim), in eval mode.
    preprocess
        What happens to tiles before it.
    tile_px
        Side of the tiles [px]; None is 256.

    Returns
    -------
    float
        The lowest cosine of four tiles of immunohistochemistry (scikit-image's picture, colon with DAB and
        haematoxylin).
    """
    from skimage import data  # here: only machines with bfloat16 come this way

    one: npt.NDArray[np.uint8] = data.immunohistochemistry()  # type: ignore[no-untyped-call]
    picture = np.tile(one, (2, 2, 1))  # larger than any tile that a model takes
    side_px = tile_px or _SIDE_PX
    corners_px = np.linspace(0, 512 - side_px // 2, 2, dtype=int)
    tiles = [picture[y : y + side_px, x : x + side_px] for y in corners_px for x in corners_px]
    x = preprocess(torch.from_numpy(np.stack(tiles)))
    with torch.inference_mode():
        exact = network(x).double()
        with arithmetic("bf16", "cpu"):
            short = network(x).double()
    return float(torch.cosine_similarity(exact, short).min())
