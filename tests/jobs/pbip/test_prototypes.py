from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
import skimage.data
from PIL import Image

from dataflow.discover import SlideSource
from dataflow.executors import SerialExecutor
from dataflow.index import index_slide
from dataflow.pyramid_tiff import write_pyramid
from dataflow.stain import StainSpec
from dataflow.stream import run_stream
from dataflow.stream_report import StreamObserver
from dataflow.stream_spec import EncodeSpec, IndexSpec, StreamSpec
from dataflow.tissue import TissueSpec
from jobs.evaluation.truth import open_truth
from jobs.pbip.class_tiles import SampleSpec, sample_class_tiles
from jobs.pbip.classes import read_classes
from jobs.pbip.exemplar_features import find_stored
from jobs.pbip.prototypes import PrototypesConfig, make_prototypes
from models.encoder import FEATURES, EncoderFactory, EncoderSpec
from models.preprocess import ResizeMode
from store_schema.errors import InputError, SettingsConflictError
from store_schema.specs import ArraySpec, GridGeometry, GridSpec, SlideRecord, TileTable
from store_schema.store import Store, create_store, open_store
from store_schema.validate import validate

N_COLS, N_ROWS, SIDE = 5, 8, 64
N_TILES = N_COLS * N_ROWS
SPEC = GridSpec(tile_px=32, mpp=0.5, stride_px=32)
DIM = 1280
SLIDES = ("n0", "n1", "n2", "t0", "t1", "t2")


def directions() -> npt.NDArray[np.float64]:
    """Return four unit vectors at right angles: two of normal tissue, two of tumour."""
    found: npt.NDArray[np.float64] = np.linalg.qr(np.random.default_rng(0).normal(size=(DIM, 4)))[
        0
    ].T
    return found


def stored_features(slide_id: str) -> npt.NDArray[np.float32]:
    """Return features that point in two directions of the slide's class, near them, tile by tile in turn."""
    number = SLIDES.index(slide_id)
    of_class = directions()[:2] if slide_id.startswith("n") else directions()[2:]
    noise = np.random.default_rng(number).normal(scale=0.003, size=(N_TILES, DIM))
    return ((of_class[np.arange(N_TILES) % 2] + noise) * (3 + number)).astype(np.float32)


@pytest.fixture(scope="session")
def encoder() -> Mapping[str, Any]:
    return EncoderFactory(EncoderSpec(resize="fit")).provenance


@pytest.fixture
def store(tmp_path: Path, encoder: Mapping[str, Any]) -> Store:
    """Return a store of six slides whose files are nowhere, with features of the default encoder."""
    made = create_store(tmp_path / "cohort.zarr")
    index = np.arange(N_TILES, dtype=np.int32)
    row, col = index // N_COLS, index % N_COLS
    table = TileTable(col * SIDE, row * SIDE, row, col, np.ones(N_TILES, np.float32))
    for slide_id in SLIDES:
        record = SlideRecord(
            slide_id, f"/nowhere/{slide_id}.svs", f"of {slide_id}", "aperio",
            N_COLS * SIDE, N_ROWS * SIDE, 0.25, "properties",
        )  # fmt: skip
        slide = made.add_slide(record)
        slide.create_grid(
            SPEC, GridGeometry(SIDE, float(SIDE), N_ROWS, N_COLS), table, {"slide": slide_id},
            block_tiles=16,
        )  # fmt: skip
        group = slide.create_tile_group(
            SPEC.name, "features", "made",
            {FEATURES: ArraySpec(("tile", "feature"), (DIM,), "float32")},
            {"slide": slide_id, "model": dict(encoder), "stain": {"method": "none"}},
        )  # fmt: skip
        for block in range(group.n_blocks):
            group.write_block(
                block, {FEATURES: stored_features(slide_id)[group.block_slice(block)]}
            )
    return made


@pytest.fixture
def tables(tmp_path: Path) -> tuple[str, str]:
    """Return paths of labels, as numbers, and of splits: n2 and t2 validate."""
    rows = "".join(f"{i},{int(i.startswith('t'))}\n" for i in SLIDES)
    (tmp_path / "labels.csv").write_text(f"slide_id,label\n{rows}")
    (tmp_path / "splits.csv").write_text("train,val\nn0,n2\nn1,t2\nt0,\nt1,\n")
    return str(tmp_path / "labels.csv"), str(tmp_path / "splits.csv")


