"""Whether a matrix product rounds a row alike wherever it lies in memory."""

import ctypes
from pathlib import Path

import torch

_ALL_SETTINGS, _STRICT = -1, 0x10000  # MKL_CBWR_ALL, MKL_CBWR_STRICT of mkl_types.h


def are_products_strict() -> bool:
    """Whether the products of this process keep to MKL's strict reproducibility.

    `import feddp` asks for it; MKL takes it before its first product alone. Another library than
    MKL counts as strict: the bits of the engine are tested on it as they are.

    Reference: oneMKL developer guide, conditional numerical reproducibility, strict mode.
    """
    path = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    settings_of = (
        getattr(ctypes.CDLL(str(path)), "mkl_serv_cbwr_get", None) if path.is_file() else None
    )
    return settings_of is None or bool(settings_of(_ALL_SETTINGS) & _STRICT)
