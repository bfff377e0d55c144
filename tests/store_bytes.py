"""A store as bytes, to compare two of them bit for bit."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def store_digests(root: Path) -> dict[str, str]:
    """Return the digest of every object of a store; the root's creation time is left out."""
    digests = {}
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        data = path.read_bytes()
        if path == root / "zarr.json":
            document = json.loads(data)
            document["attributes"]["slidestream"].pop("created")
            data = json.dumps(document, sort_keys=True).encode()
        digests[path.relative_to(root).as_posix()] = hashlib.sha256(data).hexdigest()
    return digests
