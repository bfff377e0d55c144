"""A store: one Zarr hierarchy per cohort."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from store_schema import names
from store_schema.claims import (
    claim,
    differences,
    group_attrs,
    group_document,
    node_key,
    our_attrs,
    read_node,
)
from store_schema.errors import (
    InvalidNameError,
    NotAStoreError,
    NotInStoreError,
    SchemaVersionError,
    SettingsConflictError,
    SlideChangedError,
    StoreError,
)
from store_schema.group_attributes import altered, problem_of_group
from store_schema.ids import check_slide_id, folded
from store_schema.near_names import near
from store_schema.objects import PARTIAL, Objects, open_objects
from store_schema.slide_view import SlideView
from store_schema.specs import SlideRecord

if TYPE_CHECKING:
    import xarray as xr

    from store_schema.bags import Bags
    from store_schema.labels import Labels
    from store_schema.prototypes import PrototypeBank

__all__ = ["Mode", "SlideView", "Store", "create_store", "open_store"]

Mode = Literal["r", "r+"]


@dataclass(frozen=True, repr=False)
class Store:
    """A cohort's store: a mapping of slide ids to slides. Picklable: only the address is kept."""

    objects: Objects
    mode: Mode = "r"

    def __repr__(self) -> str:
        from store_schema.inventory import store_text

        return store_text(self)

    @property
    def url(self) -> str:
        """Path or URL of the store."""
        return self.objects.url

    @property
    def slides(self) -> list[str]:
        """Slide ids, sorted."""
        return [name for name in self.objects.children("") if self._has(name)]

    def keys(self) -> list[str]:
        """Return the slide ids, sorted."""
        return self.slides

    def __iter__(self) -> Iterator[str]:
        return iter(self.slides)

    def __len__(self) -> int:
        return len(self.slides)

    def __contains__(self, slide_id: object) -> bool:
        try:
            return isinstance(slide_id, str) and self._has(check_slide_id(slide_id))
        except InvalidNameError:
            return False

    def __getitem__(self, slide_id: str) -> SlideView:
        """Return a slide; NotInStoreError names near ones."""
        if slide_id not in self:
            raise NotInStoreError(
                f"{self.url} has no slide {slide_id!r}: {near(slide_id, self.slides)}"
            )
        return SlideView(self.objects, slide_id)

    def has_traces(self, slide_id: str) -> bool:
        """Tell whether anything lies under a slide id, also when the slide's own document is damaged or lost."""
        path = check_slide_id(slide_id)
        return self.objects.get(node_key(path)) is not None or bool(self.objects.children(path))

    def add_slide(self, record: SlideRecord, *, overwrite: bool = False) -> SlideView:
        """Add a slide; the same again is a no-op. Where only its document is lost or unreadable, that is made anew.

        Parameters
        ----------
        record
            What is known of the slide. Where the content is the same, what is stored (e.g. the
            path) is kept.
        overwrite
            Replace the document of a slide of the same content that says another size or mpp, or that is damaged;
            grids of the slide stay as they are.

        Raises
        ------
        InvalidNameError
            If the slide id can't be a group, or differs from another one of the store only in case or in Unicode
            normalization.
        SlideChangedError
            If the store has another file under that id.
        SettingsConflictError
            If it has the same file with another size or physical pixel size.
        DamagedMetadataError
            If the slide's document lacks or garbles what it must say.
        """
        if self.mode != "r+":
            raise StoreError(
                f'{self.url} is open for reading: open_store(url, mode="r+") to add to it'
            )
        slide_id = check_slide_id(record.slide_id)
        self._check_no_twin(slide_id)
        ours = {names.KIND: names.KIND_SLIDE, **asdict(record)}
        attrs = claim(
            self.objects, slide_id, ours, compare=(), overwrite=overwrite, contents_stay=True
        )
        if attrs[names.FINGERPRINT] != record.fingerprint:
            raise SlideChangedError(
                f"slide {slide_id} of {self.url} was made from another file "
                f"({attrs['source']}, content {attrs[names.FINGERPRINT]}) than "
                f"{record.source} (content {record.fingerprint}): "
                "give one of them another slide id, or use another store"
            )
        size = ("width", "height", "mpp")
        found = list(differences({k: attrs[k] for k in size}, {k: ours[k] for k in size}))
        if found and overwrite:
            claim(self.objects, slide_id, ours, compare=size, overwrite=True, contents_stay=True)
        elif found:
            raise SettingsConflictError(
                f"slide {slide_id} of {self.url} was added with other settings "
                f"({'; '.join(found)}): "
                "give the stored ones, another slide id, use another store, or pass --overwrite if the stored ones "
                "are wrong"
            )
        return SlideView(self.objects, slide_id)

    def bags(
        self,
        features: str | None = None,
        grid: str | None = None,
        *,
        labels: Labels | None = None,
        selection: str | None = None,
        allow_incomplete: bool = False,
    ) -> Bags:
        """Return the tiles' features slide by slide, read when a bag is loaded.

        Parameters
        ----------
        features, grid
            Which feature set on which grid; None takes the only one of the store.
        labels
            Path of a CSV with columns ``slide_id`` and ``label``, or a mapping; slides without a label are left out.
        selection
            Take the tiles of this selection only, best first.
        allow_incomplete
            Go without slides that have no such features, and without the tiles of missing blocks.

        Returns
        -------
        Bags
            A sequence in the order of slide ids; ``absent`` and ``unlabelled`` name the slides left out.

        Raises
        ------
        IncompleteError
            If slides lack features, unless that is allowed; says which and how far they are.
        NotInStoreError, InputError
            If there is no such grid or feature set, or several and none was named.
        """
        from store_schema.bags import make_bags

        return make_bags(
            self,
            features,
            grid,
            labels=labels,
            selection=selection,
            allow_incomplete=allow_incomplete,
        )

    def predictions(self, run: str, grid: str | None = None) -> xr.Dataset:
        """Return what a score run says of whole slides.

        Parameters
        ----------
        run
            Name of the scores, as ``mil score`` wrote them.
        grid
            Name of the grid; None takes the one that has the run.

        Returns
        -------
        Dataset
            In memory, by ``slide_id`` and ``class``: ``probability`` (slide_id, class), and by slide ``predicted``,
            ``threshold`` (NaN: the likeliest class), ``split`` (``train``, ``val`` or ``test`` of the models, empty
            where they never met the slide), ``fold``, and ``bag`` (the slide, or its patient). Slides without such
            scores are not in it.

        Raises
        ------
        NotInStoreError
            If no slide has such scores, or they are of tiles only; names near ones.
        InputError
            If several grids have the run and none is named, or slides have other classes.
        """
        from store_schema.predictions import read_predictions

        return read_predictions(self, run, grid)

    @property
    def banks(self) -> list[str]:
        """Names of the banks of prototypes, sorted."""
        from store_schema.prototypes import bank_names

        return bank_names(self.objects)

    def prototypes(self, name: str) -> PrototypeBank:
        """Return a bank of prototypes, as ``pbip prototypes`` wrote it.

        Raises
        ------
        NotInStoreError
            There is no such bank; names near ones.
        IncompleteError, DamagedBlockError
            It isn't wholly written, or an object of it is lost or damaged.
        """
        from store_schema.prototypes import read_prototypes

        return read_prototypes(self.objects, name)

    def write_prototypes(self, bank: PrototypeBank, *, overwrite: bool = False) -> None:
        """Write a bank whole; the same again is a no-op, see :func:`store_schema.prototypes.write_prototypes`."""
        from store_schema.prototypes import write_prototypes

        if self.mode != "r+":
            raise StoreError(
                f'{self.url} is open for reading: open_store(url, mode="r+") to add to it'
            )
        write_prototypes(self.objects, bank, overwrite=overwrite)

    def _check_no_twin(self, slide_id: str) -> None:
        """Refuse what would be the same folder on some file system: on this one, or where the store is copied to."""
        for other in self.objects.children(""):
            if other != slide_id and folded(other) == folded(slide_id):
                raise InvalidNameError(
                    f"slide id {slide_id!r} can't be told from {other!r} of {self.url} by all file systems: "
                    "give another id in the slide_id column of a CSV"
                )

    def _has(self, slide_id: str) -> bool:
        return group_attrs(self.objects, slide_id, names.KIND_SLIDE) is not None


