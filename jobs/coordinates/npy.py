"""``.npy`` files with names in them, without running what is in them.

numpy stores text of any length as a pickle, which may hold any program. Here such a pickle may name nothing but what
numpy's own arrays of text are made of (https://docs.python.org/3/library/pickle.html#restricting-globals).
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy_format

from store_schema.errors import InputError

_ALLOWED: Final = frozenset(
    (f"{module}.multiarray", name)
    for module in ("numpy.core", "numpy._core")
    for name in ("_reconstruct", "scalar")
) | {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def read_npy(path: Path) -> npt.NDArray[Any]:
    """Read an array, which may hold text as Python objects, but nothing else of Python.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    InputError
        It can't be read, is no such file, or holds more than arrays of numbers and text.
    """
    try:
        with path.open("rb") as file:
            version = npy_format.read_magic(file)
            if version[0] > 2:
                raise InputError(f"{path} is a .npy of version {version[0]}: save it with np.save")
            read_header = (
                npy_format.read_array_header_1_0
                if version[0] == 1
                else npy_format.read_array_header_2_0
            )
            _, _, dtype = read_header(file)
            if dtype.hasobject:
                values = _Unpickler(file).load()
            else:
                file.seek(0)
                values = np.lib.format.read_array(file, allow_pickle=False)
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}): check the path") from error
    except (ValueError, TypeError, EOFError, AttributeError, pickle.UnpicklingError) as error:
        raise InputError(
            f"{path} is no array of coordinates ({' '.join(str(error).split())[:120]}): save it with np.save"
        ) from error
    if not isinstance(values, np.ndarray):
        raise InputError(f"{path} holds no array: save coordinates with np.save")
    return values
