from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store_schema.errors import InvalidNameError
from store_schema.ids import check_name, check_slide_id
from store_schema.store import open_store
from tests.store_schema.samples import record


@pytest.mark.parametrize(
    "slide_id",
    [
        "",
        ".",
        "..",
        "a/b",
        "a\\b",
        "../up",
        ".hidden",
        " blank",
        "dot.",
        "line\nbreak",
        "nul\0",
        "\udcff",
        "__reserved",
        "zarr.json",
        "x.partial",
        "ä" * 101,
    ],
)
def test_refuses(slide_id: str) -> None:
    with pytest.raises(InvalidNameError, match="another id"):
        check_slide_id(slide_id)


@pytest.mark.parametrize(
    "slide_id", ["tumor_008", "TCGA-CR-7395-01A", "a b", "Schnitt 3 (HE)", "切片", "c", "0"]
)
def test_accepts(slide_id: str) -> None:
    assert check_slide_id(slide_id) == slide_id


def test_names_say_what_they_name() -> None:
    with pytest.raises(InvalidNameError, match="grid name 'a/b' has a path separator"):
        check_name("a/b", "grid name")


@given(st.text(max_size=12))
def test_accepted_ids_stay_inside_the_store(slide_id: str) -> None:
    try:
        check_slide_id(slide_id)
    except InvalidNameError:
        return
    root = Path("/root/cohort.zarr")
    assert (root / slide_id).resolve().parent == root
    assert (root / slide_id).name == slide_id
    slide_id.encode()


@pytest.mark.parametrize(
    "slide_id", ["c", "0", "features", "256px_0.500mpp", "a*b?[c]", "100%", "ü"]
)
def test_odd_ids_work_in_a_store(url: str, slide_id: str) -> None:
    from store_schema.store import create_store

    store = create_store(url)
    store.add_slide(record(slide_id))
    assert open_store(url).slides == [slide_id]
    assert open_store(url)[slide_id].record == record(slide_id)
