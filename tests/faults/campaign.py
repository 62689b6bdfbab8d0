"""Real faults against a real fleet on loopback: `make faults`, or with a number of faults.

Processes are killed, stopped and replaced by hostile ones while runs go on; a lost server app is
followed by a new Flower run that continues the run folder. Every run has to end with all rounds
released, a ledger that verifies, charges >= releases, and no un-noised byte in the relay's database
or in any log.
"""

import argparse
import dataclasses
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hostile_node import BEHAVIOURS, CANARY

from common.config import RunConfig, from_flat
from common.privacy.ledger import Ledger
from server.opening import LEDGER_NAME
from server.publisher import METRICS_NAME
from simulations.deploy import fleet_of, located, resuming
from simulations.fleet import Fleet

DEADLINE_SECONDS = 40.0
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
    "privacy.spare-attempts": 60,
}
SERVE = (sys.executable, str(Path(__file__).with_name("hostile_node.py")))


class BrokenPromiseError(Exception):
    """What the campaign looks for."""


@dataclass
class Campaign:
    """One fleet and what has been done to it."""

    fleet: Fleet
    rng: random.Random
    num_faults: int
    is_slow_allowed: Callable[[], bool]
    done: Counter[str] = field(default_factory=Counter)
    resumptions: int = 0

    def inject(self) -> None:
        """One fault, drawn; those that take a minute to be noticed are rationed."""
        name = f"node-{self.rng.randrange(self.fleet.num_nodes)}"
        number = name.removeprefix("node-")
        faults: list[tuple[str, Callable[[], bool]]] = [
            ("kill node", lambda: self._signal(name, signal.SIGKILL)),
            ("kill node executor", lambda: self._signal(f"node-executor-{number}", signal.SIGKILL)),
            ("stop node", lambda: self._stop(name)),
            ("stop supernode", lambda: self._stop(f"supernode-{number}")),
            ("stop superlink", lambda: self._stop("superlink")),
            *[(f"hostile: {b}", lambda b=b: self._behave(name, b)) for b in BEHAVIOURS],
        ]
        if self.is_slow_allowed():
            faults += [
                ("kill supernode", lambda: self._signal(f"supernode-{number}", signal.SIGKILL)),
                ("kill client app", lambda: self._kill_child(f"node-executor-{number}", "client")),
                ("kill superlink", lambda: self._signal("superlink", signal.SIGKILL)),
                ("kill server app", lambda: self._kill_child("server-executor", "server")),
                ("kill server executor", lambda: self._signal("server-executor", signal.SIGKILL)),
            ]
        fault, act = self.rng.choice(faults)
        if act():
            self.done[fault] += 1
            print(f"    {sum(self.done.values()):>3}  {fault} ({name})", flush=True)

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

    def _behave(self, name: str, behaviour: str) -> bool:
        for path in self.fleet.folder.glob("behaviour-*"):
            path.unlink()
        (self.fleet.folder / f"behaviour-{name}").write_text(behaviour)
        return True

    def _kill_child(self, role: str, kind: str) -> bool:
        group = self.fleet.supervisor.children[role].process
        pids = processes(group.pid if group else 0, f"flwr-{kind}app")
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return bool(pids)


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
        executor = fleet.supervisor.children["server-executor"].process
        is_lost = process.poll() is not None
        if (path / LEDGER_NAME).exists() and executor:  # it has started: is it still there?
            is_lost = is_lost or not processes(executor.pid, "flwr-serverapp")
        if is_lost and not (path / "adapter").exists():
            process.terminate()
            process.wait()
            campaign.resumptions += 1
            is_begun = (path / LEDGER_NAME).exists()
            process = fleet.submit(resuming(config, path, fleet) if is_begun else config)
            next_fault = time.monotonic() + 10.0
            wait_for_server_app(fleet, process.poll)
        is_wanted = sum(campaign.done.values()) < campaign.num_faults
        is_under_way = (path / METRICS_NAME).exists()  # waiting for nodes is not what is tested
        if is_wanted and is_under_way and time.monotonic() > next_fault:
            campaign.inject()
            next_fault = time.monotonic() + campaign.rng.uniform(1.0, 6.0)
        time.sleep(TICK_SECONDS)
    process.wait()


def wait_for_server_app(fleet: Fleet, ended: Callable[[], int | None]) -> None:
    """Until a submitted run has its process, or has ended."""
    end = time.monotonic() + 60.0
    while time.monotonic() < end and ended() is None:
        fleet.supervisor.tend()
        executor = fleet.supervisor.children["server-executor"].process
        if executor and processes(executor.pid, "flwr-serverapp"):
            return
        time.sleep(TICK_SECONDS)


def check_run(config: RunConfig) -> str:
    """What must hold of a run that has ended."""
    history = Ledger.read(Path(config.run.output_dir) / (config.run.name or "") / LEDGER_NAME)
    num_charges, num_releases = len(history.charges), len(history.releases)
    if not num_charges >= num_releases == config.run.rounds:
        raise BrokenPromiseError(f"{num_charges} charges, {num_releases} releases")
    return f"{num_releases} releases, {num_charges} charges, {history.num_opened} starts"


def num_canaries(fleet: Fleet) -> int:
    """How often un-noised numbers stand in the relay's database or in a log."""
    paths = [*fleet.folder.glob("link.db*"), *fleet.logs_path.iterdir()]
    home = [p for p in (fleet.folder / "home").rglob("*") if p.is_file()]
    return sum(path.read_bytes().count(CANARY.tobytes()) for path in [*paths, *home])


def scan(config: RunConfig, *, is_sealed: bool) -> int:
    """Canaries that one undisturbed run leaves behind; unsealed, it is the positive control."""
    with fleet_of(config, num_nodes=2, is_sealed=is_sealed, serve=SERVE) as fleet:
        own = located(config, fleet)
        fleet.submit(own).wait()
        check_run(own)
        return num_canaries(fleet)


def main(num_faults: int, num_nodes: int, seed: int, output: Path) -> int:
    """Runs until so many faults were injected; returns 0 when every promise held."""
    config = from_flat({**SMALL, "run.output-dir": str(output)})

    def name(text: str) -> RunConfig:
        return dataclasses.replace(config, run=dataclasses.replace(config.run, name=text))

    control = scan(name("control"), is_sealed=False)
    print(f"positive control, unsealed: {control} canaries", flush=True)
    if control == 0:
        raise BrokenPromiseError("the scan finds nothing even where it must")
    rng, started = random.Random(seed), time.monotonic()
    with fleet_of(config, num_nodes=num_nodes, serve=SERVE) as fleet:
        campaign = Campaign(fleet, rng, num_faults, lambda: rng.random() < 0.3)
        num_runs = 0
        while sum(campaign.done.values()) < num_faults:
            num_runs += 1
            own = located(name(f"run-{num_runs}"), fleet)
            run_once(campaign, own)
            print(f"  run {num_runs}: {check_run(own)}", flush=True)
        found = num_canaries(fleet)
    for fault, count in sorted(campaign.done.items()):
        print(f"  {count:>4}  {fault}")
    print(
        f"{sum(campaign.done.values())} faults, {num_runs} runs, "
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
