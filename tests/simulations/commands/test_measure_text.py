"""What measuring prints; the measurements have tests of their own."""

from pathlib import Path

import pytest

from feddp.common.errors import ConfigError
from feddp.simulations.commands.measure_text import show_report
from feddp.simulations.comparison.table import write_comparison


def test_a_report_says_where_its_page_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError):
        show_report(tmp_path)
    write_comparison(tmp_path, [], [], "feddp compare x.toml")
    (tmp_path / "config.toml").write_text("[run]\n")
    assert show_report(tmp_path) == 0
    assert capsys.readouterr().out.startswith(str(tmp_path / "report.html"))
