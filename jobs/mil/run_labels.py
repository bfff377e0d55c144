"""The table of labels that a run was trained with."""

from __future__ import annotations

import hashlib
from pathlib import Path

import yaml

from store_schema.errors import InputError


def labels_digest(path: Path) -> str:
    """Return the digest of a table of labels, as runs keep it."""
    return hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()


def labels_of_run(run: Path) -> tuple[Path | None, str | None]:
    """Find the labels of a run.

    Parameters
    ----------
    run
        Its folder, or its weights' file.

    Returns
    -------
    tuple
        The table, None where there is none or it isn't any more what it was; and what is to be said of that.

    Raises
    ------
    InputError
        The run's config.yaml is damaged.
    """
    config = (run if run.is_dir() else run.parent) / "config.yaml"
    if not config.is_file():
        return None, None
    try:
        settings = yaml.safe_load(config.read_text())
        text, digest = settings["bags"]["labels"], settings["inputs"]["labels"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError) as error:
        raise InputError(f"{config} can't be read; restore it, or give --labels.") from error
    if text is None:
        return None, None
    path = Path(text)
    if not path.is_file() or labels_digest(path) != digest:
        what = "has changed since the training" if path.is_file() else "isn't there any more"
        return None, f"labels and patients are left open: {path} {what}; give --labels"
    return path, None
