"""Attention pooling of bags of any size: in chunks, exactly, in memory that does not grow with the bag.

softmax-weighted means compose: with s_c the scores of chunk c, v_c its values and l_c = logsumexp(s_c),

    softmax(s)ᵀ v  =  Σ_c softmax(l)_c · softmax(s_c)ᵀ v_c

so one pass over the chunks gives the mean over the whole bag. A chunk's activations are thrown away
and computed again in the backward pass (``torch.utils.checkpoint``, with the same dropout); what
stays of a tile is its scores.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

T = TypeVar("T")


class TileJudgement(NamedTuple):
    """What a model says of n tiles.

    Attributes
    ----------
    scores
        float (n, A), attention before the softmax, of A branches.
    values
        float (n, h), what is averaged.
    instance_logits
        float (n, C), or None.
    """

    scores: Tensor
    values: Tensor
    instance_logits: Tensor | None = None


class Pooled(NamedTuple):
    """A bag of N tiles, pooled.

    Attributes
    ----------
    values
        float (A, h), the mean of the values under each branch's attention.
    scores
        float (N, A), attention before the softmax.
    instance_logits
        float (N, C), or None.
    """

    values: Tensor
    scores: Tensor
    instance_logits: Tensor | None


class _ChunkPool(NamedTuple):
    values: Tensor  # (A, h)
    mass: Tensor  # (A,) logsumexp of the scores
    scores: Tensor  # (n, A)
    instance_logits: Tensor | None  # (n, C)


def attention_pool(
    bag: Tensor, judge: Callable[[Tensor], TileJudgement], chunk_tiles: int, place: Tensor
) -> Pooled:
    """Average the values of a bag's tiles under softmax attention over all of them.

    Parameters
    ----------
    bag
        float (N, d) of any floating dtype, on any device.
    judge
        Tiles (n, d) → scores, values and instance logits, each tile by itself.
    chunk_tiles
        Tiles that are judged at once.
    place
        A parameter of the model: chunks are brought to its device and dtype.
    """

    def pool_chunk(chunk: Tensor, place: Tensor) -> _ChunkPool:
        judged = judge(chunk.to(place.device, place.dtype))
        with torch.autocast(
            place.device.type, enabled=False
        ):  # sums over many tiles: not in halves
            scores = at_least_float32(judged.scores)
            values = torch.softmax(scores, 0).T @ at_least_float32(judged.values)
            logits = judged.instance_logits
            wide_logits = None if logits is None else at_least_float32(logits)
            return _ChunkPool(values, torch.logsumexp(scores, 0), scores, wide_logits)

    parts = _in_chunks(pool_chunk, bag, chunk_tiles, place)
    if len(parts) == 1:
        return Pooled(parts[0].values, parts[0].scores, parts[0].instance_logits)
    shares = torch.softmax(torch.stack([part.mass for part in parts]), 0)  # (chunk, A)
    values = torch.stack([part.values for part in parts])  # (chunk, A, h)
    logits = [part.instance_logits for part in parts if part.instance_logits is not None]
    return Pooled(
        (shares.unsqueeze(-1) * values).sum(0),
        torch.cat([part.scores for part in parts]),
        torch.cat(logits) if logits else None,
    )


def map_tiles(
    bag: Tensor, function: Callable[[Tensor], Tensor], chunk_tiles: int, place: Tensor
) -> Tensor:
    """Apply a function of single tiles, (n, d) → (n, m), to a bag; float32 or wider (N, m).

    Parameters
    ----------
    bag, chunk_tiles, place
        As in ``attention_pool``.
    function
        Judges each tile by itself.
    """

    def apply(chunk: Tensor, place: Tensor) -> Tensor:
        return at_least_float32(function(chunk.to(place.device, place.dtype)))

    parts = _in_chunks(apply, bag, chunk_tiles, place)
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _in_chunks(
    function: Callable[[Tensor, Tensor], T], bag: Tensor, chunk_tiles: int, place: Tensor
) -> list[T]:
    if len(bag) <= chunk_tiles:
        return [function(bag, place)]
    chunks = torch.split(bag, chunk_tiles)
    if not torch.is_grad_enabled():
        return [function(chunk, place) for chunk in chunks]
    # place is an argument although the function could close over it: checkpoint keeps the random
    # state of the arguments' devices only, and the bag may lie on the CPU while dropout is on a GPU.
    return [checkpoint(function, chunk, place, use_reentrant=False) for chunk in chunks]


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return the tensor in float32, or as it is if wider: what autocast made half is wide again."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
