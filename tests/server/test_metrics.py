import json
import socket
import threading
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families
from small_ledger import small_plan
from small_run import create, live

from feddp.common.errors import ConfigError
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.server.metrics import (
    LOOPBACK,
    REASONS,
    MeasuredDisk,
    Metrics,
    MetricsServer,
    free_bytes,
    is_locked,
    run_checks,
)

PUBLIC = {
    "feddp_epsilon_spent",
    "feddp_epsilon_target",
    "feddp_rounds_released",
    "feddp_charges_burned",
    "feddp_commit_seconds",
    "feddp_ledger_seq",
    "feddp_disk_free_bytes",
}
OPERATOR = {"feddp_replies_invalid", "feddp_nodes_online"}


def make_metrics(path: Path, *, is_operator: bool = False) -> Metrics:
    return Metrics("a-run", 8.0, path, is_operator)


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urlopen(f"http://{LOOPBACK}:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def families(metrics: Metrics) -> dict[str, list[dict[str, str]]]:
    """The labels of all samples, by name, as a scrape over HTTP reads them."""
    with MetricsServer(metrics, {}, port=0) as server:
        code, text = get(server.port, "/metrics")
    assert code == 200
    return {
        family.name: [sample.labels for sample in family.samples]
        for family in text_string_to_metric_families(text)
    }


def use_everything(metrics: Metrics) -> None:
    metrics.round_released(3, epsilon=1.25, num_charges=4, ledger_rows=9)
    metrics.committed(0.02)
    metrics.nodes_online(5)
    metrics.replies_refused(dict.fromkeys(REASONS, 1))


def test_the_public_names_are_all_that_is_exposed(tmp_path: Path) -> None:
    metrics = make_metrics(tmp_path)
    use_everything(metrics)
    assert set(families(metrics)) == PUBLIC


def test_replies_and_nodes_are_counted_for_an_operator_who_asks(tmp_path: Path) -> None:
    metrics = make_metrics(tmp_path, is_operator=True)
    use_everything(metrics)
    assert set(families(metrics)) == PUBLIC | OPERATOR


def test_labels_name_the_run_and_a_fixed_reason_and_nobody(tmp_path: Path) -> None:
    metrics = make_metrics(tmp_path, is_operator=True)
    use_everything(metrics)
    for name, samples in families(metrics).items():
        for labels in samples:
            assert labels.pop("run") == "a-run"
            allowed = {"feddp_commit_seconds": {"le"}, "feddp_replies_invalid": {"reason"}}
            assert set(labels) <= allowed.get(name, set())
            assert labels.get("reason", REASONS[0]) in REASONS


def refused(metrics: Metrics, reason: str) -> float | None:
    labels = {"run": "a-run", "reason": reason}
    return metrics.registry.get_sample_value("feddp_replies_invalid_total", labels)


def test_refused_replies_are_counted_from_running_totals(tmp_path: Path) -> None:
    metrics = make_metrics(tmp_path, is_operator=True)
    assert refused(metrics, "seal") == 0
    metrics.replies_refused({"seal": 2, "late": 1})
    metrics.replies_refused({"seal": 3, "late": 1})
    assert (refused(metrics, "seal"), refused(metrics, "late")) == (3, 1)


def test_the_words_of_a_node_never_become_a_label(tmp_path: Path) -> None:
    metrics = make_metrics(tmp_path, is_operator=True)
    metrics.replies_refused({"user-canary-4711": 2, "seal": 1})
    metrics.replies_refused({"user-canary-4711": 2, "user-canary-4712": 1, "seal": 1})
    assert "canary" not in str(families(metrics))
    assert (refused(metrics, "other"), refused(metrics, "seal")) == (3, 1)


def test_values_are_those_of_the_run(tmp_path: Path) -> None:
    metrics = make_metrics(tmp_path)
    metrics.round_released(3, epsilon=1.25, num_charges=5, ledger_rows=11)
    label = {"run": "a-run"}
    expected = {
        "feddp_epsilon_spent": 1.25,
        "feddp_epsilon_target": 8.0,
        "feddp_rounds_released": 3.0,
        "feddp_charges_burned": 2.0,
        "feddp_ledger_seq": 11.0,
    }
    found = {name: metrics.registry.get_sample_value(name, label) for name in expected}
    assert found == expected
    assert metrics.registry.get_sample_value("feddp_disk_free_bytes", label) > 0


def test_an_open_ledger_is_ready_and_a_closed_or_lost_one_is_not(tmp_path: Path) -> None:
    path = create(tmp_path / "run", small_plan()) / "ledger.sqlite"
    checks = run_checks(tmp_path, path, checkpoint_bytes=1000)

    def passed() -> dict[str, bool]:
        return {name: check() for name, check in checks.items()}

    assert passed() == {"ledger": True, "lock": False, "disk": True}
    with Ledger.open(path):
        assert passed() == {"ledger": True, "lock": True, "disk": True}
        path.rename(tmp_path / "elsewhere")
        assert passed()["ledger"] is False


def test_asking_for_the_lock_keeps_nobody_from_taking_it(tmp_path: Path) -> None:
    path = create(tmp_path / "run", small_plan()) / "ledger.sqlite"
    with Ledger.open(path):
        assert is_locked(path)
    assert not is_locked(path)
    with Ledger.open(path):
        assert is_locked(path)


def test_a_disk_without_room_for_two_checkpoints_is_not_ready(tmp_path: Path) -> None:
    path = create(tmp_path / "run", small_plan()) / "ledger.sqlite"
    too_large = free_bytes(tmp_path)
    assert not run_checks(tmp_path, path, checkpoint_bytes=too_large)["disk"]()


def test_every_ledger_row_is_timed_once(tmp_path: Path) -> None:
    metrics = make_metrics(tmp_path)
    path = create(tmp_path / "run", small_plan()) / "ledger.sqlite"
    live(path.parent, small_plan(), disk=MeasuredDisk(metrics))
    count = metrics.registry.get_sample_value("feddp_commit_seconds_count", {"run": "a-run"})
    assert count == Ledger.read(path).num_rows - 1  # all but the plan, which creation wrote


def test_health_is_answered_and_other_paths_are_not(tmp_path: Path) -> None:
    with MetricsServer(make_metrics(tmp_path), {}, port=0) as server:
        assert get(server.port, "/healthz") == (200, "ok\n")
        for path in ("/", "/metrics/..", "/ledger.sqlite", "/readyz?x=1"):
            assert get(server.port, path)[0] == 404


def test_readiness_needs_every_check_and_names_them(tmp_path: Path) -> None:
    is_well = threading.Event()
    checks = {"ledger": lambda: True, "disk": is_well.is_set}
    with MetricsServer(make_metrics(tmp_path), checks, port=0) as server:
        code, text = get(server.port, "/readyz")
        assert (code, json.loads(text)) == (503, {"ledger": True, "disk": False})
        is_well.set()
        assert get(server.port, "/readyz")[0] == 200


def test_it_listens_on_loopback_and_stops_with_its_context(tmp_path: Path) -> None:
    before = threading.active_count()
    with MetricsServer(make_metrics(tmp_path), {}, port=0) as server:
        assert server._server.server_address[0] == LOOPBACK
        assert get(server.port, "/healthz")[0] == 200
        port = server.port
    assert threading.active_count() == before
    with pytest.raises(ConnectionRefusedError), socket.create_connection((LOOPBACK, port)):
        pass


def test_a_taken_port_and_a_foreign_host_are_one_clear_line(tmp_path: Path) -> None:
    metrics = make_metrics(tmp_path)
    with (
        MetricsServer(metrics, {}, port=0) as server,
        pytest.raises(ConfigError, match=r"metrics\.port: cannot listen on 127\.0\.0\.1"),
    ):
        MetricsServer(metrics, {}, port=server.port)
    with pytest.raises(ConfigError, match=r"metrics\.host: cannot listen"):
        MetricsServer(metrics, {}, port=0, host="192.0.2.1")


def test_an_unreadable_folder_has_no_room(tmp_path: Path) -> None:
    assert free_bytes(tmp_path) > 0
    assert free_bytes(tmp_path / "missing") == 0
