"""The bench of a GPU."""

from pathlib import Path

import pytest

from feddp.common.errors import FeddpError
from feddp.simulations.bench.gpu import CASES, gpu_bench


def test_without_a_gpu_the_gpu_bench_says_so(tmp_path: Path) -> None:
    with pytest.raises(FeddpError, match="no CUDA device"):
        gpu_bench(repeats=1, folder=tmp_path)


def test_the_cases_of_a_gpu_draw_as_many_users_each() -> None:
    assert {population.num_users for population in CASES.values()} == {64}
