"""A small run of the demo, looked at from outside: what a person gets."""

import json
import math
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import dp_accounting
import numpy as np
import pytest
from adapter_files import load_adapter
from dp_accounting.pld import PLDAccountant
from peft import PeftModel
from safetensors.numpy import load

from feddp.common.assembly import load_model
from feddp.common.config.run_config import RunConfig, from_flat
from feddp.common.errors import ConfigError, LedgerDamagedError, PlanDiffersError
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.ledger.release_protocol import read_released
from feddp.common.privacy.mechanism.gaussian import NoisedSum
from feddp.common.tracking import read_metrics
from feddp.server.checkpoint import Checkpoints
from feddp.server.run import load_run
from feddp.server.run_secrets import NODE_LEDGER, secret_path, secrets_folder
from feddp.simulations.cli import main
from feddp.simulations.run.simulate import resume, simulate, stop_on_interrupt

SMALL = {
    "run.rounds": 3,
    "run.seed": 11,
    "run.name": "small",
    "sampling.expected-cohort-size": 25.0,
    "evaluation.max-users": 12,
    "evaluation.every": 2,
}


def config(path: Path, **changes: object) -> RunConfig:
    flat = {**SMALL, "run.output-dir": str(path)}
    return from_flat(
        {**flat, **{k.replace("__", ".").replace("_", "-"): v for k, v in changes.items()}}
    )


@pytest.fixture(scope="module")
def run_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs")
    assert simulate(config(path), is_comparing=True).is_complete
    return path / "small"


