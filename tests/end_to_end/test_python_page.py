"""docs/python.md: its code runs as a person would run it, and prints what it is asked to print."""

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
# Under another name than __main__: the comparison, which starts processes, stays behind its guard.
# What the page itself prints goes to a file, so that all else would be feddp speaking unasked.
RUN = """
import functools, runpy
say = functools.partial(print, file=open("said.txt", "w", encoding="utf-8"), flush=True)
runpy.run_path("page.py", init_globals={"print": say}, run_name="page")
"""


def test_every_block_of_the_page_runs_and_nothing_speaks_unasked(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "page.py").write_text("\n".join(blocks), encoding="utf-8")
    done = subprocess.run([sys.executable, "-c", RUN], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "True 3" in (tmp_path / "said.txt").read_text(encoding="utf-8")
    assert (tmp_path / "runs" / "support" / "report.html").is_file()
