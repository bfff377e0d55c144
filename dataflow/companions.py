"""Which other files belong to a slide's file, and are no slides themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dataflow.dicom_series import series_files

_HAMAMATSU = (".vms", ".vmu")


def companion_files(path: str | Path) -> list[Path]:
    """List the files that belong to a slide besides the given one, sorted.

    A ``.mrxs`` has a folder of its own name, a Hamamatsu ``.vms`` or ``.vmu`` names its images,
    a DICOM file shares its series with others. Any other slide is one file.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".mrxs":
        folder = path.with_suffix("")
        return sorted(file for file in folder.rglob("*") if file.is_file())
    if suffix in _HAMAMATSU:
        return sorted(set(_named_in(path)))
    return [file for file in series_files(path) if file.name != path.name]


def _named_in(path: Path) -> Iterator[Path]:
    """Files that a Hamamatsu key file names: lines ``ImageFile(1,0)=name.jpg``."""
    for line in path.read_bytes().decode("utf-8", "replace").splitlines():
        _, equals, name = line.partition("=")
        if equals and name.strip() and (path.parent / name.strip()).is_file():
            yield path.parent / name.strip()
