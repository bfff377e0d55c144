"""Pooling in chunks: the same numbers, and nothing kept of the tiles."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.attention_pool import TileJudgement, attention_pool, map_tiles


def test_against_the_softmax_mean_even_where_scores_are_far_apart() -> None:
    torch.manual_seed(0)
    bag = torch.randn(23, 4, dtype=torch.float64)
    place = torch.ones(1, dtype=torch.float64)
    far = torch.linspace(-900, 900, 23, dtype=torch.float64)
    bag[:, 0] = far

    def judge(tiles: Tensor) -> TileJudgement:
        return TileJudgement(tiles[:, :2], tiles**2, tiles[:, 2:])

    expected = torch.softmax(bag[:, :2], 0).T @ bag**2
    for chunk_tiles in (1, 5, 23, 100):
        pooled = attention_pool(bag, judge, chunk_tiles, place)
        torch.testing.assert_close(pooled.values, expected)
        assert torch.equal(pooled.scores, bag[:, :2])
        assert pooled.instance_logits is not None
        assert torch.equal(pooled.instance_logits, bag[:, 2:])


def test_gradcheck() -> None:
    torch.manual_seed(0)
    weight = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    bag = torch.randn(8, 5, dtype=torch.float64, requires_grad=True)

    def pooled(bag: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        result = attention_pool(
            bag, lambda t: TileJudgement(torch.tanh(t @ weight), torch.sin(t @ weight)), 3, weight
        )
        return result.values, result.scores

    assert torch.autograd.gradcheck(pooled, (bag, weight))


def test_chunks_keep_scores_only_for_the_backward_pass() -> None:
    n_tiles, width = 1000, 64
    layer = nn.Linear(16, width)
    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        is_ours = tensor.untyped_storage().data_ptr() not in at_hand
        kept.append(tensor.numel() if is_ours else 0)
        return tensor

    def judge(tiles: Tensor) -> TileJudgement:
        h = torch.relu(layer(tiles))
        return TileJudgement(h[:, :1], h)

    bag = torch.randn(n_tiles, 16).half()
    at_hand = {tensor.untyped_storage().data_ptr() for tensor in (bag, layer.weight, layer.bias)}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        attention_pool(bag, judge, n_tiles, layer.weight)
        whole, kept[:] = sum(kept), []
        attention_pool(bag, judge, 100, layer.weight)
    assert whole > n_tiles * width
    assert sum(kept) < n_tiles * width / 10


def test_tiles_come_in_the_models_dtype_chunk_by_chunk() -> None:
    seen: list[tuple[torch.dtype, int]] = []

    def function(tiles: Tensor) -> Tensor:
        seen.append((tiles.dtype, len(tiles)))
        return tiles[:, :1]

    bag = torch.randn(10, 3).half()
    with torch.no_grad():
        mapped = map_tiles(bag, function, 4, torch.ones(1, dtype=torch.float64))
    assert seen == [(torch.float64, 4), (torch.float64, 4), (torch.float64, 2)]
    assert torch.equal(mapped, bag[:, :1].double())
