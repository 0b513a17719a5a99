"""Metrics, columns, ports and settings in `deploy/` match the code."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import clickhouse_connect
import kubernetes_validate
import pytest
import yaml

from eventpush.cli import SUMMARIES
from runtime.platform import metrics, settings
from schemas.rules import Reason
from sinks.migrator import migrate
from streams.app import expose_zero_counts

DEPLOY = Path(__file__).parents[2] / "deploy"
RUNBOOKS = DEPLOY.parent / "docs" / "runbooks"
PROMETHEUS = DEPLOY / "prometheus"
RULE_FILES = [PROMETHEUS / name for name in yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["rule_files"]]
RULES: list[dict[str, Any]] = [
    rule for path in RULE_FILES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
RECORDS = {rule["record"] for rule in RULES if "record" in rule}
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
PANELS: list[dict[str, Any]] = [panel for path in DASHBOARDS for panel in json.loads(path.read_text())["panels"]]
TARGETS: list[dict[str, Any]] = [target for panel in PANELS for target in panel.get("targets", ())]
EXPRESSIONS = [rule["expr"] for rule in RULES] + [target["expr"] for target in TARGETS if "expr" in target]
QUERIES = [target["rawSql"] for target in TARGETS if "rawSql" in target]
MANIFESTS: list[dict[str, Any]] = [
    document
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
]

ALERTS_TEST = Path(__file__).parent / "alerts_test.yml"
RUNBOOK_PARTS = ["Symptom", "Meaning", "Commands", "When to escalate"]

#: Made by Prometheus and its client library, not by us.
_FOREIGN = {"up": {"job"}, "process_start_time_seconds": {"job"}}
_ADDED = {"job", "instance", "le"}
_METRIC = re.compile(r"\b(eventpush_\w+|up|process_\w+)\b(?:\{([^}]*)\})?")
_RECORD = re.compile(r"\b((?:slo|eventpush):[\w:]+)")


@pytest.mark.parametrize("version", ["1.27", "1.32", "1.37"])
@pytest.mark.parametrize(
    "manifest",
    [manifest for manifest in MANIFESTS if manifest["kind"] != "Kustomization"],
    ids=lambda manifest: f"{manifest['kind']} {manifest['metadata']['name']}",
)
def test_manifests_keep_the_schema_of_kubernetes(manifest: dict[str, Any], version: str) -> None:
    """Every key is one of Kubernetes' API with a value of its type, in the oldest and the newest supported version."""
    kubernetes_validate.validate(manifest, version, strict=True)


def known_metrics() -> dict[str, set[str]]:
    """Return every metric name that Prometheus shows, with its labels."""
    known = dict(_FOREIGN)
    for name, kind, labels, _ in metrics.table():
        names = [f"{name}_{part}" for part in ("bucket", "sum", "count")] if kind == "histogram" else [name]
        known |= {shown: {label for label in labels.split(", ") if label} | _ADDED for shown in names}
    return known


def test_every_metric_that_is_named_exists_with_its_labels() -> None:
    """In alerts and dashboards, in selectors and in `by (…)`."""
    known = known_metrics()
    for expression in EXPRESSIONS:
        used, records = _METRIC.findall(expression), set(_RECORD.findall(expression))
        assert records <= RECORDS, expression
        assert used or records or expression.startswith("vector("), expression
        for name, selector in used:
            assert name in known, f"{name} in {expression}"
            assert set(re.findall(r"(\w+)\s*[=!]~?", selector)) <= known[name], expression
        grouped = {word for words in re.findall(r"\bby \(([^)]*)\)", expression) for word in words.split(", ")}
        assert grouped <= set().union(*(known[name] for name, _ in used)), expression


def test_every_alert_says_what_is_wrong_and_how_urgent_it_is() -> None:
    """Names are unique; each has a summary and a severity."""
    names = [rule["alert"] for rule in ALERTS]
    assert len(set(names)) == len(names)
    for rule in ALERTS:
        assert rule["annotations"]["summary"], rule["alert"]
        assert rule["labels"]["severity"] in {"page", "ticket"}, rule["alert"]


