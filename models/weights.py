"""Weight files: found in the hub's cache or fetched, read without running code, and digested."""

from __future__ import annotations

import hashlib
import pickle
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import torch

from store_schema.errors import ModelError

StateDict: TypeAlias = Mapping[str, torch.Tensor]

REACH_TIMEOUT_S = 5.0


def local_weights(path: str) -> Path:
    """Return the path of a checkpoint that the user named.

    Raises
    ------
    ModelError
        If there is no such file.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise ModelError(f"There is no checkpoint at {file}: give the path of a weights file.")
    return file.resolve()


def hub_weights(repo: str, filenames: Sequence[str], *, gated: bool, advice: str) -> Path:
    """Return a file of a hub repository, from the local cache or else from the network.

    Parameters
    ----------
    repo
        ``owner/name`` on the hub.
    filenames
        Names to try, the preferred one first.
    gated
        Whether the licence has to be accepted first.
    advice
        What else a user can do, the end of the sentence of every error.

    Raises
    ------
    ModelError
        If the file is not cached and can't be had: no network, licence not accepted, no such file.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    for filename in filenames:
        try:
            return Path(hf_hub_download(repo, filename, local_files_only=True))
        except LocalEntryNotFoundError:
            continue
    terms = (
        f"accept its licence at {constants.ENDPOINT}/{repo} and log in with 'hf auth login' "
        "(or set HF_TOKEN)"
    )
    if constants.HF_HUB_OFFLINE or not _reachable(constants.ENDPOINT):
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub can't be reached"
        first = f"connect, {terms}" if gated else "connect"
        raise ModelError(
            f"The weights of {repo} are not in the local hub cache and {why}: {first}, or {advice}."
        )
    for filename in filenames:
        try:
            return Path(hf_hub_download(repo, filename))
        except LocalEntryNotFoundError as error:
            raise ModelError(
                f"The download of {repo} broke off: try again, or {advice}."
            ) from error
        except EntryNotFoundError:
            continue
        except (
            GatedRepoError,
            RepositoryNotFoundError,
        ) as error:  # without a token both look alike
            raise ModelError(f"The hub does not hand out {repo}: {terms}, or {advice}.") from error
        except HfHubHTTPError as error:
            code = error.response.status_code
            raise ModelError(
                f"The hub answers {code} for {repo}: try later, or {advice}."
            ) from error
    raise ModelError(f"{repo} holds none of {', '.join(filenames)}: {advice}.")


def _reachable(endpoint: str) -> bool:
    # The hub client retries a dead network for half a minute; one question is enough, and any HTTP
    # answer counts.
    request = urllib.request.Request(endpoint, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=REACH_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict from safetensors, or from a torch file with ``weights_only=True``.

    A nested ``state_dict`` or ``model`` entry is unwrapped.

    Raises
    ------
    ModelError
        If the file can't be read, holds code, or holds no state dict.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            state: object = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ModelError(
            f"{path} can't be read as weights alone: give an undamaged safetensors file."
        ) from error
    for key in ("state_dict", "model"):
        nested = state.get(key) if isinstance(state, Mapping) else None
        state = nested if isinstance(nested, Mapping) else state
    if not isinstance(state, Mapping) or not all(
        isinstance(v, torch.Tensor) for v in state.values()
    ):
        raise ModelError(f"{path} holds no state dict: give a safetensors file of the weights.")
    return dict(state)


def load_strictly(network: torch.nn.Module, state: StateDict, path: Path) -> None:
    """Load ``state``; every tensor of the network must be there, and nothing else.

    Raises
    ------
    ModelError
        If names or shapes don't fit.
    """
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:
        detail = str(error).split("\n\t", 1)[-1].replace("\n\t", " ")
        raise ModelError(
            f"{path} does not fit {type(network).__name__}: name the architecture it was made with "
            f"({detail[:200]})."
        ) from error


def file_digest(path: Path) -> str:
    """Return ``sha256:…`` of a file; computed once as long as its size and time stay the same."""
    stat = path.stat()
    return _digest(path, stat.st_size, stat.st_mtime_ns)


def require_planned(path: Path, digest: str) -> None:
    """Check on a worker that a file is the one that a run was planned with.

    Raises
    ------
    ModelError
        Its digest is another.
    """
    if file_digest(path) != digest:
        raise ModelError(
            f"{path} is another file here than where the run was planned: plan the run again, with a path "
            "that all workers share."
        )


@lru_cache(maxsize=32)
def _digest(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
