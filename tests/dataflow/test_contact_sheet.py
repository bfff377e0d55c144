from __future__ import annotations

from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw

from dataflow.contact_sheet import PAGE_CELLS, VIEW_PX, Cell, SheetHead, contact_pages, sheet_cell
from dataflow.ground import Ground
from dataflow.heat_colours import HeatmapStyle
from dataflow.heat_layers import Outline, TileScores
from dataflow.picture_parts import font, wrapped
from store_schema.specs import TileTable

STYLE = HeatmapStyle(alpha=1.0, limits=(0.0, 4.0))
MAGENTA = (235, 0, 130)


def head() -> SheetHead:
    return SheetHead("run/score", "score", (0.0, 4.0), STYLE, [(MAGENTA, "truth")])


def plain_cells(n: int, size: tuple[int, int] = (VIEW_PX, VIEW_PX)) -> list[Cell]:
    return [Cell(f"s{i}", "", Image.new("RGB", size, (i % 256, i // 256, 77))) for i in range(n)]


def found_views(page: Image.Image) -> list[int]:
    """Which plain cells a page has, in reading order."""
    pixels = np.asarray(page).astype(int)
    y, x = np.nonzero(pixels[..., 2] == 77)
    codes, first, n = np.unique(
        pixels[y, x, 0] + 256 * pixels[y, x, 1], return_index=True, return_counts=True
    )
    views = n > 9000  # the type's soft edges have any colour
    order = np.lexsort((x[first[views]], y[first[views]]))
    return [int(code) for code in codes[views][order]]


@pytest.mark.parametrize("n", [1, 2, 48, 60])
def test_all_slides_are_on_one_page(n: int) -> None:
    (page,) = contact_pages(head(), plain_cells(n))
    assert found_views(page) == list(range(n))


def test_pages() -> None:
    n = PAGE_CELLS + 5
    pages = list(contact_pages(head(), plain_cells(n)))
    assert [len(found_views(page)) for page in pages] == [PAGE_CELLS, 5]
    assert [i for page in pages for i in found_views(page)] == list(range(n))


def test_a_long_label_is_read_to_its_end() -> None:
    draw, type_ = ImageDraw.Draw(Image.new("RGB", (1, 1))), font(16)
    text = "z-score of vae/l1 within the slide, by median and median absolute deviation"
    lines = wrapped(draw, text, type_, 200)
    assert " ".join(lines) == text
    assert len(lines) > 2
    assert all(draw.textlength(line, type_) <= 200 for line in lines)
    assert wrapped(draw, "x" * 99, type_, 200)[0].endswith("…")
    # the sheet makes room for what is longer, so that slides lie below it
    (short,) = contact_pages(head(), plain_cells(2))
    (long,) = contact_pages(replace(head(), label=text), plain_cells(2))
    assert long.width == short.width
    assert long.height > short.height
    assert found_views(long) == [0, 1]


def test_strips_leave_no_empty_ground() -> None:
    (high,) = contact_pages(head(), plain_cells(12))
    (flat,) = contact_pages(head(), plain_cells(12, (VIEW_PX, 60)))
    assert high.width == flat.width
    assert flat.height < high.height - 2 * (VIEW_PX - 60)


def test_cells_share_their_colours() -> None:
    corners = np.array([0], np.int32)
    table = TileTable(corners, corners, corners, corners, np.ones(1, np.float32))
    mask = np.zeros((2, 2), np.uint8)
    mask[1, 1] = 1
    outline = Outline(mask, (1000.0, 1000.0), MAGENTA, "truth")
    ground = Ground(2000, 2000, 0.5, None)
    for value in (1.0, 4.0):
        layer = TileScores(table, 1000, np.array([value]), "score")
        cell = sheet_cell("s", "", ground, layer, [outline], STYLE)
        assert cell.view.size == (VIEW_PX, VIEW_PX)
        expected = np.array(matplotlib.colormaps["viridis"](value / 4)[:3]) * 255
        np.testing.assert_allclose(np.asarray(cell.view)[60, 60], expected, atol=1)
        assert cell.view.getpixel((VIEW_PX // 2, VIEW_PX - 30)) == MAGENTA
