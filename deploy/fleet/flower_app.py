"""The Flower app of a fleet on loopback, as `flwr run` takes it."""

import shutil
from pathlib import Path

import feddp
from feddp import client, common, server
from feddp.common.config.run_config import RunConfig, to_toml

APP_NAME = "feddp"


def write_app(folder: Path) -> None:
    """The Flower app as a folder of its own: three packages, and the defaults of all settings."""
    (folder / feddp.__name__).mkdir(parents=True)
    shutil.copy(feddp.__file__, folder / feddp.__name__)
    for package in (client, common, server):
        source = Path(package.__file__ or "").parent
        shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    defaults = to_toml(RunConfig()).replace("\n[", "\n[tool.flwr.app.config.")
    head = f"""[project]
name = "{APP_NAME}"
version = "0.1.0"
description = "feddp"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "feddp"
fab-include = ["feddp/__init__.py", "server/**/*.py", "client/**/*.py", "common/**/*.py"]

[tool.flwr.app.components]
serverapp = "feddp.server.app:app"
clientapp = "feddp.client.app:app"
"""
    content = head + "\n[tool.flwr.app.config." + defaults.removeprefix("[")
    (folder / "pyproject.toml").write_text(content, encoding="utf-8")
