"""Dashboards and alert rules name only metrics, labels and places that the services really have."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from prometheus_client import CollectorRegistry

from book_service.service_metrics import BookMetrics
from risk_service import engine_metrics, live_health
from risk_service.admission import Admission
from risk_service.api.gathering import Gathering
from risk_service.api.work import Work
from risk_service.device_health import Device, DeviceCollector, DeviceWatch, Reading
from risk_service.engines import Engines
from risk_service.lateness import Lateness
from risk_service.service_metrics import ServiceMetrics
from service_kit.grpc_server import GrpcServer, GrpcSettings
from service_kit.kafka.metrics import KafkaMetrics
from service_kit.telemetry.metrics import process_registry

DOCKER = Path(__file__).parents[2] / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
PROMETHEUS = yaml.safe_load((DOCKER / "prometheus.yml").read_text())
RULES = yaml.safe_load((DOCKER / "rules.yml").read_text())
PROVISIONING = DOCKER / "grafana" / "provisioning"
DASHBOARDS = {
    path.stem: json.loads(path.read_text()) for path in (DOCKER / "grafana" / "dashboards").glob("*.json")
}

STILL = SimpleNamespace(
    caught_up=True,
    turned_at=0.0,
    failure=None,
    without_brokers="",
    lateness=Lateness(),
    portfolios=0,
    unmeasured=0,
    standing_by="",
    teller=SimpleNamespace(alerts=SimpleNamespace(standing=lambda kind: 0)),
)


class OneDevice(DeviceWatch):
    """A watch that has read something, so that every family has a sample."""

    def latest(self):
        return Reading((Device("GPU", 1, 2, 0.5, 50.0, 0),), "")


OF_PROMETHEUS = {"up": set(), "ALERTS": {"alertname", "alertstate"}}
LABELS_OF_A_SCRAPE = {"job", "instance"}
WORDS = {"and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "bool", "offset"}
FUNCTIONS = {"sum", "max", "min", "rate", "increase", "histogram_quantile", "time"}
SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_count", "_sum"),
    "summary": ("", "_count", "_sum"),
    "info": ("_info",),
}


def exported(registry: CollectorRegistry) -> dict[str, set[str]]:
    """Every series that a registry exports, with its labels."""
    labels = {
        name: set(getattr(collector, "_labelnames", ()))
        for collector, names in registry._collector_to_names.items()
        for name in names
    }
    found = {}
    for family in registry.collect():
        for suffix in SUFFIXES[family.type]:
            own = labels.get(family.name, set()) | set(getattr(family, "_labelnames", ()))
            own |= {key for one in family.samples for key in one.labels}
            found[family.name + suffix] = own | ({"le"} if suffix == "_bucket" else set())
    return found


def registries():
    """As the wiring of both services fills them."""
    for own in (BookMetrics, ServiceMetrics):
        registry = process_registry()
        KafkaMetrics(registry)
        own.on(registry)
        GrpcServer(GrpcSettings(port=0), [], registry=registry)
        if own is ServiceMetrics:
            engines, admission = Engines.probe("reference"), Admission(backlog_s_max=1.0)
            gathering = Gathering(engines, Work(ThreadPoolExecutor(1), admission))
            engine_metrics.export(registry, engines, admission, gathering)
            live_health.export(registry, STILL)
            DeviceCollector(OneDevice()).register(registry)
        yield registry


@pytest.fixture(scope="module")
def known():
    names: dict[str, set[str]] = dict(OF_PROMETHEUS)
    for registry in registries():
        for name, labels in exported(registry).items():
            names[name] = names.get(name, set()) | labels
    return names


def expressions():
    for group in RULES["groups"]:
        for rule in group["rules"]:
            yield f"rule {rule['alert']}", rule["expr"]
    for name, dashboard in DASHBOARDS.items():
        for annotation in dashboard["annotations"]["list"]:
            yield f"{name}: annotation", annotation["expr"]
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                yield f"{name}: {panel['title']}", target["expr"]


EXPRESSIONS = list(expressions())


def parts(expression):
    """The series and the labels that an expression names."""
    bare = re.sub(r'"[^"]*"', "", expression)
    labels = set(re.findall(r"[{,]\s*(\w+)\s*(?==|!|~)", bare))
    bare = re.sub(r"\{[^}]*\}", "", bare)
    for group in re.findall(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", bare):
        labels |= {name.strip() for name in group.split(",")}
    bare = re.sub(r"\b(?:by|without|on|ignoring)\s*\([^)]*\)", "", bare)
    bare = re.sub(r"\[[^]]*\]", "", bare)
    names = set(re.findall(r"\b([a-zA-Z_:][\w:]*)\b(?!\s*\()", bare)) - WORDS
    return names, labels


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=[where for where, _ in EXPRESSIONS])
def test_every_metric_and_label_is_exported(known, where, expression):
    names, labels = parts(expression)
    assert names, expression
    assert names <= known.keys(), f"{where}: {names - known.keys()} is exported by nobody"
    there = set.union(*(known[name] for name in names)) | LABELS_OF_A_SCRAPE
    assert labels <= there, f"{where}: no label {labels - there}"


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=[where for where, _ in EXPRESSIONS])
def test_functions_are_promql_and_brackets_close(where, expression):
    bare = re.sub(r'"[^"]*"', "", expression)
    assert set(re.findall(r"\b(\w+)\s*\(", bare)) <= FUNCTIONS | WORDS, where
    opened = []
    for one in re.findall(r"[()\[\]{}]", bare):
        if one in "([{":
            opened.append(one)
        else:
            assert opened.pop() + one in ("()", "[]", "{}"), where
    assert not opened, where
    # A rate is of a counter: its name says so.
    for name in re.findall(r"\b(?:rate|increase)\(([a-z_0-9]+)", bare):
        assert name.endswith(("_total", "_bucket", "_count", "_sum")), where


def test_the_reading_of_expressions_finds_what_is_wrong():
    expression = 'sum by (le, topic) (rate(gpu_x_bucket{job="a",code=~"B|C"}[5m])) > 2 and up == 0'
    assert parts(expression) == ({"gpu_x_bucket", "up"}, {"le", "topic", "job", "code"})


def test_legends_name_labels_that_the_expression_keeps():
    for name, dashboard in DASHBOARDS.items():
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                wanted = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
                kept = re.findall(r"\bby\s*\(([^)]*)\)", target["expr"])
                if kept:
                    assert wanted <= {one.strip() for one in kept[0].split(",")}, (name, panel["title"])


def test_prometheus_reads_both_services_where_they_export():
    targets = {
        job["job_name"]: target
        for job in PROMETHEUS["scrape_configs"]
        for static in job["static_configs"]
        for target in static["targets"]
    }
    assert set(targets) == {"book_service", "risk_service"}
    for job, target in targets.items():
        host, port = target.split(":")
        assert host == job
        assert COMPOSE[job]["environment"]["GPU_RISK_METRICS_PORT"] == port
        assert any(published.endswith(f":{port}") for published in COMPOSE[job]["ports"])
    jobs = {match for _, expression in EXPRESSIONS for match in re.findall(r'job="(\w+)"', expression)}
    assert jobs <= set(targets)


def test_prometheus_has_its_files():
    mounted = dict(one.split(":")[:2] for one in COMPOSE["prometheus"]["volumes"])
    assert mounted["./prometheus.yml"] == "/etc/prometheus/prometheus.yml"
    assert PROMETHEUS["rule_files"] == [mounted["./rules.yml"]]


def test_rules_say_how_bad_it_is_and_what_it_is():
    alerts = [rule for group in RULES["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in alerts}) == len(alerts) >= 8
    page = (DOCKER.parent / "docs" / "operations.md").read_text()
    for rule in alerts:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]
        assert f"`{rule['alert']}`" in page


def test_grafana_finds_its_source_and_its_dashboards():
    [source] = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in COMPOSE
    [provider] = yaml.safe_load((PROVISIONING / "dashboards" / "dashboards.yaml").read_text())["providers"]
    mounted = dict(one.split(":")[:2] for one in COMPOSE["grafana"]["volumes"])
    assert provider["options"]["path"] == mounted["./grafana/dashboards"]
    home = COMPOSE["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (DOCKER / "grafana" / "dashboards" / Path(home).name).is_file()
    assert Path(home).parent == Path(provider["options"]["path"])
    assert len({one["uid"] for one in DASHBOARDS.values()}) == len(DASHBOARDS) >= 2
    for dashboard in DASHBOARDS.values():
        for panel in dashboard["panels"]:
            if panel["type"] != "row":
                assert panel["datasource"]["uid"] == source["uid"]
                assert panel["description"]


def test_panels_do_not_lie_on_each_other():
    for name, dashboard in DASHBOARDS.items():
        taken = set()
        for panel in dashboard["panels"]:
            grid = panel["gridPos"]
            cells = {(grid["x"] + x, grid["y"] + y) for x in range(grid["w"]) for y in range(grid["h"])}
            assert not cells & taken, (name, panel["title"])
            assert grid["x"] + grid["w"] <= 24
            taken |= cells
