"""Results of a bench: printed as they arrive, and kept as bench.json and bench.png."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from feddp.simulations.bench.race import Spread

PACKAGES = ("torch", "transformers", "peft", "opacus", "pfl", "flwr", "ray")


@dataclass(frozen=True)
class Measure:
    """One line of the table: times of `what` relative to `beside`, and tokens per second."""

    case: str
    what: str
    beside: str
    ratio: Spread
    tokens_per_second: float


@dataclass
class Scoreboard:
    """Filled by the stages of a bench.

    Attributes:
      measures: paired ratios.
      figures: other numbers by name, as JSON values.
      skipped: stage to reason.
    """

    measures: list[Measure] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def measure(self, measures: Sequence[Measure]) -> None:
        """Adds and prints ratios."""
        for m in measures:
            rate = f"{m.tokens_per_second:.0f} tokens/s"
            print(f"{m.case:28} {m.what} / {m.beside:22} {m.ratio}  {rate}", flush=True)
        self.measures += measures

    def figure(self, name: str, value: Any) -> None:
        """Adds and prints another number, or several in a mapping."""
        print(f"{name}: {_rounded(value)}", flush=True)
        self.figures[name] = value

    def skip(self, stage: str, reason: str) -> None:
        """Adds and prints a stage that is not measured."""
        print(f"{stage}: skipped: {reason}", flush=True)
        self.skipped[stage] = reason

    def write(self, folder: Path) -> None:
        """Writes bench.json, and bench.png where there are ratios."""
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "versions": _versions(),
            "load_average": os.getloadavg(),
            "measures": [
                asdict(m) | {"ratio": [m.ratio.least, m.ratio.median, m.ratio.most]}
                for m in self.measures
            ],
            "figures": self.figures,
            "skipped": self.skipped,
        }
        (folder / "bench.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        if self.measures:
            _draw(self.measures, folder / "bench.png")
        print(f"written: {folder}/bench.json" + (", bench.png" if self.measures else ""))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return float(f"{value:.3g}") if isinstance(value, float) else value


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _draw(measures: Sequence[Measure], path: Path) -> None:
    # Not above: matplotlib would count in the peak memory that other processes measure.
    from feddp.simulations.run.pictures import BLUE, INK, panel, write_png

    names = [f"{m.case}: {m.what} / {m.beside}" for m in measures]
    ratios = [m.ratio for m in measures]
    ends = [[r.median - r.least for r in ratios], [r.most - r.median for r in ratios]]
    with panel(0.4 * len(measures) + 1.4, width=9) as (figure, axis):
        axis.errorbar([r.median for r in ratios], names, xerr=ends, fmt="o", color=BLUE, capsize=3)
        for name, ratio in zip(names, ratios, strict=True):
            place = (ratio.median, name)
            axis.annotate(f"{ratio.median:.2f}", place, (0, 5), textcoords="offset points")
        axis.axvline(1.0, color=INK, linewidth=0.8)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:g}x")
        axis.invert_yaxis()
        axis.set_xlabel("times as fast, CPU time unless said otherwise; median and range")
    write_png(figure, path)
