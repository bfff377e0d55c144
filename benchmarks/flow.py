"""The stages alone, what they could come to together, and the whole flow, in one run.

    uv run python -m benchmarks.flow [--encoder near-free|resnet18|vit-base] [--tiles N] [--stain none|macenko] …

Each stage is measured alone, in this process, with the classes that a block task uses: on one thread, and with as many
threads as there are cores. Then the same slide goes through the whole stream: an embedded cluster, a store on disk.

    T_ideal = max over resources of (sum of the times of the stages that share it)

The cores are one resource, which all stages on the CPU share:

    T_cores = tiles * sum over stages of (processor seconds a tile, all cores at work) / cores + index's processor
              seconds / cores

The GPU, where the encoder runs on one, is another (T_gpu = tiles * wall seconds a tile of normalize and model), and so
is the disk (T_disk = tiles * wall seconds a tile of write). Efficiency is T_ideal / T_measured. Starting the cluster,
imports, loading and compiling the model come before the clock starts, and are printed apart.

There the network alone on random tensors is timed as well, which the model stage is to come near.

The flow is measured twice: index and encode (``slidestream run``), and encode of a slide that is indexed (``slidestream
encode``), whose T_ideal is without the index. The best of ``--repeats`` counts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from benchmarks.encoders import ENCODERS, PRECISIONS, PlacedFactory, encoder
from benchmarks.flow_run import (
    FlowTiming,
    embedded,
    grid_spec,
    index_spec,
    run_flow,
    stream_spec,
    warm_up,
)
from benchmarks.machine import machine, n_cores
from benchmarks.slide import FULL_TILES, benchmark_slide, default_work
from benchmarks.stages import (
    TiledSlide,
    model_stage,
    random_tensor_stage,
    read_stage,
    stain_stage,
    write_stage,
)
from benchmarks.timing import Timing, timed
from dataflow.discover import SlideSource
from dataflow.index import index_slide
from dataflow.stain import FitScope, Method, StainSpec
from models.encoder import EncoderFactory
from store_schema.store import create_store

_WARM_UP_TILES = 256


@dataclass(frozen=True)
class StageTimes:
    """A stage alone.

    Attributes
    ----------
    name
        read, normalize, model or write.
    one, all_cores
        On one thread, and on as many as there are cores.
    on_gpu
        Whether its time is the GPU's.
    """

    name: str
    one: Timing
    all_cores: Timing
    on_gpu: bool = False


@dataclass(frozen=True)
class Ideal:
    """Seconds that each resource needs for a run.

    Attributes
    ----------
    cores_s, gpu_s, disk_s
        By resource, see the module.
    """

    cores_s: float
    gpu_s: float
    disk_s: float

    @property
    def seconds(self) -> float:
        """The slowest resource's."""
        return max(self.cores_s, self.gpu_s, self.disk_s)


def stages_alone(
    slide: TiledSlide,
    factory: PlacedFactory,
    stain: StainSpec,
    folder: Path,
    cores: int,
    at_least_s: float,
) -> list[StageTimes]:
    """Measure every stage of a flow by itself."""
    model = factory.load()
    batch, device = model.batch_size, model.device
    gpu = device.type == "cuda"
    tiles = slide.read(0, min(len(slide.table), max(8 * batch, 256)))

    def both(name: str, measure: Any, *, on_gpu: bool = False) -> StageTimes:
        one = measure(1)
        return StageTimes(name, one, one if on_gpu else measure(cores), on_gpu)

    stages = [both("read", lambda n: read_stage(slide, batch, n, at_least_s))]
    if stain.method != "none":
        stages.append(
            both(
                "normalize",
                lambda n: stain_stage(tiles, stain, device, batch, n, at_least_s),
                on_gpu=gpu,
            )
        )
    stages.append(both("model", lambda n: model_stage(tiles, factory, n, at_least_s), on_gpu=gpu))
    stages.append(
        both("write", lambda n: write_stage(folder / f"{n}", 8192, factory, n, at_least_s))
    )
    return stages


def index_alone(slide: Path, folder: Path) -> Timing:
    """Measure the indexing of the slide, once it has been done before: imports and compilation don't count."""
    source = SlideSource(slide.stem, str(slide.resolve()))

    def index(name: str) -> int:
        view, _ = index_slide(create_store(folder / name), index_spec(), source)
        return len(view.tile_table(grid_spec().name))

    index("index_first.zarr")
    return timed(lambda: index("index.zarr"))


def ideal(stages: list[StageTimes], n_tiles: int, cores: int, index: Timing | None) -> Ideal:
    """Return what each resource needs; without ``index`` for a slide that is indexed."""
    cpu_s = sum(s.all_cores.cpu_s_per_tile for s in stages) * n_tiles
    index_s = 0.0 if index is None else index.cpu_s
    return Ideal(
        cores_s=(cpu_s + index_s) / cores,
        gpu_s=sum(n_tiles / s.one.tiles_per_s for s in stages if s.on_gpu),
        disk_s=sum(n_tiles / s.all_cores.tiles_per_s for s in stages if s.name == "write"),
    )


def print_stages(stages: list[StageTimes], index: Timing, cores: int) -> None:
    """Print the table of stages."""
    print(f"\n| stage alone | 1 thread, tiles/s | {cores} threads, tiles/s | CPU ms a tile |")
    print("|---|---|---|---|")
    for stage in stages:
        both = (f"{t.tiles_per_s:,.0f}" for t in (stage.one, stage.all_cores))
        print(f"| {stage.name} | {' | '.join(both)} | {stage.all_cores.cpu_s_per_tile * 1e3:.3f} |")
    print(f"\nindex alone: {index.wall_s:.2f} s, {index.cpu_s:.2f} CPU s")


