"""The files in docs/deploy/cloud name what exists: files, options, metrics, secrets that are documented."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from edgecv.cli import app as cli
from edgecv.cloud_sync.ingest.metrics import IngestCollector
from edgecv.cloud_sync.ingest.seen import DeviceSeen
from edgecv.cloud_sync.ingest.stats import IngestStats
from edgecv.cloud_sync.mqtt.broker_url import parse_broker_url
from edgecv.cloud_sync.mqtt.topics import Address
from edgecv.errors import ConfigError
from tests.conftest import CHECKOUT

DEPLOY = CHECKOUT / "docs/deploy/cloud"
DASHBOARDS = sorted((DEPLOY / "grafana/dashboards").glob("*.json"))
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
COLLECTORS = (CHECKOUT / "pipelines/sinks/metrics/collector.py").read_text()


def compose() -> dict[str, Any]:
    document = yaml.safe_load((DEPLOY / "compose.yml").read_text())
    assert isinstance(document, dict)
    return document


def known_metrics() -> set[str]:
    """The names of all series that ingest or a device serves."""
    seen = DeviceSeen(address=Address(tenant="t", device="d"), events=1, received_ns=1, lag_s=0.0)
    families = IngestCollector(IngestStats, lambda: [seen]).collect()
    names = {sample.name for family in families for sample in family.samples}
    gauges = re.findall(r'_gauge\("(\w+)"', COLLECTORS)
    counters = re.findall(r'_counter\("(\w+)"', COLLECTORS)
    return names | set(gauges) | {f"{name}_total" for name in counters} | {"up"}


def unknown_metrics(expression: str) -> set[str]:
    without_labels = re.sub(r"\{[^}]*\}|\[[^]]*\]|by \([^)]*\)", "", expression)
    words = set(re.findall(r"\b(?:edgecv|process|up)\w*", without_labels))
    assert words, f"no metric in {expression!r}"
    return words - known_metrics()


def test_every_mounted_file_exists_or_is_a_documented_secret() -> None:
    readme = (DEPLOY / "README.md").read_text()
    document = compose()
    mounts = [m for s in document["services"].values() for m in s.get("volumes", []) if m.startswith((".", "/"))]
    assert len(mounts) >= 8
    places = [mount.split(":")[0] for mount in mounts] + [one["file"] for one in document["secrets"].values()]
    for place in places:
        if place.startswith("./secrets/"):
            assert place.removeprefix("./") in readme, f"{place} is not in the README"
        else:
            assert (DEPLOY / place).exists(), place


def test_named_volumes_and_secrets_are_declared() -> None:
    document = compose()
    for name, service in document["services"].items():
        named = {v.split(":")[0] for v in service.get("volumes", []) if not v.startswith((".", "/"))}
        assert named <= document["volumes"].keys(), name
        assert set(service.get("secrets", [])) <= document["secrets"].keys(), name
        assert set(service.get("depends_on", [])) <= document["services"].keys(), name


def test_images_have_a_version_and_nothing_holds_a_password() -> None:
    for name, service in compose()["services"].items():
        if "build" in service:
            assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
            continue
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", service["image"]), name
        for variable, value in service.get("environment", {}).items():
            assert "PASSWORD" not in variable or (variable.endswith("__FILE") and value.startswith("/run/secrets/"))


def commands() -> Iterator[tuple[str, list[str]]]:
    yield "compose.yml", compose()["services"]["ingest"]["command"]
    for unit in UNITS:
        text = unit.read_text().replace("\\\n", " ")
        line = next(line for line in text.splitlines() if line.startswith("ExecStart="))
        for place, value in {"%S": "/var/lib", "%d": "/run/credentials", "%i": "1", "${BROKER}": "host:8883"}.items():
            line = line.replace(place, value)
        program, *arguments = shlex.split(line.removeprefix("ExecStart="))
        assert program.endswith("/bin/edgecv")
        yield unit.name, arguments


@pytest.mark.parametrize(
    ("name", "arguments"), list(commands()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_commands_have_options_that_exist_and_a_broker_url_that_is_one(name: str, arguments: list[str]) -> None:
    command = get_command(cli._app()).commands[arguments[0]]  # type: ignore[attr-defined]
    context = command.make_context(name, arguments[1:], resilient_parsing=False)
    with pytest.raises(ConfigError, match=r"does not exist|cannot be read"):  # its secrets are on no machine of ours
        parse_broker_url(context.params["mqtt"])
    assert context.params["metrics"].startswith("910")


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_dashboards_ask_for_metrics_that_are_served(path: Path) -> None:
    board = json.loads(path.read_text())
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())
    uid = source["datasources"][0]["uid"]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for panel in board["panels"]:
        assert panel["datasource"]["uid"] == uid
        for target in panel["targets"]:
            assert not unknown_metrics(target["expr"]), panel["title"]


def test_alerts_ask_for_metrics_that_are_served() -> None:
    groups = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert rules
    for rule in rules:
        assert not unknown_metrics(rule["expr"]), rule["alert"]
        assert rule["annotations"]["summary"]


def test_prometheus_asks_the_ingest_of_the_compose_file_under_a_name_it_answers_to() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    (target,) = config["scrape_configs"][0]["static_configs"][0]["targets"]
    host, port = target.split(":")
    command = compose()["services"]["ingest"]["command"]
    assert host in compose()["services"]
    assert command[command.index("--metrics") + 1].startswith(f"{port}?")
    assert f"allowed_hosts={host}" in command[command.index("--metrics") + 1]
    assert all((DEPLOY / "prometheus" / rules).is_file() for rules in config["rule_files"])


def test_the_readme_names_the_metrics_of_ingest() -> None:
    readme = (DEPLOY / "README.md").read_text()
    names = re.findall(r"`(edgecv_ingest_\w+)", readme)
    assert set(names) <= known_metrics()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_are_read_without_a_complaint(unit: Path, tmp_path: Path) -> None:
    copy = tmp_path / unit.name.replace("@", "@1")
    copy.write_text(unit.read_text().replace("/opt/edgecv/.venv/bin/edgecv", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, timeout=60, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if copy.name in line]
    assert not complaints
