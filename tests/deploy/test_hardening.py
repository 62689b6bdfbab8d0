"""What must hold of every process, whatever starts it."""

import json
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml
from artefacts import (
    CHART,
    DEPLOY,
    NODE_ROLES,
    ROLES,
    SERVER_ROLES,
    chart_sha256,
    compose,
    containers,
    pod,
    rendered,
    settings,
    unit,
)

RELEASES = ("server", "node")
ZERO_DIGEST = "x@sha256:" + "0" * 64


def test_no_unit_weakens_what_all_units_have() -> None:
    shared = dict(settings(DEPLOY / "systemd" / "feddp-.service.d" / "10-hardening.conf"))
    expected = {
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "ProtectProc": "invisible",
        "PrivateTmp": "yes",
        "PrivateDevices": "yes",
        "CapabilityBoundingSet": "",
        "IPAddressDeny": "any",
        "LimitCORE": "0",
        "UMask": "0077",
        "User": "%N",
    }
    assert expected.items() <= shared.items()
    for role in ROLES:
        own = dict(unit(role))
        assert not own.keys() & expected.keys()
        is_open = role in ("edge", "sidecar")
        assert (own.get("IPAddressAllow") == "any") == is_open


def test_a_killed_supernode_is_started_until_it_is_admitted() -> None:
    shared = dict(settings(DEPLOY / "systemd" / "feddp-.service.d" / "10-hardening.conf"))
    assert (shared["Restart"], shared["StartLimitIntervalSec"]) == ("always", "0")
    assert compose()["services"]["supernode"]["restart"] == "always"


def test_every_role_has_its_own_system_user() -> None:
    users = (DEPLOY / "systemd" / "feddp.sysusers").read_text()
    assert [f'u feddp-{role} - "feddp {role}"' in users for role in ROLES] == [True] * len(ROLES)


@pytest.mark.parametrize("role", ROLES)
def test_every_service_is_confined(role: str) -> None:
    service = compose()["services"][role]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"].split(":")[0] not in ("0", "root")
    assert service["mem_limit"] == service["memswap_limit"]
    assert service["ulimits"] == {"core": 0}
    assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & service.keys()
    assert ("ports" in service) == (role == "edge")
    assert service["profiles"] == ["server" if role in SERVER_ROLES else "node"]


def test_only_the_edge_is_reached_and_users_are_read_offline() -> None:
    content = compose()
    services = content["services"]
    assert content["networks"]["inner"] == {"internal": True}
    assert services["superlink"]["networks"] == ["inner"]
    assert services["superexec-server"]["network_mode"] == "service:superlink"
    assert services["superexec-server"]["deploy"] == {"replicas": 1}
    assert services["node"]["network_mode"] == "none"
    assert services["superexec-node"]["user"] != services["node"]["user"]
    mounts = {role: str(services[role].get("volumes", [])) for role in ROLES}
    assert [role for role in ROLES if "/srv/feddp" in mounts[role]] == ["node"]


def test_what_compose_names_is_declared() -> None:
    content = compose()
    for service in content["services"].values():
        assert set(service["secrets"]) <= content["secrets"].keys()
        assert {c["source"] for c in service.get("configs", [])} <= content["configs"].keys()
    for config in ("edge", "sidecar"):
        assert (DEPLOY / content["configs"][config]["file"]).is_file()


def test_the_kept_rendering_is_of_this_chart() -> None:
    for release in RELEASES:
        header = (CHART / f"{release}.yaml").read_text().splitlines()[0]
        assert header == f"# chart {chart_sha256()}", (
            "the chart changed: render it again (helm template RELEASE deploy/helm -f VALUES), "
            "look at the difference, and put artefacts.chart_sha256() in the first line"
        )


@pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not installed")
@pytest.mark.parametrize("release", RELEASES)
def test_helm_renders_what_is_kept(release: str) -> None:
    values = str(CHART / f"{release}.values.yaml")
    command = ["helm", "template", release, str(DEPLOY / "helm"), "-f", values]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = [each for each in yaml.safe_load_all(text) if each]

    def names(each: dict) -> tuple[str, str]:
        return each["kind"], each["metadata"]["name"]

    assert sorted(found, key=names) == sorted(rendered(release), key=names)


