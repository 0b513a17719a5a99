"""Generate `deploy/kubernetes/*.yaml` from the chart: `python -m tools.manifests`. Needs Helm 3; HELM may name it."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
CHART = ROOT / "deploy" / "helm"
MANIFESTS = ROOT / "deploy" / "kubernetes"
#: Templates that make a manifest each; the others need CRDs.
NAMES = ("settings", "setup", "ingress", "streams", "sink", "sse", "network")

#: A helm that was built from its module knows no version of Kubernetes.
FOR_ANY_HELM = ("--kube-version", "1.37.0")

_HEADER = "# Generated from deploy/helm by `python -m tools.manifests`.\n"


def helm() -> str | None:
    """Return the program; None if there is none."""
    return os.environ.get("HELM") or shutil.which("helm")


def rendered(program: str) -> Mapping[str, str]:
    """Return each manifest's text by its path: the chart with its defaults and the event stream.

    Without hooks, as `kubectl` has none; `kustomization.yaml` says which manifests are applied.
    """
    made = {}
    for name in NAMES:
        command = [program, "template", "eventpush", str(CHART), "--show-only", f"templates/{name}.yaml"]
        command += ["--set", "hooks=false,sse.enabled=true", *FOR_ANY_HELM]
        text = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
        lines = [line.rstrip() for line in text.splitlines() if not line.startswith("# Source: ")]
        made[f"{name}.yaml"] = _HEADER + "\n".join(line for line in lines if line).replace("---\n", "", 1) + "\n"
    return made


def main() -> None:
    """Write all manifests."""
    program = helm()
    if program is None:
        raise SystemExit("helm is not installed: install it, or name it in HELM")
    for name, text in rendered(program).items():
        (MANIFESTS / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
