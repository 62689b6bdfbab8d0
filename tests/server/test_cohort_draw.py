"""The server's draw of one-user nodes: marginal, pairwise, over the frozen, in turns."""

import dataclasses
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from feddp.common.disk import Disk
from feddp.common.errors import DiskError, LedgerDamagedError
from feddp.common.evaluation import Evaluation
from feddp.common.privacy.mechanism.sampling import Draw
from feddp.common.privacy.mechanism.summation import UpdateSum
from feddp.common.wire.messages import EvaluateRequest, TrainReply, TrainRequest
from feddp.server.cohort_draw import ServerDraw
from feddp.server.run_secrets import POPULATION
from feddp.simulations.run.local_nodes import LocalNodes

P, K = 4, 1 << 20
NAMES = [f"node-{i}" for i in range(50)]


def request(draw: Draw, round: int = 1, seed: int | None = None) -> TrainRequest:
    return TrainRequest(round, np.zeros(P, np.float32), "a" * 64, draw, 1.0, K, 0, 0, seed)


def server_draw(
    folder: Path, names: list[str] | None = None, *, separation: int = 1, has_begun: bool = False
) -> ServerDraw:
    made = ServerDraw(folder / POPULATION, separation=separation, has_begun=has_begun)
    made.fix(NAMES if names is None else names)
    return made


@dataclasses.dataclass
class OneUser:
    """A node whose user trains in no time: all of her update is her place in the fleet."""

    place: int
    asked: list[TrainRequest]

    def train(self, request: TrainRequest, *, dropout: float = 0.0) -> TrainReply:
        self.asked.append(request)
        total = UpdateSum.zeros(P)
        total.add(np.full(P, self.place, np.int64))
        return TrainReply(request.round, request.layout_sha256, total)

    def evaluate(self, request: EvaluateRequest) -> Evaluation:
        return Evaluation(0.0, 0, 0)


def test_every_node_is_in_with_the_probability_and_independently_of_every_other(
    tmp_path: Path,
) -> None:
    """Marginal and pairwise over 4,000 rounds, by what nodes were asked.

    Bounds are 4.5 standard deviations over 12 nodes and 66 pairs: a false alarm in 2,000 runs; a
    third more or less probability is 14 of them away.
    """
    q, num_rounds, num_nodes = 0.2, 4000, 12
    nodes = [OneUser(i, []) for i in range(num_nodes)]
    fleet = LocalNodes(nodes, server_draw=server_draw(tmp_path, [str(i) for i in range(num_nodes)]))
    took_part = np.zeros((num_rounds, num_nodes), dtype=bool)
    for round in range(1, num_rounds + 1):
        replies = fleet.train(request(Draw(q), round))
        took_part[round - 1, [int(reply.total.total[0]) for reply in replies]] = True
    single, pairs = took_part.mean(axis=0), took_part.T.astype(float) @ took_part / num_rounds
    assert np.all(np.abs(single - q) < 4.5 * np.sqrt(q * (1 - q) / num_rounds))
    both = pairs[np.triu_indices(num_nodes, 1)]
    assert np.all(np.abs(both - q * q) < 4.5 * np.sqrt(q * q * (1 - q * q) / num_rounds))
    assert {asked.draw for node in nodes for asked in node.asked} == {Draw()}


def test_a_seeded_draw_repeats_and_follows_names_alone(tmp_path: Path) -> None:
    draws = []
    for number, names in enumerate((NAMES, NAMES[::-1], NAMES[:20])):
        (tmp_path / str(number)).mkdir()
        made = server_draw(tmp_path / str(number), names)
        draws.append(set(made.draw(request(Draw(0.5), seed=1))[0]))
    assert 10 < len(draws[0]) < 40
    assert draws[1] == draws[0]
    assert draws[2] == draws[0] & set(NAMES[:20])


def test_the_population_is_fixed_once_also_across_restarts(tmp_path: Path) -> None:
    made = server_draw(tmp_path, ["b", "a"])
    made.fix(["c"])
    assert made.population == ["a", "b"]
    again = server_draw(tmp_path, ["c"], has_begun=True)
    assert again.population == ["a", "b"]
    assert set(again.draw(request(Draw()))[0]) == {"a", "b"}


def test_a_drawn_node_that_is_not_there_answers_nothing_and_nobody_stands_in(
    tmp_path: Path,
) -> None:
    made = server_draw(tmp_path)
    names, _ = made.draw(request(Draw(), seed=1))
    assert names == sorted(NAMES)


@pytest.mark.parametrize("probability", [1.0, 0.6])
def test_the_separation_is_kept_whatever_crashes_and_reconnects(
    tmp_path: Path, probability: float
) -> None:
    separation, last, seen = 4, {}, Counter[str]()
    draw = Draw(probability, separation=separation, salt="7" * 64)
    for round in range(1, 25):
        for _ in range(1 + round % 3):  # asked again after a crash, by a server that starts anew
            made = server_draw(tmp_path, separation=separation, has_begun=round > 1)
            names, _ = made.draw(request(draw, round))
            for name in names:
                assert round - last.get(name, round - separation) in (0, *range(separation, 99))
                last[name] = round
                seen[name] += 1
    assert set(seen) == set(NAMES)


def test_what_was_drawn_is_durable_before_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, draw = server_draw(tmp_path, separation=2), Draw(separation=2, salt="7" * 64)

    def full(self: Disk, path: Path, content: bytes, mode: int) -> None:
        raise OSError(28, "No space left on device")

    names, _ = made.draw(request(draw, 1))
    kept = json.loads(json.loads((tmp_path / POPULATION).read_text())["turns"])
    assert set(kept["last"]) == set(names)
    monkeypatch.setattr(Disk, "write", full)
    with pytest.raises(DiskError):
        made.draw(request(draw, 2))


def test_a_run_that_has_begun_is_not_drawn_without_its_file(tmp_path: Path) -> None:
    with pytest.raises(LedgerDamagedError, match="has begun"):
        server_draw(tmp_path, has_begun=True)


@pytest.mark.parametrize("text", ["", "[]", '{"names": 1, "turns": null}', '{"names": ["a"]}'])
def test_a_damaged_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / POPULATION).write_text(text)
    with pytest.raises(LedgerDamagedError):
        server_draw(tmp_path)


def test_the_file_of_a_run_with_another_separation_is_refused(tmp_path: Path) -> None:
    server_draw(tmp_path, separation=3)
    for separation in (1, 2):
        with pytest.raises(LedgerDamagedError, match="not of this run"):
            server_draw(tmp_path, separation=separation)


def test_nobody_is_drawn_before_the_population_is_fixed(tmp_path: Path) -> None:
    made = ServerDraw(tmp_path / POPULATION, separation=1, has_begun=False)
    with pytest.raises(ValueError, match="not fixed"):
        made.draw(request(Draw()))
