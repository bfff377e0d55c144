"""``slidestream demo``: the whole main job on a sample slide, and where to look at what it made."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    import xarray as xr

    from store_schema.slide_view import SlideView

_SAMPLE: Final = "demo.tif"
_NEIGHBOURS: Final = 8
_THUMBNAIL_PX: Final = 1200  # long side


@click.command(
    help="Index and encode one slide, then show what was stored, how it is queried, and two pictures. "
    "Without SLIDE a sample is made. Running it again goes on where it stopped."
)
@click.argument("slide", required=False, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("slidestream-demo"),
    show_default=True,
    help="Folder for everything that the demo makes.",
)
@click.option(
    "--mpp",
    type=click.FloatRange(0, min_open=True),
    default=0.5,
    show_default=True,
    help="Pixel size of the tiles [µm], as of `slidestream run`.",
)
@click.option(
    "--slide-mpp",
    type=click.FloatRange(0, min_open=True),
    help="Pixel size of the slide [µm, level 0], where it doesn't say.",
)
def demo(slide: Path | None, out: Path, mpp: float, slide_mpp: float | None) -> int:
    """Show the main job."""
    from jobs.run import run

    store = out / "demo.zarr"
    arguments = ["--store", str(store), "--mpp", str(mpp)]
    if slide is None:
        slide = _sample(out)
        arguments += ["--block-tiles", "32"]  # of a small slide: so that there is progress to see
        # its stroma is pale: haematoxylin alone, less saturated than what counts as tissue on H&E
        arguments += ["--tissue", "threshold", "--tissue-threshold", "0.03"]
    if slide_mpp is not None:
        arguments += ["--slide-mpp", str(slide_mpp)]
    _heading("The run")
    slide_id = _slide_id(slide)
    if _is_complete(store, slide_id, mpp):
        click.echo(
            "All of it is stored from an earlier demo: the run checks, and finds nothing to do."
        )
    click.echo(f"$ slidestream run {shlex.join([str(slide), *arguments])}")
    code: int = run.main([str(slide), *arguments], standalone_mode=False)
    if code:
        return code
    _show(store, slide_id, mpp)
    return 0


def _heading(text: str) -> None:
    click.secho(f"\n{text}", bold=True)


def _sample(out: Path) -> Path:
    """Make the sample slide, unless it is there."""
    from dataflow.demo_slide import write_demo_slide
    from store_schema.errors import StorageError

    path = out / _SAMPLE
    if path.exists():
        return path
    click.echo(f"making a sample slide, {path}: 6000 x 5000 px of real tissue (from scikit-image)")
    partial = path.with_suffix(".partial")
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_demo_slide(partial)
        partial.replace(path)
    except OSError as error:
        raise StorageError(
            f"{path} can't be written ({error.strerror}); choose another --out."
        ) from error
    return path


def _slide_id(slide: Path) -> str:
    from dataflow.discover import discover_slides
    from store_schema.errors import InputError

    sources, problems = discover_slides([str(slide)])
    if problems:
        raise problems[0].error
    if len(sources) != 1:
        raise InputError(f"The demo takes one slide, and {slide} holds {len(sources)}; name one.")
    return sources[0].slide_id


def _is_complete(store: Path, slide_id: str, mpp: float) -> bool:
    from models.cards import DEFAULT_ENCODER
    from store_schema.store import open_store

    if not store.exists():
        return False
    opened = open_store(store)
    grid = _grid(opened[slide_id], mpp) if slide_id in opened else None
    if grid is None:
        return False
    done, total = opened[slide_id].features(grid).get(DEFAULT_ENCODER, (0, 1))
    return done == total


def _grid(slide: SlideView, mpp: float) -> str | None:
    """Find the slide's grid of that pixel size: earlier demos may have left others."""
    fitting = [grid for grid in slide.grids if slide.grid_attrs(grid)["spec"]["mpp"] == mpp]
    return fitting[0] if fitting else None


