"""Saccade's chart as Helm renders it, and what Kubernetes and the projects of its custom resources say of manifests."""

import json
import re
from functools import cache
from pathlib import Path

import helm_python
import jsonschema
import yaml
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

from crds import CRDS

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "saccade"
KUSTOMIZE = ROOT / "deploy" / "kustomize"
PROFILES = sorted(path.stem for path in (CHART / "profiles").glob("*.yaml"))
# The oldest version that the chart admits, and the newest whose schemas there are.
KUBERNETES = ("1.30", "1.37")
# Manifests of which there is one in a cluster.
GLOBAL = {"ClusterRole", "ClusterRoleBinding", "PriorityClass", "Namespace"}

Manifest = dict


class Unique(yaml.CSafeLoader):
    """Refuses keys that come twice, of which YAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        assert not twice, f"{node.start_mark}: {', '.join(map(str, twice))} comes twice"
        return super().construct_mapping(node, deep)


def parse(text: str) -> list[Manifest]:
    return [it for it in yaml.load_all(text, Unique) if it]


def merged(*layers: dict) -> dict:
    """Values over values, as `helm --values A --values B` lays them."""
    out: dict = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, dict) and isinstance(out.get(key), dict)
            out[key] = merged(out[key], value) if both else value
    return out


def profile(name: str) -> dict:
    """Values of a profile; of "default" there are none."""
    return {} if name == "default" else yaml.load((CHART / "profiles" / f"{name}.yaml").read_text(), Unique)


@cache
def _rendered(values: str, release: str, namespace: str) -> dict[str, str]:
    with helm_python.Chart.load(CHART) as chart:
        return chart.render(json.loads(values), name=release, namespace=namespace)


def files(values: dict, release: str = "saccade", namespace: str = "vision") -> dict[str, str]:
    """What Helm makes of each template."""
    return {
        Path(path).name: text
        for path, text in _rendered(json.dumps(values), release, namespace).items()
        if not path.endswith(".txt")
    }


def render(values: dict, release: str = "saccade", namespace: str = "vision") -> list[Manifest]:
    return [it for text in files(values, release, namespace).values() for it in parse(text)]


def refusal(values: dict) -> str:
    """What Helm says of values that it does not take."""
    try:
        _rendered(json.dumps(values), "saccade", "vision")
    except helm_python.HelmError as error:
        return str(error)
    raise AssertionError(f"Helm took {values}")


@cache
def _definitions(folder: str) -> Registry:
    return Resource.from_contents(schema_contents(f"{folder}/_definitions.json", "")) @ Registry()


@cache
def _validator(version: str, api_version: str, kind: str) -> jsonschema.Draft202012Validator:
    """Kubernetes' own schema of a kind, made strict; its files are named after group and version: rbac-v1 for
    rbac.authorization.k8s.io/v1."""
    folder = f"kubernetes-json-schema/v{version}.0-local-strict"
    group = re.sub(r"^([^./]*)(\.[^/]*)?/", r"\1-", api_version)
    schema = schema_contents(f"{folder}/{kind.lower()}-{group}.json", version)
    return jsonschema.Draft202012Validator(schema, registry=Resource.from_contents(schema) @ _definitions(folder))


def validate(manifest: Manifest) -> None:
    """Against the published schemas, in which unknown fields are mistakes."""
    name = f"{manifest['kind']} {manifest['metadata']['name']}"
    schema = CRDS.get((manifest["apiVersion"], manifest["kind"]))
    try:
        if schema is None:
            for version in KUBERNETES:
                _validator(version, manifest["apiVersion"], manifest["kind"]).validate(manifest)
        else:
            jsonschema.Draft202012Validator(schema).validate(manifest)
    except jsonschema.ValidationError as error:
        raise AssertionError(f"{name}: {error.json_path}: {error.message}") from None
    assert len(manifest["metadata"]["name"]) <= 63, name


def of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    return [it for it in manifests if it["kind"] in kinds]


def component(manifest: Manifest) -> str:
    """Whether it belongs to the pods that clients connect to, `server`, or to servers that run models for them, `inference`."""
    return manifest["metadata"].get("labels", {}).get("app.kubernetes.io/component", "server")


def parts(manifests: list[Manifest], which: str) -> list[Manifest]:
    """The manifests of one component."""
    return [it for it in manifests if component(it) == which]


def the(manifests: list[Manifest], kind: str, name: str = "") -> Manifest:
    """The one manifest of a kind, or of a kind and name; without a name, that of the pods that clients connect to."""
    if not name and len(of_kind(manifests, kind)) > 1:
        manifests = parts(manifests, "server")
    found = [it for it in of_kind(manifests, kind) if name in ("", it["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} of {kind} {name}"
    return found[0]


def pod_spec(manifests: list[Manifest]) -> dict:
    return the(manifests, "StatefulSet")["spec"]["template"]["spec"]


def adapter_rules() -> dict[str, dict]:
    """What prometheus-adapter is told to answer, by the names that autoscalers ask for."""
    whole = yaml.load((CHART / "prometheus-adapter.yaml").read_text(), Unique)
    return {it["name"]["as"]: it for it in whole["rules"]["custom"]}


def adapter_query(rule: dict, namespace: str, pods: str) -> str:
    """The expression that prometheus-adapter sends for pods, which are a regular expression."""
    query = rule["metricsQuery"].replace("<<.Series>>", rule["seriesQuery"].split("{")[0])
    return query.replace("<<.GroupBy>>", "pod").replace("<<.LabelMatchers>>", f'namespace="{namespace}",pod=~"{pods}"')


def keda_queries() -> dict[str, str]:
    """What KEDA asks Prometheus, for pods, for servers of models, and for those where they are Triton."""
    inference = merged(profile("inference"), {"inference": {"autoscaling": {"mode": "keda"}}})
    triton = {"server": "triton", "image": "triton:1", "repository": {"existingClaim": "models"}}
    asked = {it["name"]: it["metadata"]["query"] for it in the(render(profile("keda")), "ScaledObject")["spec"]["triggers"]}
    for name, values in {"inference": inference, "triton": merged(inference, {"inference": triton})}.items():
        [trigger] = the(render(values), "ScaledObject", "saccade-inference")["spec"]["triggers"]
        asked[name] = trigger["metadata"]["query"]
    return asked


def server(manifests: list[Manifest]) -> dict:
    return next(it for it in pod_spec(manifests)["containers"] if it["name"] == "saccade")


def selects(selector: dict, labels: dict) -> bool:
    """Whether a selector (matchLabels alone) takes what has these labels."""
    assert set(selector) <= {"matchLabels"}, f"the tests know matchLabels alone: {selector}"
    return selector.get("matchLabels", {}).items() <= labels.items()


def pods(manifests: list[Manifest], number: int) -> list[tuple[str, dict]]:
    """Names and labels of the first pods that a StatefulSet makes."""
    one = the(manifests, "StatefulSet")
    name, labels = one["metadata"]["name"], one["spec"]["template"]["metadata"]["labels"]
    return [(f"{name}-{it}", labels | {"statefulset.kubernetes.io/pod-name": f"{name}-{it}"}) for it in range(number)]


def expand(text: str, known: dict[str, str]) -> str:
    """`$(NAME)` as the kubelet expands it: names that it does not know stay as they are."""
    return re.sub(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)", lambda it: known.get(it[1], it[0]), text)
