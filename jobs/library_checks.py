"""Checks of what is installed: that it is all there, and fits together."""

from __future__ import annotations

import importlib
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Final

from jobs.checks import Check
from store_schema.errors import ModelError

_SHOWN_PACKAGES: Final = (
    "slidestream", "torch", "torchvision", "timm", "open_clip_torch",
    "zarr", "xarray", "dask", "numpy", "openslide-python",
)  # fmt: skip

# OpenSlide has no call that lists its formats; these are those of version 4 (openslide.org/formats).
_FORMATS: Final = (
    "Aperio", "DICOM", "Hamamatsu", "Leica", "MIRAX", "Philips", "Sakura", "Trestle", "Ventana",
    "Zeiss CZI", "generic tiled TIFF",
)  # fmt: skip


def library_checks() -> Iterator[Check]:
    """Look at what is installed, one check after the other."""
    yield python_check()
    yield packages_check()
    yield torchvision_check()
    yield openslide_check()
    yield encoder_check()


def python_check() -> Check:
    """Say which Python runs, and where."""
    facts = {
        "version": platform.python_version(),
        "executable": sys.executable,
        "platform": f"{platform.system()} {platform.machine()}",
    }
    return Check("Python", "ok", f"{facts['version']} on {facts['platform']}", facts)


def packages_check(distribution: str = "slidestream") -> Check:
    """Compare what is installed with what the distribution asks for."""
    from packaging.requirements import Requirement

    needed = [Requirement(text) for text in requires(distribution) or ()]
    needed = [need for need in needed if need.marker is None or need.marker.evaluate({"extra": ""})]
    unmet = [
        f"{need.name}{need.specifier} (there is {_version(need.name) or 'none'})"
        for need in needed
        if not need.specifier.contains(_version(need.name) or "0", prereleases=True)
        or _version(need.name) is None
    ]
    facts = {
        "versions": {need.name: _version(need.name) for need in needed},
        "unmet": unmet,
    }
    if unmet:
        return Check(
            "packages", "fail", f"missing or too old: {', '.join(unmet)}; install them", facts
        )
    shown = ", ".join(f"{name} {v}" for name in _SHOWN_PACKAGES if (v := _version(name)))
    return Check("packages", "ok", shown, facts)


def torchvision_check() -> Check:
    """Tell whether torch and torchvision match: by torchvision's own metadata, and by using its compiled half."""
    from packaging.requirements import Requirement

    torch_version, vision_version = _version("torch"), _version("torchvision")
    facts = {"torch": torch_version, "torchvision": vision_version}
    advice = "reinstall both from the same index"
    if torch_version is None or vision_version is None:
        return Check("torch & torchvision", "fail", f"not both are installed; {advice}", facts)
    for need in map(Requirement, requires("torchvision") or ()):
        if need.name == "torch" and not need.specifier.contains(torch_version, prereleases=True):
            says = f"torchvision {vision_version} wants torch{need.specifier}, there is {torch_version}; {advice}"
            return Check("torch & torchvision", "fail", says, facts)
    try:
        torch = importlib.import_module("torch")
        ops = importlib.import_module("torchvision.ops")
        ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)  # raises where the builds differ
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        says = f"torchvision does not work with this torch ({one_line(error)}); {advice}"
        return Check("torch & torchvision", "fail", says, facts)
    says = f"{torch_version} and {vision_version} match"
    return Check("torch & torchvision", "ok", says, facts)


def openslide_check() -> Check:
    """Say which OpenSlide library is loaded and what it reads."""
    try:
        openslide = importlib.import_module("openslide")
    except (ImportError, OSError) as error:
        says = f"can't be loaded ({one_line(error)}); install openslide-bin"
        return Check("OpenSlide", "fail", says)
    library: str = openslide.__library_version__
    facts = {"library": library, "formats": list(_FORMATS)}
    if int(library.partition(".")[0]) < 4:
        says = f"{library} is old and reads no DICOM; install openslide-bin"
        return Check("OpenSlide", "warn", says, {"library": library})
    says = f"{library}; reads {', '.join(_FORMATS)}; besides, plain TIFF, PNG and JPEG are read"
    return Check("OpenSlide", "ok", says, facts)


def encoder_check() -> Check:
    """Tell whether the default encoder's weights are here."""
    from models.cards import DEFAULT_ENCODER
    from models.registry import find_source

    facts = {"encoder": DEFAULT_ENCODER, "weights": None}
    try:
        path = find_source(DEFAULT_ENCODER).weights()
    except ModelError as error:
        return Check("encoder", "warn", str(error), facts)
    says = f"{DEFAULT_ENCODER} with its pretrained weights ({path.stat().st_size / 1e6:.0f} MB)"
    return Check("encoder", "ok", says, {**facts, "weights": str(path)})


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def one_line(error: object) -> str:
    """Return an error's message without its line breaks, shortened."""
    return " ".join(str(error).split())[:200]
