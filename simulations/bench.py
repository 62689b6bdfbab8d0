"""feddp bench: speed and peak memory of the engine beside its peers, interleaved in one run."""

import json
import platform
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from client.passes import padded_length
from common.privacy.mechanism import GaussianMechanism
from common.privacy.noise import BitStream, seeded_key
from common.privacy.sampling import PoissonSampler
from common.privacy.summation import UpdateSum
from simulations import contestants
from simulations.race import Spread, paired, peak_megabytes, race
from simulations.workload import Population, Shape, User, make_base, make_users, num_tokens

PASS_TOKENS = 4096
CLIPPING_NORM = 0.1
SERVER_NUMBERS = 1 << 20
PACKAGES = ("torch", "transformers", "peft", "opacus")


@dataclass(frozen=True)
class Case:
    """Users of the bench, and the vocabulary of their base model."""

    population: Population
    vocabulary: int = 2048


CASES = {
    "256 tokens per client step": Case(Population.equal(16, rows=4, tokens=64)),
    "32 tokens per client step": Case(Population.equal(64, rows=1, tokens=32)),
    "vocabulary 8192": Case(Population.equal(16, rows=4, tokens=64), vocabulary=8192),
    "lognormal users": Case(Population(128, (0.7, 1.0, 1, 12), (3.3, 0.8, 8, 128))),
}
EXAMPLES = Case(Population.equal(32, rows=1, tokens=64))


@dataclass(frozen=True)
class Measure:
    """One line of the table: times of `what` relative to `beside`, and tokens per second."""

    case: str
    what: str
    beside: str
    ratio: Spread
    tokens_per_second: float


def bench(*, repeats: int, folder: Path) -> int:
    """Runs every case, prints the table, and writes bench.json and bench.png into `folder`."""
    torch.set_num_threads(1)
    # Opacus sets its hooks on modules whose inputs need no gradient, and torch says so each time.
    warnings.filterwarnings("ignore", message="Full backward hook", category=UserWarning)
    print("CPU time of one thread; ratio: how many times the speed of the second; median [range]")
    measures: list[Measure] = []
    useful: dict[str, float] = {}
    for name, case in CASES.items():
        users = make_users(case.population, case.vocabulary)
        useful[name] = useful_share(users)
        measures += _show(_race_users(name, case, users, repeats))
    measures += _show(_race_examples(repeats))
    server = server_microseconds(repeats)
    print(f"server: sum, exact noise, division; microseconds per parameter and core: {server}")
    print("useful tokens / computed tokens:", {k: round(v, 3) for k, v in useful.items()})
    peaks = {who: _peak_in_own_process(who) for who in ("central", "loop", "engine")}
    print("peak memory, MB, lognormal users:", {k: round(v) for k, v in peaks.items()})
    for peer, reason in missing_peers().items():
        print(f"not timed: {peer}: {reason}")
    _write(folder, measures, useful, server, peaks)
    return 0


def useful_share(users: Sequence[User]) -> float:
    """Real tokens over tokens that the engine computes."""
    rows = [row for user in users for step in user for row in step]
    return num_tokens(users) / sum(padded_length(row, None) for row in rows)


def user_contestants(case: Case, users: Sequence[User]) -> dict[str, Callable[[], object]]:
    """Central training with and without the chunked loss, the plain loop, and the engine."""
    base, layout = make_base(Shape(vocabulary=case.vocabulary))
    plain = contestants.Plain(base, layout)
    return {
        "central": contestants.central(plain, users, pass_tokens=PASS_TOKENS, is_chunked=True),
        "central, library loss": contestants.central(
            plain, users, pass_tokens=PASS_TOKENS, is_chunked=False
        ),
        "loop": contestants.loop(plain, users, clipping_norm=CLIPPING_NORM),
        "engine": contestants.engine(
            base, layout, users, clipping_norm=CLIPPING_NORM, pass_tokens=PASS_TOKENS
        ),
    }


def _race_users(name: str, case: Case, users: Sequence[User], repeats: int) -> list[Measure]:
    seconds = race(user_contestants(case, users), repeats=repeats)
    tokens = num_tokens(users) / float(np.median(seconds["engine"]))
    return [
        Measure(name, "engine", other, paired(seconds, other, "engine"), tokens)
        for other in ("central", "central, library loss", "loop")
    ]


