"""The ``slidestream`` command: the group, and how errors reach the user."""

from __future__ import annotations

import io
import sys
import traceback

import click

from jobs.lazy_group import LazyGroup
from jobs.one_line import one_line
from store_schema.errors import SlidestreamError

cli = LazyGroup(
    "slidestream",
    "Stream whole-slide images through stain normalization and encoders into one queryable Zarr store.",
    {
        "demo": (
            "jobs.demo:demo",
            "The whole main job on a sample slide, and where to look at what it made.",
        ),
        "run": ("jobs.run:run", "Slides in, features out: index + encode. Resumes by itself."),
        "index": ("jobs.run:index", "Find tissue and lay the tile grids (first half of run)."),
        "encode": ("jobs.run:encode", "Encode the tiles of indexed slides (second half of run)."),
        "mil": ("jobs.mil.commands:mil", "Slide models: train, cross-validate, report."),
        "vae": (
            "jobs.vae.commands:vae",
            "Unsupervised tile models: train a β-VAE on normal tissue, score how far tiles are from it.",
        ),
        "pbip": (
            "jobs.pbip.commands:pbip",
            "Weak supervision: prototypes, a network that looks for them, masks of slides.",
        ),
        "encoders": (
            "jobs.encoders:encoders",
            "What can be used as encoder: input size, dim, licence.",
        ),
        "stitch": ("jobs.stitch_command:stitch", "Tile arrays as slide arrays, in the store."),
        "heatmap": ("jobs.heatmap_command:heatmap", "Scores drawn over their slides, as pictures."),
        "evaluate": (
            "jobs.evaluate_command:evaluate",
            "Predictions against labels; tiles, pixels and lesions against masks.",
        ),
        "calibrate": (
            "jobs.calibrate_command:calibrate",
            "Per-slide z-scores, a threshold, morphology: masks from scores.",
        ),
        "export": (
            "jobs.export_commands:export",
            "Scores, masks and features as files that other programs read.",
        ),
        "cluster": ("jobs.cluster_commands:cluster", "A local Dask cluster in the background."),
        "jobs": ("jobs.job_commands:jobs", "Look after what was submitted with --detach."),
        "import": (
            "jobs.import_commands:import_",
            "Bring features of CLAM or TRIDENT into a store.",
        ),
        "select": ("jobs.select_commands:select", "Choose tiles of slides by rank."),
        "store": ("jobs.store_commands:store", "Look at and look after a store."),
        "doctor": (
            "jobs.doctor:doctor",
            "Is this machine, this slide folder, this store fit for a run?",
        ),
    },
)
click.version_option(package_name="slidestream")(cli)


def main() -> None:
    """Run the command line; the only place where our errors become exit codes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files need not be valid text
            stream.reconfigure(errors="backslashreplace")
    verbose = any(arg in ("-v", "--verbose") for arg in sys.argv[1:])
    try:
        # non-standalone, so that a command's return value and our errors are ours to turn into exit codes
        code = cli.main(standalone_mode=False)
    except SlidestreamError as error:
        if verbose:
            traceback.print_exc()
        click.echo(f"Error: {one_line(str(error))}", err=True)
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted; run the same command again to go on where it stopped.", err=True)
        sys.exit(130)
    except BrokenPipeError:  # e.g. `… | head`
        sys.exit(0)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
