"""Functions compiled to machine code by numba, with the code kept on disk where a place for it can be written."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(signature: str) -> Callable[[Function], Function]:
    """Compile a function for one signature as its module is imported, or load what an earlier process compiled.

    The function runs without the interpreter's lock and on one thread: the stream runs one batch a thread. Arithmetic
    is strict IEEE (no fused or reordered operations), so that results are the same on every processor.

    numba keeps machine code in ``__pycache__`` beside the module, or else in the user's cache folder
    (``NUMBA_CACHE_DIR`` chooses another). Where neither can be written, or what lies there is damaged, the function
    is compiled anew in each process: some seconds, nothing else.

    Parameters
    ----------
    signature
        In numba's notation. Constants of other modules must be arguments: kept code doesn't follow their change.
    """

    def decorate(function: Function) -> Function:
        # numba knows its files by name and time of change. The digest keeps the code of another version, which may be
        # installed with the same times or be replaced while it is read, from being taken for this one's.
        source = Path(function.__code__.co_filename).read_bytes()
        digest = hashlib.blake2b(source, digest_size=6).hexdigest()
        function.__qualname__ = f"{function.__qualname__}_{digest}"
        try:
            made = _compile(function, signature, keep=True)
        except (OSError, EOFError, pickle.UnpicklingError):  # no space left, or a damaged file
            made = _compile(function, signature, keep=False)
        except RuntimeError as error:
            if "no locator available" not in str(error):
                raise
            made = _compile(function, signature, keep=False)
        return cast(Function, made)

    return decorate


def _compile(function: Callable[..., Any], signature: str, *, keep: bool) -> Callable[..., Any]:
    compiler = numba.njit(signature, nogil=True, fastmath=False, error_model="numpy", cache=keep)
    return cast(Callable[..., Any], compiler(function))
