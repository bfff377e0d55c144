"""What slides are labelled as, in the order of classes that a bank and a model are to have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from jobs.mil.labels import LabelTable, read_label_table
from store_schema.errors import InputError


def read_classes(labels: Path, class_order: Sequence[str] = ()) -> tuple[LabelTable, str]:
    """Read a table of labels with one class a slide.

    Parameters
    ----------
    labels
        As of :func:`jobs.mil.labels.read_label_table`.
    class_order
        The classes in their order; empty takes that of the table. Where the table has numbers and the order has names,
        number 0 is the first name, and so on.

    Returns
    -------
    LabelTable, str
        And what was taken for what, empty where there is nothing to say.

    Raises
    ------
    InputError
        The table can't be read, a slide has several classes or none, or a class is not in the order.
    """
    table = read_label_table(labels, task="multiclass")
    order = tuple(class_order)
    if not order:
        return table, ""
    if twice := sorted({name for name in order if order.count(name) > 1}):
        raise InputError(f"the class order names {', '.join(twice)} twice: name each class once")
    found = table.class_names
    numbers = {str(number): name for number, name in enumerate(order)}
    if set(found) <= set(numbers) and not set(found) & set(order):
        numbered = read_label_table(labels, task="multiclass", class_names=tuple(numbers))
        said = ", ".join(f"{number} is {name}" for number, name in numbers.items())
        return replace(numbered, class_names=order), f"label {said}"
    return read_label_table(labels, task="multiclass", class_names=order), ""
