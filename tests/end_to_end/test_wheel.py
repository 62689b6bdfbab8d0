"""What is published: built from the images' context, installed beside other people's packages."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FOLDERS = ("client", "common", "deploy", "server", "simulations")
OTHER = 'NAME = "other"\n'
# Little to tokenize, and given noise instead of a search for it.
SMALL_RUN = {
    "data.path": "users.jsonl",
    "data.evaluation-users": 5,
    "evaluation.consent": "declared",
    "nodes.workers": 2,
    "privacy.noise-multiplier": 4.0,
    "privacy.num-users": 1000,
    "run.name": "beside",
    "run.output-dir": ".",
    "run.rounds": 1,
    "run.seed": 7,
}
# Packages whose name differs from what is imported, and those that others always bring.
DISTRIBUTIONS = {
    "dp_accounting": "dp-accounting",
    "grpc": "grpcio",
    "grpc_health": "grpcio-health-checking",
    "prometheus_client": "prometheus-client",
    "jinja2": "torch",
    "ray": "flwr",
    "tokenizers": "transformers",
}


def copy_context(target: Path) -> None:
    """Copies what an image is built from: the files that Dockerfile.dockerignore lets in."""
    first, *lines = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().split()
    assert first == "*"
    for line in (line for line in lines if line.startswith("!")):
        found = list(ROOT.glob(line[1:]))
        assert found, line
        for path in found:
            place = target / path.relative_to(ROOT)
            place.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(path, place, symlinks=True, ignore=ignored)
            else:
                shutil.copy(path, place)


def python(*words: str, cwd: Path) -> str:
    """Runs the test's own interpreter, without this repository on its path."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def make_wheel(folder: Path, name: str) -> Path:
    """Makes a small wheel by hand: a distribution that brings `common` and `server` of its own."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    files = {f"{package}/__init__.py": OTHER for package in ("common", "server")}
    files |= {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as wheel:
        for file, content in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(file, content)
    return path


class Environment:
    """A virtual environment of its own; what feddp depends on is read from the test's."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        python("-m", "venv", "--without-pip", str(folder), cwd=folder.parent)
        (self.site,) = folder.glob("lib/python*/site-packages")

    def pip(self, *words: str) -> None:
        """Runs pip on this environment alone."""
        python("-m", "pip", "--python", str(self.bin / "python"), *words, cwd=self.site)

    def install(self, wheel: Path) -> None:
        """Installs a wheel from its file, and nothing else."""
        self.pip("install", "--quiet", "--no-deps", "--no-index", str(wheel))

    def run(self, program: str, *words: str, cwd: Path) -> str:
        """Output of a program of this environment, run in a folder."""
        # No .pth file of that folder is read, so that an editable feddp there is not found.
        environment = {**os.environ, "PYTHONPATH": sysconfig.get_path("purelib")}
        done = subprocess.run(
            [str(self.bin / program), *words],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source distribution, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("distributions")
    copy_context(folder / "source")
    python("-m", "build", "--no-isolation", "--outdir", str(folder), "source", cwd=folder)
    (source,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return source, wheel


@pytest.fixture(scope="module")
def environment(
    distributions: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Environment:
    """feddp's wheel, installed beside a distribution with a `common` and a `server`."""
    folder = tmp_path_factory.mktemp("environment")
    made = Environment(folder / "venv")
    made.install(distributions[1])
    made.install(make_wheel(folder, "other"))
    return made


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a `common` and a `server` that nothing of feddp may ever import."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for name in FOLDERS:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text('raise RuntimeError("the wrong package")\n')
    rows = [{"user_id": f"u{i}", "text": "where is my order?"} for i in range(40)]
    (folder / "users.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def settings() -> list[str]:
    """`SMALL_RUN` as words of a command."""
    return [word for key, value in SMALL_RUN.items() for word in ("--set", f"{key}={value}")]


def source_files() -> set[str]:
    """Every file of the import package, by its name in the wheel."""
    files = {"feddp/__init__.py", "feddp/py.typed"}
    for folder in FOLDERS:
        files |= {f"feddp/{path.relative_to(ROOT)}" for path in (ROOT / folder).rglob("*.py")}
    simulations = ROOT / "simulations"
    kept = [*simulations.glob("demo/model/*"), *simulations.glob("presets/*.toml")]
    return files | {f"feddp/{path.relative_to(ROOT)}" for path in kept}


def test_the_wheel_is_one_package_with_its_model_presets_and_types(
    distributions: tuple[Path, Path],
) -> None:
    files = {n for n in zipfile.ZipFile(distributions[1]).namelist() if ".dist-info/" not in n}
    assert files == source_files()
    assert "feddp/simulations/demo/model/model.safetensors" in files


def test_the_source_distribution_has_what_the_wheel_has(
    distributions: tuple[Path, Path],
) -> None:
    with tarfile.open(distributions[0]) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    assert source_files() | {"pyproject.toml", "README.md", "LICENSE"} <= files


def test_twine_accepts_both_distributions(distributions: tuple[Path, Path]) -> None:
    source, wheel = distributions
    words = ("twine", "check", "--strict", source.name, wheel.name)
    assert python("-m", *words, cwd=source.parent).count("PASSED") == 2


def test_the_classifiers_name_the_versions_of_python_that_are_accepted() -> None:
    low, high = (int(n) for n in re.findall(r"3\.(\d+)", PROJECT["requires-python"]))
    named = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if ":: Python :: 3." in c]
    assert named == [f"3.{minor}" for minor in range(low, high)]


def test_what_feddp_imports_is_what_it_depends_on() -> None:
    required = {re.split(r"[\[<>=]", each)[0] for each in PROJECT["dependencies"]}
    bench = PROJECT["optional-dependencies"]["bench"]
    optional = {"pfl", *(re.split(r"[<>=]", each)[0] for each in bench)}
    imported: set[str] = set()
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    imported.add((node.module or "").partition(".")[0])
    outside = {name for name in imported if name not in {*sys.stdlib_module_names, "feddp"}}
    assert {DISTRIBUTIONS.get(name, name) for name in outside} <= required | optional


def test_a_run_of_two_workers_is_not_moved_by_folders_and_packages_of_the_same_names(
    environment: Environment, elsewhere: Path
) -> None:
    assert "epsilon" in environment.run("feddp", "simulate", *settings(), cwd=elsewhere)
    environment.run("feddp", "ledger", "verify", "beside", cwd=elsewhere)
    module = ["-m", "feddp.deploy.keys", "secret", "a.secret"]  # a command of the images
    environment.run("python", *module, cwd=elsewhere)
    assert (elsewhere / "a.secret").exists()


def test_a_bundle_runs_beside_the_wheel_and_finds_its_model_there(
    environment: Environment, tmp_path: Path
) -> None:
    write = "import sys, pathlib; from feddp.deploy.fleet.flower_app import write_app; "
    write += "write_app(pathlib.Path(sys.argv[1]))"
    environment.run("python", "-c", write, str(tmp_path / "app"), cwd=tmp_path)
    python("-m", "flwr.cli.app", "build", cwd=tmp_path / "app")
    (bundle,) = (tmp_path / "app").glob("*.fab")
    zipfile.ZipFile(bundle).extractall(tmp_path / "bundle")
    load = "import sys; sys.path.insert(0, sys.argv[1]); import feddp.server.app as loaded; "
    load += "from feddp.common.model.base import demo_model_path as model_path; "
    load += "print(loaded.__file__, model_path())"
    shown = environment.run("python", "-c", load, str(tmp_path / "bundle"), cwd=tmp_path)
    model = environment.site / "feddp" / "simulations" / "demo" / "model"
    assert shown.split() == [str(tmp_path / "bundle" / "server" / "app.py"), str(model)]


def test_each_distribution_can_leave_and_the_other_stays_whole(
    environment: Environment, elsewhere: Path
) -> None:
    show = "import common, server; print(common.NAME + server.NAME)"
    assert environment.run("python", "-c", show, cwd=environment.site) == "otherother\n"
    environment.pip("uninstall", "--quiet", "--yes", "other")
    assert not (environment.site / "common").exists()
    assert "epsilon" in environment.run("feddp", "plan", *settings(), cwd=elsewhere)
    environment.install(make_wheel(elsewhere, "other"))
    environment.pip("uninstall", "--quiet", "--yes", "feddp")
    assert not (environment.site / "feddp").exists()
    assert environment.run("python", "-c", show, cwd=environment.site) == "otherother\n"
