"""Whether an encoder's weights are on this machine already; asks no network and imports no model library."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from models.cards import EncoderCard

_WEIGHT_SUFFIXES: Final = {".safetensors", ".bin", ".pt", ".pth"}


def weights_at_hand(card: EncoderCard) -> bool:
    """Return whether the encoder can be used without a network.

    Parameters
    ----------
    card
        Its ``source`` names a package, a repository of the hub, or a file.
    """
    kind, _, place = card.source.partition(":")
    if kind == "package":
        return _is_installed(place)
    if kind == "file":
        return Path(place).expanduser().is_file()
    if kind == "hf-hub":
        return _in_hub_cache(place)
    return False


def _is_installed(package: str) -> bool:
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True


def _in_hub_cache(place: str) -> bool:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    repo = "/".join(place.split("/")[:2])  # open_clip names a file within the repository
    folder = repo_folder_name(repo_id=repo, repo_type="model")
    snapshots = Path(constants.HF_HUB_CACHE, folder, "snapshots")
    return any(file.suffix in _WEIGHT_SUFFIXES for file in snapshots.glob("*/*"))
