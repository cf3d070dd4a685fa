"""Packages that not everybody needs: ``pip install 'gesso[video]'``; a missing one is named in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

#: Extra -> the modules that it brings, as pyproject.toml lists their packages.
EXTRAS = {
    "zero": ("deepspeed",),
    "tune": ("ray", "optuna", "sklearn"),
    "video": ("av",),
    "markers": ("numba",),
    "export": ("onnx", "onnxruntime", "onnxscript"),
    "provenance": ("c2pa", "cryptography", "pdqhash"),
    "serve": ("fastapi", "fastapi_offline", "uvicorn", "python_multipart", "prometheus_client"),
    "hub": ("huggingface_hub",),
}


@contextmanager
def needing(extra: str) -> Iterator[None]:
    """Context manager around imports: one that fails says which extra to install.

    Args:
        extra: one of ``EXTRAS``.

    Raises:
        ModuleNotFoundError: a module of this extra is missing; any other missing module is reported as it is.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRAS[extra]:
            raise
        raise ModuleNotFoundError(
            f"{missing} is not installed; run: pip install 'gesso[{extra}]'", name=error.name
        ) from error
