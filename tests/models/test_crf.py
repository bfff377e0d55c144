"""The CRF against its formulas, pixel by pixel; and parts with margins against the whole."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.crf import CrfSpec, refined
from store_schema.errors import InputError

SPEC = CrfSpec(iterations=2, radius_px=2)


def by_definition(
    confidence: npt.NDArray[np.floating[Any]], image: npt.NDArray[np.uint8], spec: CrfSpec
) -> npt.NDArray[np.float64]:
    n_classes, rows, columns = confidence.shape
    known = ~np.isnan(confidence).any(axis=0)
    unary = np.maximum(np.where(known, confidence, 1.0).astype(np.float64), 1e-6)
    unary /= unary.sum(axis=0)
    share = unary.copy()
    radius = spec.radius_px
    for _ in range(spec.iterations):
        updated = np.empty_like(share)
        for y, x in np.ndindex(rows, columns):
            sums = {"bilateral": np.zeros(n_classes), "spatial": np.zeros(n_classes)}
            norms = {"bilateral": 0.0, "spatial": 0.0}
            for v, u in np.ndindex(rows, columns):
                near = max(abs(v - y), abs(u - x)) <= radius
                if (v, u) == (y, x) or not near or not known[v, u]:
                    continue
                apart = (v - y) ** 2 + (u - x) ** 2
                colour = float(((image[y, x].astype(float) - image[v, u]) ** 2).sum())
                weights = {
                    "bilateral": math.exp(
                        -apart / (2 * spec.bilateral_px**2) - colour / (2 * spec.colour**2)
                    ),
                    "spatial": math.exp(-apart / (2 * spec.spatial_px**2)),
                }
                for kernel, weight in weights.items():
                    sums[kernel] += weight * share[:, v, u]
                    norms[kernel] += weight
            message = sum(
                (
                    strength * sums[kernel] / (norms[kernel] + 1e-20)
                    for kernel, strength in (
                        ("bilateral", spec.bilateral_weight),
                        ("spatial", spec.spatial_weight),
                    )
                ),
                np.zeros(n_classes),
            )
            logits = np.log(unary[:, y, x]) + message
            exponential = np.exp(logits - logits.max())
            updated[:, y, x] = exponential / exponential.sum()
        share = updated
    return np.where(known, share, np.nan)


@st.composite
def pictures(
    draw: st.DrawFn, most_px: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, columns = draw(st.tuples(st.integers(1, most_px), st.integers(1, most_px)))
    n_classes = draw(st.integers(2, 3))
    confidence = generator.random((n_classes, rows, columns)).astype(np.float32)
    confidence[generator.random(confidence.shape) < 0.1] = 0
    confidence[:, generator.random((rows, columns)) < draw(st.sampled_from([0, 0.3]))] = np.nan
    spread = draw(st.sampled_from([8, 256]))  # of colours: alike, or of all kinds
    return confidence, generator.integers(0, spread, (rows, columns, 3), np.uint8)


@settings(max_examples=25, deadline=None)
@given(pictures(6), st.sampled_from([SPEC, replace(SPEC, spatial_weight=0), CrfSpec(1, 3, 0.0)]))
def test_it_is_its_formulas(
    picture: tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]], spec: CrfSpec
) -> None:
    np.testing.assert_allclose(
        refined(*picture, spec), by_definition(*picture, spec), rtol=2e-4, atol=1e-6
    )


def test_colours_that_float32_cannot_tell_from_infinitely_far_say_nothing() -> None:
    confidence = np.array([[[0.735, 0.220]], [[0.793, 0.911]]], np.float32)
    image = np.array([[[35, 174, 7], [216, 120, 224]]], np.uint8)  # their kernel is 1e-45
    np.testing.assert_allclose(
        refined(confidence, image, SPEC), by_definition(confidence, image, SPEC), rtol=2e-4
    )


@settings(max_examples=40, deadline=None)
@given(pictures(30), st.data())
def test_a_part_with_a_margin_is_that_part_of_the_whole(
    picture: tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]], data: st.DataObject
) -> None:
    confidence, image = picture
    spec = data.draw(st.sampled_from([SPEC, CrfSpec(3, 1), CrfSpec(1, 4)]))
    whole = refined(confidence, image, spec)
    cut, part = [], []
    for size in image.shape[:2]:
        start = data.draw(st.integers(0, size - 1))
        stop = data.draw(st.integers(start + 1, size))
        low, high = max(0, start - spec.margin_px), min(size, stop + spec.margin_px)
        cut.append(slice(low, high))
        part.append((slice(start, stop), slice(start - low, stop - low)))
    here = (slice(None), *(outer for outer, _ in part))
    there = (slice(None), *(within for _, within in part))
    found = refined(confidence[(slice(None), *cut)], image[tuple(cut)], spec)
    np.testing.assert_array_equal(found[there], whole[here])


def test_confidence_takes_the_edges_of_the_picture() -> None:
    """A border three pixels off the picture's edge, with noise, comes to lie on it."""
    generator = np.random.default_rng(0)
    truth = np.zeros((48, 48), bool)
    truth[:, 24:] = True
    image = np.where(truth[..., None], (120, 40, 130), (230, 180, 200)).astype(np.float64)
    noisy = (image + generator.normal(0, 6, image.shape)).clip(0, 255).astype(np.uint8)
    share = np.full(truth.shape, 0.35)
    share[:, 27:] = 0.65
    share = (share + generator.normal(0, 0.15, share.shape)).clip(0.01, 0.99)
    confidence = np.stack([1 - share, share])
    before = (confidence.argmax(axis=0) != truth).mean()
    after = (refined(confidence, noisy, CrfSpec()).argmax(axis=0) != truth).mean()
    assert before > 0.15
    assert after < 0.02


def test_unknown_ground_says_nothing_and_gets_nothing() -> None:
    confidence = np.full((2, 9, 9), np.nan)
    confidence[:, 4, 4] = 0.2, 0.6
    image = np.zeros((9, 9, 3), np.uint8)
    found = refined(confidence, image, SPEC)
    np.testing.assert_allclose(found[:, 4, 4], (0.25, 0.75), rtol=1e-5)
    assert np.isnan(found).sum() == 2 * 80


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: CrfSpec(iterations=0), "at least one iteration"),
        (lambda: CrfSpec(radius_px=33), "1 to 32 px"),
        (lambda: CrfSpec(colour=0), "positive"),
        (lambda: CrfSpec(spatial_weight=-1), "aren't negative"),
        (
            lambda: refined(np.ones((1, 2, 2)), np.zeros((2, 2, 3), np.uint8), SPEC),
            "there is but one",
        ),
    ],
)
def test_what_is_refused(wrong: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        wrong()


def test_another_size_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="a picture of"):
        refined(np.ones((2, 4, 4)), np.zeros((4, 5, 3), np.uint8), SPEC)
