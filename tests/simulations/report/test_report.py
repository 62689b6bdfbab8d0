"""The page of a comparison: complete, safe to open anywhere, and nothing from a network."""

from html.parser import HTMLParser
from pathlib import Path

import pytest

from feddp.common.errors import ConfigError
from feddp.simulations.comparison.table import Difference, Row, write_comparison
from feddp.simulations.leakage.attacks import Interval
from feddp.simulations.report.report import _statement, report


class Finder(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self.ids += [given["id"] or ""] if "id" in given else []
        self.links += [given[key] or "" for key in ("src", "href", "xlink:href") if key in given]


def rows() -> list[Row]:
    def row(method: str, epsilon: float, size: int, loss: float) -> Row:
        promise = {"user_epsilon": epsilon, "example_epsilon": epsilon / 3, "noise_to_signal": loss}
        leakage = {"user_inference": Interval(0.5 + loss / 100, 0.45, 0.6)}
        metrics = {"loss": Interval(loss, loss - 0.1, loss + 0.1)}
        return Row(method, epsilon, size, 3, promise, metrics, leakage, 12.0)

    found = [
        row(method, epsilon, size, 4 - epsilon / 4 + size / 10)
        for method in ("uls", "els")
        for epsilon in (1.0, 8.0)
        for size in (1, 4)
    ]
    none = Row("none", 0.0, 4, 3, None, {"loss": Interval(1.5, 1.4, 1.6)}, {}, 9.0)
    absent = Row("federated", 1.0, 4, 0, None, {}, {}, 0.0, "<not> yet")
    return [*found, none, absent]


def test_a_comparison_becomes_one_page_without_network_or_scripts(tmp_path: Path) -> None:
    difference = Difference("uls", "els", "", 1.0, 4, "loss", Interval(-0.25, -0.5, 0.0))
    write_comparison(tmp_path, rows(), [difference], "feddp compare x.toml")
    (tmp_path / "config.toml").write_text("[run]\nrounds = 3\n")
    path = report(tmp_path)
    assert path == tmp_path / "report.html"
    text = path.read_text()
    finder = Finder()
    finder.feed(text)
    assert finder.tags.count("svg") == 3  # loss, user inference, noise
    assert "script" not in finder.tags
    assert all(link.startswith("#") for link in finder.links)
    assert len(finder.ids) == len(set(finder.ids))
    assert {link[1:] for link in finder.links} <= set(finder.ids)
    assert "-0.250 [-0.500, +0.000]" in text
    assert "&lt;not&gt; yet" in text
    assert "currentColor" in text
    names = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert {"loss.svg", "loss.png", "noise.svg", "user-inference.png"} <= names


def test_the_list_of_what_is_not_covered_stays_a_list() -> None:
    parts = _statement("**Holds.** Always.\n\nNot covered:\n\n- the <base>\n- the rest\n")
    assert parts == [
        "<p>Holds. Always.</p>",
        "<p>Not covered:</p>",
        "<ul><li>the &lt;base&gt;</li><li>the rest</li></ul>",
    ]


def test_a_folder_that_is_neither_run_nor_comparison_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run here"):
        report(tmp_path)
