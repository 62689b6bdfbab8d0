"""What stands in deploy/, read once for the tests: units, services and pods by role."""

import functools
import hashlib
import re
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
CHART = Path(__file__).parent / "chart"
SERVER_ROLES = ("superlink", "superexec-server", "edge")
NODE_ROLES = ("sidecar", "supernode", "superexec-node", "node")
ROLES = SERVER_ROLES + NODE_ROLES


def settings(path: Path) -> list[tuple[str, str]]:
    """The settings of a unit file, in order."""
    lines = path.read_text().splitlines()
    pairs = [line.partition("=") for line in lines if "=" in line and not line.startswith("#")]
    return [(key, value) for key, _, value in pairs]


def unit(role: str) -> list[tuple[str, str]]:
    """The settings of a role's own unit."""
    return settings(DEPLOY / "systemd" / f"feddp-{role}.service")


def unit_files(role: str) -> set[str]:
    """Names of the files that a unit is given."""
    return {value.partition(":")[0] for key, value in unit(role) if key == "LoadCredential"}


@functools.cache
def compose() -> dict[str, Any]:
    """compose.yaml with its anchors resolved."""
    content: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return content


def compose_files(role: str) -> set[str]:
    """Names of the files that a service finds in /run/secrets."""
    service = compose()["services"][role]
    targets = (Path(config["target"]) for config in service.get("configs", []))
    return {*service["secrets"]} | {p.name for p in targets if p.parent == Path("/run/secrets")}


def chart_sha256() -> str:
    """Of everything that a rendered chart depends on."""
    paths = [*sorted((DEPLOY / "helm").rglob("*")), *sorted(CHART.glob("*.values.yaml"))]
    digest = hashlib.sha256()
    for path in paths:
        if path.is_file():
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


@functools.cache
def rendered(release: str) -> list[dict[str, Any]]:
    """The objects of a release, as they were rendered and kept."""
    return [each for each in yaml.safe_load_all((CHART / f"{release}.yaml").read_text()) if each]


def pod(release: str) -> dict[str, Any]:
    """The pod of a release."""
    (pod,) = (each for each in rendered(release) if each["kind"] == "StatefulSet")
    spec: dict[str, Any] = pod["spec"]["template"]["spec"]
    return spec


def containers() -> dict[str, dict[str, Any]]:
    """All containers of both releases, by role."""
    return {each["name"]: each for name in ("server", "node") for each in pod(name)["containers"]}


def pod_files(role: str) -> set[str]:
    """Names of the files that a container finds in /run/secrets."""
    volumes = pod("server")["volumes"] + pod("node")["volumes"]
    (volume,) = (each for each in volumes if each["name"] == f"{role}-secrets")
    sources = [next(iter(source.values())) for source in volume["projected"]["sources"]]
    return {item["path"] for source in sources for item in source["items"]}


def used_files(role: str) -> set[str]:
    """Names of the files that a role's command, or its proxy's configuration, opens."""
    if role in ("edge", "sidecar"):
        conf = (DEPLOY / "nginx" / f"{role}.conf").read_text()
        return {f"{role}.conf", *re.findall(r"ssl_(?:\w*certificate\w*|crl) (\S+);", conf)}
    script = (DEPLOY / "feddp-role").read_text()
    command = script.split(f"\n{role})\n")[1].split(";;")[0]
    return set(re.findall(r"\$secrets/([\w.]+)", command))
