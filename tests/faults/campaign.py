"""Real faults against a real fleet on loopback: `make faults`, or with a number of faults.

Processes are killed, stopped and replaced by hostile ones while runs go on; a lost server app is
followed by a new Flower run that continues the run folder. Every run has to end with all rounds
released, a ledger that verifies, charges >= releases, and no un-noised byte in the relay's database
or in any log.
"""

import argparse
import contextlib
import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hostile_node import BEHAVIOURS, CANARY

from feddp.common.config.run_config import RunConfig, from_flat
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.deploy.fleet.fleet import Fleet
from feddp.deploy.fleet.run import fleet_of, located, resuming
from feddp.deploy.fleet.shares import shares_of
from feddp.server.publisher import METRICS_NAME
from feddp.server.run_ledger import LEDGER_NAME

DEADLINE_SECONDS = 40.0
CONTROL_SECONDS = 300.0  # the positive control needs an answer, however slow the machine is
RUN_SECONDS = 1500.0  # longest run, however many faults hit it
TICK_SECONDS = 0.25
SMALL = {
    "run.rounds": 4,
    "sampling.expected-cohort-size": 20.0,
    "model.max-tokens": 32,
    "data.max-examples-per-user": 1,
    "evaluation.every": 100,
    "evaluation.max-users": 10,
    "nodes.deadline-seconds": DEADLINE_SECONDS,
}
# What is noticed at once, and what takes Flower, or the deadline, up to a minute.
FAST = (
    *("kill node", "stop node", "stop supernode", "stop superlink"),
    *(f"answer {behaviour}" for behaviour in BEHAVIOURS if behaviour != "slow"),
)
SLOW = (
    *("kill client app", "kill node executor", "kill supernode", "answer slow"),
    *("kill superlink", "kill server app", "kill server executor"),
)
SLOW_SHARE = 0.2
ROLES = {
    "node": "node-{}",
    "node executor": "node-executor-{}",
    "supernode": "supernode-{}",
    "superlink": "superlink",
    "server executor": "server-executor",
}
CHILDREN = {
    "kill client app": ("node-executor-{}", "flwr-clientapp"),
    "kill server app": ("server-executor", "flwr-serverapp"),
}
SERVE = (sys.executable, str(Path(__file__).with_name("hostile_node.py")))


class BrokenPromiseError(Exception):
    """What the campaign looks for."""


@dataclass
class Campaign:
    """One fleet, what is to be done to it, and what has been done.

    Attributes:
      fleet: under fire.
      rng: chooses nodes and moments.
      planned: kinds of faults to come, in order.
      done: faults injected so far, by kind.
      resumptions: server apps that were lost and followed by another.
    """

    fleet: Fleet
    rng: random.Random
    planned: deque[str]
    done: Counter[str] = field(default_factory=Counter)
    resumptions: int = 0

    def inject(self) -> None:
        """The next fault; one whose target is not there just now waits for its turn again."""
        fault = self.planned.popleft()
        number = self.rng.randrange(self.fleet.num_nodes)
        if not self._act(fault, number):
            self.planned.insert(1, fault)
            return
        self.done[fault] += 1
        print(f"    {self.done.total():>3}  {fault} (node-{number})", flush=True)

    def _act(self, fault: str, number: int) -> bool:
        """Whether the fault could be injected; `number` says at which node, if at one."""
        verb, _, what = fault.partition(" ")
        if verb == "answer":
            return self._behave(f"node-{number}", what)
        if fault in CHILDREN:
            role, program = CHILDREN[fault]
            return self._kill_child(role.format(number), program)
        role = ROLES[what].format(number)
        return self._stop(role) if verb == "stop" else self._signal(role, signal.SIGKILL)

    def _signal(self, role: str, number: int) -> bool:
        child = self.fleet.supervisor.children[role]
        if not child.is_alive:
            return False
        child.send(number)
        return True

    def _stop(self, role: str) -> bool:
        if not self._signal(role, signal.SIGSTOP):
            return False
        time.sleep(self.rng.uniform(0.5, 4.0))
        self._signal(role, signal.SIGCONT)
        return True

    @property
    def has_pending(self) -> bool:
        """Whether a hostile answer has not been given yet."""
        return any(self.fleet.folder.glob("behaviour-*"))

    def _behave(self, name: str, behaviour: str) -> bool:
        """One hostile answer, to the node's next question; one at a time."""
        path = self.fleet.folder / f"behaviour-{name}"
        if path.exists():
            return False
        path.write_text(behaviour)
        return True

    def _kill_child(self, role: str, program: str) -> bool:
        group = self.fleet.supervisor.children[role].process
        pids = processes(group.pid if group else 0, program)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return bool(pids)


