from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import get_args

import numpy as np
import pytest
import torch

from dataflow.stain import (
    FILL,
    FitScope,
    Method,
    StainBasis,
    StainMethod,
    StainNormalizer,
    StainSpec,
    fit_slide,
    stain_method_array_spec,
)
from dataflow.stain_target import StainTarget
from store_schema.errors import InputError
from tests.dataflow.he_tiles import blank_tile, he_tiles

CPU = torch.device("cpu")
SPECS = [StainSpec(m, f) for m in ("macenko", "reinhard") for f in get_args(FitScope)]


def normalizer(spec: StainSpec) -> StainNormalizer:
    basis = fit_slide(he_tiles(4), spec) if spec.needs_basis else None
    return StainNormalizer(spec, basis, CPU)


def mixed_batch() -> torch.Tensor:
    tiles = he_tiles(31, seed=5)
    return torch.from_numpy(np.concatenate([tiles, blank_tile()[None]]))


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.method}-{s.fit}")
def test_a_tile_does_not_depend_on_its_neighbours_or_on_threads(spec: StainSpec) -> None:
    tiles = mixed_batch()
    normalize = normalizer(spec)
    together, used = normalize(tiles)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = [normalize(tile[None]) for tile in tiles]
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(together, torch.cat([out for out, _ in alone]))
    assert used.tolist() == [int(method[0]) for _, method in alone]


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.method}-{s.fit}")
def test_chunks_of_a_large_batch_join_up(spec: StainSpec) -> None:
    tiles = mixed_batch()
    normalize = normalizer(spec)
    whole, used = normalize(tiles)
    normalize._part_px = 3 * 96 * 96
    parts, used_in_parts = normalize(tiles)
    assert torch.equal(whole, parts)
    assert used.tolist() == used_in_parts.tolist()


def test_cascade_per_tile() -> None:
    pale = np.full((96, 96, 3), 240, dtype=np.uint8)  # stained in green only: nothing for Macenko
    pale[..., 1] = np.random.default_rng(0).integers(120, 205, (96, 96))
    tiles = torch.from_numpy(np.stack([he_tiles(1)[0], pale, blank_tile()]))
    before = tiles.clone()
    out, used = StainNormalizer(StainSpec("macenko", "tile"), None, CPU)(tiles)
    assert used.tolist() == [StainMethod.MACENKO, StainMethod.REINHARD, StainMethod.UNTOUCHED]
    assert torch.equal(out[2], tiles[2])
    assert not torch.equal(out[1], tiles[1])
    assert torch.equal(tiles, before)
    _, used = StainNormalizer(StainSpec("reinhard", "tile"), None, CPU)(tiles)
    assert used.tolist() == [StainMethod.REINHARD, StainMethod.REINHARD, StainMethod.UNTOUCHED]


@pytest.mark.parametrize("spec", [*SPECS, StainSpec()], ids=lambda s: f"{s.method}-{s.fit}")
def test_a_result_goes_where_it_is_told_also_in_place(spec: StainSpec) -> None:
    pale = np.full((1, 96, 96, 3), 240, dtype=np.uint8)  # for Reinhard
    pale[..., 1] = np.random.default_rng(0).integers(120, 205, (1, 96, 96))
    tiles = torch.cat([torch.from_numpy(pale), mixed_batch()])
    before = tiles.clone()
    normalize = normalizer(spec)
    expected, used = normalize(tiles)
    out = torch.empty_like(tiles)
    result, used_out = normalize(tiles, out=out)
    assert result is out
    assert torch.equal(out, expected)
    assert torch.equal(tiles, before)
    result, used_in_place = normalize(tiles, out=tiles)
    assert result is tiles
    assert torch.equal(tiles, expected)
    assert used.tolist() == used_out.tolist() == used_in_place.tolist()


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.method}-{s.fit}")
def test_tiles_that_are_not_contiguous(spec: StainSpec) -> None:
    tiles = mixed_batch()
    turned = tiles.transpose(1, 2)
    assert torch.equal(normalizer(spec)(turned)[0], normalizer(spec)(turned.contiguous())[0])


