from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dataflow.discover import SlideSource
from dataflow.index import index_slide
from dataflow.pyramid_tiff import write_pyramid
from dataflow.stream_spec import IndexSpec
from dataflow.tissue import TissueSpec
from jobs.coordinates.call import CoordinatesConfig, index_coordinates, lay_stored
from jobs.coordinates.files import read_folder
from jobs.coordinates.lay import LaySpec
from jobs.coordinates.npy import read_npy
from store_schema.errors import InputError, SettingsConflictError
from store_schema.specs import GridSpec
from store_schema.store import create_store, open_store
from store_schema.validate import validate

SIDE, MPP = 512, 0.25
CORNERS = [(0, 0), (128, 0), (0, 128), (256, 384)]
HS2P = [
    ("x", int), ("y", int), ("tile_size_resized", int), ("tile_level", int), ("resize_factor", float),
    ("tile_size_lv0", int), ("target_spacing", float),
]  # fmt: skip


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of two slides whose pixels say where they are, at 0.25 µm/px, with a second level."""
    folder = tmp_path_factory.mktemp("slides")
    y, x = np.mgrid[:SIDE, :SIDE]
    pixels = np.stack([x // 2, y // 2, np.full_like(x, 99)], axis=-1).astype(np.uint8)
    for name in ("a", "b"):
        write_pyramid(folder / f"{name}.tif", pixels, MPP, downsamples=(1, 2))
    return folder


def hs2p(corners: list[tuple[int, int]] = CORNERS, **changes: Any) -> npt.NDArray[Any]:
    """Return what hs2p writes of tiles of 64 px at 0.5 µm/px, read from level 1."""
    said = {"x": 0, "y": 0, "tile_size_resized": 64, "tile_level": 1, "resize_factor": 1.0, "tile_size_lv0": 128,
            "target_spacing": 0.5, **changes}  # fmt: skip
    rows = np.zeros(len(corners), [field for field in HS2P if said.get(field[0]) is not None])
    for name in (name for name, value in said.items() if value is not None):
        rows[name] = said[name]
    rows["x"], rows["y"] = np.array(corners).T
    return rows


def config(slides: Path, tmp_path: Path, **spec: Any) -> CoordinatesConfig:
    (tmp_path / "xy").mkdir(exist_ok=True)
    return CoordinatesConfig(
        str(tmp_path / "xy"), (str(slides),), str(tmp_path / "s.zarr"), LaySpec(**spec)
    )


def by_corner(tmp_path: Path, slide_id: str) -> dict[tuple[int, int], npt.NDArray[np.uint8]]:
    tiles = open_store(tmp_path / "s.zarr")[slide_id].tiles()
    pixels = tiles.tiles.pixels().values
    corners = zip(tiles.x.values.tolist(), tiles.y.values.tolist(), strict=True)
    return dict(zip(corners, pixels, strict=True))


def test_files_of_hs2p(slides: Path, tmp_path: Path) -> None:
    call = config(slides, tmp_path)
    for name in ("a", "b"):
        np.save(tmp_path / "xy" / f"{name}.npy", hs2p())
    summary = index_coordinates(call)
    assert summary["ok"], summary
    assert summary["grids"] == ["64px_0.500mpp_coordinates"]
    assert (summary["slides"]["complete"], summary["tiles"]) == (2, 8)
    slide = open_store(call.store)["a"]
    attrs = slide.grid_attrs(summary["grids"][0])
    assert (attrs["spec"]["tile_px"], attrs["spec"]["mpp"]) == (64, 0.5)
    assert attrs["geometry"] == {
        "tile_level0": 128,
        "stride_level0": 128.0,
        "n_rows": 4,
        "n_cols": 3,
    }
    # the pixels are those under the corners: channel 0 is x/2 and channel 1 is y/2 of level 0
    tiles = by_corner(tmp_path, "a")
    assert set(tiles) == set(CORNERS)
    for (x, y), pixels in tiles.items():
        assert pixels[..., 0].mean() == pytest.approx((x + 63.5) / 2, abs=2)
        assert pixels[..., 1].mean() == pytest.approx((y + 63.5) / 2, abs=2)
    assert validate(call.store) == []
    before = attrs["fingerprint"]
    assert index_coordinates(call)["ok"]
    assert open_store(call.store)["a"].grid_attrs(summary["grids"][0])["fingerprint"] == before
    np.save(tmp_path / "xy" / "a.npy", hs2p(CORNERS[1:]))
    (failure,) = index_coordinates(call)["failures"]
    assert (failure["slide_id"], failure["reason"]) == ("a", SettingsConflictError.reason)


@pytest.mark.parametrize("suffix", ["npy", "txt", "csv-like"])
def test_corners_alone(slides: Path, tmp_path: Path, suffix: str) -> None:
    call = config(slides, tmp_path, tile_px=64, mpp=0.5)
    repeated = [*CORNERS, CORNERS[0]]
    if suffix == "npy":
        np.save(tmp_path / "xy" / "a.npy", np.array(repeated, np.int32))
    else:
        comma = "," if suffix == "csv-like" else " "
        head = "x,y\n" if suffix == "csv-like" else "# corners\n"
        lines = "\n".join(f"{x}{comma}{y}" for x, y in repeated)
        (tmp_path / "xy" / "a.txt").write_text(head + lines + "\n\n")
    np.save(tmp_path / "xy" / "c.npy", np.array(CORNERS))
    summary = index_coordinates(call)
    assert summary["slides_without_coordinates"] == ["b"]
    assert summary["coordinates_without_slide"] == ["c"]
    assert not summary["ok"]
    assert summary["notes"]["a"][-1].startswith("1 rows of a.")
    assert set(by_corner(tmp_path, "a")) == set(CORNERS)
    assert open_store(call.store).slides == ["a"]


@pytest.mark.parametrize("names", ["O", "U9", "S9"])
def test_one_file_of_several_slides(slides: Path, tmp_path: Path, names: str) -> None:
    """As stage 0 of the reference writes them, a file a class, with the slides' names as Python objects or text."""
    rows = np.zeros(
        4,
        [
            ("x", "i4"),
            ("y", "i4"),
            ("tile_size_lv0", "i4"),
            ("tile_size", "i4"),
            ("wsi_name", names),
        ],
    )
    rows["x"], rows["y"] = np.array(CORNERS).T
    rows["tile_size"], rows["tile_size_lv0"] = 64, 128
    rows["wsi_name"] = ["a.tif", "b", "b", "a.tif"]
    call = config(slides, tmp_path)
    np.save(tmp_path / "xy" / "tumor.npy", rows, allow_pickle=True)
    assert index_coordinates(call)["ok"]
    assert set(by_corner(tmp_path, "a")) == {CORNERS[0], CORNERS[3]}
    assert set(by_corner(tmp_path, "b")) == {CORNERS[1], CORNERS[2]}
    np.save(tmp_path / "xy" / "a.npy", hs2p())
    with pytest.raises(InputError, match=r"both have coordinates of slide a: keep one"):
        index_coordinates(call)


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    rows = np.empty(1, object)
    rows[0] = Evil(tmp_path / "it ran")
    np.save(tmp_path / "a.npy", rows, allow_pickle=True)
    with pytest.raises(InputError, match="it asks for pathlib"):
        read_npy(tmp_path / "a.npy")
    np.load(tmp_path / "a.npy", allow_pickle=True)
    assert (tmp_path / "it ran").exists()  # it would have
    (tmp_path / "b.npy").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(InputError, match=r"b\.npy is no array of coordinates"):
        read_npy(tmp_path / "b.npy")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (hs2p([(0, 0), (SIDE, 0)]), r"go from \(0, 0\) to \(512, 0\), and the slide .* has 512 x 512 px"),
        (hs2p([(0, 0), (-1, 0)]), r"go from \(-1, 0\)"),
        (hs2p(target_spacing=1.0), r"said to have 1 µm/px, and on this slide they have 0\.5"),
        (hs2p(tile_size_lv0=None, tile_level=2), "of level 2, and the slide .* has 2 levels"),
        (np.array(CORNERS), "doesn't say how large its tiles are: give --tile-px"),
        (np.zeros((4, 6)), r"float64 \(4, 6\): coordinates without names are \(tile, 2\)"),
        (np.array(CORNERS) + 0.5, "must be whole level-0 pixels"),
        (np.empty((0, 2)), "holds no coordinates"),
        (hs2p()[["x", "tile_level"]], "need x and y"),
    ],
)  # fmt: skip
def test_coordinates_that_make_no_sense(
    slides: Path, tmp_path: Path, rows: npt.NDArray[Any], said: str
) -> None:
    """One slide's are refused in a sentence, and the other slide gets its grid."""
    call = config(slides, tmp_path)
    np.save(tmp_path / "xy" / "a.npy", rows)
    np.save(tmp_path / "xy" / "b.npy", hs2p())
    summary = index_coordinates(call)
    assert summary["slides"]["complete"] == 1
    (failure,) = summary["failures"]
    assert failure["slide_id"] == "a"
    with pytest.raises(InputError, match=said):
        raise InputError(failure["message"])


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("tile_size_lv0", -96, "tile_size_lv0 is -96, and can't be negative"),
        ("tile_level", -3, "tile_level is -3, and can't be negative"),
        ("tile_level", 77, "its tiles are of level 77"),
    ],
)
def test_sizes_and_levels_that_no_slide_has(
    slides: Path, tmp_path: Path, field: str, value: int, said: str
) -> None:
    (tmp_path / "xy").mkdir()
    rows = hs2p()
    rows[field] = value
    np.save(tmp_path / "xy" / "a.npy", rows)
    summary = index_coordinates(config(slides, tmp_path))
    assert not summary["ok"]
    assert any(said in failure["message"] for failure in summary["failures"])


