import importlib
from pathlib import Path

import pytest

from feddp.common.errors import ConfigError
from feddp.common.tracking import json_lines, open_trackers, read_metrics


def test_a_round_that_is_run_again_replaces_its_line_and_all_later_ones(tmp_path: Path) -> None:
    tracker = json_lines(tmp_path / "metrics.jsonl")
    for round in (0, 1, 2, 3):
        tracker.log(round, {"epsilon": round / 2})
    tracker.log(2, {"epsilon": 7.0})
    assert read_metrics(tmp_path / "metrics.jsonl") == [
        {"round": 0, "epsilon": 0.0},
        {"round": 1, "epsilon": 0.5},
        {"round": 2, "epsilon": 7.0},
    ]


def test_unknown_and_missing_trackers_are_named_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        open_trackers("comet, trackio", folder=tmp_path, config={})
    assert 'tracking.report-to = "comet"' in caught.value.problems[0]
    assert "`pip install trackio`" in caught.value.problems[1]


def test_metrics_jsonl_is_always_written(tmp_path: Path) -> None:
    (tracker,) = open_trackers("", folder=tmp_path, config={})
    tracker.log(0, {"epsilon": 0.0})
    tracker.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"round": 0, "epsilon": 0.0}]


def test_the_events_of_tensorboard_carry_no_time(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    loader = importlib.import_module("tensorboard.backend.event_processing.event_file_loader")
    for rounds in ((0, 1), (2,)):  # the second time as after a restart
        *_, tracker = open_trackers("tensorboard", folder=tmp_path, config={})
        for round in rounds:
            tracker.log(round, {"epsilon": 0.5 * round})
        tracker.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    events = list(loader.LegacyEventFileLoader(str(path)).Load())
    assert {event.wall_time for event in events} == {0.0}
    assert [event.step for event in events if event.HasField("summary")] == [0, 1, 2]
