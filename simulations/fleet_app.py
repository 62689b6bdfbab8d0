"""The Flower app of a fleet on loopback, as `flwr run` takes it."""

import shutil
from pathlib import Path

import client
import common
import server
from common.config import RunConfig, to_toml

APP_NAME = "feddp"


def write_app(folder: Path) -> None:
    """The Flower app as a folder of its own: three packages, and the defaults of all settings."""
    folder.mkdir()
    for package in (client, common, server):
        name, source = package.__name__, Path(package.__file__ or "").parent
        shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    defaults = to_toml(RunConfig()).replace("\n[", "\n[tool.flwr.app.config.")
    head = f"""[project]
name = "{APP_NAME}"
version = "0.1.0"
description = "feddp"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "feddp"
fab-include = ["server/**/*.py", "client/**/*.py", "common/**/*.py"]

[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "client.app:app"
"""
    content = head + "\n[tool.flwr.app.config." + defaults.removeprefix("[")
    (folder / "pyproject.toml").write_text(content, encoding="utf-8")
