"""Checkpoints without code in them: safetensors, and beside them a JSON description."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from models.weights import StateDict, file_digest
from store_schema.errors import InputError, ModelError
from store_schema.objects import LocalObjects

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")

SCHEMA: Final = 1
_METADATA, _DIGEST = "slidestream", "blake2b"  # keys of a file's header
_PICKLE_SUFFIXES: Final = {".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin"}
# a zip archive (torch.save since 1.6), pickle protocols 2 to 5 (torch.save before)
_PICKLE_STARTS: Final = (b"PK\x03\x04", *(bytes([0x80, protocol]) for protocol in range(2, 6)))
_MOST_NAMED: Final = 3


def save_model(path: Path, model: torch.nn.Module, description: Mapping[str, object]) -> None:
    """Write a model's weights, and beside them ``<stem>.json``.

    Parameters
    ----------
    path
        Where the weights go, ``….safetensors``.
    model
        Any network.
    description
        What is needed to build and use the network again, as JSON. ``schema`` and ``sha256`` (of the
        weights file) are added.
    """
    write_tensors(path, model.state_dict())
    document = {"schema": SCHEMA, "sha256": file_digest(path), **description}
    data = json.dumps(document, indent=2).encode()
    LocalObjects(path.parent).put(path.with_suffix(".json").name, data)


def load_description(path: Path) -> dict[str, object]:
    """Read what ``save_model`` was told of a weights file.

    Raises
    ------
    ModelError
        If either file is missing, is a pickle, is of another schema, or the two don't belong together.
    """
    refuse_pickle(path)
    sidecar = path.with_suffix(".json")
    if not sidecar.is_file():
        raise ModelError(
            f"{path} has no description {sidecar.name} beside it: copy that file along with it."
        )
    try:
        document: object = json.loads(sidecar.read_bytes())
    except ValueError as error:
        raise ModelError(f"{sidecar} is damaged: restore it, or train again.") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        schema = document.get("schema") if isinstance(document, dict) else None
        raise ModelError(
            f"{sidecar} is of schema {schema}, this version reads {SCHEMA}: use the version that wrote it."
        )
    if document.get("sha256") != file_digest(path):
        raise ModelError(
            f"{path} is not the file that {sidecar.name} describes (its digest differs): copy both anew, "
            "or finish the training that was stopped."
        )
    return document


def saved_config(description: Mapping[str, Any], key: str, of: type[Config], path: Path) -> Config:
    """Build a frozen dataclass of settings again that a description holds as ``asdict`` of it.

    Parameters
    ----------
    description, key
        What ``load_description`` returned, and where the settings are in it.
    of
        The dataclass.
    path
        Of the weights, for errors.

    Raises
    ------
    ModelError
        If the settings are damaged, or of another architecture than this version's.
    """
    saved = description.get(key)
    known = {field.name for field in fields(of)}
    if not isinstance(saved, dict) or saved.keys() != known:
        raise ModelError(
            f"{path} is of another architecture than this version's {of.__name__}: use the version that "
            "trained it, or train again."
        )
    # JSON knows no tuples
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in saved.items()
    }
    try:
        config: Config = of(**values)
    except (InputError, TypeError) as error:
        raise ModelError(
            f"The description beside {path} is damaged ({key}): restore it, or train again."
        ) from error
    return config


def load_weights(model: torch.nn.Module, path: Path) -> None:
    """Load a safetensors file into a model that fits it exactly.

    Raises
    ------
    ModelError
        If the file can't be read, is a pickle, or names or shapes don't fit; the first ones are named.
    """
    state, _ = read_tensors(path)
    differences = shape_differences(state, model.state_dict())
    if differences:
        raise ModelError(
            f"{path} does not fit {type(model).__name__} ({'; '.join(differences)}): build the model with "
            "the settings and the feature width that it was trained with."
        )
    model.load_state_dict(state)


def shape_differences(saved: StateDict, model: StateDict) -> list[str]:
    """Name the first tensors that only one side has, or that have another shape."""
    found = []
    for name in sorted(saved.keys() | model.keys()):
        if name not in model:
            found.append(f"{name} is only in the file")
        elif name not in saved:
            found.append(f"{name} is missing in the file")
        elif saved[name].shape != model[name].shape:
            shapes = (
                f"{tuple(saved[name].shape)} in the file, {tuple(model[name].shape)} in the model"
            )
            found.append(f"{name} is {shapes}")
    more = len(found) - _MOST_NAMED
    return found if more <= 0 else [*found[:_MOST_NAMED], f"and {more} more"]


def refuse_pickle(path: Path) -> None:
    """Refuse a file that may hold code, without opening it as more than bytes.

    Raises
    ------
    ModelError
        If the file is missing, or is a pickle by its name or its first bytes.
    """
    if not path.is_file():
        raise ModelError(
            f"There is no checkpoint at {path}: give the folder or file of a finished run."
        )
    with path.open("rb") as file:
        start = file.read(4)
    if path.suffix.lower() in _PICKLE_SUFFIXES or start.startswith(_PICKLE_STARTS):
        raise ModelError(
            f"{path} is a pickle, which can run any code when it is opened, so it was not opened: give the "
            "model.safetensors of a run."
        )


def write_tensors(
    path: Path, tensors: StateDict, metadata: Mapping[str, object] | None = None
) -> None:
    """Write tensors, and JSON that can't be parted from them, in one durable step.

    Parameters
    ----------
    path
        Replaced by the finished file; what was there stays until then.
    tensors
        Any device and layout.
    metadata
        Anything that JSON holds; goes into the header of the file, with a digest of both.
    """
    # copied: safetensors refuses tensors that share memory, as tied weights do
    on_cpu = {
        name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()
    }
    header = None
    if metadata is not None:
        text = json.dumps(metadata)
        header = {_METADATA: text, _DIGEST: _digest(on_cpu, text)}
    LocalObjects(path.parent).put(path.name, save(on_cpu, header))


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    """Read what ``write_tensors`` wrote; the metadata is empty where there was none.

    Raises
    ------
    ModelError
        If the file is missing, damaged, or a pickle.
    """
    refuse_pickle(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            text = header.get(_METADATA, "{}")
            metadata: dict[str, object] = json.loads(text)
    except (SafetensorError, ValueError) as error:
        raise ModelError(_damaged(path)) from error
    if _DIGEST in header and header[_DIGEST] != _digest(tensors, text):
        raise ModelError(_damaged(path))
    return tensors, metadata


def _damaged(path: Path) -> str:
    return f"{path} is damaged: restore it, or remove it and train again."


def _digest(tensors: StateDict, text: str) -> str:
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