def test_run_folder_holds_what_the_readme_names(run_path: Path) -> None:
    names = {path.name for path in run_path.iterdir()} - {"ledger.sqlite.lock"}
    assert names == {
        "adapter",
        "checkpoints",
        "config.toml",
        "curves.png",
        "ledger.sqlite",
        "metrics.jsonl",
        "plan.json",
        "privacy.json",
        "result.json",
    }
    assert (run_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_epsilon_is_recomputed_from_privacy_json_with_dp_accounting_alone(run_path: Path) -> None:
    promise = json.loads((run_path / "privacy.json").read_text())
    accountant = PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    accountant.compose(
        dp_accounting.PoissonSampledDpEvent(
            promise["sampling_probability"],
            dp_accounting.GaussianDpEvent(promise["noise_multiplier"]),
        ),
        promise["num_charges"],
    )
    spent = accountant.get_epsilon(promise["accounting_delta"])
    assert spent == pytest.approx(promise["epsilon"], rel=1e-6)
    assert promise["epsilon"] <= 8
    variation = math.sqrt(promise["num_charges"] * promise["dimension"] / 1152)
    scale = math.ceil(promise["noise_multiplier"] * promise["grid_steps"])
    bridge = (1 + math.exp(promise["epsilon"])) * variation / scale**2
    assert bridge == pytest.approx(promise["bridge_delta"], rel=1e-6)
    assert promise["accounting_delta"] + promise["bridge_delta"] <= promise["delta"] <= 1e-5


def test_adapter_reloads_with_peft_and_is_the_last_release(run_path: Path) -> None:
    base, layout = load_model(load_run(run_path).config)
    vector = load_adapter(run_path / "adapter", layout)
    assert not np.array_equal(vector, layout.start)
    model = PeftModel.from_pretrained(base.model, str(run_path / "adapter"))
    weights = {name: value for name, value in model.state_dict().items() if "lora_B" in name}
    assert sum(value.numel() for value in weights.values()) == layout.dimension
    assert any(bool(value.any()) for value in weights.values())


def test_a_simulation_never_promises_more_than_semantics(tmp_path: Path) -> None:
    asked = {"privacy__trust": "server", "run__rounds": 1, "evaluation__every": 9}
    assert simulate(config(tmp_path, **asked)).is_complete
    assert json.loads((tmp_path / "small" / "privacy.json").read_text())["trust"] == "simulation"


def test_metrics_hold_public_values_alone(run_path: Path) -> None:
    lines = read_metrics(run_path / "metrics.jsonl")
    assert [line["round"] for line in lines] == [0, 1, 2, 3]
    allowed = {"round", "epsilon", "evaluation_loss", "evaluation_perplexity"}
    assert all(set(line) <= allowed for line in lines)
    evaluated = [line["round"] for line in lines if "evaluation_loss" in line]
    assert evaluated == [0, 2, 3]
    spent = [line["epsilon"] for line in lines]
    assert spent == sorted(spent)
    assert spent[-1] <= load_run(run_path).plan.epsilon


def test_result_shows_base_private_and_non_private(run_path: Path) -> None:
    result = json.loads((run_path / "result.json").read_text())
    assert set(result) == {"base", "private", "non_private"}
    assert result["non_private"]["loss"] < result["base"]["loss"]


def test_card_and_promise_say_seeded_not_private(run_path: Path) -> None:
    card = (run_path / "adapter" / "README.md").read_text()
    assert "seeded: not private" in card
    assert "upper bound" in card
    assert "one in 10" in card
    assert json.loads((run_path / "privacy.json").read_text())["seeded"] is True


def test_no_user_content_is_in_any_text_of_the_run(run_path: Path) -> None:
    from feddp.common.data.demo import demo_messages, demo_secrets

    user_id, messages = max(demo_messages(200, 0), key=lambda user: len(user[1]))
    secrets = demo_secrets(user_id)
    needles = [user_id, secrets.phone, secrets.order_id, *messages]
    texts = [
        path.read_bytes()
        for path in run_path.rglob("*")
        if path.is_file() and path.suffix != ".png"
    ]
    assert not any(needle.encode() in text for needle in needles for text in texts)


def test_an_existing_run_is_never_overwritten(run_path: Path) -> None:
    before = (run_path / "ledger.sqlite").read_bytes()
    with pytest.raises(ConfigError, match="exists, and a run never overwrites another"):
        simulate(config(run_path.parent))
    assert (run_path / "ledger.sqlite").read_bytes() == before


def test_resuming_a_finished_run_spends_nothing_and_keeps_the_adapter(run_path: Path) -> None:
    adapter = (run_path / "adapter" / "adapter_model.safetensors").read_bytes()
    charges = len(Ledger.read(run_path / "ledger.sqlite").charges)
    assert resume(run_path).is_complete
    assert (run_path / "adapter" / "adapter_model.safetensors").read_bytes() == adapter
    assert len(Ledger.read(run_path / "ledger.sqlite").charges) == charges


def test_a_changed_config_is_refused(run_path: Path) -> None:
    path = run_path / "config.toml"
    text = path.read_text()
    path.write_text(text.replace("clipping-norm = 0.5", "clipping-norm = 0.6"))
    try:
        with pytest.raises(PlanDiffersError, match="was changed"):
            resume(run_path)
    finally:
        path.write_text(text)


def test_a_ledger_of_another_plan_is_refused(run_path: Path) -> None:
    path = run_path / "plan.json"
    text = path.read_text()
    plan = json.loads(text)
    path.write_text(json.dumps({**plan, "num_charges": plan["num_charges"] + 1}))
    try:
        with pytest.raises(PlanDiffersError):
            resume(run_path)
    finally:
        path.write_text(text)


def test_ledger_command_verifies(run_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ledger", "verify", str(run_path)]) == 0
    out = capsys.readouterr().out
    assert "3 of 3: 3 released, 0 burned, 0 open" in out
    assert "verified" in out


def test_ledger_command_refuses_an_epsilon_below_its_events(run_path: Path) -> None:
    path = run_path / "privacy.json"
    text = path.read_text()
    claim = json.loads(text)
    path.write_text(json.dumps({**claim, "epsilon": claim["epsilon"] / 2}))
    try:
        assert main(["ledger", "verify", str(run_path)]) == 3
    finally:
        path.write_text(text)


def test_chat_answers(run_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["chat", str(run_path), "--prompt", "Hello", "--max-new-tokens", "8"]
    assert main([*arguments, "--temperature", "0"]) == 0
    first = capsys.readouterr().out
    assert main([*arguments, "--temperature", "0"]) == 0
    assert capsys.readouterr().out == first != ""


def test_interrupt_finishes_the_bookkeeping_and_the_run_resumes(
    tmp_path: Path, run_path: Path
) -> None:
    command = [
        sys.executable,
        "-m",
        "feddp.simulations.cli",
        "simulate",
        "--output-dir",
        str(tmp_path),
    ]
    for key, value in {**SMALL, "run.rounds": 3, "run.name": "stopped"}.items():
        command += ["--set", f"{key}={value}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("round    0/3"):
                process.send_signal(signal.SIGINT)
                break
        rest = process.stdout.read()
    assert process.returncode == 130
    assert "--resume" in rest
    line = shlex.join(["feddp", *command[3:]])
    assert (tmp_path / "stopped" / "command.txt").read_text() == f"{line}\n"
    history = Ledger.read(tmp_path / "stopped" / "ledger.sqlite")
    assert history.open_charge is None
    assert len(history.charges) == len(history.releases) < 3
    assert resume(tmp_path / "stopped").is_complete
    adapters = [
        (path / "adapter" / "adapter_model.safetensors").read_bytes()
        for path in (tmp_path / "stopped", run_path)
    ]
    assert adapters[0] == adapters[1]


def test_noise_of_the_node_is_the_only_noise_and_survives_a_crash_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = config(
        tmp_path,
        privacy__trust="node",
        run__rounds=3,
        run__name="crashed",
        server__optimizer="fedavg",
        server__learning_rate=1.0,
        evaluation__max_users=1,
        sampling__expected_cohort_size=20.0,
    )
    with monkeypatch.context() as broken:  # charged, and not yet durable
        broken.setattr(Checkpoints, "to_bytes", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            simulate(run)
    path, rounds = tmp_path / "crashed", []
    resume(
        path,
        on_round=lambda report: rounds.append(report.round),
        is_stopped=lambda: 2 in rounds,
    )
    _, layout = load_model(run)
    crashed = load_run(path)
    history = Ledger.read(crashed.ledger_path).runs["crashed"]
    assert [release.round for release in history.releases] == [2]
    assert len(Ledger.read(secret_path(path, NODE_LEDGER)).charges) == 2  # what it answered
    (answer_path,) = secrets_folder(path).glob(f"{NODE_LEDGER}.answer-*")
    noised = NoisedSum.from_node(load(answer_path.read_bytes())["sum"])
    moved = crashed.plan.mechanism.to_update(noised).values
    adapter = read_released(crashed.checkpoints, history.releases[-1]).state.adapter
    np.testing.assert_allclose(adapter - layout.start, moved, atol=1e-6)
    secret_path(path, NODE_LEDGER).unlink()
    with pytest.raises(LedgerDamagedError, match="missing"):
        resume(path)


def test_a_second_interrupt_insists() -> None:
    with stop_on_interrupt() as is_stopped:
        signal.raise_signal(signal.SIGINT)
        assert is_stopped()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_non_private_training_on_real_data_needs_a_folder_outside(tmp_path: Path) -> None:
    real = config(tmp_path, data__path="users.jsonl", privacy__num_users=100)
    with pytest.raises(ConfigError, match="voids the promise"):
        simulate(real, is_comparing=True)
    with pytest.raises(ConfigError, match="must lie outside"):
        simulate(real, is_comparing=True, non_private_path=tmp_path / "x")