def _show(store: Path, slide_id: str, mpp: float) -> None:
    from jobs.run_config import qc_dir
    from jobs.shown_session import shown_session
    from models.cards import DEFAULT_ENCODER
    from store_schema.store import open_store

    slide = open_store(store)[slide_id]
    grid = _grid(slide, mpp)
    assert grid is not None  # the run that has just ended made it
    ds = slide.tiles(grid, features=DEFAULT_ENCODER)
    lines = [
        "from store_schema import open_store",
        f"store = open_store({str(store)!r})",
        "store",
    ]
    query = None
    if ds.sizes["tile"]:
        query = _middle(ds)
        lines += _query_lines(ds, query, slide_id, grid, DEFAULT_ENCODER)
    _heading("What was stored, from Python")
    click.echo(shown_session(lines))
    _heading("Pictures")
    qc = qc_dir(str(store), grid) / f"{slide_id}.png"
    click.echo(f"what was taken for tissue, and the tiles on it: {qc}")
    if query is None:
        click.echo("no tissue was found, so there is no tile to compare with others")
        return
    picture = store.with_name("neighbours") / f"{slide_id}.png"
    _draw_neighbours(ds, query, slide_id, DEFAULT_ENCODER, picture)
    click.echo(f"a tile and those most alike to it by their features: {picture}")


def _middle(ds: xr.Dataset) -> int:
    """Choose the tile nearest to the middle of the tissue among those that are full of it."""
    import numpy as np

    x, y, tissue = (ds[name].values for name in ("x", "y", "tissue"))
    distance = np.hypot(x - np.median(x), y - np.median(y))
    return int(np.argmin(np.where(tissue >= 0.9 * tissue.max(), distance, np.inf)))


def _query_lines(ds: xr.Dataset, query: int, slide_id: str, grid: str, features: str) -> list[str]:
    side = int(ds.attrs["tile_level0"])
    x, y = int(ds.x[query]), int(ds.y[query])
    near_x, near_y = x + side // 5, y + side // 8  # a point within: it need not be the corner
    box = f"{x - 2 * side}, {y - 2 * side}, {x + 2 * side}, {y + 2 * side}"
    return [
        f"ds = store[{slide_id!r}].tiles({grid!r}, features={features!r})",
        f"tile = ds.sel(x={near_x}, y={near_y}, method='nearest', tolerance={side})  # pixels of level 0",
        "tile.x.item(), tile.y.item(), round(tile.tissue.item(), 3)",
        "tile.features.shape, tile.features.values[:4]",
        f"ds.tiles.in_bbox({box}).sizes['tile']",
    ]


def _draw_neighbours(ds: xr.Dataset, query: int, slide_id: str, features: str, path: Path) -> None:
    import numpy as np

    from dataflow.area_read import read_thumbnail
    from dataflow.slide import open_slide
    from jobs.neighbours import nearest_tiles
    from jobs.neighbours_picture import NeighboursPicture

    found = nearest_tiles(ds.features.values, query, _NEIGHBOURS)
    shown = ds.isel(tile=np.array([query, *found.tiles]))
    reader = open_slide(ds.attrs["source"], ds.attrs["slide_mpp"])
    try:
        px_level0 = max(1.0, max(reader.info.width, reader.info.height) / _THUMBNAIL_PX)
        thumbnail = read_thumbnail(reader, px_level0)
    finally:
        reader.close()
    NeighboursPicture(
        slide_id=slide_id,
        features=features,
        thumbnail=thumbnail,
        px_level0=px_level0,
        pixels=shown.tiles.pixels().values,
        corners_level0=np.stack([shown.x.values, shown.y.values], axis=1),
        tile_level0=int(ds.attrs["tile_level0"]),
        tile_um=float(ds.attrs["tile_px"] * ds.attrs["mpp"]),
        cosine=found.cosine,
    ).save(path)
