"""Writes tensors to safetensors files, with the errors of a full disk as such."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from gesso.common.files import open_to_others


def save_tensors(tensors: Mapping[str, Tensor], file: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Writes tensors to a safetensors file.

    Raises:
        OSError: it cannot be written; with the errno of a full disk, quota or limit where that is why.
    """
    try:
        save_file(dict(tensors), file, metadata=None if metadata is None else dict(metadata))
    except SafetensorError as error:
        # It has no errno of its own; a full disk is what mostly lies behind it.
        full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        number = next((n for n in full if f"os error {n}" in str(error)), errno.EIO)
        raise OSError(number, os.strerror(number) if number != errno.EIO else str(error), str(file)) from error
    open_to_others(file)
