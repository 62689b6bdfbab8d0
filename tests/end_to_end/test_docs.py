"""The pages: the site builds offline without a warning, and every link and command holds."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import read_words

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_in_the_site(site: Path) -> None:
    pages = {path.with_suffix(".html").name for path in PAGES if path.parent.name == "docs"}
    assert pages <= {path.name for path in site.glob("*.html")}


def test_the_site_loads_nothing_from_anywhere_else(site: Path) -> None:
    loaded = re.compile(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="?(?:https?:)?//[^>]*>')
    found = [found for page in site.rglob("*.html") for found in loaded.findall(page.read_text())]
    assert found == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text())
    missing = [link for link in links if not (page.parent / link).exists()]
    assert missing == []
    # On the site there is nothing above docs/.
    assert page.name == "README.md" or not [link for link in links if link.startswith("..")]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_command_is_one_of_feddp(page: Path) -> None:
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").replace("&&", "\n").splitlines()
    words = [shlex.split(line, comments=True) for line in lines if line.startswith("feddp ")]
    for each in words:
        read_words(each[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_file_of_code_and_tests_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text()
    paths = set(
        re.findall(r"`((?:client|common|deploy|server|simulations|tests)/[\w/*.-]+)`", text)
    )
    missing = [path for path in paths if not list(ROOT.glob(path))]
    tests = set(re.findall(r"\b(test_\w+)(?:\.py|: test_)", text))
    missing += [name for name in tests if not list(ROOT.glob(f"tests/**/{name}.py"))]
    # The places of a deployment: what the runbook makes.
    assert [path for path in missing if path not in ("deploy/secrets/", "deploy/.env")] == []


def test_every_file_that_the_readme_names_is_there() -> None:
    text = PAGES[0].read_text()
    drawing = re.findall(r"^(?:  )?([a-z_]+)/ ", text, re.MULTILINE)
    assert [name for name in drawing if not list(ROOT.glob(f"**/{name}"))] == []
    assert os.access(ROOT / ".ci" / "run", os.R_OK)