@pytest.fixture
def config(store: Store, tables: tuple[str, str]) -> Callable[..., PrototypesConfig]:
    def make(**changes: Any) -> PrototypesConfig:
        settings = {"class_order": ("benign", "tumor"), "k": (2,), "n_exemplars": 4, **changes}
        return PrototypesConfig(store.url, tables[0], splits=tables[1], **settings)

    return make


def test_a_bank_of_stored_features(
    config: Callable[..., PrototypesConfig], store: Store, encoder: Mapping[str, Any]
) -> None:
    """The directions that the features were made of are found again, and no slide is opened: there is none."""
    summary = make_prototypes(config(), quiet=True)
    assert summary["features"] == {"stored": True, "origin": "made"}
    assert "label 0 is benign, 1 is tumor" in summary["notes"]
    bank = open_store(store.url).prototypes("prototypes")
    assert (bank.class_names, bank.k_list, bank.offsets) == (("benign", "tumor"), (2, 2), (0, 2, 4))
    assert bank.slides == ("n0", "n1", "t0", "t1")  # those of the train split
    assert bank.cluster_size.tolist() == [40, 40, 40, 40]
    cosine = np.abs(bank.features @ directions().T)
    np.testing.assert_allclose(np.sort(cosine.max(axis=1)), 1, atol=1e-3)
    assert sorted(cosine.argmax(axis=1)[:2]) == [0, 1]
    assert sorted(cosine.argmax(axis=1)[2:]) == [2, 3]
    assert bank.encoder == encoder
    assert bank.extra["resize"] == "fit"
    assert {c: sorted(of_class) for c, of_class in bank.extra["slides"].items()} == {
        "benign": ["n0", "n1"], "tumor": ["t0", "t1"],
    }  # fmt: skip
    # exemplars are the members of the cluster with the largest cosine, largest first
    for row in range(4):
        slide_ids = bank.slides[:2] if row < 2 else bank.slides[2:]
        every = np.concatenate([stored_features(i) for i in slide_ids])
        similarity = every @ bank.features[row] / np.linalg.norm(every, axis=1)
        np.testing.assert_allclose(
            bank.exemplar_similarity[row], np.sort(similarity)[::-1][:4], atol=1e-5
        )
        slide = bank.slides[bank.exemplar_slide[row, 0]]
        best = stored_features(slide)[bank.exemplar_tile[row, 0]]
        assert best @ bank.features[row] / np.linalg.norm(best) == pytest.approx(
            similarity.max(), abs=1e-5
        )
    assert validate(store) == []
    # the slides' files are nowhere: that costs the picture, and is said
    assert summary["sheet"] is None
    assert any(note.startswith("the contact sheet was not drawn") for note in summary["notes"])


def test_the_same_again_and_other_settings(
    config: Callable[..., PrototypesConfig], store: Store, store_digests: Callable[..., Any]
) -> None:
    assert not make_prototypes(config(), quiet=True)["there"]
    before = store_digests(Path(store.url))
    assert make_prototypes(config(), quiet=True)["there"]
    assert store_digests(Path(store.url)) == before
    more = config(sample=SampleSpec(tiles_per_slide=10))
    with pytest.raises(SettingsConflictError, match=r"tiles\.benign\.tiles: stored 80, asked 20"):
        make_prototypes(more, quiet=True)
    assert make_prototypes(config(k=(2, 1), name="other"), quiet=True)["classes"]["tumor"][
        "prototypes"
    ] == [80]
    with pytest.raises(SettingsConflictError, match="class_names"):
        make_prototypes(config(class_order=("tumor", "benign")), quiet=True)
    assert make_prototypes(config(sample=more.sample, overwrite=True), quiet=True)["classes"][
        "benign"
    ] == {"slides": ["n0", "n1"], "tiles": 20, "prototypes": [10, 10]} | {
        "prototypes": open_store(store.url).prototypes("prototypes").cluster_size[:2].tolist()
    }


