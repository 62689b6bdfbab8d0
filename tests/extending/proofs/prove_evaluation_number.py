import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from extending.proofs.small_run import run, small_config
from plain_loop import make_row

from feddp.client.engine.cohort import CohortEngine
from feddp.client.engine.loss import Scores
from feddp.client.engine.one_by_one import UnitLoop
from feddp.common.data.tokens import IGNORE
from feddp.common.evaluation import Evaluation
from feddp.common.model.lora import lay_out
from feddp.common.tracking import read_metrics
from feddp.common.wire.messages import decode_evaluate_reply, encode_evaluate_reply
from feddp.server.run import load_run
from feddp.simulations.run.console import result_lines


def test_a_run_tells_it_after_every_evaluation(tmp_path: Path) -> None:
    folder = run(small_config(tmp_path))
    told = [line["evaluation_top5"] for line in read_metrics(folder / "metrics.jsonl")]
    assert len(told) == 2
    assert all(0 < share < 1 for share in told)
    results = json.loads((folder / "result.json").read_text())
    assert results["private"]["top5"] == told[-1]
    assert f"{told[-1]:.4f}" in "\n".join(result_lines(results, load_run(folder).plan))


@pytest.mark.parametrize(("kind", "engine"), [("ffa-lora", CohortEngine), ("full", UnitLoop)])
def test_both_engines_count_it(
    tmp_path: Path, kind: str, engine: type[CohortEngine | UnitLoop]
) -> None:
    base = tiny.load(tiny.save("llama", tmp_path))
    layout = lay_out(base, kind=kind, rank=2, alpha=4.0, target_modules=None)
    row = make_row(np.random.default_rng(0), "causal-lm", 100)
    with torch.no_grad():
        logits = base.model(input_ids=torch.from_numpy(row.input_ids)[None]).logits[0]
    found = engine(base, layout).evaluate(layout.start, [row])
    keep = row.labels != IGNORE
    expected = Scores.of(logits[keep], torch.from_numpy(row.labels[keep])).sums()
    assert found.num_in_top5 == expected.num_in_top5 > expected.num_correct


def test_it_is_the_share_of_targets_among_the_five_largest_logits() -> None:
    logits, targets = torch.randn(50, tiny.VOCABULARY), torch.arange(50)
    ranks = (logits > logits.gather(1, targets[:, None])).sum(1)
    sums = Scores.join([Scores.of(logits[:20], targets[:20]), Scores.of(logits[20:], targets[20:])])
    assert sums.sums().num_in_top5 == int((ranks < 5).sum())


def test_a_nodes_reply_carries_it() -> None:
    reply = Evaluation(loss_sum=3.0, num_targets=4, num_correct=1, num_in_top5=2)
    assert decode_evaluate_reply(encode_evaluate_reply(reply)) == reply
    assert not Evaluation(3.0, 4, 1, num_in_top5=5).is_sound