def example_contestants() -> dict[str, Callable[[], object]]:
    """One step over examples: non-private, the engine with unit example, and Opacus."""
    base, layout = make_base(Shape())
    users = make_users(EXAMPLES.population, EXAMPLES.vocabulary)
    rows = [row for user in users for step in user for row in step]
    plain = contestants.Plain(base, layout)
    norm = CLIPPING_NORM
    return {
        "non-private step": contestants.central(
            plain, users, pass_tokens=PASS_TOKENS, is_chunked=True
        ),
        "engine": contestants.engine(
            base, layout, users, clipping_norm=norm, pass_tokens=PASS_TOKENS
        ),
        "opacus hooks": contestants.opacus(base, layout, rows, clipping_norm=norm, is_ghost=False),
        "opacus ghost": contestants.opacus(base, layout, rows, clipping_norm=norm, is_ghost=True),
    }


def _race_examples(repeats: int) -> list[Measure]:
    seconds = race(example_contestants(), repeats=repeats)
    users = make_users(EXAMPLES.population, EXAMPLES.vocabulary)
    tokens = num_tokens(users) / float(np.median(seconds["engine"]))
    return [
        Measure("example-level DP", "engine", other, paired(seconds, other, "engine"), tokens)
        for other in ("non-private step", "opacus hooks", "opacus ghost")
    ]


def server_microseconds(repeats: int, numbers: int = SERVER_NUMBERS) -> Spread:
    """Sum, exact noise and division of one release: microseconds per parameter on one core."""
    mechanism = GaussianMechanism(
        sampler=PoissonSampler(0.01),
        num_units=10_000,
        expected_cohort_size=100.0,
        clipping_norm=CLIPPING_NORM,
        noise_multiplier=1.0,
        grid_steps=contestants.GRID_STEPS,
        dimension=numbers,
    )
    reply = UpdateSum.zeros(numbers)

    def release() -> None:
        total = UpdateSum.zeros(numbers)
        total.merge(reply)
        mechanism.release(total, bits=BitStream(seeded_key(0, 1)))

    seconds = race({"server": release}, repeats=repeats)["server"]
    return Spread.of([1e6 * s / numbers for s in seconds])


def missing_peers() -> dict[str, str]:
    """Peers that this run does not time, with the reason."""
    reason = "this bench has no contestant for it yet"
    return {"pfl": reason, "Flower's Ray engine": reason}


def print_peak(who: str) -> None:
    """Runs one contestant over the lognormal users and prints this process's peak in MB."""
    torch.set_num_threads(1)
    case = CASES["lognormal users"]
    user_contestants(case, make_users(case.population, case.vocabulary))[who]()
    print(peak_megabytes())


def _peak_in_own_process(who: str) -> float:
    code = f"from simulations.bench import print_peak; print_peak({who!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def _show(measures: list[Measure]) -> list[Measure]:
    for m in measures:
        print(
            f"{m.case:28} {m.what} / {m.beside:22} {m.ratio}  {m.tokens_per_second:.0f} tokens/s",
            flush=True,
        )
    return measures


def _write(
    folder: Path,
    measures: Sequence[Measure],
    useful: Mapping[str, float],
    server: Spread,
    peaks: Mapping[str, float],
) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "versions": {name: version(name) for name in PACKAGES}
        | {"python": platform.python_version()},
        "measures": [
            {
                "case": m.case,
                "what": m.what,
                "beside": m.beside,
                "ratio": [m.ratio.least, m.ratio.median, m.ratio.most],
                "tokens_per_second": m.tokens_per_second,
            }
            for m in measures
        ],
        "useful_share": dict(useful),
        "server_microseconds_per_parameter": [server.least, server.median, server.most],
        "peak_megabytes": dict(peaks),
    }
    (folder / "bench.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    figure, axes = plt.subplots(figsize=(8, 0.4 * len(measures) + 1.2), layout="constrained")
    names = [f"{m.case}: {m.what} / {m.beside}" for m in measures]
    medians = [m.ratio.median for m in measures]
    spans = [
        [m.ratio.median - m.ratio.least for m in measures],
        [m.ratio.most - m.ratio.median for m in measures],
    ]
    axes.barh(names, medians, xerr=spans, color="tab:blue", alpha=0.7)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xlabel("times as fast, CPU time of one thread (median and range)")
    figure.savefig(folder / "bench.png", dpi=150)
    plt.close(figure)
