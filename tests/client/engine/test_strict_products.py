"""Strict products: asked for by `import feddp`, and missed where somebody multiplied before."""

import os
import subprocess
import sys

import pytest
import torch

PRODUCT = "import torch\ntorch.ones(64, 64) @ torch.ones(64, 64)\n"
ANSWER = (
    "from feddp.client.engine.strict_products import are_products_strict\n"
    "print(are_products_strict())"
)


def answer(program: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "MKL_CBWR"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return done.stdout.strip()


def test_importing_feddp_asks_for_strict_products() -> None:
    assert answer("import feddp\n" + PRODUCT + ANSWER) == "True"


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="torch multiplies without MKL")
def test_who_multiplied_before_is_told() -> None:
    assert answer(PRODUCT + ANSWER) == "False"
