from __future__ import annotations

from collections.abc import Callable

import pytest

from dataflow.physical_size import physical_size, require_mpp
from dataflow.slide import SlideInfo
from store_schema.errors import InputError, MissingMppError


def test_the_mean_of_x_and_y_is_taken() -> None:
    size = physical_size({"openslide.mpp-x": "0.5", "openslide.mpp-y": "0.501"})
    assert size.mpp == pytest.approx(0.5005)
    assert (size.source, size.note) == ("properties", "")


def test_pixels_that_are_not_square_are_noted() -> None:
    size = physical_size({"openslide.mpp-x": "0.5", "openslide.mpp-y": "0.52"})
    assert size.mpp == pytest.approx(0.51)
    assert "not square" in size.note


@pytest.mark.parametrize("mpp", ["264.583", "28.97", "0.01"])
def test_an_implausible_mpp_is_refused_and_said(mpp: str) -> None:
    size = physical_size({"openslide.mpp-x": mpp, "openslide.mpp-y": mpp})
    assert (size.mpp, size.source) == (None, "unknown")
    assert f"{float(mpp):g}" in size.note


def test_the_objective_power_serves_when_mpp_is_missing_or_refused() -> None:
    for mpp in ({}, {"openslide.mpp-x": "264.58"}, {"openslide.mpp-x": "n/a"}):
        size = physical_size({**mpp, "openslide.objective-power": "40"})
        assert size.mpp == pytest.approx(0.25)
        assert size.source == "objective"
        assert "derived" in size.note


def test_what_is_given_always_wins() -> None:
    size = physical_size({"openslide.mpp-x": "0.5", "openslide.mpp-y": "0.5"}, given=28.97)
    assert size == (28.97, "user", "")


@pytest.mark.parametrize("mpp", [0.0, -1.0, 1e-9, 1e9, float("nan"), float("inf")])
def test_nonsense_that_is_given_is_refused(mpp: float) -> None:
    with pytest.raises(InputError, match=r"give 0\.01 to 1000"):
        physical_size({}, given=mpp)


@pytest.mark.parametrize("text", ["0", "-20", "twenty", "nan"])
def test_a_nonsense_objective_power_is_not_known(text: str) -> None:
    assert physical_size({"openslide.objective-power": text}).mpp is None


def test_a_missing_mpp_names_the_ways_out(make_info: Callable[..., SlideInfo]) -> None:
    with pytest.raises(MissingMppError, match=r"--slide-mpp.*CSV"):
        require_mpp(make_info(100, 100, mpp=None))
    assert require_mpp(make_info(100, 100, mpp=0.25)) == 0.25
