"""Masks made tidy: steps against their definition, windows against the whole, pieces against a plain labelling."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from dataflow.mask_components import small_pieces
from dataflow.mask_refine import (
    RefineSpec,
    edges_refined,
    greatest,
    greatest_but,
    opened_or_closed,
    replaced,
)
from dataflow.padded_window import Box, inner, padded, windows
from store_schema.errors import InputError

NAN = np.nan
Confidence = npt.NDArray[np.float32]


@st.composite
def confidences(draw: st.DrawFn, most_px: int = 40) -> Confidence:
    """Blobs of two to four classes, of float16 as they are stored, here and there with unknown ground."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.tuples(st.integers(1, most_px), st.integers(1, most_px)))
    n_classes = draw(st.integers(2, 4))
    noise = generator.random((n_classes, *shape))
    sigma = draw(st.sampled_from([0.5, 1.0, 2.0]))
    values = ndimage.gaussian_filter(noise, (0, sigma, sigma)).astype(np.float16)
    unknown = ndimage.gaussian_filter(generator.random(shape), sigma) < draw(
        st.sampled_from([0.0, 0.45])
    )
    values[:, unknown] = NAN
    stored: Confidence = values.astype(np.float32)
    return stored


specs = st.builds(
    RefineSpec,
    st.sampled_from(["closing", "opening", "none"]),
    st.sampled_from([1, 3, 5]),
    st.just(4),
    st.just(True),
    st.sampled_from([1.0, 2.5, 4.0]),
    st.sampled_from([0.4, 1.0, 2.0]),
    st.sampled_from([0.0, 0.2]),
)


@settings(max_examples=80, deadline=None)
@given(confidences(), specs, st.integers(1, 30), st.integers(1, 4))
def test_windows_with_margins_come_out_as_the_whole(
    confidence: Confidence, spec: RefineSpec, side_px: int, background: int
) -> None:
    shape = confidence.shape[-2], confidence.shape[-1]
    mask = greatest(confidence)

    def stepped(
        step: Any, margin_px: int, given_mask: npt.NDArray[np.uint8], side: int
    ) -> npt.NDArray[np.uint8]:
        out = np.empty_like(given_mask)
        for box in windows(shape, side):
            c = padded(lambda b: confidence[(..., *b)], shape, box, margin_px, NAN)
            m = padded(lambda b: given_mask[b], shape, box, margin_px, 0)
            out[box] = inner(step(m, c, background, spec), margin_px)
        return out

    whole = max(shape)
    for step, margin_px in (
        (opened_or_closed, spec.operation_margin_px),
        (edges_refined, spec.edge_margin_px),
    ):
        expected = stepped(step, margin_px + 50, mask, whole)
        np.testing.assert_array_equal(stepped(step, margin_px, mask, side_px), expected)
        assert ((expected > 0) == (mask > 0)).all()  # nothing appears where nothing is known


@settings(max_examples=60, deadline=None)
@given(confidences(), st.integers(1, 20), st.integers(1, 12), st.integers(1, 3))
def test_small_pieces_band_by_band(
    confidence: Confidence, rows: int, min_px: int, background: int
) -> None:
    mask = greatest(confidence)
    expected = np.zeros(mask.shape, bool)
    for value in set(np.unique(mask).tolist()) - {0, background}:
        labels, n = ndimage.label(mask == value, np.ones((3, 3)))
        for i in range(1, n + 1):
            if (labels == i).sum() < min_px:
                expected |= labels == i
    bands = [mask[top : top + rows] for top in range(0, len(mask), rows)]
    pieces = small_pieces(bands, background, min_px)
    found = np.concatenate([pieces.of(number, band) for number, band in enumerate(bands)])
    np.testing.assert_array_equal(found, expected)


def two(share: npt.ArrayLike) -> Confidence:
    tumour = np.asarray(share, np.float32)
    return np.stack([1 - tumour, tumour])


def picture(text: str) -> npt.NDArray[np.uint8]:
    """Return a mask: a blank is nothing, a point background, a letter region a=2, b=3."""
    rows = [row for row in text.split("\n") if row]
    return np.array([[" .ab".index(letter) for letter in row] for row in rows], np.uint8)


def of_mask(mask: npt.NDArray[np.uint8]) -> Confidence:
    """Return a confidence of three classes whose greatest makes the mask; class b is the second of class a's."""
    tables = {0: (NAN,) * 3, 1: (0.8, 0.1, 0.2), 2: (0.1, 0.8, 0.2), 3: (0.2, 0.1, 0.8)}
    return np.moveaxis(np.array([[tables[int(v)] for v in row] for row in mask]), -1, 0)


def done(mask: npt.NDArray[np.uint8], spec: RefineSpec) -> npt.NDArray[np.uint8]:
    margin = spec.operation_margin_px
    confidence = np.pad(of_mask(mask), ((0, 0), (margin,) * 2, (margin,) * 2), constant_values=NAN)
    return inner(opened_or_closed(np.pad(mask, margin), confidence, 1, spec), margin)


