from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from dataflow.dicom_series import series_files, series_uid
from dataflow.discover import SlideSource, discover_slides
from dataflow.slide import open_slide
from store_schema.errors import InputError, InvalidNameError, UnreadableSlideError


def ids(*args: str | Path) -> list[str]:
    return [source.slide_id for source in discover_slides([str(arg) for arg in args]).sources]


def test_files_keep_their_order_and_count_once(
    make_slide: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    b, a = make_slide("b.tif"), make_slide("a.tif")
    (tmp_path / "link.tif").symlink_to(a)
    monkeypatch.chdir(tmp_path)
    found = discover_slides([str(b), str(a), "./b.tif", "link.tif"], mpp=0.25)
    assert found.sources == [SlideSource("b", str(b), 0.25), SlideSource("a", str(a), 0.25)]
    assert found.problems == []


def test_a_missing_or_broken_file_is_kept_so_that_it_is_reported(tmp_path: Path) -> None:
    (tmp_path / "broken.svs").touch()
    assert ids(tmp_path / "missing.svs", tmp_path) == ["missing", "broken"]


def test_folders_are_searched_and_what_is_no_slide_left_out(
    make_slide: Callable[..., Path], tmp_path: Path
) -> None:
    make_slide("b.tif")
    make_slide("sub/deeper/a.tif")
    make_slide("no_suffix")
    make_slide(".hidden.tif")
    make_slide(".trash/c.tif")
    make_slide("cohort.zarr/d.tif")
    (tmp_path / "cohort.zarr" / "zarr.json").write_text("{}")
    (tmp_path / "labels.csv").write_text("slide_id,label\nb,1\n")
    (tmp_path / "notes.txt").write_text("nothing")
    Image.new("RGB", (4, 4)).save(tmp_path / "b.png")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    assert ids(tmp_path) == ["b", "no_suffix", "a"]


def test_a_folder_of_plain_images_only(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "b.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg")
    assert ids(tmp_path) == ["a", "b"]


def test_globs(make_slide: Callable[..., Path], tmp_path: Path) -> None:
    make_slide("b.tif")
    make_slide("a.tif")
    make_slide("sub/c.tif")
    odd = make_slide("odd[1].tif")
    (tmp_path / "list.csv").write_text("slide\nb.tif\n")
    assert ids(tmp_path / "?.tif") == ["a", "b"]
    assert ids(tmp_path / "**" / "*.tif") == ["a", "b", "odd[1]", "c"]
    assert ids(tmp_path / "*") == ["a", "b", "odd[1]", "c"]
    assert ids(odd) == ["odd[1]"]  # a file that is there is no pattern
    with pytest.raises(InputError, match="no file matches"):
        ids(tmp_path / "*.svs")


def test_nothing_found(tmp_path: Path) -> None:
    for args in ([], [str(tmp_path)]):
        with pytest.raises(InputError, match="no slide in"):
            discover_slides(args)


@pytest.mark.parametrize(
    ("first", "second"),
    [("a", "a"), ("a", "A"), ("STRASSE", "stra\u00dfe"), ("\u00e9", "e\u0301")],
)
def test_files_of_one_id_are_all_left_out_and_the_rest_goes_on(
    make_slide: Callable[..., Path], first: str, second: str
) -> None:
    a, b, c = (make_slide(name) for name in (f"x/{first}.tif", f"y/{second}.tif", "c.tif"))
    sources, problems = discover_slides([str(a), str(c), str(b)])
    assert [source.path for source in sources] == [str(c)]
    assert [problem.slide_id for problem in problems] == [first, second]
    for problem in problems:
        assert problem.error.reason == "duplicate-id"
        for part in (str(a), str(b), "CSV"):
            assert part in str(problem.error)


def test_ids_of_a_csv_that_clash(make_slide: Callable[..., Path], tmp_path: Path) -> None:
    for name in "abc":
        make_slide(f"{name}.tif")
    csv = tmp_path / "slides.csv"
    csv.write_text("slide,slide_id\na.tif,one\nb.tif,two\nc.tif,one\n")
    sources, problems = discover_slides([str(csv)])
    assert [source.slide_id for source in sources] == ["two"]
    assert [Path(problem.path).name for problem in problems] == ["a.tif", "c.tif"]


def test_pipes_are_not_waited_for(make_slide: Callable[..., Path], tmp_path: Path) -> None:
    make_slide("a.tif")
    for name in ("pipe.tif", "box.mrxs", "slides.csv", "no_suffix"):
        os.mkfifo(tmp_path / name)
    assert ids(tmp_path) == ["a", "box", "pipe"]
    assert ids(tmp_path / "pipe.tif") == ["pipe"]
    with pytest.raises(UnreadableSlideError, match="not a regular file"):
        open_slide(tmp_path / "pipe.tif")
    with pytest.raises(InputError, match="not a regular file"):
        ids(tmp_path / "slides.csv")


def test_arguments_that_no_path_can_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="NUL"):
        ids("a\0b.tif")
    with pytest.raises(InputError, match="too long"):
        ids("a" * 5000)


