"""The bench on a GPU."""

from pathlib import Path

import pytest

from feddp.common.errors import FeddpError
from feddp.simulations.bench.gpu import gpu_bench


def test_without_a_gpu_the_gpu_bench_says_so(tmp_path: Path) -> None:
    with pytest.raises(FeddpError, match="no CUDA device"):
        gpu_bench(repeats=1, folder=tmp_path)