def test_closing_fills_gaps_of_the_background_alone() -> None:
    before = picture("aaaaaaa\naa.abaa\naaa aaa\naaaaaaa\n.......")
    after = picture("aaaaaaa\naaaabaa\naaa aaa\naaaaaaa\n.......")
    np.testing.assert_array_equal(done(before, RefineSpec("closing")), after)


def test_opening_gives_specks_to_the_next_best_class() -> None:
    before = picture(".......\n.aaa...\n.aaaaaa\n.aaa...\n.....a.")
    after = picture(".......\n.aaa...\n.aaabbb\n.aaa...\n.....b.")
    np.testing.assert_array_equal(done(before, RefineSpec("opening")), after)


def test_a_kernel_of_five_is_a_disc() -> None:
    before = np.full((5, 5), 2, np.uint8)
    before[[0, 0, -1, -1], [0, -1, 0, -1]] = 1
    np.testing.assert_array_equal(done(before, RefineSpec("opening", 5)), before)


def test_dropped_pixels_go_to_the_next_best_class() -> None:
    mask = picture("..a.b")
    dropped = np.ones((1, 5), bool)
    np.testing.assert_array_equal(replaced(mask, dropped, of_mask(mask), 1), picture("..b.."))


def test_borders_move_to_where_confidence_is_and_no_farther() -> None:
    """By definition, along one row: share and threshold of each pixel."""
    share = np.array([0.1, 0.41, 0.44, 0.46, 0.7, 0.9, 0.9])
    mask = greatest(two(share[None]))
    assert mask.tolist() == [[1, 1, 1, 1, 2, 2, 2]]
    spec = RefineSpec("none", edge=True, edge_px=2.0, edge_sigma_px=0.01, edge_drop=0.1)
    # next to the border, d = 1: t = 0.5 - 0.1 * 0.75; then d = 2: t = 0.5 - 0.1 * 0.25; farther off it stays
    found = edges_refined(mask, two(share[None]), 1, spec)
    assert found.tolist() == [[1, 1, 1, 2, 2, 2, 2]]
    wider = edges_refined(mask, two(share[None]), 1, RefineSpec("none", 3, 1, True, 3, 0.01, 0.3))
    # t(1) = 0.25, t(2) = 0.35, t(3) = 0.45
    assert wider.tolist() == [[1, 1, 2, 2, 2, 2, 2]]


def test_smoothing_takes_pixels_that_stand_alone() -> None:
    share = np.full((15, 15), 0.2)
    share[:, 8:] = 0.8
    share[4, 7] = 0.55  # a bump of the border
    mask = greatest(two(share))
    spec = RefineSpec("none", edge=True, edge_px=2, edge_sigma_px=1.0, edge_drop=0.0)
    found = edges_refined(mask, two(share), 1, spec)
    assert mask[4, 7] == 2
    np.testing.assert_array_equal(found[3:12], greatest(two(np.where(share > 0.6, 0.8, 0.2)))[3:12])


def test_a_mask_of_one_class_has_no_borders() -> None:
    share = np.full((6, 6), 0.9)
    spec = RefineSpec(edge=True)
    for background in (1, 2):
        found = edges_refined(greatest(two(share)), two(share), background, spec)
        assert (found == 2).all()


def test_greatest_classes() -> None:
    confidence = np.array([[[0.2, NAN, 0.5]], [[0.7, NAN, 0.5]], [[0.6, NAN, 0.1]]])
    assert greatest(confidence).tolist() == [[2, 0, 1]]
    assert greatest_but(confidence, 2).tolist() == [[3, 0, 1]]


def test_windows_cover_a_raster_once() -> None:
    counts = np.zeros((7, 10), int)
    for box in windows((7, 10), 4):
        counts[box] += 1
    assert (counts == 1).all()


def test_what_is_beyond_the_raster() -> None:
    raster = np.arange(12).reshape(3, 4)
    asked: list[Box] = []

    def read(box: Box) -> npt.NDArray[Any]:
        asked.append(box)
        return raster[box]

    found = padded(read, (3, 4), (slice(0, 2), slice(1, 2)), 2, -1)
    assert asked == [(slice(0, 3), slice(0, 4))]
    assert (
        found.tolist()
        == [
            [-1, -1, -1, -1, -1],
            [-1, -1, -1, -1, -1],
            [-1, 0, 1, 2, 3],
            [-1, 4, 5, 6, 7],
            [-1, 8, 9, 10, 11],
            [-1, -1, -1, -1, -1],
        ][: found.shape[0]]
    )
    assert inner(found, 2).tolist() == [[1], [5]]


@pytest.mark.parametrize(
    ("settings_", "said"),
    [
        ({"kernel_px": 4}, "no middle"),
        ({"min_component_px": 0}, "at least 1 px"),
        ({"edge_drop": 0.5}, "less than 0.5"),
    ],
)
def test_what_is_refused(settings_: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        RefineSpec(**settings_)