def test_an_id_that_cant_be_used_stops_only_its_slide(make_slide: Callable[..., Path]) -> None:
    good, bad = make_slide("a.tif"), make_slide("__b__.tif")
    sources, problems = discover_slides([str(bad), str(good)])
    assert [source.slide_id for source in sources] == ["a"]
    assert (problems[0].slide_id, problems[0].path) == ("__b__", str(bad))
    assert isinstance(problems[0].error, InvalidNameError)


def test_a_csv_of_slides(make_slide: Callable[..., Path], tmp_path: Path) -> None:
    make_slide("x/a.tif")
    make_slide("y/a.tif")
    csv = tmp_path / "slides.csv"
    csv.write_text(
        "slide,slide_id,mpp,site\nx/a.tif,one,,A\ny/a.tif,../two,0.25,B\nz.tif,,,\n", "utf-8-sig"
    )
    sources, problems = discover_slides([str(csv)], mpp=0.5)
    assert [(source.slide_id, source.mpp) for source in sources] == [("one", 0.5), ("z", 0.5)]
    assert sources[0].path == str(tmp_path / "x" / "a.tif")
    assert [problem.slide_id for problem in problems] == ["../two"]


def test_what_a_csv_says_of_a_file_given_elsewhere_counts(
    make_slide: Callable[..., Path], tmp_path: Path
) -> None:
    a = make_slide("a.tif")
    csv = tmp_path / "slides.csv"
    csv.write_text("slide,slide_id,mpp\na.tif,one,0.3\n")
    assert discover_slides([str(a), str(csv)]).sources == [SlideSource("one", str(a), 0.3)]
    csv.write_text("slide,slide_id\na.tif,one\na.tif,two\n")
    with pytest.raises(InputError, match="given twice, with slide_id one and two"):
        ids(csv)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "no column called slide"),
        ("path,label\na.tif,1\n", r"no column called slide \(found: path, label\)"),
        ("slide,mpp\na.tif,half\n", r"line 2: 'half' is no mpp"),
        ("slide,mpp\na.tif,-1\n", r"line 2: '-1' is no mpp"),
        ("slide,mpp\n,1\n", "line 2: no slide"),
        ("slide,mpp\na.tif,1e9\n", r"line 2: '1e9' is no mpp; give 0.01 to 1000"),
        ("slide\na\0b.tif\n", "line 2: .* NUL"),
        ("slide;mpp\na.tif;1\n", "separated by semicolons"),
        ("slide\tmpp\na.tif\t1\n", "separated by tabs"),
    ],
)
def test_csvs_that_make_no_sense(tmp_path: Path, text: str, part: str) -> None:
    (tmp_path / "slides.csv").write_text(text)
    with pytest.raises(InputError, match=part):
        ids(tmp_path / "slides.csv")


