"""Canary users in the real pipeline, on the demo with a small adapter."""

import numpy as np
import pytest

from feddp.common.config.run_config import RunConfig, from_flat
from feddp.common.errors import ConfigError
from feddp.simulations.audit.canaries import AuditExtent, audit
from feddp.simulations.cli import main

EXTENT = AuditExtent(num_canaries=300, num_users=8, num_rounds=3)
EXTENT_OPTIONS = {"canaries": 300, "users": 8, "rounds": 3}


SETTINGS: dict[str, object] = {
    "run.seed": 3,
    "adapter.rank": 1,
    "adapter.target-modules": "q_proj,v_proj",
    "privacy.target-epsilon": 2.0,
    "nodes.threads": 1,
}


def config(**changes: object) -> RunConfig:
    return from_flat({**SETTINGS, **changes})


def test_the_pipeline_stands_and_both_controls_are_refuted(
    tmp_path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "audit.json"
    words = [f"--{name}={value}" for name, value in EXTENT_OPTIONS.items()]
    settings = [f"--set={key}={value}" for key, value in SETTINGS.items()]
    assert main(["audit", *words, *settings, f"--output={path}"]) == 0
    lines = {line[2:18].strip(): line for line in capsys.readouterr().out.splitlines()}
    assert lines["as planned"].endswith("not refuted")
    assert lines["half the noise"].endswith("REFUTED")
    assert lines["no noise"].endswith("REFUTED")
    assert '"claim"' in path.read_text()


def test_private_data_needs_to_be_asked_for() -> None:
    real = config(**{"data.path": "users.jsonl", "privacy.num-users": 100})
    with pytest.raises(ConfigError, match="without noise"):
        audit(real, extent=EXTENT)


def test_canaries_that_are_absent_send_nothing() -> None:
    from feddp.common.privacy.mechanism.sampling import Draw
    from feddp.common.wire.messages import TrainRequest
    from feddp.simulations.audit.canaries import CanaryNode

    directions = np.eye(4, dtype=np.float32)
    node = CanaryNode(directions, np.array([True, False, True, False]), "x")
    request = TrainRequest(
        round=1,
        adapter=np.zeros(4, dtype=np.float32),
        layout_sha256="x",
        draw=Draw(probability=1.0),
        clipping_norm=0.5,
        grid_steps=1 << 20,
        bit_steps=0,
        noise_scale=0,
        seed=1,
    )
    total = node.train(request).total.total
    assert (total[[1, 3]] == 0).all()
    assert np.allclose(total[[0, 2]], 1 << 20, atol=2)
