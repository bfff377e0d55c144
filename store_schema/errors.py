"""The one family of errors that a user sees: a sentence, a reason code, an exit code."""

from __future__ import annotations

from typing import ClassVar


class SlidestreamError(Exception):
    """Base of every error that is reported to a user as one sentence, without a traceback.

    The message says what is wrong and what to do. ``reason`` is a stable, machine-readable code
    that appears in ``--json`` summaries, logs and receipts. ``fatal`` marks what would hit every
    further block of a run as well (a full disk), so that the run stops instead of failing block by
    block.
    """

    reason: ClassVar[str] = "error"
    fatal: ClassVar[bool] = False


class StoreError(SlidestreamError):
    """Something about the store itself."""

    reason = "store"


class NotAStoreError(StoreError):
    """The path holds no slidestream store."""

    reason = "not-a-store"


class SchemaVersionError(StoreError):
    """The store was written with another schema version."""

    reason = "schema-version"


class SettingsConflictError(StoreError):
    """The same name is asked for with other settings than those it was made with."""

    reason = "settings-conflict"


class SlideChangedError(SettingsConflictError):
    """The file behind a slide id is not the one that the store was made from."""

    reason = "slide-changed"


class IncompleteError(StoreError):
    """A group, or a block that was read, is not (wholly) written yet."""

    reason = "incomplete"


class DamagedBlockError(StoreError):
    """A stored object fails its checksum or has the wrong length."""

    reason = "damaged-block"


class DamagedMetadataError(StoreError):
    """A metadata document can't be parsed, or lacks or garbles what it must say; names it and the remedy."""

    reason = "damaged-metadata"


class StorageError(StoreError):
    """The disk or service below the store refused: full, no permission, not reachable."""

    reason = "storage"
    fatal = True


class NotInStoreError(StoreError, KeyError):
    """A slide, grid, feature set or run that the store does not hold; names near ones."""

    reason = "not-in-store"

    def __str__(self) -> str:  # KeyError would show the repr of the sentence
        return str(self.args[0])


class InvalidNameError(StoreError, ValueError):
    """A slide id or a name that can't be a group of the store."""

    reason = "invalid-name"


class SlideError(SlidestreamError):
    """Something about a slide; the run goes on with the others."""

    reason = "slide"


class UnreadableSlideError(SlideError):
    """Missing, empty, truncated, not recognised, or refused by the reader."""

    reason = "unreadable"


class ReadFailedError(SlideError):
    """The slide opened, but pixels of it could not be read."""

    reason = "read-failed"


class MissingMppError(SlideError):
    """The slide has no usable physical size."""

    reason = "no-mpp"


class TooCoarseError(SlideError):
    """The slide has less detail than the grid asks for."""

    reason = "too-coarse"


class InputError(SlidestreamError, ValueError):
    """The user's input (arguments, tables, files) does not make sense."""

    reason = "input"


class DuplicateIdError(InputError):
    """Several slides of a run would have one id, or ids that a file system may not tell apart."""

    reason = "duplicate-id"


class ModelError(SlidestreamError):
    """A model or its weights can't be had, or don't fit."""

    reason = "model"


class BusyError(SlidestreamError):
    """Another process works where only one may."""

    reason = "busy"


class DeviceError(SlidestreamError):
    """The device that was asked for is not there, or has no memory left."""

    reason = "device"


class ClusterError(SlidestreamError):
    """The scheduler does not answer, or the cluster can't do the work."""

    reason = "cluster"