def test_a_csv_that_cant_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes("slide\nm\u00fcller.svs\n".encode("latin-1"))
    with pytest.raises(InputError, match="no such file"):
        ids(tmp_path / "missing.csv")
    with pytest.raises(InputError, match=r"can't be read as CSV.*UTF-8"):
        ids(tmp_path / "latin.csv")


def test_companions_are_no_slides(tmp_path: Path) -> None:
    (tmp_path / "m.mrxs").touch()
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "overview.tif").touch()
    (tmp_path / "h.vms").write_text("[Virtual Microscope Specimen]\nImageFile=h.jpg\n")
    (tmp_path / "h.jpg").touch()
    assert ids(tmp_path) == ["h", "m"]
    assert ids(tmp_path / "*") == ["h", "m"]


def dicom(path: Path, uid: str, implicit: bool = False) -> None:
    """Write a DICOM header as far as the series, with a sequence of undefined length before it."""

    def element(group: int, number: int, kind: bytes, value: bytes) -> bytes:
        value += b"\0" * (len(value) % 2)
        if implicit and group != 2:
            return struct.pack("<HHI", group, number, len(value)) + value
        return struct.pack("<HH2sH", group, number, kind, len(value)) + value

    syntax = b"1.2.840.10008.1.2" if implicit else b"1.2.840.10008.1.2.1"
    other = element(0x20, 0x0E, b"UI", b"9.9.9")  # a series that is only referred to
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + other
    ends = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    start = struct.pack("<HH", 8, 0x1115) + (b"" if implicit else b"SQ\0\0") + b"\xff" * 4
    path.write_bytes(
        b"\0" * 128
        + b"DICM"
        + element(2, 0x10, b"UI", syntax)
        + element(8, 0x60, b"CS", b"SM")
        + start + item + ends
        + element(0x10, 0x10, b"PN", b"Nobody")
        + element(0x20, 0x0E, b"UI", uid.encode())
    )  # fmt: skip


def test_the_series_of_a_dicom_file(tmp_path: Path) -> None:
    dicom(tmp_path / "a", "1.2.3")
    dicom(tmp_path / "b", "1.2.33", implicit=True)
    assert series_uid(tmp_path / "a") == "1.2.3"
    assert series_uid(tmp_path / "b") == "1.2.33"
    os.truncate(tmp_path / "b", 150)
    assert series_uid(tmp_path / "b") is None
    (tmp_path / "c").write_text("no")
    assert series_uid(tmp_path / "c") is None


def test_a_dicom_series_counts_once(tmp_path: Path) -> None:
    (tmp_path / "slide_7").mkdir()
    (tmp_path / "mixed").mkdir()
    for i in range(3):
        dicom(tmp_path / "slide_7" / f"{i}.dcm", "1.7")
        dicom(tmp_path / "mixed" / f"x{i}.dcm", "1.8")
    dicom(tmp_path / "mixed" / "y0.dcm", "1.9")
    assert ids(tmp_path) == ["x0", "y0", "slide_7"]
    assert [path.name for path in series_files(tmp_path / "mixed" / "x1.dcm")] == [
        "x0.dcm", "x1.dcm", "x2.dcm",
    ]  # fmt: skip


def test_real_slides_are_found(test_data: Path) -> None:
    assert len(ids(test_data / "slides")) == 6
    assert len(ids(test_data / "slides" / "*.svs", test_data / "slides")) == 6
    assert len(ids(test_data / "cohort")) == 48  # not the masks beside
    assert ids(test_data / "broken") == ["histolab-broken", "unopenable", "unreadable"]
    dcm = test_data / "slides" / "camelyon_multiframe_j2k.dcm"
    assert str(series_uid(dcm)).startswith("1.3.6.1.4.1.11129")


def test_a_real_dicom_slide_without_a_suffix(test_data: Path, tmp_path: Path) -> None:
    name = "1.3.6.1.4"
    shutil.copy(test_data / "slides" / "camelyon_multiframe_j2k.dcm", tmp_path / name)
    [source] = discover_slides([str(tmp_path)]).sources
    assert source.slide_id == name
    assert open_slide(source.path).info.vendor == "dicom"