def print_flow(name: str, flow: FlowTiming, bound: Ideal, cores: int) -> None:
    """Print a row of the table of flows."""
    dask = f"{flow.share.between:.1%} | {flow.share.client(cores):.1%}"
    print(
        f"| {name} | {flow.report.tiles_done:,} | {flow.seconds:.2f} | {flow.tiles_per_s:,.0f} | {bound.seconds:.2f} "
        f"| {bound.seconds / flow.seconds:.2f} | {dask} |"
    )


def main() -> None:
    """Measure and print; see the module."""
    args = _arguments()
    cores = args.threads or n_cores()
    stain = StainSpec(args.stain, args.stain_fit)
    factory = encoder(
        args.encoder,
        args.work,
        precision=args.precision,
        compiled=args.compile,
        device=args.device,
        batch_size=args.batch_size,
    )
    path = benchmark_slide(args.work, args.tiles)
    warm_slide = benchmark_slide(args.work, _WARM_UP_TILES)
    slide = TiledSlide.of(path, grid_spec())
    print(machine())
    compiled = ", compiled" if args.compile else ""
    print(
        f"{factory.name} on {factory.device}, {factory.precision}{compiled}, batches of {args.batch_size}; stain "
        f"{args.stain}{'' if args.stain == 'none' else f' by {args.stain_fit}'}; {len(slide.table):,} tiles of "
        f"{path.name}, read by {slide.reader.info.decoder}"
    )
    with tempfile.TemporaryDirectory(dir=args.work) as scratch:
        folder = Path(scratch)
        index = index_alone(path, folder)
        stages = stages_alone(slide, factory, stain, folder, cores, args.stage_seconds)
        print_stages(stages, index, cores)
        if factory.device == "cuda" and isinstance(factory, EncoderFactory):
            px = factory.preprocess.crop_px or factory.preprocess.resize_px or slide.spec.tile_px
            bare = random_tensor_stage(factory, px, args.stage_seconds)
            model = next(stage.one for stage in stages if stage.name == "model")
            share = model.tiles_per_s / bare.tiles_per_s
            print(
                f"the network on random tensors: {bare.tiles_per_s:,.0f} tiles/s; the model stage is {share:.0%} of it"
            )
        with embedded(cores) as (client, cluster_s):
            warm_s = warm_up(client, warm_slide, factory, stain, folder)
            print(
                f"not counted: cluster {cluster_s:.1f} s; imports, model and a first run {warm_s:.1f} s\n"
            )
            runs, encodes = [], []
            for repeat in range(args.repeats):
                whole = stream_spec(folder / f"run{repeat}.zarr", factory, stain, index_spec())
                runs.append(run_flow(client, whole, [path]))
                half = stream_spec(folder / f"encode{repeat}.zarr", factory, stain, None)
                index_slide(
                    create_store(half.store_url), index_spec(), SlideSource(path.stem, str(path))
                )
                encodes.append(run_flow(client, half, [path]))
    bounds = [ideal(stages, len(slide.table), cores, i) for i in (index, None)]
    best = [min(flows, key=lambda flow: flow.seconds) for flows in (runs, encodes)]
    print(
        "| flow | tiles | s | tiles/s | T_ideal s | efficiency | between tasks | client and scheduler |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, flow, bound in zip(("index + encode", "encode"), best, bounds, strict=True):
        print_flow(name, flow, bound, cores)
    for name, flow in zip(("index + encode", "encode"), best, strict=True):
        print(f"seconds by stage in {name}, all threads: {_stage_seconds(flow)}")
    print(f"all repeats, s: {_seconds(runs)}; encode {_seconds(encodes)}")
    print(f"T_ideal by resource, s: {_resources(bounds[0])}; encode {_resources(bounds[1])}")
    if args.json is not None:
        result = {
            "machine": machine(),
            "settings": {k: str(v) for k, v in vars(args).items()},
            "index": asdict(index),
            "stages": [asdict(stage) for stage in stages],
            "ideal": [asdict(bound) for bound in bounds],
            "run_s": [flow.seconds for flow in runs],
            "encode_s": [flow.seconds for flow in encodes],
            "dask": [asdict(flow.share) for flow in best],
            "stage_s_in_flow": [flow.report.stage_seconds for flow in best],
        }
        args.json.write_text(json.dumps(result, indent=1))


def _stage_seconds(flow: FlowTiming) -> str:
    return ", ".join(f"{name} {s:.2f}" for name, s in flow.report.stage_seconds.items())


def _seconds(flows: list[FlowTiming]) -> str:
    return ", ".join(f"{flow.seconds:.2f}" for flow in flows)


def _resources(bound: Ideal) -> str:
    gpu = f", GPU {bound.gpu_s:.2f}" if bound.gpu_s else ""
    return f"cores {bound.cores_s:.2f}{gpu}, disk {bound.disk_s:.2f}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", choices=ENCODERS, default=ENCODERS[0])
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--stain", choices=get_args(Method), default="none")
    parser.add_argument("--stain-fit", choices=get_args(FitScope), default="slide")
    parser.add_argument("--tiles", type=int, default=FULL_TILES, help="rounded to a square")
    parser.add_argument("--threads", type=int, help="instead of all cores")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--stage-seconds", type=float, default=2.0, help="of each stage alone, at least"
    )
    parser.add_argument(
        "--work", type=Path, default=default_work(), help="keeps slides and weights"
    )
    parser.add_argument("--json", type=Path, help="write all numbers here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
