"""TransMIL: self-attention among the tiles (Shao et al., NeurIPS 2021).

    H = relu(W x), filled up with its first rows to a square number of tiles; a class token before it
    H ← H + attention(norm(H));  PPEG;  H ← H + attention(norm(H));  logits = W norm(H)[class token]

The attention is Nyström's (Xiong et al., AAAI 2021): with q̃ and k̃ the means of q and k over at
most 256 runs of tokens (landmarks), products scaled by 1 / √width of a head,

    softmax(q k̃ᵀ) · pinv(softmax(q̃ k̃ᵀ)) · softmax(q̃ kᵀ) v  +  depth-wise convolution of v over 33 tokens

Both outer products are ``scaled_dot_product_attention``, so memory is O(N · width).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.attention_pool import map_tiles
from models.slide_model import SlideModel, SlideModelConfig, SlideOutput
from store_schema.errors import InputError

PINV_ITERATIONS: Final = 6
RESIDUAL_TOKENS: Final = 33


@dataclass(frozen=True)
class TransmilConfig(SlideModelConfig):
    """Settings of TransMIL.

    Attributes
    ----------
    hidden
        Width of the tokens; a multiple of ``heads``.
    heads
        Of the attention.
    landmarks
        At most so many; shorter sequences have one a token.
    dropout
        Of what the attention adds.
    """

    hidden: int = 512
    heads: int = 8
    landmarks: int = 256
    dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden % self.heads:
            raise InputError(
                f"hidden is {self.hidden} and heads {self.heads}: give a multiple of heads."
            )


class NystromAttention(nn.Module):
    """Self-attention through landmarks, with the residual convolution."""

    def __init__(self, config: TransmilConfig) -> None:
        super().__init__()
        self.heads, self.landmarks = config.heads, config.landmarks
        self.qkv = nn.Linear(config.hidden, 3 * config.hidden, bias=False)
        self.residual = nn.Conv2d(
            config.heads,
            config.heads,
            (RESIDUAL_TOKENS, 1),
            padding=(RESIDUAL_TOKENS // 2, 0),
            groups=config.heads,
            bias=False,
        )
        self.out = nn.Sequential(
            nn.Linear(config.hidden, config.hidden), nn.Dropout(config.dropout)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Return float (n, hidden) of float (n, hidden)."""
        q, k, v = self.split(tokens)  # (1, heads, n, e) each, e = hidden / heads
        q_marks, k_marks = self._landmarks(q), self._landmarks(k)  # (1, heads, m, e)
        seen = F.scaled_dot_product_attention(q_marks, k, v)  # (1, heads, m, e)
        with torch.autocast(tokens.device.type, enabled=False):  # the iteration diverges in halves
            wide = torch.promote_types(q.dtype, torch.float32)
            products = q_marks.to(wide) @ k_marks.to(wide).mT / math.sqrt(q.shape[-1])
            seen = _pinv(torch.softmax(products, -1)) @ seen.to(wide)  # (1, heads, m, e)
        mixed = F.scaled_dot_product_attention(q, k_marks, seen.to(q.dtype))  # (1, heads, n, e)
        mixed = mixed + self.residual(v)
        return self.out(mixed.squeeze(0).transpose(0, 1).flatten(1))  # type: ignore[no-any-return]

    def split(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, float (1, heads, n, hidden / heads), of (n, hidden)."""
        projected: Tensor = self.qkv(tokens)  # (n, 3 · hidden)
        parts = projected.reshape(len(tokens), 3, self.heads, -1)  # (n, 3, heads, e)
        q, k, v = parts.permute(1, 2, 0, 3).unsqueeze(1).unbind(0)
        return q, k, v

    def _landmarks(self, x: Tensor) -> Tensor:
        n = x.shape[2]
        run = math.ceil(n / self.landmarks)
        n_runs = math.ceil(n / run)
        padded = F.pad(x, (0, 0, 0, n_runs * run - n))
        runs = padded.reshape(1, self.heads, n_runs, run, -1)  # (1, heads, m, run, e)
        lengths = x.new_full((n_runs, 1), run)
        lengths[-1] = n - (n_runs - 1) * run  # the last run may be shorter; its zeros don't count
        return runs.sum(3) / lengths


class Ppeg(nn.Module):
    """Depth-wise 7, 5 and 3 px convolutions over the tokens laid out as a square, added to them."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(hidden, hidden, size, padding=size // 2, groups=hidden) for size in (7, 5, 3)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Return float (1 + side², hidden) of the same; the first is the class token, left as it is."""
        side = math.isqrt(len(tokens) - 1)
        square = tokens[1:].T.reshape(1, -1, side, side)  # (1, hidden, side, side)
        total = square
        for convolution in self.convolutions:
            total = total + convolution(square)
        return torch.cat([tokens[:1], total.squeeze(0).flatten(1).T])


class Transmil(SlideModel):
    """Tiles see each other before the class token judges them; the order of tiles matters.

    The attention that is returned is the class token's exact softmax row in the last layer, mean over
    heads, not its Nyström approximation, which can be negative; a tile that filled up the square
    counts all its copies. Its logits are the log of that row (class token included in the softmax).

    Weights begin as torch's layers do; the class token is normal with deviation 0.02.
    """

    def __init__(self, config: TransmilConfig) -> None:
        super().__init__(config)
        self.config = config
        self.embed = nn.Sequential(nn.Linear(config.n_features, config.hidden), nn.ReLU())
        self.class_token = nn.Parameter(torch.empty(1, config.hidden))
        nn.init.normal_(self.class_token, std=0.02)
        self.norms = nn.ModuleList(nn.LayerNorm(config.hidden) for _ in range(3))
        self.first, self.last = NystromAttention(config), NystromAttention(config)
        self.ppeg = Ppeg(config.hidden)
        self.classifier = nn.Linear(config.hidden, config.n_classes)

    def forward(self, bag: Tensor) -> SlideOutput:
        """Judge a bag, float (N, d); attention is (N,)."""
        n_tiles, chunk_tiles = len(bag), self.config.chunk_tiles
        tiles = map_tiles(bag, self.embed, chunk_tiles, self.class_token)  # (N, hidden)
        n_fill = (math.isqrt(n_tiles - 1) + 1) ** 2 - n_tiles
        tokens = torch.cat([self.class_token, tiles, tiles[:n_fill]])  # (1 + side², hidden)
        if n_tiles > chunk_tiles and torch.is_grad_enabled():
            tokens = checkpoint(self._mix, tokens, use_reentrant=False)
            judged = checkpoint(self._judge, tokens, use_reentrant=False)
        else:
            tokens = self._mix(tokens)
            judged = self._judge(tokens)
        scores = self._class_token_row(tokens, n_tiles)  # (N,)
        return SlideOutput(judged, torch.softmax(scores, 0), None, scores)

    def _mix(self, tokens: Tensor) -> Tensor:
        return self.ppeg(tokens + self.first(self.norms[0](tokens)))  # type: ignore[no-any-return]

    def _judge(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.last(self.norms[1](tokens))
        return self.classifier(self.norms[2](tokens[0]))  # type: ignore[no-any-return]  # (C,)

    def _class_token_row(self, tokens: Tensor, n_tiles: int) -> Tensor:
        q, k, _ = self.last.split(self.norms[1](tokens))
        products = (q[0, :, :1] * k[0]).sum(-1).float() / math.sqrt(q.shape[-1])  # (heads, n)
        rows = torch.log_softmax(products, -1)
        row = torch.logsumexp(rows, 0) - math.log(len(rows))  # (n,) log of the mean over heads
        scores, copies = row[1 : 1 + n_tiles], row[1 + n_tiles :]
        doubled = torch.logaddexp(scores[: len(copies)], copies)
        return torch.cat([doubled, scores[len(copies) :]])


def _pinv(x: Tensor) -> Tensor:
    """Return the Moore-Penrose inverse of softmax matrices (…, m, m), approximately.

    Razavi et al. (2014) by way of Xiong et al.: Z ← ¼ Z (13 I - XZ (15 I - XZ (7 I - XZ))), six times.
    """
    z = x.mT / (x.sum(-2).amax(-1) * x.sum(-1).amax(-1))[..., None, None]  # ‖x‖₁ · ‖x‖∞
    identity = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    for _ in range(PINV_ITERATIONS):
        xz = x @ z
        z = z @ (13 * identity - xz @ (15 * identity - xz @ (7 * identity - xz))) / 4
    return z
