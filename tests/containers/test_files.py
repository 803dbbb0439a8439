"""What the files for containers say, without an engine; scripts/test-containers builds and runs them."""

import asyncio
import json
import re
import shlex
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer.main
import yaml
from fastapi import FastAPI

from parityfl.cli import app
from parityfl.client.settings import parse_devices
from parityfl.config import Config
from parityfl.coordinator.metrics import exposition
from parityfl.core.columns import ROUND_COLUMNS
from parityfl.web.certificates import Authority, device_name
from parityfl.web.secrets import JOIN_TOKEN, OPERATOR_TOKEN
from parityfl.web.server import bind, port_of, serving
from parityfl.web.tls import Tls

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
MARKER = "# ---- common to both images ----"
DOCKERFILES = {name: (DOCKER / f"{name}.Dockerfile").read_text() for name in ("coordinator", "client")}
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
TOKEN: dict[str, Any] = yaml.safe_load((ROOT / "compose.token.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
BASE = ROOT / "deploy/kubernetes/base"
MANIFESTS: list[dict[str, Any]] = [
    document
    for path in sorted(BASE.glob("*.yaml"))
    if path.name != "kustomization.yaml"
    for document in yaml.safe_load_all(path.read_text())
]


def parse(command: str, arguments: list[str]) -> Any:
    """Parse a call as the command line would, without running it; return its context."""
    group: Any = typer.main.get_command(app)
    return group.commands[command].make_context(command, arguments)


def instructions(text: str, name: str) -> list[str]:
    return re.findall(rf"^\s*{name} (.+)$", text.replace("\\\n", " "), flags=re.MULTILINE)


def entrypoint(name: str) -> list[str]:
    return list(json.loads(instructions(DOCKERFILES[name], "ENTRYPOINT")[-1]))


def interpolated(text: str) -> str:
    """Return a compose value with each variable at its default."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def command(service: dict[str, Any]) -> list[str]:
    return shlex.split(interpolated(service["command"]))


def named(kind: str, name: str) -> dict[str, Any]:
    return next(m for m in MANIFESTS if (m["kind"], m["metadata"]["name"]) == (kind, name))


def container(workload: dict[str, Any]) -> dict[str, Any]:
    (only,) = workload["spec"]["template"]["spec"]["containers"]
    return dict(only)


def with_value(arguments: list[str], name: str) -> str:
    joined = " ".join(arguments)
    match = re.search(rf"{name}[ =](\S+)", joined)
    assert match, f"{name} is not in {joined}"
    return match.group(1)


def test_images_share_their_layers() -> None:
    shared = [text.partition("ARG PYTHON")[2].partition(MARKER)[0] for text in DOCKERFILES.values()]
    assert shared[0] == shared[1]
    assert "pip install --no-deps /wheel" in shared[0]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_dockerfile_is_what_the_documentation_promises(name: str) -> None:
    text = DOCKERFILES[name]
    for instruction in ("ENTRYPOINT", "CMD"):
        assert all(isinstance(json.loads(value), list) for value in instructions(text, instruction)), instruction
    assert instructions(text, "USER") == ["10001"]
    assert instructions(text, "VOLUME") == ["/var/lib/parityfl"]
    assert len(instructions(text, "HEALTHCHECK")) == 1
    assert "PYTHONUNBUFFERED=1" in text
    assert "--mount" not in text, "the classic builder has no RUN --mount"
    assert set(instructions(text, "ARG")) == {"PYTHON=python:3.11-slim", "TORCH=yes", "TORCH_INDEX="}


def test_the_coordinators_default_command_serves_everyone_and_resumes() -> None:
    default = json.loads(instructions(DOCKERFILES["coordinator"], "CMD")[-1])
    context = parse("coordinator", default)
    assert entrypoint("coordinator") == ["parityfl", "coordinator"]
    assert (context.params["host"], context.params["port"], context.params["resume"]) == ("0.0.0.0", 8080, True)
    assert context.params["allow_anyone"]
    assert str(context.params["out"]).startswith("/var/lib/parityfl/")


def test_the_client_takes_the_original_spelling_and_listens_on_all_addresses() -> None:
    program, name, *fixed = entrypoint("client")
    assert (program, name) == ("parityfl", "client")
    context = parse("client", [*fixed, *["--device_id", "h0", "--port", "5000", "--server_ip", "127.0.0.1"]])
    assert (context.params["device"], context.params["port"], context.params["server"]) == ("h0", 5000, "127.0.0.1")
    assert context.params["host"] == "0.0.0.0"


def test_torch_has_a_layer_of_its_own_and_nothing_is_lost(script: Any) -> None:
    requirements = script("requirements")
    files = requirements.split((ROOT / "pyproject.toml").read_text(), (ROOT / "constraints.txt").read_text())
    torch = files["torch.txt"]
    assert [requirements.name_of(line) for line in torch] == ["torch", "torchvision"]
    assert all("==" in line for line in torch)
    names = {name: {requirements.name_of(line) for line in lines} for name, lines in files.items()}
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert names["torch.txt"] | names["rest.txt"] == set(map(requirements.name_of, wanted))
    assert names["rest.txt"] <= names["rest-constraints.txt"]
    assert names["torch-constraints.txt"] == {*requirements.HEAVY, *requirements.BROUGHT, "typing-extensions"}


def test_a_pin_of_something_else_leaves_the_layer_of_torch_alone(script: Any) -> None:
    split = script("requirements").split
    project = '[project]\ndependencies = ["torch>=2", "a>=1"]\n'
    before = split(project, "torch==2.5\nnumpy==2.0\na==1.0\n")
    after = split(project, "torch==2.5\nnumpy==2.0\na==1.1\n")
    for name in ("torch.txt", "torch-constraints.txt"):
        assert before[name] == after[name]
    assert before["rest-constraints.txt"] != after["rest-constraints.txt"]


@pytest.mark.parametrize(
    ("line", "port"),
    [
        ("parityfl client --port 5003 --device_id h3", 5003),
        ("/sbin/docker-init -- parityfl client --port=5004", 5004),
        ("parityfl client --port 1 --port 2", 2),
        ("parityfl client --device-id h0", 5000),
        ("parityfl client --device-id h0 --pull", None),
    ],
)
def test_the_health_check_asks_the_port_that_the_process_was_given(script: Any, line: str, port: int | None) -> None:
    assert script("healthy").port_of(line, 5000) == port


def test_the_health_check_takes_a_process_that_listens_nowhere_for_healthy(script: Any, unused_port: int) -> None:
    assert script("healthy").is_healthy(f"parityfl client --pull --port {unused_port}", {}, 5000)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an authority and a device's certificate."""
    folder = tmp_path_factory.mktemp("certificates")
    Authority.open(folder).certify(folder / "h0", "device h0", [device_name("h0")], 1)
    return folder


@pytest.mark.parametrize("mutual", [False, True])
def test_the_health_check_asks_with_tls_and_shows_the_process_its_own_certificate(
    script: Any, certificates: Path, mutual: bool
) -> None:
    """A real server that, where it is mutual, takes no connection without a certificate of its authority."""
    is_healthy, options = script("healthy").is_healthy, [f"{certificates}/h0.pem", f"{certificates}/h0.key"]
    own = Tls(*map(Path, options), authority=certificates / "authority.pem" if mutual else None)
    served = FastAPI()

    @served.get("/health")
    async def health() -> str:
        return "well"

    async def main() -> None:
        listening = bind("127.0.0.1", 0)
        plain = f"parityfl client --port {port_of(listening)}"
        line = f"{plain} --tls-cert {options[0]} --tls-key={options[1]}"
        variables = dict(zip(("PARITYFL_TLS_CERT", "PARITYFL_TLS_KEY"), options, strict=True))
        async with serving(served, listening, own):
            assert await asyncio.to_thread(is_healthy, line, {}, 5000)
            assert await asyncio.to_thread(is_healthy, plain, variables, 5000)
            assert not await asyncio.to_thread(is_healthy, plain, {}, 5000)
            absent = variables | {"PARITYFL_TLS_CERT": f"{certificates}/absent.pem"}
            assert not await asyncio.to_thread(is_healthy, plain, absent, 5000)

    asyncio.run(main())


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_health_check_wants_200(script: Any, answering: Any, status: int, healthy: bool) -> None:
    assert script("healthy").answers(answering(status)) is healthy


def test_the_health_check_fails_where_nobody_listens(script: Any, unused_port: int) -> None:
    assert script("healthy").answers(unused_port) is False


def test_chaos_strikes_alike_for_the_same_seed(script: Any) -> None:
    chaos = script("chaos")

    def first(seed: str) -> list[Any]:
        plan = chaos.blows(seed, 10.0)
        return [next(plan) for _ in range(200)]

    assert first("0 h0") == first("0 h0") != first("0 h1")
    freezes = [freeze for _, freeze in first("0 h0") if freeze is not None]
    assert 60 < len(freezes) < 140
    assert all(1.0 <= freeze <= chaos.LONGEST_FREEZE_S for freeze in freezes)


def test_chaos_freezes_kills_and_passes_on_the_exit_code(
    script: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The first client sleeps: it is frozen, then killed; the second finds the first one's file and ends with 7."""
    chaos = script("chaos")
    mark = (
        "import pathlib, sys, time; p = pathlib.Path(sys.argv[1]); p.exists() and sys.exit(7); print('up', flush=True)"
    )
    monkeypatch.setattr(chaos, "COMMAND", (sys.executable, "-c", f"{mark}; p.touch(); time.sleep(600)"))
    client = tmp_path / "client"

    def blows(*_: object) -> Any:
        while not client.exists():
            yield 0.01, 0.01
        yield 0.01, None
        yield 60.0, None

    monkeypatch.setattr(chaos, "blows", blows)
    monkeypatch.setattr(chaos.signal, "signal", lambda *_: None)
    assert chaos.main([str(client)]) == 7
    said = capfd.readouterr().out
    assert "chaos: frozen" in said
    assert "chaos: killed" in said
    assert said.count("up") == 1


def test_chaos_runs_the_client_as_its_image_does(script: Any) -> None:
    assert list(script("chaos").COMMAND) == entrypoint("client")


@pytest.mark.parametrize("profile", ["clients-3", "clients-10", "clients-100", "gpu", "chaos"])
def test_a_profile_is_one_coordinator_and_exactly_its_devices(profile: str) -> None:
    members = {name: service for name, service in OURS.items() if profile in service["profiles"]}
    (boss,) = (name for name in members if name.startswith("coordinator"))
    context = parse("coordinator", command(members[boss]))
    count = context.params["clients"]
    assert context.params["min_clients"] == count
    assert context.params["per_round"] <= count
    assert members[boss]["networks"]["fleet"]["aliases"] == ["coordinator"]
    devices: list[str] = []
    for name in set(members) - {boss, "prepare"}:
        assert members[name]["depends_on"] == {boss: {"condition": "service_healthy"}}, name
        params = parse("client", command(members[name])).params
        assert params["server"] == "coordinator"
        devices += parse_devices(params["device"] or params["devices"])
    assert sorted(devices) == sorted(f"h{index}" for index in range(count))
    assert "prepare" in members


@pytest.mark.parametrize("name", OURS)
def test_containers_of_ours_have_no_rights_and_write_nowhere_but_in_volumes(name: str) -> None:
    service = OURS[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service.get("privileged", False) is False
    assert service.get("user", "10001") != "0:0" or name == "prepare"


def test_a_token_reaches_every_coordinator_and_every_device_as_a_file() -> None:
    assert set(TOKEN["services"]) == set(OURS) - {"prepare"}
    for name, service in TOKEN["services"].items():
        variables = [JOIN_TOKEN, OPERATOR_TOKEN] if name.startswith("coordinator") else [JOIN_TOKEN]
        secrets = [variable.removeprefix("PARITYFL_").lower() for variable in variables]
        assert service["secrets"] == secrets
        assert service["environment"] == {
            f"{variable}_FILE": f"/run/secrets/{secret}" for variable, secret in zip(variables, secrets, strict=True)
        }
    assert list(TOKEN["secrets"]) == ["join_token", "operator_token"]


def test_pods_do_not_start_without_their_tokens() -> None:
    def secrets(workload: dict[str, Any]) -> dict[str, Any]:
        return {v["name"]: v["valueFrom"].get("secretKeyRef") for v in container(workload)["env"] if "valueFrom" in v}

    boss, device = secrets(named("StatefulSet", "coordinator")), secrets(named("DaemonSet", "device"))
    assert boss == {
        JOIN_TOKEN: {"name": "tokens", "key": "join"},
        OPERATOR_TOKEN: {"name": "tokens", "key": "operator"},
    }
    assert device == {"NODE_NAME": None, JOIN_TOKEN: {"name": "tokens", "key": "join"}}
    assert "--allow-anyone" not in container(named("StatefulSet", "coordinator"))["args"]


def test_every_published_port_is_on_loopback_unless_asked_otherwise() -> None:
    published = [interpolated(port) for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_every_mounted_file_exists_and_every_volume_is_declared() -> None:
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            source = interpolated(volume).split(":")[0]
            if source.startswith("./") and source != "./runs":
                assert (ROOT / source).is_file(), f"{name}: {source}"
            elif not source.startswith("./"):
                assert source in COMPOSE["volumes"], f"{name}: {source}"


def test_the_example_of_settings_names_every_variable_with_its_default() -> None:
    text = (ROOT / "compose.yaml").read_text() + (ROOT / "compose.token.yaml").read_text()
    used = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", text))
    example = dict(re.findall(r"^#?(\w+)=(.*)$", (ROOT / ".env.example").read_text(), flags=re.MULTILINE))
    assert set(used) | {"COMPOSE_PROJECT_NAME"} == set(example)
    varies = {"PARITYFL_RUN", "PARITYFL_PER_ROUND", "COMPOSE_PROJECT_NAME"}
    for name in set(used) - varies:
        assert example[name] == used[name], name


def test_only_the_gpu_profile_reserves_a_gpu() -> None:
    reserving = [name for name, service in SERVICES.items() if "deploy" in service]
    assert reserving == ["gpu-devices"]
    (device,) = SERVICES["gpu-devices"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}


def test_images_of_others_are_pinned() -> None:
    others = [service["image"] for name, service in SERVICES.items() if name not in OURS]
    assert len(others) == 2
    assert all(re.search(r":v?\d+\.\d+\.\d+$", image) for image in others)


def test_the_build_context_holds_what_the_dockerfiles_copy() -> None:
    ignore = (ROOT / ".dockerignore").read_text().split()
    sources = [
        source
        for text in DOCKERFILES.values()
        for line in instructions(text, "COPY")
        if "--from" not in line
        for source in line.split()[:-1]
    ]
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignore or (source.startswith("docker/") and "!docker/*.py" in ignore), source


def metrics_in(*expressions: str) -> set[str]:
    return {name for expression in expressions for name in re.findall(r"parityfl_\w+", expression)}


def metrics_of_a_coordinator() -> set[str]:
    coordinator: Any = SimpleNamespace(
        config=Config(),
        rounds_done=1,
        figures=dict.fromkeys(ROUND_COLUMNS, 0.0),
        registry=SimpleNamespace(members=[SimpleNamespace(state="available")]),
        outcomes={},
        left_behind=[""],
    )
    return set(re.findall(r"^(parityfl_\w+)", exposition(coordinator).decode(), flags=re.MULTILINE))


def test_the_dashboard_shows_metrics_that_the_coordinator_has() -> None:
    dashboard = json.loads((DOCKER / "monitoring/parityfl.json").read_text())
    shown = metrics_in(*(target["expr"] for panel in dashboard["panels"] for target in panel["targets"]))
    assert shown <= metrics_of_a_coordinator()
    assert len(shown) > 15


def test_alerts_go_by_metrics_that_the_coordinator_has() -> None:
    (group,) = yaml.safe_load((DOCKER / "monitoring/alerts.yml").read_text())["groups"]
    rules = {rule["alert"]: rule for rule in group["rules"]}
    assert list(rules) == ["ParityflDevicesLeftBehind", "ParityflUnreachable", "ParityflIdle"]
    assert metrics_in(*(rule["expr"] for rule in rules.values())) <= metrics_of_a_coordinator()
    assert metrics_in(rules["ParityflDevicesLeftBehind"]["expr"]) == {"parityfl_devices_left_behind"}
    assert all(rule["for"] and rule["annotations"]["summary"] for rule in rules.values())
    guide = (ROOT / "docs/deploy.md").read_text()
    assert all(f"| `{name}` |" in guide for name in rules)


def test_monitoring_is_wired_up() -> None:
    prometheus = yaml.safe_load((DOCKER / "monitoring/prometheus.yml").read_text())
    (scrape,) = prometheus["scrape_configs"]
    assert scrape["static_configs"] == [{"targets": ["coordinator:8080"]}]
    alerts = (DOCKER / "monitoring/alerts.yml").read_text()
    assert re.findall(r'job="(\w+)"', alerts) == [scrape["job_name"]]
    (rules,) = prometheus["rule_files"]
    folder = "./docker/monitoring"
    assert {f"{folder}/{name}:/etc/prometheus/{name}:ro" for name in ("prometheus.yml", rules)} <= {
        *SERVICES["prometheus"]["volumes"]
    }
    (source,) = yaml.safe_load((DOCKER / "monitoring/datasources.yml").read_text())["datasources"]
    dashboard = json.loads((DOCKER / "monitoring/parityfl.json").read_text())
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {source["uid"]}
    (provider,) = yaml.safe_load((DOCKER / "monitoring/dashboards.yml").read_text())["providers"]
    assert any(f":{provider['options']['path']}/" in volume for volume in SERVICES["grafana"]["volumes"])


def test_kustomization_lists_every_manifest() -> None:
    kustomization = yaml.safe_load((BASE / "kustomization.yaml").read_text())
    assert sorted([*kustomization["resources"], "kustomization.yaml"]) == sorted(p.name for p in BASE.glob("*.yaml"))
    used = {container(m)["image"] for m in MANIFESTS if m["kind"] in ("StatefulSet", "DaemonSet")}
    assert {image["name"] for image in kustomization["images"]} == used


def test_kubernetes_arguments_are_understood(tmp_path: Path) -> None:
    boss = parse("coordinator", container(named("StatefulSet", "coordinator"))["args"])
    device = container(named("DaemonSet", "device"))
    client = parse("client", device["args"])
    assert boss.params["host"] == "0.0.0.0"
    assert client.params["server"] == "http://coordinator:8080"
    assert client.params["device"] == f"$({device['env'][0]['name']})"
    file = tmp_path / "run.toml"
    file.write_text(named("ConfigMap", "run")["data"]["run.toml"])
    config = Config.load(file)
    assert config.rounds.clock == "wall"
    assert boss.params["min_clients"] <= config.population.clients


@pytest.mark.parametrize(
    ("kind", "name", "port"), [("StatefulSet", "coordinator", 8080), ("DaemonSet", "device", 5000)]
)
def test_kubernetes_workloads_are_probed_hardened_and_reachable(kind: str, name: str, port: int) -> None:
    workload = named(kind, name)
    pod, one = workload["spec"]["template"], container(workload)
    labels = pod["metadata"]["labels"]
    assert workload["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert one["ports"] == [{"name": "http", "containerPort": port}]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert one[probe]["httpGet"] == {"path": "/health", "port": "http"}
    assert one["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert {"name": "state", "mountPath": "/var/lib/parityfl"} in one["volumeMounts"]
    policy = named("NetworkPolicy", name)["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert policy["ingress"][0]["ports"] == [{"protocol": "TCP", "port": port}]


def test_the_disruption_budget_guards_the_coordinator() -> None:
    selector = named("PodDisruptionBudget", "coordinator")["spec"]["selector"]
    assert selector == named("StatefulSet", "coordinator")["spec"]["selector"]


def test_the_systemd_unit_calls_a_command_that_is_understood() -> None:
    unit = (ROOT / "deploy/systemd/parityfl-client@.service").read_text()
    program, name, *arguments = re.findall(r"^ExecStart=(.+)$", unit, flags=re.MULTILINE)[0].split()
    assert (program, name) == ("/opt/parityfl/bin/parityfl", "client")
    context = parse(name, ["5000" if argument == "${PARITYFL_PORT}" else argument for argument in arguments])
    assert (context.params["device"], context.params["server"]) == ("%i", "${PARITYFL_SERVER}")


def test_the_guide_names_every_profile_and_every_setting() -> None:
    guide = (ROOT / "docs/deploy.md").read_text()
    profiles = {profile for service in SERVICES.values() for profile in service["profiles"]}
    settings = re.findall(r"^#?(\w+)=", (ROOT / ".env.example").read_text(), flags=re.MULTILINE)
    for name in (*profiles, *settings):
        assert f"`{name}`" in guide, name
