"""The trained numbers of an exported adapter."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from feddp.common.model.layout import PEFT_PREFIX, AdapterLayout
from feddp.common.model.other_kinds import PLAIN_KINDS, file_name


def load_adapter(folder: Path, layout: AdapterLayout) -> NDArray[np.float32]:
    """The flat vector of a saved adapter."""
    tensors = load_file(folder / file_name(layout.kind))
    if layout.kind in PLAIN_KINDS:
        tensors = {PEFT_PREFIX + name: value for name, value in tensors.items()}
    return layout.flatten(tensors)