def test_an_out_that_does_not_fit_is_a_mistake() -> None:
    tiles = mixed_batch()[:2]
    normalize = StainNormalizer(StainSpec("macenko", "tile"), None, CPU)
    for out in (tiles[:1], tiles.float(), tiles.clone().transpose(1, 2)):
        with pytest.raises(ValueError, match="out must be contiguous, uint8"):
            normalize(tiles, out=out)


def test_importing_and_not_normalizing_costs_no_compilation() -> None:
    code = """
import sys, torch
from dataflow.stain import StainMethod, StainNormalizer, StainSpec
StainNormalizer(StainSpec(), None, torch.device("cpu"))
assert "numba" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.method}-{s.fit}")
@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (40, 40)])
def test_blank_black_and_tiny_tiles_never_fail(spec: StainSpec, shape: tuple[int, int]) -> None:
    tiles = torch.zeros((4, *shape, 3), dtype=torch.uint8)
    tiles[1] = 255
    tiles[2] = torch.tensor([200, 90, 150], dtype=torch.uint8)
    tiles[3, 0, 0] = torch.tensor([90, 40, 120], dtype=torch.uint8)
    if spec.fit == "tile":
        out, used = normalizer(spec)(tiles)
        assert used.tolist() == [StainMethod.UNTOUCHED] * 4
        assert torch.equal(out, tiles)
    else:  # a slide of such tiles, and such tiles of a sound slide
        basis = fit_slide(tiles.numpy(), spec)
        numbers = [*basis.max_concentrations, *basis.lab_mean, *basis.lab_std]
        assert np.isfinite([*numbers, *np.ravel(basis.stains)]).all()
        out, used = StainNormalizer(spec, basis, CPU)(tiles)
        assert len(set(used.tolist())) == 1
        assert torch.equal(out, tiles) or used[0] != StainMethod.UNTOUCHED
        out, used = normalizer(spec)(tiles)
        assert used.tolist() == [spec.wanted_method] * 4
        assert float(out[1].float().min()) > 200


def test_slide_basis_keeps_glass_white_and_brings_slides_together() -> None:
    spec = StainSpec("macenko", "slide")
    tiles = he_tiles(4)
    strong = (255 * (tiles / 255.0) ** 1.5).astype(np.uint8)  # the same tissue, stained longer
    means = []
    for slide in (tiles, strong):
        basis = fit_slide(slide, spec)
        assert basis.method is StainMethod.MACENKO
        assert basis.reason == ""
        out, used = StainNormalizer(spec, basis, CPU)(
            torch.from_numpy(np.concatenate([slide, blank_tile()[None]]))
        )
        assert set(used.tolist()) == {StainMethod.MACENKO}
        assert float(out[-1].float().mean()) > 225
        means.append(out[:-1].float().mean(dim=(0, 1, 2)))
    raw = np.abs(tiles.mean(axis=(0, 1, 2)) - strong.mean(axis=(0, 1, 2))).max()
    assert float((means[0] - means[1]).abs().max()) < 0.3 * raw


def test_a_slide_without_two_stains_falls_back_and_says_why() -> None:
    spec = StainSpec("macenko", "slide")
    tiles = mixed_batch()[-2:]
    empty = fit_slide(np.empty((0, 96, 96, 3), dtype=np.uint8), spec)
    blank = fit_slide(blank_tile()[None], spec)
    for basis in (empty, blank):
        assert basis.method is StainMethod.UNTOUCHED
        assert "too few stained pixels" in basis.reason
        out, used = StainNormalizer(spec, basis, CPU)(tiles)
        assert torch.equal(out, tiles)
        assert used.tolist() == [StainMethod.UNTOUCHED] * 2
    pale = np.full((1, 96, 96, 3), 240, dtype=np.uint8)
    pale[..., 1] = np.random.default_rng(0).integers(120, 205, (1, 96, 96))
    basis = fit_slide(pale, spec)
    assert basis.method is StainMethod.REINHARD
    assert StainNormalizer(spec, basis, CPU)(tiles)[1].tolist() == [StainMethod.REINHARD] * 2


def test_none_returns_what_came() -> None:
    tiles = mixed_batch()
    out, used = StainNormalizer(StainSpec(), None, CPU)(tiles)
    assert out is tiles
    assert used.tolist() == [StainMethod.NONE] * 32


def test_basis_survives_json() -> None:
    for slide in (he_tiles(3), np.empty((0, 8, 8, 3), dtype=np.uint8)):
        basis = fit_slide(slide, StainSpec("macenko"))
        assert StainBasis.from_json(json.loads(json.dumps(basis.to_json()))) == basis


def test_slide_fit_without_basis_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="fit_slide"):
        StainNormalizer(StainSpec("macenko", "slide"), None, CPU)


def test_an_empty_batch_stays_empty() -> None:
    tiles = torch.empty((0, 96, 96, 3), dtype=torch.uint8)
    for spec in SPECS:
        out, used = normalizer(spec)(tiles)
        assert out.shape == tiles.shape
        assert used.shape == (0,)


def test_flags_are_cf_and_differ_from_the_fill() -> None:
    spec = stain_method_array_spec()
    assert len(spec.attrs["flag_values"]) == len(spec.attrs["flag_meanings"].split())
    assert FILL not in spec.attrs["flag_values"]
    json.dumps(spec.attrs)
    for method in get_args(Method):
        assert StainSpec(method).wanted_method.name.lower() == method


def test_target_from_image_becomes_the_look_of_its_own_tile() -> None:
    image = he_tiles(1, seed=9)[0]
    target = StainTarget.from_image(image, "slide 9")
    spec = StainSpec("macenko", "tile", target)
    out, used = StainNormalizer(spec, None, CPU)(torch.from_numpy(image)[None])
    assert used.tolist() == [StainMethod.MACENKO]
    assert np.abs(out[0].numpy().astype(int) - image).mean() < 3
    assert spec.provenance["target"]["digest"] == target.digest != StainTarget.default().digest
    json.dumps(spec.provenance)


def test_a_target_without_tissue_is_refused() -> None:
    with pytest.raises(InputError, match="haematoxylin and eosin"):
        StainTarget.from_image(blank_tile())
    with pytest.raises(InputError, match="8-bit RGB"):
        StainTarget.from_image(np.zeros((4, 4), dtype=np.uint8))


def test_a_spec_survives_json_and_an_altered_target_is_refused() -> None:
    target = StainTarget.from_image(he_tiles(1, side_px=256)[0], "mine")
    for spec in (StainSpec(), StainSpec("macenko", "tile", target), StainSpec("reinhard")):
        again = StainSpec.from_json(json.loads(json.dumps(spec.to_json())))
        assert again == spec
        assert again.provenance == spec.provenance

    altered = StainSpec("macenko", "tile", target).to_json()
    altered["target"]["lab_mean"] = [1, 2, 3]
    with pytest.raises(ValueError, match="altered"):
        StainSpec.from_json(altered)
    with pytest.raises(ValueError, match="vahadane"):
        StainSpec.from_json({"method": "vahadane"})


@pytest.mark.parametrize("number", [math.nan, math.inf, -1e20])
@pytest.mark.parametrize("key", ["lab_mean", "lab_std", "max_concentrations"])
def test_numbers_that_no_stain_has_are_refused(key: str, number: float) -> None:
    basis = fit_slide(he_tiles(2), StainSpec("macenko")).to_json()
    target = StainTarget.default().to_json()
    with pytest.raises(ValueError, match="no stain has"):
        StainTarget.from_json({**target, key: [number, *target[key][1:]]})
    with pytest.raises(ValueError, match="no stain has"):
        StainBasis.from_json({**basis, key: [number] * len(basis[key])})