def create_store(url: str | os.PathLike[str]) -> Store:
    """Make a store, or open the one that is there, for writing.

    Parameters
    ----------
    url
        A local path, ``memory://…`` or any fsspec URL.

    Raises
    ------
    NotAStoreError
        If something else is there.
    SchemaVersionError
        If the store that is there has another schema version.
    """
    objects = open_objects(url)
    if read_node(objects, "") is None:
        _check_empty(objects)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        ours = {
            names.KIND: names.KIND_STORE,
            names.VERSION: names.SCHEMA_VERSION,
            names.CREATED: created,
        }
        objects.put_new(node_key(""), group_document(ours))
    return open_store(url, mode="r+")


def open_store(url: str | os.PathLike[str], mode: Mode = "r") -> Store:
    """Open a store.

    Parameters
    ----------
    url
        A local path, ``memory://…`` or any fsspec URL.
    mode
        ``r`` to read, ``r+`` to add slides as well.

    Raises
    ------
    NotAStoreError
        If there is no store.
    SchemaVersionError
        If it has another schema version.
    DamagedMetadataError
        If its own document is damaged.
    """
    objects = open_objects(url)
    node = read_node(objects, "")
    attrs = our_attrs(node)
    if node is None or attrs is None or attrs[names.KIND] != names.KIND_STORE:
        raise NotAStoreError(
            f"{objects.url} is no slidestream store: "
            f"`slidestream run SLIDES --store {objects.url}` makes one"
        )
    version = attrs.get(names.VERSION)
    if not isinstance(version, int):
        raise altered(objects.url, "", f"{names.VERSION} is {version!r}")
    _check_version(objects.url, version)
    problem = problem_of_group(node)
    if problem is not None:
        raise altered(objects.url, "", problem)
    return Store(objects, mode)


def _check_version(url: str, version: int) -> None:
    ours = names.SCHEMA_VERSION
    if version == ours:
        return
    if version > ours:
        raise SchemaVersionError(
            f"{url} has schema version {version} and this slidestream reads version {ours}: "
            "upgrade slidestream (`uv pip install -U slidestream`)"
        )
    raise SchemaVersionError(
        f"{url} has schema version {version}, older than version {ours} of this slidestream: "
        "read it with the slidestream that wrote it, or index and encode its slides again into a new store"
    )


def _check_empty(objects: Objects) -> None:
    # temporary files are those of a store that is being made beside us, or that was killed while
    # being made
    others = [key for key in objects.sizes("") if not key.endswith(PARTIAL)]
    if others and read_node(objects, "") is None:
        raise NotAStoreError(
            f"{objects.url} is no slidestream store and not empty (it has {others[0]}): "
            "choose another path"
        )
