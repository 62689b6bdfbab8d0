"""feddp bench --gpu: a Llama shape of 1.2 billion parameters in bf16, on one GPU."""

import json
import time
from pathlib import Path

import numpy as np
import torch

from feddp.common.errors import FeddpError
from feddp.simulations.bench import contestants
from feddp.simulations.bench.race import Spread, paired, race
from feddp.simulations.bench.workload import Population, Shape, make_base, make_users, num_tokens

SHAPE = Shape(
    hidden=2048,
    intermediate=8192,
    layers=16,
    heads=32,
    vocabulary=128_256,
    rank=16,
    dtype=torch.bfloat16,
)
PASS_TOKENS = 32_768
CASES = {
    "64 users, 4 rows of 512": Population.equal(64, rows=4, tokens=512),
    "64 users, 1 row of 256": Population.equal(64, rows=1, tokens=256),
    "64 lognormal users": Population(64, (0.7, 1.0, 1, 12), (5.0, 0.8, 16, 1024)),
}


def gpu_bench(*, repeats: int, folder: Path) -> int:
    """Measures tokens and FLOPs per second and peak memory; writes bench-gpu.json.

    Raises:
      FeddpError: this machine has no CUDA device.
    """
    if not torch.cuda.is_available():
        raise FeddpError("bench --gpu: torch finds no CUDA device here. Run it on a GPU machine.")
    base, layout = make_base(SHAPE)
    num_parameters = sum(p.numel() for p in base.model.parameters())
    plain = contestants.Plain(base, layout, device="cuda")
    found: dict[str, object] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    for name, population in CASES.items():
        users = make_users(population, SHAPE.vocabulary)
        engine = contestants.engine(
            base, layout, users, pass_tokens=PASS_TOKENS, slots=64, device="cuda"
        )
        runs = {
            "central": contestants.central(plain, users, pass_tokens=PASS_TOKENS),
            "loop": contestants.loop(plain, users),
            "engine": engine,
        }
        seconds = race(runs, repeats=repeats, clock=_synchronised)
        torch.cuda.reset_peak_memory_stats()
        engine()
        rate = num_tokens(users) / float(np.median(seconds["engine"]))
        line = {
            "engine_over_central": str(paired(seconds, "central", "engine")),
            "engine_over_loop": str(paired(seconds, "loop", "engine")),
            "seconds": str(Spread.of(seconds["engine"])),
            "tokens_per_second": rate,
            # Forward and the backward of activations: 4 operations per weight and token.
            "tera_operations_per_second": 4 * num_parameters * rate / 1e12,
            "peak_gigabytes": torch.cuda.max_memory_allocated() / 2**30,
        }
        print(name, line, flush=True)
        found[name] = line
        del engine, runs
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench-gpu.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


def _synchronised() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()