def test_the_sample_follows_from_the_seed(store: Store, tables: tuple[str, str]) -> None:
    table, _ = read_classes(Path(tables[0]), ("benign", "tumor"))

    def sample(**changes: Any) -> list[dict[str, list[int]]]:
        spec = SampleSpec(**{"slides_per_class": 2, "tiles_per_slide": 9, **changes})
        found = sample_class_tiles(store, SPEC.name, table, table.slide_ids, spec)
        return [{i: t.tolist() for i, t in tiles.tiles.items()} for tiles in found]

    first = sample()
    assert first == sample()
    assert [list(tiles) == sorted(tiles) for tiles in first] == [True, True]
    assert all(len(set(t)) == 9 and t == sorted(t) for tiles in first for t in tiles.values())
    assert all(i.startswith("n") for i in first[0])
    assert len({json.dumps(sample(seed=seed)) for seed in range(8)}) > 1
    # a slide's tiles don't depend on which other slides there are
    alone = sample(slides_per_class=3)
    assert all(alone[c][i] == t for c in (0, 1) for i, t in first[c].items())


def test_tiles_by_truth(store: Store, tables: tuple[str, str], tmp_path: Path) -> None:
    """The left two of five columns of t0 are tumour; of n0 nothing is known but its label."""
    mask = np.zeros((N_ROWS * 2, N_COLS * 2), np.uint8)
    mask[:, :3] = 255  # the first column wholly, half of the second
    (tmp_path / "masks").mkdir()
    Image.fromarray(mask).save(tmp_path / "masks" / "t0.png")
    table, _ = read_classes(Path(tables[0]), ("benign", "tumor"))
    truth = open_truth(tmp_path / "masks")
    benign, tumor = sample_class_tiles(
        store, SPEC.name, table, ("n0", "t0", "t1"), SampleSpec(positive_from=0.6), truth
    )
    columns = np.arange(N_TILES) % N_COLS
    assert list(tumor.tiles) == ["t0"]  # t1 has no truth, and its label says nothing of its tiles
    np.testing.assert_array_equal(tumor.tiles["t0"], np.flatnonzero(columns == 0))
    np.testing.assert_array_equal(benign.tiles["t0"], np.flatnonzero(columns > 1))
    assert len(benign.tiles["n0"]) == N_TILES
    # the class whose name says that nothing was found is the negative one, wherever it stands in the order
    turned, _ = read_classes(Path(tables[0]), ("tumor", "benign"))
    first, second = sample_class_tiles(
        store, SPEC.name, turned, ("n0", "t0"), SampleSpec(positive_from=0.6), truth
    )
    assert list(first.tiles) == ["t0"]
    np.testing.assert_array_equal(first.tiles["t0"], tumor.tiles["t0"])
    np.testing.assert_array_equal(second.tiles["t0"], benign.tiles["t0"])
    with pytest.raises(InputError, match="the truth of tiles tells two classes, and there are 3"):
        sample_class_tiles(
            store, SPEC.name, read_classes(Path(tables[0]), ("a", "b", "c"))[0], ("n0",),
            SampleSpec(), truth,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"k": (1, 2, 3)}, r"--k has 3 numbers, and there are 2 classes \(benign, tumor\)"),
        ({"k": (81, 2)}, "the class benign has 80 tiles, fewer than its 81 prototypes"),
        ({"class_order": ("benign",)}, "have the classes 0, 1, and the classes are to be benign"),
        ({"class_order": ("a", "a")}, "names a twice"),
        ({"class_order": ("benign", "tumor", "other")}, "the class other has no tiles: 0 of the 4 slides"),
        ({"grid": "64px_1.000mpp"}, r"none of the 4 labelled training slides .* has the grid 64px_1.000mpp"),
    ],
)  # fmt: skip
def test_what_contradicts_is_refused(
    config: Callable[..., PrototypesConfig], changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        make_prototypes(config(**changes), quiet=True)


def test_tiles_that_are_all_alike(config: Callable[..., PrototypesConfig], store: Store) -> None:
    for slide_id in ("n0", "n1"):
        group = store[slide_id].block_group(SPEC.name, "features", "made")
        for block in range(group.n_blocks):
            group.write_block(block, {FEATURES: np.ones_like(group.read_array(FEATURES, block))})
    with pytest.raises(
        InputError, match="of the class benign: 80 feature vectors point in 1 different"
    ):
        make_prototypes(config(), quiet=True)


@pytest.fixture(scope="session")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two small slides of stained tissue."""
    folder = tmp_path_factory.mktemp("slides")
    image = skimage.data.immunohistochemistry()  # type: ignore[no-untyped-call]
    for name, x in (("n0", 0), ("t0", 256)):
        write_pyramid(folder / f"{name}.tif", image[:128, x : x + 128], 0.5, downsamples=(1,))
    return folder


def test_a_bank_of_pixels(
    slides: Path, tmp_path: Path, slidestream: Callable[..., Any], encoder: Mapping[str, Any]
) -> None:
    """Encoded here, tiles have the features that the stream would give them, whatever batch they came in."""
    tissue = TissueSpec("none")
    grid = GridSpec(tile_px=32, mpp=0.5, stride_px=32, tissue=tissue.to_json())
    store = create_store(tmp_path / "s.zarr")
    for name in ("n0", "t0"):
        index_slide(store, IndexSpec(grid, tissue), SlideSource(name, str(slides / f"{name}.tif")))
    labels = tmp_path / "labels.csv"
    labels.write_text("slide_id,label\nn0,normal\nt0,tumor\nelsewhere,tumor\n")
    args = (
        "pbip", "prototypes", "--store", store.url, "--labels", labels, "--resize", "none",
        "--stain", "macenko", "--tiles-per-slide", 12, "--k", "2,1", "--exemplars", 3,
        "--batch-size", 5, "--device", "cpu", "--precision", "fp32",
    )  # fmt: skip
    answer = slidestream(*args, "--json")
    assert answer.code == 0, answer.err
    summary = json.loads(answer.out)
    assert summary["features"]["stored"] is False
    assert "the store has no features of efficientnet-lite0" in summary["features"]["origin"]
    assert summary["notes"] == ["1 training slides without the grid were left out (elsewhere)"]
    bank = open_store(store.url).prototypes("prototypes")
    assert bank.cluster_size[2] == 12
    assert bank.stain["method"] == "macenko"
    # the same features, once the stream has stored them for all tiles
    spec = EncoderSpec(resize="none", device="cpu", precision="fp32", batch_size=16)
    encode = EncodeSpec("made", EncoderFactory(spec), StainSpec("macenko"))
    sources = [SlideSource(name, str(slides / f"{name}.tif")) for name in ("n0", "t0")]
    run_stream(
        SerialExecutor(), StreamSpec(store.url, grid.name, None, encode), sources, StreamObserver()
    )
    again = slidestream(*args, "--name", "stored", "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out)["features"] == {"stored": True, "origin": "made"}
    other = open_store(store.url).prototypes("stored")
    assert other.provenance == bank.provenance
    np.testing.assert_allclose(other.features, bank.features, atol=1e-3)
    # neither way to resize nor normalization need be said to find them
    ways = [EncoderFactory(EncoderSpec(resize=r, device="cpu")) for r in get_args(ResizeMode)]
    found, _ = find_stored(store, grid.name, ["n0", "t0"], ways, None)
    assert found is not None
    assert (found.name, found.resize, found.stain["method"]) == ("made", "none", "macenko")
    # what is asked for and is not what is stored is named
    fit = [way for way in ways if way.spec.resize == "fit"]
    nothing, why = find_stored(store, grid.name, ["n0", "t0"], fit, StainSpec())
    assert nothing is None
    assert why.startswith("made was made otherwise")
    assert "resize_px: stored None, asked 224" in why
    assert "stain.method: stored 'macenko', asked 'none'" in why
    with Image.open(summary["sheet"]) as picture:
        assert picture.size[1] > 3 * 128
        colours = np.unique(np.asarray(picture).reshape(-1, 3), axis=0)
        assert len(colours) > 1000  # tiles, and not white
    text = slidestream(*args)
    assert "was there" in text.out