def test_fields_of_several_numbers_are_refused(slides: Path, tmp_path: Path) -> None:
    (tmp_path / "xy").mkdir()
    rows = np.zeros(2, [("x", "i8", (2,)), ("y", "i8")])
    np.save(tmp_path / "xy" / "a.npy", rows)
    summary = index_coordinates(config(slides, tmp_path))
    assert "one number each" in summary["failures"][0]["message"]


def test_sizes_that_differ_and_folders_without_files(slides: Path, tmp_path: Path) -> None:
    call = config(slides, tmp_path)
    with pytest.raises(InputError, match="has no coordinates"):
        index_coordinates(call)
    with pytest.raises(InputError, match="can't be read"):
        read_folder(tmp_path / "nowhere")
    rows = hs2p()
    rows["tile_size_lv0"][2] = 256
    np.save(tmp_path / "xy" / "a.npy", rows)
    (failure,) = index_coordinates(call)["failures"]
    assert "tile_size_lv0 is 128 to 256" in failure["message"]


def test_what_is_exported_comes_back(
    slides: Path, tmp_path: Path, slidestream: Callable[..., Any]
) -> None:
    """The same corners, tiles and pixels, on a lattice whose stride is no whole number and whose tiles overlap."""
    tissue = TissueSpec("none")
    grid = GridSpec(tile_px=50, mpp=0.37, stride_px=40, tissue=tissue.to_json())
    store = create_store(tmp_path / "s.zarr")
    for name in ("a", "b"):
        index_slide(store, IndexSpec(grid, tissue), SlideSource(name, str(slides / f"{name}.tif")))
    first = by_corner(tmp_path, "a")
    exported = slidestream("export", "coordinates", "--store", store.url, "--out", tmp_path / "xy")
    assert exported.code == 0, exported.err
    rows = np.load(tmp_path / "xy" / "a.npy")  # without unpickling
    assert rows.dtype.names == (
        "x", "y", "tile_level", "tile_size_resized", "tile_size", "tile_size_lv0", "resize_factor",
        "target_spacing", "wsi_name",
    )  # fmt: skip
    assert set(rows["wsi_name"]) == {"a"}
    assert np.all(np.rint(rows["tile_size_resized"] / rows["resize_factor"]) == 50)
    again = slidestream(
        "index", slides, "--store", store.url, "--coordinates", tmp_path / "xy", "--json"
    )
    assert again.code == 0, again.err
    name = json.loads(again.out)["grids"][0]
    assert name == "50px_0.370mpp_coordinates"
    slide = open_store(store.url)["a"]
    table, other = slide.tile_table(grid.name), slide.tile_table(name)
    for column in ("x", "y", "row", "col"):
        np.testing.assert_array_equal(getattr(table, column), getattr(other, column))
    assert slide.grid_attrs(name)["spec"]["stride_px"] == 40
    pixels = slide.tiles(name).tiles.pixels().values
    np.testing.assert_array_equal(np.stack(list(first.values())), pixels)
    refused = slidestream(
        "index", slides, "--store", store.url, "--coordinates", tmp_path / "xy", "--tissue", "otsu"
    )
    assert refused.code == 2
    assert "--tissue decides nothing of --coordinates" in refused.err
    other_size = slidestream(
        "index", slides, "--store", store.url, "--coordinates", tmp_path / "xy", "--tile-px", 64
    )
    assert other_size.code == 1
    assert "has tiles of 50 px, and --tile-px asks for 64" in other_size.out


def test_a_grid_for_the_slides_of_a_store(slides: Path, tmp_path: Path) -> None:
    """What `pbip prototypes --coordinates` samples from; a blank in an id is an underscore in slide2vec's files."""
    store = create_store(tmp_path / "s.zarr")
    tissue = TissueSpec("none")
    grid = GridSpec(tile_px=64, mpp=0.5, stride_px=64, tissue=tissue.to_json())
    for name in ("a", "with blank"):
        index_slide(store, IndexSpec(grid, tissue), SlideSource(name, str(slides / "a.tif")))
    (tmp_path / "xy").mkdir()
    np.save(tmp_path / "xy" / "with_blank.npy", hs2p())
    np.save(tmp_path / "xy" / "c.npy", hs2p())
    laid = lay_stored(store, tmp_path / "xy", "chosen")
    assert laid.grid == "chosen"
    assert laid.notes == ("1 coordinates without a slide (c)", "1 slides without coordinates (a)")
    assert store["with blank"].grid_attrs("chosen")["n_tiles"] == len(CORNERS)
    (tmp_path / "xy" / "with_blank.npy").unlink()
    with pytest.raises(InputError, match=r"no slide of .* gets a grid"):
        lay_stored(store, tmp_path / "xy", None)
