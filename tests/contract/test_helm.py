"""The Helm chart: what it renders is valid and says what the services need, and the plain manifests come from it."""

import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from runtime.platform import metrics, settings
from tools import manifests

VALUES: dict[str, Any] = yaml.safe_load((manifests.CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((manifests.CHART / "values.schema.json").read_text())
#: Of operators, not of Kubernetes itself.
CUSTOM = {"ServiceMonitor", "ScaledObject"}
EVERYTHING = {
    "ingress": {"autoscaling": {"enabled": True}, "public": {"className": "nginx", "annotations": {"a/b": "c"}}},
    "streams": {"autoscaling": {"enabled": True, "maxReplicas": 99}},
    "sink": {"autoscaling": {"enabled": True, "maxReplicas": 5}},
    "sse": {"enabled": True, "public": {"enabled": True, "className": "nginx"}, "namespaces": ["edge", "dashboards"]},
    "prometheus": {"serviceMonitor": {"enabled": True, "labels": {"release": "p"}}, "selector": 'namespace="events"'},
    "imagePullSecrets": [{"name": "pull"}],
}


def program() -> str:
    """Helm, or the test is skipped."""
    found = manifests.helm()
    if found is None:
        pytest.skip("helm is not installed: install Helm 3, or name it in HELM")
    return found


def helm(*arguments: str, status: int = 0) -> str:
    """What helm prints; it must end with this status."""
    result = subprocess.run([program(), *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == status, result.stdout + result.stderr
    return result.stdout if status == 0 else result.stderr


def template(tmp_path: Path, values: dict[str, Any]) -> list[dict[str, Any]]:
    """The manifests of the chart with these values beside the defaults."""
    given = tmp_path / "values.yaml"
    given.write_text(yaml.safe_dump(values))
    text = helm("template", "eventpush", str(manifests.CHART), "--values", str(given), *manifests.FOR_ANY_HELM)
    return [document for document in yaml.safe_load_all(text) if document]


def of_kind(documents: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    """The manifests of a kind by name."""
    return {document["metadata"]["name"]: document for document in documents if document["kind"] == kind}


def test_the_manifests_are_those_of_the_chart() -> None:
    """`python -m tools.manifests` would change nothing."""
    for name, text in manifests.rendered(program()).items():
        assert (manifests.MANIFESTS / name).read_text() == text, f"{name}: run `python -m tools.manifests`"


def test_the_chart_is_clean() -> None:
    """`helm lint` finds nothing, not even a warning."""
    assert "0 chart(s) failed" in helm("lint", "--strict", str(manifests.CHART), *manifests.FOR_ANY_HELM)


@pytest.mark.parametrize("values", [{}, EVERYTHING, {"hooks": False, "networkPolicy": {"enabled": False}}])
def test_what_it_renders_keeps_the_schema_of_kubernetes(tmp_path: Path, values: dict[str, Any]) -> None:
    """With the defaults, with everything, and with what can be left out, in the oldest and newest supported version."""
    for document in template(tmp_path, values):
        if document["kind"] not in CUSTOM:
            for version in ("1.27", "1.37"):
                kubernetes_validate.validate(document, version, strict=True)


def test_topics_and_tables_are_made_before_the_services(tmp_path: Path) -> None:
    """By a hook, which finds all settings in itself: Helm makes the ConfigMap after it."""
    documents = template(tmp_path, {})
    (job,) = of_kind(documents, "Job").values()
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    pod = job["spec"]["template"]["spec"]
    for container in (*pod["initContainers"], *pod["containers"]):
        assert {variable["name"]: variable["value"] for variable in container["env"]} == VALUES["settings"]
        assert all("configMapRef" not in source for source in container["envFrom"])
    assert of_kind(documents, "ConfigMap")["eventpush"]["data"] == VALUES["settings"]


def test_each_process_gets_only_its_secrets(tmp_path: Path) -> None:
    """The names are those of existing Secrets; only ClickHouse's must be there; nothing else is in the pods."""
    documents = template(tmp_path, {"secrets": {"clickhouse": "theirs", "kafka": ""}})
    secrets = {
        name: [source["secretRef"] for source in found["spec"]["template"]["spec"]["containers"][0]["envFrom"][1:]]
        for name, found in of_kind(documents, "Deployment").items()
    }
    assert secrets == {
        "eventpush-ingress": [{"name": "eventpush-ingress", "optional": True}],
        "eventpush-streams": [{"name": "eventpush-erasure", "optional": True}],
        "eventpush-sink": [{"name": "theirs"}, {"name": "eventpush-erasure", "optional": True}],
    }


def test_the_event_stream_is_left_out_unless_it_is_enabled(tmp_path: Path) -> None:
    """It needs tokens. Then it has its Secret, its path is public alone, and only named namespaces reach its port."""
    assert not [document for document in template(tmp_path, {}) if "sse" in document["metadata"]["name"]]
    documents = template(tmp_path, EVERYTHING)
    (container,) = of_kind(documents, "Deployment")["eventpush-sse"]["spec"]["template"]["spec"]["containers"]
    assert {"secretRef": {"name": "eventpush-sse"}} in container["envFrom"]
    (rule,) = of_kind(documents, "Ingress")["eventpush-sse"]["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    assert (path["path"], path["pathType"]) == ("/events/stream", "Exact")
    service = of_kind(documents, "Service")[path["backend"]["service"]["name"]]
    assert service["spec"]["selector"]["app.kubernetes.io/component"] == "sse"
    (allowed,) = of_kind(documents, "NetworkPolicy")["eventpush-sse"]["spec"]["ingress"]
    (source,) = allowed["from"]
    assert source["namespaceSelector"]["matchExpressions"][0]["values"] == ["edge", "dashboards"]


def test_autoscaling_follows_our_lag_and_ends_at_the_partitions(tmp_path: Path) -> None:
    """No replicas are fixed then; the queries ask metrics that exist; no more workers than partitions."""
    documents = template(tmp_path, EVERYTHING)
    fixed = {name for name, found in of_kind(documents, "Deployment").items() if "replicas" in found["spec"]}
    assert fixed == {"eventpush-sse"}  # its clients have no lag that would be ours
    scaled = of_kind(documents, "ScaledObject")
    assert {name: found["spec"]["maxReplicaCount"] for name, found in scaled.items()} == {
        "eventpush-streams": int(VALUES["settings"]["EVENTPUSH_TOPIC_PARTITIONS"]),
        "eventpush-sink": 5,
    }
    queries = {found["spec"]["triggers"][0]["metadata"]["query"] for found in scaled.values()}
    lags = (metrics.STREAMS_LAG.name, metrics.SINK_LAG.name)
    assert queries == {f'sum({name}{{namespace="events"}})' for name in lags}
    (hpa,) = of_kind(documents, "HorizontalPodAutoscaler").values()
    assert hpa["spec"]["scaleTargetRef"]["name"] == "eventpush-ingress"


def test_prometheus_finds_each_service_under_the_name_of_the_alerts(tmp_path: Path) -> None:
    """The monitor selects one headless Service for each, whose label `job` is the job's name in the alerts."""
    documents = template(tmp_path, EVERYTHING)
    (monitor,) = of_kind(documents, "ServiceMonitor").values()
    selected = [
        found
        for found in of_kind(documents, "Service").values()
        if monitor["spec"]["selector"]["matchLabels"].items() <= found["metadata"].get("labels", {}).items()
    ]
    jobs = {found["metadata"]["labels"][monitor["spec"]["jobLabel"]] for found in selected}
    assert jobs == set(of_kind(documents, "Deployment"))
    assert all(found["spec"]["clusterIP"] == "None" for found in selected)


def test_the_settings_are_settings() -> None:
    """The processes would start with the default values."""
    settings.load(VALUES["settings"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"setting": {}},
        {"settings": {"EVENTPUSH_TOPIC_PARTITIONS": 12}},
        {"settings": {"EVENTPUSH_CLICKHOUSE_PASSWORD": "secret"}},
        {"settings": {"KAFKA_BOOTSTRAP": "b:9092"}},
        {"streams": {"replicas": 0}},
        {"secrets": {"clickhouse": ""}},
        {"sse": {"namespaces": []}},
    ],
)
def test_wrong_values_are_refused(wrong: dict[str, Any]) -> None:
    """Unknown names, numbers for texts, secrets among the settings: the schema refuses them; the defaults pass."""
    jsonschema.validate(VALUES, SCHEMA)
    values = {name: found | wrong.get(name, {}) if isinstance(found, dict) else found for name, found in VALUES.items()}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values | {name: value for name, value in wrong.items() if name not in VALUES}, SCHEMA)


def test_the_chart_is_of_this_version() -> None:
    """Chart and application have the project's version."""
    chart = yaml.safe_load((manifests.CHART / "Chart.yaml").read_text())
    kustomization = yaml.safe_load((manifests.MANIFESTS / "kustomization.yaml").read_text())
    tags = {image["newTag"] for image in kustomization["images"]}
    assert {chart["version"], chart["appVersion"]} == tags
