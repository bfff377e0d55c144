"""The structural similarity index (Wang, Bovik, Sheikh & Simoncelli, IEEE TIP 2004).

SSIM = (2 μa μb + C1)(2 cov + C2) / ((μa² + μb² + C1)(var_a + var_b + C2)), the moments under a Gaussian window of
11 x 11 px and 1.5 px deviation, C1 = (0.01 L)², C2 = (0.03 L)², L = 1 (their equation 13 and section III.C).
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW_PX: Final = 11
_SIGMA_PX: Final = 1.5
_C1: Final = 0.01**2
_C2: Final = 0.03**2


def structural_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Return float32 (n,), the mean SSIM of each pair of images, over channels and whole windows.

    Parameters
    ----------
    a, b
        float32 (n, channel, y, x) in 0 to 1, of at least 11 px a side; fastest if channels last.
    """
    # var_a and var_b come in as their sum alone, so that four moments do instead of five
    moments = torch.cat([a, b, a * a + b * b, a * b], dim=1)
    mean_a, mean_b, squares, products = _blurred(moments).chunk(4, dim=1)
    mean_product = mean_a * mean_b
    mean_squares = mean_a * mean_a + mean_b * mean_b
    similarity = (2 * mean_product + _C1) * (2 * (products - mean_product) + _C2)
    similarity /= (mean_squares + _C1) * (squares - mean_squares + _C2)
    return similarity.mean((1, 2, 3))


def _blurred(x: Tensor) -> Tensor:
    """Average each channel of (n, channel, y, x) under the window, where the whole of it fits."""
    offsets = torch.arange(WINDOW_PX, dtype=torch.float64, device=x.device) - WINDOW_PX // 2
    weights = torch.exp(-offsets.square() / (2 * _SIGMA_PX**2))
    window = (weights / weights.sum()).to(x.dtype).expand(x.shape[1], 1, 1, -1).contiguous()
    along_x = F.conv2d(x, window, groups=x.shape[1])
    blurred: Tensor = F.conv2d(along_x, window.transpose(2, 3), groups=x.shape[1])
    return blurred
