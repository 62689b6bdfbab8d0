from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from extending.proofs.small_run import run, small_config
from feddp.client.engine.methods.momentum import DECAY, Momentum
from method_steps import GRADIENTS, torch_updates, updates_of
from plain_loop import make_row

from feddp.client.engine.cohort import CohortEngine
from feddp.client.engine.methods.sgd import SGD
from feddp.client.engine.one_by_one import UnitLoop
from feddp.client.engine.protocol import LocalMethod, LocalWork
from feddp.common.model.lora import lay_out


def test_steps_are_those_of_torch() -> None:
    expected = torch_updates(torch.optim.SGD, GRADIENTS, lr=0.3, momentum=DECAY)
    np.testing.assert_allclose(updates_of(Momentum(0.3), GRADIENTS), expected, rtol=1e-6)


@pytest.mark.parametrize(("kind", "engine"), [("ffa-lora", CohortEngine), ("full", UnitLoop)])
def test_in_both_engines_the_second_step_keeps_some_of_the_first(
    tmp_path: Path, kind: str, engine: type[CohortEngine | UnitLoop]
) -> None:
    base = tiny.load(tiny.save("llama", tmp_path))
    layout = lay_out(base, kind=kind, rank=2, alpha=4.0, target_modules=None)
    engine_of_kind, rng = engine(base, layout), np.random.default_rng(0)
    steps = [[make_row(rng, "causal-lm", 12)], [make_row(rng, "causal-lm", 9)]]

    def update(method: LocalMethod, num_steps: int) -> np.ndarray:
        found: list[np.ndarray] = []
        work = [LocalWork(0, lambda: steps[:num_steps])]
        engine_of_kind.train(
            layout.start, work, method=method, sink=lambda key, update: found.append(update)
        )
        return found[0]

    # Both methods stand at the same place after one step, so their second gradients are the same.
    expected = update(SGD(0.1), 2) + DECAY * update(SGD(0.1), 1)
    np.testing.assert_allclose(update(Momentum(0.1), 2), expected, rtol=1e-4, atol=1e-6)


def test_a_run_takes_it_by_name(tmp_path: Path) -> None:
    run(small_config(tmp_path, local__optimizer="momentum", local__batch_size=1))
