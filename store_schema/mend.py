"""An unreadable metadata document counts as not there: it is replaced by whoever comes first, and by nobody else."""

from __future__ import annotations

import hashlib

from store_schema.objects import PARTIAL, Objects


def put_over(objects: Objects, key: str, unreadable: bytes | None, data: bytes) -> bool:
    """Write an object where there is none, or only an unreadable one; tell whether it was written.

    Replacing can't be exclusive, creating can: the first to create a note beside the document settles what it is
    replaced with. Whoever finds the note carries it out, so that everybody writes the same and a killed process holds
    nobody up. The document is looked at after the note was read: once it is another, the note is of no use any more.

    Parameters
    ----------
    objects, key
        The object.
    unreadable
        What is there now, None if nothing is.
    data
        What is to be there.
    """
    if unreadable is None:
        return objects.put_new(key, data)
    digest = hashlib.blake2b(unreadable, digest_size=8).hexdigest()
    note = f"{key}.{digest}{PARTIAL}"
    mine = objects.put_new(note, data)
    settled = objects.get(note)
    if settled is not None and objects.get(key) == unreadable:
        objects.put(key, settled)
    objects.delete(note)
    return mine