def plan_faults(num_faults: int, rng: random.Random) -> deque[str]:
    """Kinds of faults in a random order: every kind is there, and the slow ones are spread evenly.

    Fewer faults than kinds are a handful of the fast ones, each another.
    """
    if num_faults < len(FAST) + len(SLOW):
        return deque(rng.sample(FAST, min(num_faults, len(FAST))))
    num_slow = max(1, round(SLOW_SHARE * num_faults / len(SLOW))) * len(SLOW)
    fast = [FAST[i % len(FAST)] for i in range(num_faults - num_slow)]
    slow = list(SLOW) * (num_slow // len(SLOW))
    rng.shuffle(fast)
    rng.shuffle(slow)
    for i, kind in enumerate(slow):
        fast.insert((2 * i + 1) * num_faults // (2 * num_slow), kind)
    return deque(fast)


def processes(group: int, program: str) -> list[int]:
    """Processes of a group, which this campaign started, that run a program."""
    found = []
    for path in Path("/proc").iterdir():
        try:
            pid = int(path.name)
            if os.getpgid(pid) == group and program.encode() in (path / "cmdline").read_bytes():
                found.append(pid)
        except (ValueError, OSError):
            continue
    return found


def run_once(campaign: Campaign, config: RunConfig) -> None:
    """One run under fire: faults while it goes on, a new Flower run whenever it was lost."""
    fleet, path = campaign.fleet, Path(config.run.output_dir) / (config.run.name or "")
    process, end = fleet.submit(config), time.monotonic() + RUN_SECONDS
    next_fault = 0.0
    while not (path / "adapter").exists():
        if time.monotonic() > end:
            raise BrokenPromiseError(f"{path}: the run does not end; see {fleet.logs_path}")
        fleet.supervisor.tend()
        is_begun = (path / LEDGER_NAME).exists()
        is_lost = not has_server_app(fleet) if is_begun else process.poll() is not None
        if is_lost and not (path / "adapter").exists():
            end_process(process)
            campaign.resumptions += is_begun
            process = fleet.submit(resuming(config, path, fleet) if is_begun else config)
            wait_for_server_app(fleet, process.poll)
            next_fault = time.monotonic() + 10.0
        is_under_way = (path / METRICS_NAME).exists()  # waiting for nodes is not what is tested
        if campaign.planned and is_under_way and time.monotonic() > next_fault:
            campaign.inject()
            next_fault = time.monotonic() + campaign.rng.uniform(0.5, 3.0)
        time.sleep(TICK_SECONDS)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(60.0)
    end_process(process)


def end_process(process: subprocess.Popen[bytes]) -> None:
    """Ends the command that follows a run's log, if it has not ended by itself."""
    process.terminate()
    process.wait()


def has_server_app(fleet: Fleet) -> bool:
    """Whether a server app runs, which outlives the SuperLink and its log stream."""
    executor = fleet.supervisor.children["server-executor"].process
    return executor is not None and bool(processes(executor.pid, "flwr-serverapp"))


def wait_for_server_app(fleet: Fleet, ended: Callable[[], int | None]) -> None:
    """Until a submitted run has its process, or has ended."""
    end = time.monotonic() + 60.0
    while time.monotonic() < end and ended() is None:
        fleet.supervisor.tend()
        if has_server_app(fleet):
            return
        time.sleep(TICK_SECONDS)


def check_run(config: RunConfig) -> str:
    """What must hold of a run that has ended."""
    history = Ledger.read(Path(config.run.output_dir) / (config.run.name or "") / LEDGER_NAME)
    num_charges, num_releases = len(history.charges), len(history.releases)
    if not config.run.rounds == num_charges >= num_releases > 0:
        raise BrokenPromiseError(f"{num_charges} charges, {num_releases} releases")
    return f"{num_releases} releases, {num_charges} charges, {history.num_opened} starts"


def num_canaries(fleet: Fleet) -> int:
    """How often un-noised numbers stand in the relay's database or in a log."""
    paths = [*fleet.folder.glob("link.db*"), *fleet.logs_path.iterdir()]
    home = [p for p in (fleet.folder / "home").rglob("*") if p.is_file()]
    return sum(path.read_bytes().count(CANARY.tobytes()) for path in [*paths, *home])


def positive_control(config: RunConfig) -> int:
    """Canaries that one undisturbed round leaves behind where replies travel open."""
    nodes = dataclasses.replace(config.nodes, deadline_seconds=CONTROL_SECONDS)
    config = dataclasses.replace(config, nodes=nodes)
    with fleet_of(config, shares=shares_of(config, 2), is_sealed=False, serve=SERVE) as fleet:
        own = located(config, fleet)
        fleet.submit(own).wait()
        check_run(own)
        return num_canaries(fleet)


def main(num_faults: int, num_nodes: int, seed: int, output: Path) -> int:
    """Runs until so many faults were injected; returns 0 when every promise held."""
    config = from_flat({**SMALL, "run.output-dir": str(output)})

    def named(name: str, **changes: int) -> RunConfig:
        run = dataclasses.replace(config.run, name=name, **changes)  # type: ignore[arg-type]
        return dataclasses.replace(config, run=run)

    control = positive_control(named("control", rounds=1))
    print(f"positive control, unsealed: {control} canaries", flush=True)
    if control == 0:
        raise BrokenPromiseError("the scan finds nothing even where it must")
    rng, started = random.Random(seed), time.monotonic()
    with fleet_of(config, shares=shares_of(config, num_nodes), serve=SERVE) as fleet:
        campaign, num_runs = Campaign(fleet, rng, plan_faults(num_faults, rng)), 0
        while campaign.planned or campaign.has_pending:
            num_runs += 1
            own = located(named(f"run-{num_runs}"), fleet)
            run_once(campaign, own)
            print(f"  run {num_runs}: {check_run(own)}", flush=True)
        found = num_canaries(fleet)
    print("\n| fault | injected |\n|---|---:|")
    for fault, count in sorted(campaign.done.items()):
        print(f"| {fault} | {count} |")
    print(
        f"{campaign.done.total()} faults, {num_runs} runs, "
        f"{campaign.resumptions} resumptions, {time.monotonic() - started:.0f} s, "
        f"{found} canaries in database and logs"
    )
    if found:
        raise BrokenPromiseError("un-noised numbers reached the relay")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output-dir", type=Path, required=True)
    options = parser.parse_args()
    sys.exit(main(options.faults, options.nodes, options.seed, options.output_dir))
