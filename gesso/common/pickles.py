"""Unpickling that allows numpy arrays and nothing else.

A pickle is a program: loading one from a stranger runs what he wrote. Some weights and data sets exist only as pickles
of arrays in tuples, lists and dictionaries, for which three names are enough.
"""

from __future__ import annotations

import pickle
from io import BytesIO
from typing import Any

import numpy as np

_reconstruct = np.empty(0).__reduce__()[0]
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def load_arrays(data: bytes) -> Any:  # type: ignore[explicit-any] # a tree of any shape
    """The arrays of a pickle, in the tuples, lists and dictionaries in which they lie.

    Raises:
        ValueError: it holds, or would run, anything else; or it is broken.
    """
    try:
        return _ArrayUnpickler(BytesIO(data), encoding="latin1").load()
    except Exception as error:  # a hand-made pickle can raise anything at all
        raise ValueError(f"refused pickle: only numpy arrays are allowed ({error})") from error
