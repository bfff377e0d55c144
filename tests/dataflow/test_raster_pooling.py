from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dataflow.raster_pooling import pooled

SHAPES = st.tuples(st.integers(1, 7), st.integers(1, 7))


@given(
    arrays(np.float32, SHAPES, elements=st.one_of(st.floats(-9, 9, width=32), st.just(np.nan))),
    st.integers(1, 8),
    st.sampled_from(["mean", "max"]),
)
def test_against_the_plain_way(
    values: np.ndarray[tuple[int, int], np.dtype[np.float32]],
    times: int,
    how: Literal["mean", "max"],
) -> None:
    found = pooled(values, times, how)
    assert found.dtype == np.float32
    rows, columns = (-(-size // times) for size in values.shape)
    assert found.shape == (rows, columns)
    for row in range(rows):
        for column in range(columns):
            box = values[row * times : (row + 1) * times, column * times : (column + 1) * times]
            known = box[np.isfinite(box)]
            if not known.size:
                assert np.isnan(found[row, column])
            elif how == "max":
                assert found[row, column] == known.max()
            else:
                assert found[row, column] == pytest.approx(known.mean(), abs=1e-5)


def test_masks() -> None:
    mask = np.zeros((5, 5), np.uint8)
    mask[0, 0], mask[4, 4] = 1, 3
    found = pooled(mask, 3, "max")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, [[1, 0], [0, 3]])
    np.testing.assert_allclose(pooled(mask, 3, "mean"), [[1 / 9, 0], [0, 3 / 4]])