def test_every_alert_has_its_runbook() -> None:
    """A page of its own with the four parts and commands to run, and no page is of an alert that is gone."""
    for rule in ALERTS:
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{rule['alert']}.md"
        text = (RUNBOOKS / f"{rule['alert']}.md").read_text()
        assert re.findall("^#+ (.+)$", text, re.MULTILINE) == [rule["alert"], *RUNBOOK_PARTS]
        assert re.search(r"^```sh\n.*eventpush .*^```$", text, re.MULTILINE | re.DOTALL), rule["alert"]
    pages = {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"}
    assert pages == {rule["alert"] for rule in ALERTS}
    index = (RUNBOOKS / "README.md").read_text()
    listed = re.findall(r"^\| \[(\w+)\]\(\1\.md\) \| (\w+) \| (.+) \|$", index, re.MULTILINE)
    assert listed == [(rule["alert"], rule["labels"]["severity"], rule["annotations"]["summary"]) for rule in ALERTS]


def test_every_runbook_has_its_drill() -> None:
    """The drills name each page once: there is none without one."""
    drills = (DEPLOY.parent / "tests" / "integration" / "test_runbooks.py").read_text()
    assert sorted(re.findall(r'"(Eventpush\w+)"', drills)) == sorted(rule["alert"] for rule in ALERTS)


def promtool(*arguments: str) -> str:
    """What promtool prints; it must succeed."""
    program = os.environ.get("PROMTOOL") or shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed: it is in the package `prometheus` of Debian, or name it in PROMTOOL")
    result = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_promtool_accepts_the_configuration() -> None:
    """What is scraped, and syntax and types of every expression, by Prometheus' own parser."""
    checked = promtool("check", "config", str(PROMETHEUS / "prometheus.yml"))
    assert checked.count("rules found") == len(RULE_FILES) == len(list(PROMETHEUS.glob("*.yml"))) - 1


def test_alerts_fire_when_they_should() -> None:
    """On made-up series: each fault fires its alert and no other, a healthy system is quiet."""
    assert "SUCCESS" in promtool("test", "rules", str(ALERTS_TEST))


def test_every_alert_fires_in_a_test() -> None:
    """The unit tests read all files of rules, and expect each alert at least once."""
    given = yaml.safe_load(ALERTS_TEST.read_text())
    assert {(ALERTS_TEST.parent / name).resolve() for name in given["rule_files"]} == set(RULE_FILES)
    cases = [case for test in given["tests"] for case in test.get("alert_rule_test", ())]
    samples = [case["exp_samples"] for test in given["tests"] for case in test.get("promql_expr_test", ())]
    fired = {case["alertname"] for case in cases if case["exp_alerts"]}
    fired |= set(re.findall(r'alertname="(\w+)"', str(samples)))
    assert fired == {rule["alert"] for rule in ALERTS}


def test_prometheus_scrapes_the_ports_of_the_settings() -> None:
    """Each job's port is the metrics port of its service."""
    default = settings.load({})
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    ports = {job["job_name"]: job["dns_sd_configs"][0]["port"] for job in config["scrape_configs"]}
    assert ports == {
        "eventpush-ingress": default.ingress_metrics_port,
        "eventpush-streams": default.streams_metrics_port,
        "eventpush-sink": default.sink_metrics_port,
        "eventpush-sse": default.sse_port,
    }
    assert all((DEPLOY / "prometheus" / name).exists() for name in config["rule_files"])


def test_panels_ask_data_sources_that_are_provisioned() -> None:
    """Panels name a data source by type and uid, and do not overlap."""
    provisioned = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/eventpush.yml").read_text())
    sources = {(source["type"], source["uid"]) for source in provisioned["datasources"]}
    assert {(t["datasource"]["type"], t["datasource"]["uid"]) for t in TARGETS} == sources
    for path in DASHBOARDS:
        panels = json.loads(path.read_text())["panels"]
        assert len({tuple(panel["gridPos"].values()) for panel in panels}) == len(panels)
        assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({json.loads(path.read_text())["uid"] for path in DASHBOARDS}) == len(DASHBOARDS)


def as_the_plugin_sends(query: str, begin: str, end: str, fleets: str) -> str:
    """Return a panel's query with the macros of Grafana's ClickHouse plugin and our variable replaced."""
    begin, end = f"toDateTime('{begin}', 'UTC')", f"toDateTime('{end}', 'UTC')"
    sql = re.sub(r"\$__timeFilter\((\w+)\)", rf"\1 >= {begin} AND \1 <= {end}", query)
    sql = re.sub(r"\$__timeInterval\((\w+)\)", r"toStartOfInterval(toDateTime(\1), INTERVAL 60 second)", sql)
    sql = sql.replace("$__fromTime", begin).replace("$__toTime", end).replace("${fleet:singlequote}", fleets)
    assert "$" not in sql
    return sql


async def test_every_query_of_the_dashboards_runs(clickhouse_url: str) -> None:
    """On the real ClickHouse with the schema of this code, Grafana's macros replaced as its plugin does."""
    where = settings.load({"EVENTPUSH_CLICKHOUSE_URL": clickhouse_url})
    host, port = clickhouse_url.removeprefix("http://").split(":")
    client = await clickhouse_connect.get_async_client(host=host, port=int(port))
    try:
        await migrate(client, where)
        assert QUERIES
        for query in QUERIES:
            await client.query(as_the_plugin_sends(query, "2024-01-01 00:00:00", "2026-01-01 00:00:00", "'North'"))
    finally:
        await client.close()


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Return every pod specification, by the name of its controller."""
    for document in MANIFESTS:
        if document["kind"] in {"Deployment", "Job"}:
            yield document["metadata"]["name"], document["spec"]["template"]["spec"]


def containers() -> Iterator[tuple[str, dict[str, Any]]]:
    """Return every container of our pods."""
    for name, pod in pods():
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            yield name, container


def configuration() -> dict[str, str]:
    """Return the ConfigMap's settings for every process."""
    (config,) = [document for document in MANIFESTS if document["kind"] == "ConfigMap"]
    data: dict[str, str] = config["data"]
    return data


def test_the_variables_of_the_manifests_are_settings() -> None:
    """The processes would start with them, on topics that survive the loss of a broker."""
    loaded = settings.load(configuration())
    assert (loaded.topic_replication_factor, loaded.topic_min_insync_replicas) == (3, 2)
    text = "".join(path.read_text() for path in (DEPLOY / "kubernetes").iterdir())
    known = {settings.variable(field) for field in settings.Settings.model_fields}
    assert set(re.findall(r"EVENTPUSH_[A-Z_]+[A-Z]", text)) <= known


def test_pods_run_unprivileged() -> None:
    """Not root, no capabilities, read-only but for volumes, no cluster token."""
    for name, pod in pods():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["runAsUser"] != 0, name
        assert pod["automountServiceAccountToken"] is False, name
    for name, container in containers():
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False, name
        assert security["readOnlyRootFilesystem"] is True, name
        assert security["capabilities"] == {"drop": ["ALL"]}, name
        assert "memory" in container["resources"]["limits"], name


def test_kubernetes_adds_no_variables_that_look_like_settings() -> None:
    """For a Service `eventpush` it would add EVENTPUSH_PORT and others, and an unknown setting is refused at start."""
    assert all(pod["enableServiceLinks"] is False for _, pod in pods())


def test_containers_run_commands_that_exist() -> None:
    """The first argument of every container is a command of `eventpush`."""
    assert {container["args"][0] for _, container in containers()} == {
        "topics",
        "migrate",
        "ingress",
        "streams",
        "sink",
        "sse",
    }
    assert {container["args"][0] for _, container in containers()} <= set(SUMMARIES)


def test_probes_ask_the_ports_that_the_services_listen_on() -> None:
    """Liveness probes /healthz and readiness /readyz, on the port of the settings."""
    loaded = settings.load(configuration())
    ports = {
        "ingress": {"http": loaded.ingress_port, "metrics": loaded.ingress_metrics_port},
        "streams": {"metrics": loaded.streams_metrics_port},
        "sink": {"metrics": loaded.sink_metrics_port},
        "sse": {"metrics": loaded.sse_port},
    }
    services = {container["name"]: container for name, container in containers() if name != "eventpush-setup"}
    assert set(services) == set(ports)
    for name, container in services.items():
        assert {port["name"]: port["containerPort"] for port in container["ports"]} == ports[name]
        asked = "http" if name == "ingress" else "metrics"
        assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": asked}
        assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": asked}


def test_no_service_leads_to_metrics() -> None:
    """Only the ingress's port and the API's path are public. The event stream's Service is for its proxy alone."""
    for document in MANIFESTS:
        if document["kind"] == "Service":
            expected = "metrics" if document["metadata"]["name"] == "eventpush-sse" else "http"
            assert [port["targetPort"] for port in document["spec"]["ports"]] == [expected]
        if document["kind"] == "Ingress":
            assert document["spec"]["tls"]
            paths = [path["path"] for rule in document["spec"]["rules"] for path in rule["http"]["paths"]]
            assert paths == ["/api/events"]


def test_selectors_select_their_pods() -> None:
    """Selectors of Deployments and Services match their pods' labels."""
    labels = {
        document["metadata"]["name"]: document["spec"]["template"]["metadata"]["labels"]
        for document in MANIFESTS
        if document["kind"] == "Deployment"
    }
    for document in MANIFESTS:
        if document["kind"] == "Deployment":
            assert document["spec"]["selector"]["matchLabels"] == labels[document["metadata"]["name"]]
        if document["kind"] == "Service":
            assert document["spec"]["selector"] in labels.values()


def of_kind(kind: str) -> list[dict[str, Any]]:
    """Return the manifests of a kind."""
    return [document for document in MANIFESTS if document["kind"] == kind]


def test_an_eviction_takes_one_pod_of_a_service_at_a_time() -> None:
    """Each Deployment has a PodDisruptionBudget that selects its pods and lets one be unavailable."""
    budgets = {document["metadata"]["name"]: document["spec"] for document in of_kind("PodDisruptionBudget")}
    assert budgets == {
        document["metadata"]["name"]: {"maxUnavailable": 1, "selector": document["spec"]["selector"]}
        for document in of_kind("Deployment")
    }


def test_only_prometheus_may_connect_to_metrics() -> None:
    """Every pod of a service is under a NetworkPolicy that opens metrics to one namespace; the API's port is public.

    The event stream is on the port of its metrics: the namespace of its proxy may connect to that one too.
    """
    opened = [
        (document["spec"]["podSelector"]["matchLabels"], port["port"], "from" in rule)
        for document in of_kind("NetworkPolicy")
        for rule in document["spec"]["ingress"]
        for port in rule["ports"]
    ]
    all_pods = {"app.kubernetes.io/name": "eventpush"}
    assert opened == [
        (all_pods, "metrics", True),
        (all_pods | {"app.kubernetes.io/component": "ingress"}, "http", False),
        (all_pods | {"app.kubernetes.io/component": "sse"}, "metrics", True),
    ]
    for document in of_kind("Deployment"):
        assert all_pods.items() <= document["spec"]["template"]["metadata"]["labels"].items()


def test_the_kustomization_names_every_manifest() -> None:
    """`kubectl apply -k` applies every manifest; the line of what needs tokens is a comment, to be uncommented."""
    text = (DEPLOY / "kubernetes" / "kustomization.yaml").read_text()
    uncommented = text.replace("  # - sse.yaml", "  - sse.yaml")
    there = {path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")} - {"kustomization.yaml"}
    assert set(yaml.safe_load(text)["resources"]) == there - {"sse.yaml"}
    assert set(yaml.safe_load(uncommented)["resources"]) == there


def test_an_emergency_that_is_dead_lettered_pages() -> None:
    """The first dead letter of an SOS fires an alert: its counter is shown at 0 before it, for every reason."""
    (rule,) = [rule for rule in ALERTS if rule.get("alert") == "EventpushEmergencyDeadLettered"]
    assert rule["labels"] == {"severity": "page"}
    assert 'eventpush_streams_dead_letters_total{category="emergency"}' in rule["expr"]
    expose_zero_counts()
    shown = {
        sample.labels["reason"]
        for family in metrics.STREAMS_DEAD_LETTERS.metric.collect()
        for sample in family.samples
        if sample.labels["category"] == "emergency" and sample.name.endswith("_total")
    }
    assert shown == {str(reason) for reason in Reason}
