"""Where the time and the memory of a run on a fleet go, watched from outside its processes.

    PYTHONPATH=. python tests/load/measure.py --nodes 4 --set run.rounds=5 --output-dir runs/load

Prints two tables in Markdown: the steps of a round, each the median over the rounds for the node
that answers last; and the largest resident set of each kind of process.
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from feddp.common.config.run_config import RunConfig, load_config, parse_override
from feddp.deploy.fleet.fleet import Fleet
from feddp.deploy.fleet.run import fleet_of, follow, located
from feddp.deploy.fleet.shares import shares_of
from feddp.server.publisher import METRICS_NAME
from feddp.server.run_ledger import LEDGER_NAME

FILES_SECONDS, PROCESSES_SECONDS, TOTAL_SECONDS = 0.02, 0.2, 3.0
SERVE = (sys.executable, str(Path(__file__).with_name("timed_node.py")))
PROGRAMS = {"flwr-clientapp": "client app", "flwr-serverapp": "server app"}
STEPS = (
    "request: to the node's first poll and its executor's (Flower: 3 s, 0.5 s)",
    "client app: a process of Python and Flower starts",
    "training",
    "sealing",
    "reply: client app, SuperNode, relay, server app (Flower: 0.5 s polls)",
    "charge, noise, step, checkpoint, release",
    "evaluation, the same way",
)


@dataclass
class Watch:
    """What is seen of a fleet and its run folder, until it is closed.

    Attributes:
      fleet: whose processes are looked at.
      path: of the run folder.
      lines: when metrics.jsonl got its 1st, 2nd, ... line.
      commits: when the ledger changed.
      client_apps: when each client app of a node's was first seen.
      peaks: largest resident set of a process of each kind, bytes.
      total: largest memory of all processes at one moment, bytes; pages that several processes
        share count once.
    """

    fleet: Fleet
    path: Path
    lines: list[float] = field(default_factory=list)
    commits: list[float] = field(default_factory=list)
    client_apps: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    peaks: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    total: int = 0
    _seen: set[int] = field(default_factory=set)
    _closed: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Looks until `close`."""
        next_look, next_sum, modified = 0.0, 0.0, 0
        while not self._closed.wait(FILES_SECONDS):
            now = time.monotonic()
            modified = self._look_at_files(now, modified)
            if now >= next_look:
                pids = self._look_at_processes(now)
                next_look = time.monotonic() + PROCESSES_SECONDS
                if now >= next_sum:
                    self.total = max(self.total, sum(map(_own_bytes, pids)))
                    next_sum = time.monotonic() + TOTAL_SECONDS

    def close(self) -> None:
        """Ends `run`."""
        self._closed.set()

    def _look_at_files(self, now: float, modified: int) -> int:
        metrics, ledger = self.path / METRICS_NAME, self.path / LEDGER_NAME
        if metrics.exists():
            self.lines += [now] * (metrics.read_bytes().count(b"\n") - len(self.lines))
        latest = ledger.stat().st_mtime_ns if ledger.exists() else 0
        if latest != modified:
            self.commits.append(now)
        return latest

    def _look_at_processes(self, now: float) -> list[int]:
        """Process ids of the fleet."""
        children = self.fleet.supervisor.children.items()
        roles = {child.process.pid: name for name, child in children if child.process}
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                pid = int(path.name)
                role = roles.get(os.getpgid(pid))
                if role is None:
                    continue
                command = (path / "cmdline").read_bytes().decode(errors="replace")
                status = (path / "status").read_text()
            except OSError:  # it has ended
                continue
            kind, _, number = role.rpartition("-")
            program = next((PROGRAMS[name] for name in PROGRAMS if name in command), None)
            if program == "client app" and pid not in self._seen:
                self.client_apps[int(number)].append(now)
            self._seen.add(pid)
            name = program or (kind if number.isdecimal() else role)
            self.peaks[name] = max(self.peaks[name], _bytes_of(status, "VmHWM"))
            found.append(pid)
        return found


def _bytes_of(status: str, key: str) -> int:
    """A field of /proc/PID/status in bytes; 0 for a process that is ending."""
    found = [line.split()[1] for line in status.splitlines() if line.startswith(key + ":")]
    return 1024 * int(found[0]) if found else 0


def _own_bytes(pid: int) -> int:
    """Memory of a process, with its share of what it shares; 0 for one that has ended."""
    try:
        return _bytes_of(Path(f"/proc/{pid}/smaps_rollup").read_text(), "Pss")
    except OSError:
        return 0


def steps_of(watch: Watch, number: int) -> list[float]:
    """Seconds of each of STEPS in one round."""
    started, ended = watch.lines[number - 1], watch.lines[number]
    commits = [moment for moment in watch.commits if started < moment <= ended]
    charged, released = commits[0], commits[min(1, len(commits) - 1)]
    last_node, last = max(
        enumerate(questions(watch.fleet, number)), key=lambda pair: pair[1]["sealed"]
    )
    launched = max(t for t in watch.client_apps[last_node] if t <= last["asked"])
    moments = [
        *(started, launched, last["asked"], last["computed"], last["sealed"]),
        *(charged, released, ended),
    ]
    return [after - before for before, after in itertools.pairwise(moments)]


def questions(fleet: Fleet, number: int) -> list[dict[str, float]]:
    """What each node noted when it was asked to train a round."""
    found = []
    for i in range(fleet.num_nodes):
        lines = (fleet.folder / f"times-{i}.jsonl").read_text().splitlines()
        asked = [each for each in map(json.loads, lines) if each["kind"] == "train"]
        found.append(asked[number - 1])
    return found


def measure(config: RunConfig, num_nodes: int) -> Watch:
    """One run, watched; it has ended well."""
    with fleet_of(config, shares=shares_of(config, num_nodes), serve=SERVE) as fleet:
        own = located(config, fleet)
        watch = Watch(fleet, Path(own.run.output_dir) / str(own.run.name))
        thread = threading.Thread(target=watch.run)
        thread.start()
        try:
            follow(fleet, own)
        finally:
            watch.close()
            thread.join()
        show(watch)
        return watch


def show(watch: Watch) -> None:
    """Both tables."""
    rounds = [steps_of(watch, number) for number in range(1, len(watch.lines))]
    print("\n| step of a round | seconds |\n|---|---:|")
    for name, seconds in zip(STEPS, zip(*rounds, strict=True), strict=True):
        print(f"| {name} | {statistics.median(seconds):.3f} |")
    whole = [sum(steps) for steps in rounds]
    print(f"| the round | {statistics.median(whole):.1f} ({min(whole):.1f} to {max(whole):.1f}) |")
    print("\n| process | largest resident set, MiB |\n|---|---:|")
    for name, peak in sorted(watch.peaks.items()):
        print(f"| {name} | {peak / 2**20:.0f} |")
    print(f"| all of them at one moment | {watch.total / 2**20:.0f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", nargs="?", type=Path)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--output-dir", type=Path, required=True)
    options = parser.parse_args()
    overrides = dict(parse_override(text) for text in options.set)
    overrides["run.output-dir"] = str(options.output_dir)
    measure(load_config(options.config, overrides), options.nodes)