@pytest.mark.parametrize("role", ROLES)
def test_every_container_is_confined(role: str) -> None:
    container = containers()[role]
    context = container["securityContext"]
    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert "privileged" not in context
    assert (
        container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]
    )
    assert "@sha256:" in container["image"]
    assert context.get("runAsUser") == (65533 if role == "superexec-node" else None)


@pytest.mark.parametrize("release", RELEASES)
def test_a_pod_runs_as_nobody_without_a_token(release: str) -> None:
    spec = pod(release)
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 65532
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    assert not [volume for volume in spec["volumes"] if "hostPath" in volume]


@pytest.mark.parametrize("release", RELEASES)
def test_state_has_one_writer_and_outlives_the_release(release: str) -> None:
    (state,) = (each["spec"] for each in rendered(release) if each["kind"] == "StatefulSet")
    assert state["replicas"] == 1
    assert state["updateStrategy"] == {"type": "OnDelete"}
    assert set(state["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}
    (claim,) = state["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]


def test_the_network_is_closed_but_for_the_edge() -> None:
    for release in RELEASES:
        policies = {
            each["metadata"]["name"]: each["spec"]
            for each in rendered(release)
            if each["kind"] == "NetworkPolicy"
        }
        deny, allow = policies[f"{release}-deny"], policies[f"{release}-allow"]
        assert deny["policyTypes"] == ["Ingress", "Egress"]
        assert not {"ingress", "egress"} & deny.keys()
        ports = [
            port["port"]
            for rule in allow.get("ingress", []) + allow.get("egress", [])
            for port in rule["ports"]
        ]
        assert ports == ([8443, 9464] if release == "server" else [8443])
        assert ("egress" in allow) == (release == "node")
    kinds = [each["kind"] for each in rendered("server")]
    assert kinds.count("PodDisruptionBudget") == 1
    (budget,) = (e["spec"] for e in rendered("server") if e["kind"] == "PodDisruptionBudget")
    assert budget["maxUnavailable"] == 0


def test_the_users_are_mounted_in_the_node_alone_and_read_only() -> None:
    mounts = {
        role: [m for m in each["volumeMounts"] if m["name"] == "data"]
        for role, each in containers().items()
    }
    assert [role for role in NODE_ROLES if mounts[role]] == ["node"]
    assert mounts["node"][0]["readOnly"] is True


def test_the_values_are_checked_before_anything_is_installed() -> None:
    schema = json.loads((DEPLOY / "helm" / "values.schema.json").read_text())
    defaults = yaml.safe_load((DEPLOY / "helm" / "values.yaml").read_text())
    validator = jsonschema.Draft7Validator(schema)
    good = defaults | {"image": ZERO_DIGEST, "proxyImage": ZERO_DIGEST}
    assert validator.is_valid(good)
    for bad in (
        {"image": "feddp:latest"},
        {"role": "both"},
        {"replicas": 2},
        {"server": {"storage": "10"}},
    ):
        assert not validator.is_valid(good | bad), bad


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_accepts_every_unit(tmp_path: Path) -> None:
    shutil.copytree(DEPLOY / "systemd", tmp_path / "units")
    for path in (tmp_path / "units").glob("*.service"):  # the program need not be installed here
        path.write_text(path.read_text().replace("/opt/feddp/bin/feddp-role", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", *(f"feddp-{role}.service" for role in ROLES)],
        env={"SYSTEMD_UNIT_PATH": f"{tmp_path / 'units'}:", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert "feddp" not in done.stderr, done.stderr


COMPOSE_SCHEMA = ["check-jsonschema", "--builtin-schema", "vendor.compose-spec"]
CHECKS = [
    ([*COMPOSE_SCHEMA, "compose.yaml", "compose.gpu.yaml"], "."),
    (["hadolint", "Dockerfile"], "."),
    (["kubernetes-validate", "--strict", *(str(CHART / f"{name}.yaml") for name in RELEASES)], "."),
    (["promtool", "check", "config", "prometheus.yml"], "prometheus"),
    (["promtool", "test", "rules", "rules_test.yml"], "prometheus"),
]


@pytest.mark.parametrize(("command", "folder"), CHECKS, ids=[" ".join(c[:2]) for c, _ in CHECKS])
def test_the_tool_of_the_field_accepts_it(command: list[str], folder: str) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(command, cwd=DEPLOY / folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
