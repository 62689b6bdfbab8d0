"""The Flower apps against the in-process run: same loop, same bytes."""

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from flower_grid import InProcessGrid
from flwr.app import Message

from feddp.client.app import app as client_app
from feddp.common.config.run_config import from_flat, to_flat
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.ledger.release_protocol import read_released
from feddp.server.app import main
from feddp.server.run import load_run
from feddp.simulations.run.simulate import simulate

ROOT = Path(__file__).parents[2]
SMALL = {
    "run.rounds": 2,
    "run.seed": 7,
    "sampling.expected-cohort-size": 30.0,
    "evaluation.max-users": 10,
    "nodes.deadline-seconds": 1.0,
}


def released(path: Path) -> np.ndarray:
    last = Ledger.read(path / "ledger.sqlite").releases[-1]
    return read_released(load_run(path).checkpoints, last).state.adapter


def run_flower(tmp_path: Path, name: str, num_nodes: int, **options: object) -> np.ndarray:
    config = from_flat({**SMALL, "run.name": name, "run.output-dir": str(tmp_path)})
    nodes = [{"partition-id": i, "num-partitions": num_nodes} for i in range(num_nodes)]
    grid = InProcessGrid(client_app, nodes, to_flat(config), **options)  # type: ignore[arg-type]
    main(grid, grid.server_context)
    return released(tmp_path / name)


@pytest.fixture(scope="module")
def in_process(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    path = tmp_path_factory.mktemp("runs")
    config = from_flat({**SMALL, "run.name": "local", "run.output-dir": str(path)})
    assert simulate(config).is_complete
    return released(path / "local")


def test_seeded_rounds_release_the_same_bytes_in_process_and_under_flower(
    tmp_path: Path, in_process: np.ndarray
) -> None:
    adapter = run_flower(tmp_path, "flower", 3)
    np.testing.assert_array_equal(adapter, in_process)


@pytest.mark.parametrize("fault", ["drop", "error"])
def test_a_missing_node_changes_the_sum_and_never_ends_the_round(
    tmp_path: Path, in_process: np.ndarray, fault: str
) -> None:
    def lose_one(message: Message) -> str | None:
        is_lost = message.metadata.dst_node_id == 1001 and "train" in message.metadata.message_type
        return fault if is_lost else None

    adapter = run_flower(tmp_path, "faulty", 3, fault=lose_one)
    assert np.isfinite(adapter).all()
    assert not np.array_equal(adapter, in_process)


def test_a_failing_node_sends_a_fixed_text_and_no_exception() -> None:
    seen: list[str] = []

    class Recorder(InProcessGrid):
        def pull_messages(self, message_ids):  # type: ignore[no-untyped-def]
            replies = super().pull_messages(message_ids)
            seen.extend(r.error.reason for r in replies if r.has_error())
            return replies

    settings = to_flat(from_flat({"data.path": "/no/such/secret.jsonl", "privacy.num-users": 9}))
    grid = Recorder(client_app, [{}], settings)
    from feddp.server.nodes import FlowerNodes

    nodes = FlowerNodes(grid, 3, 0.3)
    nodes.wait_for_nodes(1)
    from feddp.common.wire.messages import EvaluateRequest

    assert nodes.evaluate(EvaluateRequest(np.zeros(3, np.float32), "x")) == []
    assert seen == ["node-error"]


def test_the_bundle_holds_code_of_the_three_folders_alone(tmp_path: Path) -> None:
    names = {"pyproject.toml", "README.md", "LICENSE", "feddp", "common", "client", "server"}
    project = tmp_path / "feddp"
    project.mkdir()
    for name in names:
        source = ROOT / name
        if source.exists():
            subprocess.run(["cp", "-rP", str(source), str(project)], check=True)
    (project / "server" / "users.jsonl").write_text("private")
    flwr = Path(sys.executable).with_name("flwr")
    subprocess.run([str(flwr), "build"], cwd=project, check=True, capture_output=True)
    (bundle,) = project.glob("*.fab")
    files = zipfile.ZipFile(bundle).namelist()
    folders = {name.split("/")[0] for name in files}
    assert folders <= {*names, ".info"}
    assert all(n.endswith((".py", ".toml", "CONTENT", ".md", "LICENSE")) for n in files)
    assert {
        "feddp/__init__.py",
        "server/app.py",
        "client/app.py",
        "common/privacy/ledger/ledger.py",
    } <= set(files)
