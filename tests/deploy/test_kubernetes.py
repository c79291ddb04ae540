"""The chart and the kustomizations: every manifest is one that Kubernetes takes, they fit together, and the real binary
takes the configuration in them. Helm's own library renders; there is no cluster."""

import ipaddress
import json
import os
import re
import stat
import subprocess
import tomllib
import urllib.request
from pathlib import Path

import aiohttp
import helm_python
import pytest
import yaml
from aiortc import RTCPeerConnection

import chart
from chart import (
    CHART, KUSTOMIZE, PROFILES, ROOT, adapter_rules, expand, merged, of_kind, pod_spec, profile, render, selects, server, the,
)  # fmt: skip
from server import BINARY, Server, command, free_port

SETS = ["default", *PROFILES]
# What the StatefulSet of a variant with as many pods as there may be has.
SELECTOR_KEYS = {"app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component"}
# One pod that the cluster's registry is not needed for.
ALONE = {"replicas": 1, "cluster": {"enabled": False}}
# Triton in place of Saccade's own servers of models.
TRITON = merged(
    profile("inference"),
    {"inference": {"server": "triton", "image": "registry.example/triton:1", "repository": {"existingClaim": "triton-models"}}},
)
METRICS = set(re.findall(r"^\| `(saccade_\w+)`", (ROOT / "deploy" / "METRICS.md").read_text(), re.M))


@pytest.fixture(params=SETS)
def manifests(request: pytest.FixtureRequest) -> list[dict]:
    return render(profile(request.param))


def most_pods(values: dict) -> int:
    whole = merged(yaml.safe_load((CHART / "values.yaml").read_text()), values)
    return whole["replicas"] if whole["autoscaling"]["mode"] == "none" else whole["autoscaling"]["maxReplicas"]


# --- every manifest by itself ---


def test_kubernetes_takes_every_manifest(manifests: list[dict]) -> None:
    for one in manifests:
        chart.validate(one)
    names = [(it["kind"], it["metadata"]["name"]) for it in manifests]
    assert len(names) == len(set(names)), "a name comes twice"


@pytest.mark.parametrize(
    "kind", [("apps/v1", "StatefulSet"), ("networking.istio.io/v1", "VirtualService"), ("keda.sh/v1alpha1", "ScaledObject")]
)
def test_a_field_that_is_misspelt_would_be_found(kind: tuple[str, str]) -> None:
    whole = [*render(profile("istio")), *render(profile("keda"))]
    one = json.loads(json.dumps(next(it for it in whole if (it["apiVersion"], it["kind"]) == kind)))
    one["spec"]["replicaz"] = 1
    with pytest.raises(AssertionError, match="replicaz"):
        chart.validate(one)


@pytest.mark.parametrize("name", SETS)
def test_helm_finds_no_fault_with_the_chart(name: str) -> None:
    report = helm_python.lint(CHART, profile(name), strict=True)
    found = [it["error"] for it in report["messages"] if it["severity"] > 1]
    assert not found and not report["errors"], (found, report["errors"])


def test_the_release_s_name_tells_two_releases_apart() -> None:
    both = [
        {(it["kind"], it["metadata"]["name"]) for it in render(profile("discover"), release)}
        for release in ("saccade", "second")
    ]
    assert not both[0] & both[1]
    one, other = (chart.pods(render({}, release), 1)[0][1] for release in ("saccade", "second"))
    selector = the(render({}, "saccade"), "StatefulSet")["spec"]["selector"]
    assert selects(selector, one) and not selects(selector, other)


# --- how manifests fit together ---


def test_selectors_take_the_pods_and_what_is_named_is_there(manifests: list[dict]) -> None:
    for which in ("server", "inference"):
        if own := chart.parts(manifests, which):
            fit_together(manifests, own)


def fit_together(manifests: list[dict], own: list[dict]) -> None:
    """Those of one component, beside all others."""
    stateful = the(own, "StatefulSet")
    name, template = stateful["metadata"]["name"], stateful["spec"]["template"]
    labels, spec = template["metadata"]["labels"], template["spec"]
    ports = {it["name"] for container in spec["containers"] for it in container.get("ports", [])}
    there = {(it["kind"], it["metadata"]["name"]) for it in manifests}

    assert set(stateful["spec"]["selector"]["matchLabels"]) == SELECTOR_KEYS, "a selector can't be changed later"
    assert selects(stateful["spec"]["selector"], labels)
    for other in of_kind(manifests, "StatefulSet"):
        assert other is stateful or not selects(stateful["spec"]["selector"], other["spec"]["template"]["metadata"]["labels"])
    assert ("Service", stateful["spec"]["serviceName"]) in there
    assert the(own, "Service", stateful["spec"]["serviceName"])["spec"]["clusterIP"] == "None"
    for one in of_kind(own, "PodDisruptionBudget"):
        assert selects(one["spec"]["selector"], labels)
    for one in of_kind(own, "NetworkPolicy"):
        assert selects(one["spec"]["podSelector"], labels)
    for one in spec["topologySpreadConstraints"]:
        assert selects(one["labelSelector"], labels)
    for one in of_kind(own, "Service"):
        assert one["spec"]["selector"].keys() >= SELECTOR_KEYS
        everyone = chart.pods(own, 20)
        assert any(selects({"matchLabels": one["spec"]["selector"]}, each) for _, each in everyone), one["metadata"]["name"]
        wanted = {it["targetPort"] for it in one["spec"]["ports"]}
        assert wanted <= ports | {9190}, f"{one['metadata']['name']} leads to {wanted - ports}"
    for one in of_kind(own, "HorizontalPodAutoscaler", "ScaledObject", "VerticalPodAutoscaler"):
        target = one["spec"].get("scaleTargetRef") or one["spec"]["targetRef"]
        assert (target["kind"], target["name"]) == ("StatefulSet", name)
        assert one["kind"] == "VerticalPodAutoscaler" or "replicas" not in stateful["spec"], "two would decide on replicas"
    for one in of_kind(own, "Ingress"):
        for rule in one["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                service = the(own, "Service", backend["name"])
                assert backend["port"]["name"] in {it["name"] for it in service["spec"]["ports"]}
    for one in of_kind(own, "ServiceMonitor"):
        scraped = [it for it in of_kind(manifests, "Service") if selects(one["spec"]["selector"], it["metadata"]["labels"])]
        # Rules look for jobs with this word, and tell them apart.
        service, job = ("saccade-ops", "saccade") if name == "saccade" else ("saccade-inference", "saccade-inference")
        assert [it["metadata"]["name"] for it in scraped] == [service], "each pod is scraped once"
        assert {it["port"] for it in one["spec"]["endpoints"]} <= {it["name"] for it in scraped[0]["spec"]["ports"]}
        assert scraped[0]["metadata"]["labels"][one["spec"]["jobLabel"]] == job
    for one in of_kind(own, "VirtualService", "DestinationRule"):
        assert one["spec"].get("host", "saccade") == "saccade"
        for route in one["spec"].get("http", []):
            for it in route["route"]:
                service = the(own, "Service", it["destination"]["host"])
                assert it["destination"]["port"]["number"] in {port["port"] for port in service["spec"]["ports"]}
    assert ("ServiceAccount", spec["serviceAccountName"]) in there
    volumes = {it["name"]: it for it in spec["volumes"]}
    claims = {it["metadata"]["name"] for it in stateful["spec"].get("volumeClaimTemplates", [])}
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        for mount in container["volumeMounts"]:
            assert mount["name"] in volumes.keys() | claims, f"{container['name']} mounts {mount['name']}"
            config = volumes.get(mount["name"], {}).get("configMap")
            if config and "subPath" in mount:
                assert mount["subPath"] in the(manifests, "ConfigMap", config["name"])["data"]
    for one in volumes.values():
        if "configMap" in one:
            assert ("ConfigMap", one["configMap"]["name"]) in there


def test_a_session_s_media_survives_the_drain_of_its_pod(manifests: list[dict]) -> None:
    """A draining pod is unready, and Services drop unready pods unless told otherwise."""
    for one in of_kind(manifests, "Service"):
        keeps = one["spec"].get("publishNotReadyAddresses", False)
        assert keeps == (one["metadata"]["name"] != "saccade"), one["metadata"]["name"]


@pytest.mark.parametrize("grace, sleep", [(0, 0), (30, 5), (600, 20)])
def test_a_pod_is_given_the_time_that_its_sessions_have(grace: int, sleep: int) -> None:
    manifests = render({"shutdown": {"graceSeconds": grace, "preStopSeconds": sleep}})
    container = server(manifests)
    told = next(int(it["value"]) for it in container["env"] if it["name"] == "SACCADE_SHUTDOWN__GRACE_MS")
    slept = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    assert (told, slept) == (grace * 1000, sleep)
    assert pod_spec(manifests)["terminationGracePeriodSeconds"] >= grace + sleep + 10


def test_probes_ask_the_operators_listener(manifests: list[dict]) -> None:
    container = server(manifests)
    asked = {it: container[it]["httpGet"] for it in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {it: one["path"] for it, one in asked.items()} == {
        "startupProbe": "/healthz",
        "livenessProbe": "/healthz",
        "readinessProbe": "/readyz",
    }
    assert {one["port"] for one in asked.values()} == {"ops"}
    assert {it["containerPort"] for it in container["ports"] if it["name"] == "ops"} == {9180}


def test_containers_may_do_nothing_that_they_need_not(manifests: list[dict]) -> None:
    for stateful in of_kind(manifests, "StatefulSet"):
        spec = stateful["spec"]["template"]["spec"]
        whole = spec["securityContext"]
        assert whole["runAsNonRoot"] and whole["runAsUser"] > 0 and whole["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False and spec["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False and own["readOnlyRootFilesystem"] is True
            assert own["capabilities"] == {"drop": ["ALL"]} and not own.get("privileged")
    tokens = [it for it in server(manifests)["volumeMounts"] if "serviceaccount" in it["mountPath"]]
    assert not tokens, "the server has no business with the API"
    written = {it["mountPath"] for it in server(manifests)["volumeMounts"] if not it.get("readOnly")}
    assert written == {"/tmp", "/var/lib/saccade", "/var/cache/saccade"}


def test_no_secret_is_in_a_manifest(manifests: list[dict]) -> None:
    assert not of_kind(manifests, "Secret")
    for it in server(manifests)["env"]:
        secret = re.search("SECRET$|PASSWORD$|REDIS_URL$", it["name"])
        assert not secret or "secretKeyRef" in it.get("valueFrom", {}), it["name"]


# --- media ---


@pytest.mark.parametrize("name", [it for it in SETS if profile(it).get("media", {}).get("mode") == "loadBalancer"])
def test_each_pod_has_a_service_that_takes_it_alone_to_the_address_that_it_advertises(name: str) -> None:
    values = profile(name)
    manifests = render(values)
    port = values["media"].get("port", 8189)
    everyone = chart.pods(manifests, most_pods(values))
    media = [it for it in of_kind(manifests, "Service") if it["spec"].get("type") == "LoadBalancer"]
    assert len(media) == len(everyone)
    balancer = values["media"]["loadBalancer"]
    for index, (pod, _) in enumerate(everyone):
        service = the(manifests, "Service", f"{pod}-media")
        taken = [it for it, labels in everyone if selects({"matchLabels": service["spec"]["selector"]}, labels)]
        assert taken == [pod]
        assert service["spec"]["externalTrafficPolicy"] == "Local"
        outside = sorted((it["protocol"], it["port"]) for it in service["spec"]["ports"])
        assert outside == [("TCP", port), ("UDP", port)]
        inside = {it["name"]: (it["protocol"], it["containerPort"]) for it in server(manifests)["ports"]}
        assert all(inside[it["targetPort"]] == (it["protocol"], it["port"]) for it in service["spec"]["ports"])
        assert not any("hostPort" in it for it in server(manifests)["ports"])
        if balancer["address"] == "static":
            address = balancer["pods"][index]["address"]
            assert tomllib.loads(config_of(manifests, pod))["media"]["advertise"] == [address]
            annotations = service["metadata"].get("annotations", {})
            asked = service["spec"].get("loadBalancerIP") or annotations.get(balancer.get("assignAnnotation"))
            assert asked == (None if balancer["assign"] == "none" else address)
            assert balancer["pods"][index].get("annotations", {}).items() <= annotations.items()


def test_pods_start_anew_for_their_configuration_and_for_nobody_else_s() -> None:
    def template(*more: dict) -> dict:
        return the(render(merged(profile("azure"), *more)), "StatefulSet")["spec"]["template"]

    pods = [{"address": f"203.0.113.{10 + it}"} for it in range(3)]
    another = {"replicas": 3, "media": {"loadBalancer": {"pods": pods}}}
    assert template() == template(another), "a third pod leaves the two alone"
    assert template() != template({"config": {"session": {"budget_ms": 100}}})


def test_profiles_add_up() -> None:
    pods = [{"address": f"203.0.113.{10 + it}"} for it in range(8)]
    manifests = render(merged(profile("gke"), profile("gpu"), {"media": {"loadBalancer": {"pods": pods}}}))
    for one in manifests:
        chart.validate(one)
    assert len([it for it in of_kind(manifests, "Service") if it["spec"].get("type") == "LoadBalancer"]) == 8
    assert server(manifests)["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_clouds_without_mixed_load_balancers_get_two_services_on_one_address() -> None:
    manifests = render(merged(profile("gke"), {"media": {"loadBalancer": {"mixedProtocols": False}}}))
    udp, tcp = (the(manifests, "Service", f"saccade-1-media-{it}") for it in ("udp", "tcp"))
    assert [it["protocol"] for one in (udp, tcp) for it in one["spec"]["ports"]] == ["UDP", "TCP"]
    assert udp["spec"]["loadBalancerIP"] == tcp["spec"]["loadBalancerIP"] == "203.0.113.11"
    for one in (udp, tcp):
        chart.validate(one)


def test_host_ports_are_the_media_port_and_the_address_is_the_node_s() -> None:
    manifests = render({"media": {"port": 9000}})
    media = {it["protocol"]: it for it in server(manifests)["ports"] if it["name"].startswith("media")}
    assert {(it["containerPort"], it["hostPort"]) for it in media.values()} == {(9000, 9000)} and len(media) == 2
    env = {it["name"]: it for it in server(manifests)["env"]}
    assert env["SACCADE_MEDIA__PORT"]["value"] == "9000"
    assert env["SACCADE_MEDIA__ADVERTISE"]["valueFrom"]["fieldRef"]["fieldPath"] == "status.hostIP"


def test_with_turn_alone_nothing_else_leads_to_media() -> None:
    manifests = render(profile("turn-only"))
    assert not any("hostPort" in it for it in server(manifests)["ports"])
    assert {it["spec"].get("type", "ClusterIP") for it in of_kind(manifests, "Service")} == {"ClusterIP"}
    env = {it["name"]: it for it in server(manifests)["env"]}
    assert env["SACCADE_MEDIA__ADVERTISE"]["valueFrom"]["fieldRef"]["fieldPath"] == "status.podIP"
    assert not allowed(manifests, "ingress", "UDP", 8189, {}, "198.51.100.7")
    assert allowed(manifests, "ingress", "UDP", 8189, {}, "192.0.2.3")


# --- who may speak to whom ---


def allowed(
    manifests: list[dict],
    direction: str,
    protocol: str,
    port: int,
    namespace: dict,
    address: str = "",
    pod: dict | None = None,
) -> bool:
    """Whether the NetworkPolicy lets a connection through, from or to a pod with these labels in a namespace with these
    labels (none: the pods' own), or an address outside."""
    here = "namespace" not in namespace
    for rule in the(manifests, "NetworkPolicy")["spec"][direction]:
        fits = [
            it
            for it in rule.get("ports", [{}])
            if it.get("protocol", "TCP") == protocol
            and ("port" not in it or it["port"] <= port <= it.get("endPort", it["port"]))
        ]
        if not fits:
            continue
        peers = rule.get("from" if direction == "ingress" else "to", [])
        if not peers:
            return True
        for peer in peers:
            if address:
                block = peer.get("ipBlock")
                if block and ipaddress.ip_address(address) in ipaddress.ip_network(block["cidr"]):
                    return True
            elif "ipBlock" not in peer:
                there = selects(peer["namespaceSelector"], namespace) if "namespaceSelector" in peer else here
                if there and selects(peer.get("podSelector", {}), pod or {}):
                    return True
    return False


def test_the_network_policy_lets_through_what_is_needed_and_nothing_else() -> None:
    manifests = render({})
    [(_, own)] = chart.pods(manifests, 1)
    somewhere = {"namespace": "x", "kubernetes.io/metadata.name": "default"}
    proxies = {"namespace": "x", "kubernetes.io/metadata.name": "ingress-controller"}
    operators = {"namespace": "x", "kubernetes.io/metadata.name": "monitoring"}
    for port, friends in {8080: [proxies], 9180: [operators], 9190: []}.items():
        for one in (somewhere, proxies, operators):
            assert allowed(manifests, "ingress", "TCP", port, one) == (one in friends), (port, one)
        assert not allowed(manifests, "ingress", "TCP", port, {}, "198.51.100.7")
        assert not allowed(manifests, "ingress", "TCP", port, {}, pod={"app": "other"})
    assert allowed(manifests, "ingress", "TCP", 9190, {}, pod=own), "pods pass requests on to each other"
    for protocol in ("UDP", "TCP"):
        assert allowed(manifests, "ingress", protocol, 8189, {}, "198.51.100.7"), "clients send media"
    assert allowed(manifests, "egress", "UDP", 50_000, {}, "198.51.100.7"), "and get some back"
    assert allowed(manifests, "egress", "TCP", 6379, {}, "10.1.2.3"), "Redis"
    assert allowed(manifests, "egress", "UDP", 53, {}, "10.1.2.3")
    assert allowed(manifests, "egress", "TCP", 9190, {}, pod=own)
    for port in (22, 80, 443, 5432):
        assert not allowed(manifests, "egress", "TCP", port, {}, "198.51.100.7"), port


def test_a_pod_alone_has_no_way_to_others() -> None:
    manifests = render(ALONE)
    [(_, own)] = chart.pods(manifests, 1)
    assert not allowed(manifests, "ingress", "TCP", 9190, {}, pod=own)
    assert not allowed(manifests, "egress", "TCP", 6379, {}, "10.1.2.3")
    assert not [it for it in server(manifests)["env"] if "CLUSTER" in it["name"]]


# --- values that are wrong ---


def remote(more: dict) -> dict:
    """The profile of servers of models, with more in the manifest."""
    [model] = profile("inference")["inference"]["models"]
    return merged(profile("inference"), {"inference": {"models": [merged(model, {"manifest": more})]}})


WRONG = {
    "replicas": {"replicas": "three"},
    "additional properties 'replica'": {"replica": 3},
    "/media/mode": {"media": {"mode": "foo"}},
    "/media/port": {"media": {"port": 70000}},
    "/media/loadBalancer/pods/0": {"media": {"loadBalancer": {"pods": [{"annotations": {}}]}}},
    "/media/loadBalancer/pods/0/address": {"media": {"loadBalancer": {"pods": [{"address": "lb.example"}]}}},
    "/gpu": {"gpu": {"counts": 2}},
    "/ingress/preset": {"ingress": {"preset": "apache"}},
    "/autoscaling/scaleUpSeconds": {"autoscaling": {"scaleUpSeconds": 90}},
    "/resources": {"resources": {"request": {"cpu": "1"}}},
    "/image/digest": {"image": {"digest": "latest"}},
    "/iceServers/0": {"iceServers": [{"urls": ["turn:turn.example:3478"]}]},
    "/iceServers/0/urls/0": {"iceServers": [{"urls": ["http://turn.example"]}]},
    "/networkPolicy/ingressFrom": {"networkPolicy": {"ingressFrom": []}},
    "/config": {"config": {"sesion": {"budget_ms": 50}}},
    "/secretFiles/0/name": {"secretFiles": [{"name": "cluster", "secretName": "a", "key": "b"}]},
    "config.http.listen is not taken from here: use service.port": {"config": {"http": {"listen": "0.0.0.0:80"}}},
    "config.auth.secret is not taken from here: use auth.secretName": {"config": {"auth": {"secret": "x" * 32}}},
    "cluster.enabled is false and there may be 2 pods": {"cluster": {"enabled": False}},
    "media.loadBalancer.pods has 1 addresses and there may be 10 pods": {
        "media": {"mode": "loadBalancer", "loadBalancer": {"pods": [{"address": "192.0.2.1"}]}},
        "autoscaling": {"mode": "hpa"},
    },
    "media.loadBalancer.assignAnnotation is empty": merged(
        profile("azure"), {"media": {"loadBalancer": {"assignAnnotation": ""}}}
    ),
    "iceServers has no turn: or turns: URL": {
        "media": {"mode": "turnOnly"},
        "iceServers": [{"urls": ["stun:stun.example"]}],
    },
    "networkPolicy.mediaFrom is empty": merged(profile("turn-only"), {"networkPolicy": {"mediaFrom": []}}),
    "autoscaling.minReplicas is above": {"autoscaling": {"mode": "hpa", "minReplicas": 11}},
    "autoscaling.sessionsPerPod is 24 and config.admission.max_sessions 24": {
        "autoscaling": {"mode": "keda"},
        "config": {"admission": {"max_sessions": 24}},
    },
    "ingress.enabled and istio.enabled are both true": {"istio": {"enabled": True}},
    "priorityClass.name empty": {"priorityClass": {"create": True}},
    "monitoring.prometheusRule.files.alerts has no groups": {
        "monitoring": {"prometheusRule": {"enabled": True, "files": {"alerts": "rules: []"}}}
    },
    "/inference/server": {"inference": {"server": "torchserve"}},
    "/inference/replicas": {"inference": {"replicas": 17}},
    "/inference/models/0/name": {"inference": {"models": [{"name": "A", "manifest": {"licence": "", "input": {}, "output": {}}}]}},
    "/inference/models/0/manifest": {"inference": {"models": [{"name": "a", "manifest": {"input": {}}}]}},
    "/inference/autoscaling/mode": {"inference": {"autoscaling": {"mode": "vpa"}}},
    "inference.models is empty": {"inference": {"enabled": True}},
    "inference.models and models.existingClaim are both there": merged(
        profile("inference"), {"models": {"existingClaim": "models"}}
    ),
    "inference.image is empty": merged(TRITON, {"inference": {"image": ""}}),
    "inference.repository.existingClaim is empty": merged(TRITON, {"inference": {"repository": {"existingClaim": ""}}}),
    "inference.autoscaling.minReplicas is above": merged(
        profile("inference"), {"inference": {"autoscaling": {"minReplicas": 9}}}
    ),
    "inference.resources.requests.cpu is empty": merged(
        profile("inference"), {"inference": {"autoscaling": {"mode": "cpu"}, "resources": {"requests": {"cpu": ""}}}}
    ),
    "inference.models has ppe-remote@1 twice": merged(
        profile("inference"), {"inference": {"models": profile("inference")["inference"]["models"] * 2}}
    ),
    "inference.models.0.manifest.remote.urls is the chart's to say": remote({"remote": {"urls": ["http://a:1"]}}),
    "inference.models.0.manifest.run.backend is not kserve": remote({"run": {"backend": "cpu"}}),
    "there are neither groups nor files": {"monitoring": {"prometheusRule": {"enabled": True}}},
}


@pytest.mark.parametrize("said", WRONG)
def test_a_value_that_is_wrong_is_refused_by_its_name(said: str) -> None:
    assert said in chart.refusal(WRONG[said])


def test_the_schema_knows_every_value_and_every_section_of_the_configuration() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())

    def unknown(values: dict, schema: dict, path: str) -> list[str]:
        if "properties" not in schema:
            return []
        mine = [f"{path}{key}" for key in values if key not in schema["properties"]]
        missing = [
            f"{path}{key}" for key in schema["properties"] if key not in values and path != "/config/" and key != "global"
        ]
        assert schema["additionalProperties"] is False, path
        inner = [
            it
            for key, one in values.items()
            if isinstance(one, dict)
            for it in unknown(one, schema["properties"][key], f"{path}{key}/")
        ]
        return mine + missing + inner

    values = yaml.safe_load((CHART / "values.yaml").read_text())
    values["media"]["loadBalancer"].setdefault("class", "")
    assert not unknown(values, schema, "/")
    example = (ROOT / "saccade.example.toml").read_text()
    sections = set(re.findall(r"^#? ?\[\[?([a-z]+)[\].]", example, re.M)) - {"media", "ice"}
    assert sections <= set(schema["properties"]["config"]["properties"]), (
        "sections of saccade.example.toml that `config` lacks"
    )


# --- the configuration ---

SECRETS = {
    "auth": "0123456789abcdef0123456789abcdef",
    "cluster": "fedcba9876543210fedcba9876543210",
    "url": "redis://127.0.0.1:6379/0",
}
FIELDS = {
    "metadata.namespace": "vision",
    "status.hostIP": "192.0.2.77",
    "status.podIP": "10.1.2.3",
    "spec.nodeName": "node-1",
}


def config_of(manifests: list[dict], pod: str) -> str:
    """The saccade.toml that a pod mounts, before an init container adds to it."""
    [mount] = [it for it in server(manifests)["volumeMounts"] if it["mountPath"].startswith("/etc/saccade")]
    # `subPath` and `subPathExpr` mount a file over this path, a volume alone is the folder.
    key = mount.get("subPath") or expand(mount.get("subPathExpr", "saccade.toml"), {"POD_NAME": pod})
    volume = next(it for it in pod_spec(manifests)["volumes"] if it["name"] == "config")
    return the(manifests, "ConfigMap", volume["configMap"]["name"])["data"][key]


def environment_of(manifests: list[dict], pod: str) -> dict[str, str]:
    """The environment that the kubelet gives the server's container."""
    out: dict[str, str] = {}
    for it in server(manifests)["env"]:
        source = it.get("valueFrom", {})
        if "fieldRef" in source:
            out[it["name"]] = (FIELDS | {"metadata.name": pod})[source["fieldRef"]["fieldPath"]]
        elif "secretKeyRef" in source:
            out[it["name"]] = SECRETS[source["secretKeyRef"]["key"]]
        else:
            # Names that come later are not expanded.
            out[it["name"]] = expand(it["value"], out)
    return out


def lay_out(manifests: list[dict], pod: str, folder: Path, more: str = "") -> tuple[list[str], dict[str, str]]:
    """Writes a pod's configuration, with `more` at its end, and its secrets into a folder; arguments and environment of
    the server, in which that folder stands for the pod's."""
    spec, volumes = pod_spec(manifests), folder / "secrets"
    volumes.mkdir()
    for source in next((it["projected"]["sources"] for it in spec["volumes"] if it["name"] == "secrets"), []):
        for item in source["secret"]["items"]:
            (volumes / item["path"]).write_text(SECRETS.get(item["path"], "turn-secret-that-is-long-enough-for-all"))

    def moved(text: str) -> str:
        return text.replace("/run/secrets/saccade", str(volumes))

    (folder / "saccade.toml").write_text(moved(config_of(manifests, pod)) + more)
    words = [str(folder / "saccade.toml") if it == "/etc/saccade/saccade.toml" else it for it in server(manifests)["args"]]
    return words, {key: moved(value) for key, value in environment_of(manifests, pod).items() if not key.startswith("XDG_")}


def check(manifests: list[dict], pod: str, folder: Path, more: str = "") -> subprocess.CompletedProcess:
    """Has the real binary check a pod's configuration."""
    words, own = lay_out(manifests, pod, folder, more)
    others = {key: value for key, value in os.environ.items() if not key.startswith("SACCADE_")}
    return subprocess.run([BINARY, *words, "--check"], env=others | own, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", SETS)
def test_the_binary_takes_the_configuration_of_a_pod_alone(name: str, tmp_path: Path) -> None:
    alone = merged(profile(name), ALONE, {"autoscaling": {"mode": "none"}})
    done = check(render(alone), "saccade-0", tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", SETS)
def test_the_binary_takes_the_configuration_of_pods_together(name: str, tmp_path: Path) -> None:
    takes(check(render(profile(name)), "saccade-1", tmp_path))


def takes(done: subprocess.CompletedProcess) -> None:
    """Fails unless the binary took the configuration of pods that know of each other."""
    if re.search(r"^\[cluster\]", (ROOT / "saccade.example.toml").read_text(), re.M):
        assert done.returncode == 0, done.stderr
    else:
        # A version without the registry says so, and has nothing else to complain of.
        assert done.returncode == 64
        said = [line for line in done.stderr.splitlines() if line.startswith("  ")]
        assert said and all(line.startswith("  cluster (from SACCADE_CLUSTER__") for line in said), done.stderr


def test_the_binary_takes_whatever_kinds_of_values_the_configuration_has(tmp_path: Path) -> None:
    config = {
        "telemetry": {"log": "info,saccade::rtc=debug"},
        "session": {"budget_ms": 1000000 // 500, "still_gate": True},
        "cameras": [
            {
                "name": "entrance",
                "url": 'rtsp://192.0.2.10:554/a<b>&"c"',
                "options": {"return": "results", "score_threshold": 0.5},
            },
            {"name": "exit", "url": "rtsp://192.0.2.11:554/stream1"},
        ],
        "routes": {"both": {"split": [{"model": "ppe-nano", "weight": 90}, {"model": "ppe-nano@1", "weight": 10}]}},
        "auth": {
            "leeway_s": 20,
            "api_keys": [{"name": "dashboard", "sha256": "0" * 64, "can_view": True, "models": ["ppe-nano"]}],
        },
    }
    manifests = render(merged(ALONE, {"config": config, "iceServers": [{"urls": ["stun:stun.example"]}]}))
    parsed = tomllib.loads(config_of(manifests, "saccade-0"))
    assert {key: parsed[key] for key in config} == merged(config, {"telemetry": {"log_format": "json"}})
    assert parsed["ice_servers"] == [{"urls": ["stun:stun.example"]}]
    done = check(manifests, "saccade-0", tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "values, address",
    [
        ({}, FIELDS["status.hostIP"]),
        (profile("turn-only"), FIELDS["status.podIP"]),
        (profile("azure"), profile("azure")["media"]["loadBalancer"]["pods"][0]["address"]),
    ],
    ids=["hostPort", "turnOnly", "loadBalancer"],
)
async def test_a_server_with_a_pod_s_configuration_tells_clients_the_pod_s_address(
    values: dict, address: str, tmp_path: Path
) -> None:
    words, own = lay_out(render(merged(values, ALONE)), "saccade-0", tmp_path)
    # Flags, which are stronger, take it to free ports; everything else is the pod's.
    within = ("env", *(f"{key}={value}" for key, value in own.items()), "sh", "-c", 'exec "$@" ' + " ".join(words[1:]), "sh")
    port = free_port()
    one = Server(within, media__port=port)
    try:
        token = command("token", "--can-publish", SACCADE_AUTH__SECRET=SECRETS["auth"]).stdout.strip()
        peer = RTCPeerConnection()
        peer.addTransceiver("video", "sendonly")
        await peer.setLocalDescription(await peer.createOffer())
        body = {"sdp": peer.localDescription.sdp, "type": "offer"}
        async with aiohttp.ClientSession() as http:
            http.headers["authorization"] = f"Bearer {token}"
            async with http.post(f"{one.url}/v1/offer", json=body) as answer:
                assert answer.status == 200, await answer.text()
                opened = await answer.json()
            async with http.delete(f"{one.url}/v1/sessions/{opened['session_id']}") as answer:
                assert answer.status in (200, 204), await answer.text()
        await peer.close()
        ways = {tuple(it.split()[2:6]) for it in re.findall(r"^a=candidate:(.*)$", opened["sdp"], re.M)}
        # This client is on the server's machine, and hears of loopback, too.
        told = {(protocol.lower(), where, int(number)) for protocol, _, where, number in ways if where != "127.0.0.1"}
        assert told == {("udp", address, port), ("tcp", address, port)}
        assert one.ready() == 200
    finally:
        one.stop()


def test_a_mistake_in_the_configuration_would_be_found(tmp_path: Path) -> None:
    done = check(render(merged(ALONE, {"config": {"session": {"budget_mz": 50}}})), "saccade-0", tmp_path)
    assert done.returncode == 64 and "session.budget_mz" in done.stderr


def test_serving_anyone_takes_a_word(tmp_path: Path) -> None:
    manifests = render(merged(ALONE, {"auth": {"mode": "none"}}))
    assert "--insecure" in server(manifests)["args"]
    assert check(manifests, "saccade-0", tmp_path).returncode == 0
    assert "--insecure" not in server(render({}))["args"]


def test_pods_call_each_other_by_names_that_their_service_gives() -> None:
    manifests = render({}, release="live")
    env = environment_of(manifests, "live-saccade-1")
    assert env["SACCADE_CLUSTER__NAME"] == "live-saccade-1"
    assert env["SACCADE_CLUSTER__LISTEN"] == "0.0.0.0:9190"
    governing = the(manifests, "StatefulSet")["spec"]["serviceName"]
    assert env["SACCADE_CLUSTER__ADVERTISE"] == f"http://live-saccade-1.{governing}:9190"
    assert 9190 in {it["containerPort"] for it in server(manifests)["ports"]}


# --- addresses that the API knows ---


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def find_address(folder: Path, kubectl: str, values: dict, timeout: int = 300) -> subprocess.CompletedProcess:
    """Runs the init container's script with a kubectl that answers so."""
    manifests = render(values)
    [init] = pod_spec(manifests)["initContainers"]
    script = the(manifests, "ConfigMap", "saccade-address")["data"]["address.sh"]
    (folder / "address.sh").write_text(script)
    (folder / "source.toml").write_text(config_of(manifests, "saccade-1"))
    programs = folder / "bin"
    programs.mkdir()
    program(programs / "kubectl", f'echo "$*" >>{folder}/asked\n{kubectl}')
    program(
        programs / "getent",
        'test "$1 $2" = "ahosts lb.example" && printf "198.51.100.1 STREAM\\n198.51.100.1 DGRAM\\n198.51.100.2 STREAM\\n"',
    )
    program(programs / "sleep", ":")
    env: dict[str, str] = {"PATH": f"{programs}:{os.environ['PATH']}"}
    for it in init["env"]:
        field = it.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        env[it["name"]] = (FIELDS | {"metadata.name": "saccade-1"})[field] if field else expand(it["value"], env)
    env |= {"SOURCE": str(folder / "source.toml"), "TARGET": str(folder / "target.toml"), "TIMEOUT_SECONDS": str(timeout)}
    assert init["command"] == ["sh", "/scripts/address.sh"]
    return subprocess.run(["sh", str(folder / "address.sh")], env=env, capture_output=True, text=True, timeout=60)


EXTERNAL = {"media": {"hostPort": {"address": "external"}}}


@pytest.mark.parametrize(
    "values, kubectl, found, asked",
    [
        (profile("discover"), "printf '203.0.113.5\\n\\n'", ["203.0.113.5"], "get service saccade-1-media"),
        (profile("discover"), "printf '\\nlb.example\\n'", ["198.51.100.1", "198.51.100.2"], "get service saccade-1-media"),
        (EXTERNAL, "printf '203.0.113.6\\n2001:db8::6\\n'", ["203.0.113.6", "2001:db8::6"], "get node node-1"),
    ],
)
def test_the_address_that_the_api_knows_becomes_the_pod_s(
    values: dict, kubectl: str, found: list[str], asked: str, tmp_path: Path
) -> None:
    done = find_address(tmp_path, kubectl, values)
    assert done.returncode == 0, done.stderr
    assert tomllib.loads((tmp_path / "target.toml").read_text())["media"]["advertise"] == found
    assert asked in (tmp_path / "asked").read_text()
    # And the server takes what was written.
    folder = tmp_path / "check"
    folder.mkdir()
    added = (tmp_path / "target.toml").read_text().removeprefix((tmp_path / "source.toml").read_text())
    done = check(render(merged(values, ALONE)), "saccade-0", folder, added)
    assert done.returncode == 0, done.stderr


def test_an_address_is_waited_for(tmp_path: Path) -> None:
    once = f"test -e {tmp_path}/second && printf '203.0.113.5\\n'; touch {tmp_path}/second"
    done = find_address(tmp_path, once, profile("discover"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "asked").read_text().count("get service saccade-1-media") == 2


@pytest.mark.parametrize("kubectl", ["echo Forbidden >&2; exit 1", "printf '\\n'", "printf '\\nunknown.example\\n'"])
def test_an_address_that_never_comes_ends_the_wait(kubectl: str, tmp_path: Path) -> None:
    done = find_address(tmp_path, kubectl, profile("discover"), timeout=0)
    assert done.returncode == 1 and "no address of service saccade-1-media within 0 s" in done.stderr
    assert not (tmp_path / "target.toml").exists()


def test_the_api_may_be_asked_for_addresses_alone() -> None:
    role = the(render(profile("discover")), "Role")
    assert role["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["services"],
            "verbs": ["get"],
            "resourceNames": ["saccade-0-media", "saccade-1-media"],
        }
    ]
    nodes = the(render(EXTERNAL), "ClusterRole")
    assert nodes["rules"] == [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}]
    for values in (profile("discover"), EXTERNAL):
        manifests = render(values)
        [init] = pod_spec(manifests)["initContainers"]
        assert "api-token" in {it["name"] for it in init["volumeMounts"]}
        assert "api-token" not in {it["name"] for it in server(manifests)["volumeMounts"]}
        for one in manifests:
            chart.validate(one)
    assert not of_kind(render({}), "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding")


# --- HTTP ---


@pytest.mark.parametrize("preset", ["nginx", "haproxy", "traefik"])
def test_clients_come_back_to_the_pod_of_their_session(preset: str) -> None:
    manifests = render({"ingress": {"preset": preset, "affinityCookie": "pod-cookie", "staticCacheSeconds": 60}})
    for one in manifests:
        chart.validate(one)
    told = [it["metadata"].get("annotations", {}) for it in of_kind(manifests, "Ingress", "Service")]
    assert any("pod-cookie" in one.values() for one in told)
    static = the(manifests, "Ingress", "saccade-static")
    assert {it["pathType"] for it in static["spec"]["rules"][0]["http"]["paths"]} == {"Exact"}
    text = json.dumps([it for it in manifests if it["metadata"]["name"] == "saccade-static"])
    assert "max-age=60" in text
    dynamic = json.dumps(the(manifests, "Ingress", "saccade"))
    assert "max-age" not in dynamic and "-static" not in dynamic, "what is computed is not kept"


def test_what_is_cached_is_the_page_and_its_files() -> None:
    manifests = render({"ingress": {"staticCacheSeconds": 60}})
    paths = {it["path"] for it in the(manifests, "Ingress", "saccade-static")["spec"]["rules"][0]["http"]["paths"]}
    assert paths == {"/"} | {f"/{it.name}" for it in (ROOT / "web" / "dist").iterdir() if it.is_file()}


def test_istio_sends_a_cookie_s_requests_to_one_pod_and_media_past_itself() -> None:
    manifests = render(profile("istio"))
    assert not of_kind(manifests, "Ingress")
    hashed = the(manifests, "DestinationRule")["spec"]["trafficPolicy"]["loadBalancer"]["consistentHash"]
    assert hashed["httpCookie"]["name"] == "saccade-pod"
    annotations = the(manifests, "StatefulSet")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["traffic.sidecar.istio.io/excludeInboundPorts"] == "8189,9180"
    proxy = json.loads(annotations["proxy.istio.io/config"])
    assert proxy == {"holdApplicationUntilProxyStarts": True, "terminationDrainDuration": "35s"}
    static, rest = the(manifests, "VirtualService")["spec"]["http"]
    assert "max-age" in static["headers"]["response"]["set"]["cache-control"]
    assert "match" not in rest and "headers" not in rest
    assert (rest["timeout"], rest["retries"]["attempts"]) == ("0s", 0), "streams have no end, and a POST is sent once"


# --- scaling ---


def test_the_autoscaler_asks_for_what_the_adapter_answers() -> None:
    scaler = the(render(profile("gpu")), "HorizontalPodAutoscaler")["spec"]
    asked = {it["pods"]["metric"]["name"]: it["pods"]["target"] for it in scaler["metrics"]}
    assert asked == {
        "saccade_sessions_active": {"type": "AverageValue", "averageValue": "96"},
        "saccade_budget_missed_ratio": {"type": "AverageValue", "averageValue": "50m"},
    }
    for values in (profile("inference"), TRITON):
        scaler = the(render(values), "HorizontalPodAutoscaler", "saccade-inference")["spec"]
        asked |= {it["pods"]["metric"]["name"]: it["pods"]["target"] for it in scaler["metrics"]}
    rules = adapter_rules()
    assert asked.keys() == rules.keys()
    for name, rule in rules.items():
        series = rule["seriesQuery"].split("{")[0]
        assert series in METRICS | {"nv_inference_request_duration_us"} and re.fullmatch(rule["name"]["matches"], series), name
        assert rule["resources"]["overrides"].keys() == {"namespace", "pod"}


def test_a_pod_that_nobody_has_come_to_has_all_that_the_adapter_looks_for() -> None:
    """The autoscaler removes no pod while another one lacks a metric."""
    one = Server()
    try:
        with urllib.request.urlopen(f"{one.ops}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    finally:
        one.stop()
    for name, rule in adapter_rules().items():
        series = rule["seriesQuery"].split("{")[0]
        # Triton's series are Triton's.
        assert series.startswith("nv_") or re.search(rf"^{series}[ {{]", text, re.M), name
        always = rule["metricsQuery"].split(" or ")[-1]
        assert set(re.findall(r"saccade_\w+|<<\.Series>>", always)) == {"<<.Series>>"}, name


def test_queries_give_what_autoscalers_take_them_for(tmp_path: Path) -> None:
    """promtool computes them over two pods: one with ten sessions, of whose frames a tenth is late, and one that is new; and over
    two servers of models, of which nobody has asked the second."""
    queries = {f"keda:{name}": query for name, query in chart.keda_queries().items()}
    for name, rule in adapter_rules().items():
        pods = "saccade-inference-0|saccade-inference-1" if "under_way" in name else "saccade-0|saccade-1"
        queries[f"adapter:{name}"] = chart.adapter_query(rule, "vision", pods)
    expected = {
        "keda:sessions": {"": 10},
        "keda:budget": {"": 0.1},
        "keda:inference": {"": 3},
        "keda:triton": {"": 2},
        "adapter:saccade_sessions_active": {'{pod="saccade-0"}': 10, '{pod="saccade-1"}': 0},
        "adapter:saccade_budget_missed_ratio": {'{pod="saccade-0"}': 0.1, '{pod="saccade-1"}': 0},
        "adapter:saccade_tensor_requests_under_way": {
            '{pod="saccade-inference-0"}': 3,
            '{pod="saccade-inference-1"}': 0,
        },
        "adapter:nv_inference_requests_under_way": {'{pod="saccade-inference-0"}': 2, '{pod="saccade-inference-1"}': 0},
    }
    assert queries.keys() == expected.keys()

    def series(name: str, pod: int | str, values: str, more: str = "", service: str = "saccade-ops") -> dict[str, str]:
        labels = f'namespace="vision",service="{service}",pod="saccade-{pod}"{more}'
        return {"series": f"{name}{{{labels}}}", "values": values}

    rules = [{"record": name, "expr": query} for name, query in queries.items()]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    test = {
        "interval": "15s",
        "input_series": [
            series("saccade_sessions_active", 0, "10x20"),
            series("saccade_sessions_active", 1, "0x20"),
            series("saccade_budget_missed_total", 0, "0+30x20"),
            series("saccade_frame_latency_seconds_count", 0, "0+300x20", ',path="result"'),
            series("saccade_frame_latency_seconds_count", 0, "0+900x20", ',path="video"'),
            *(series("saccade_build_info", f"inference-{it}", "1x20", service="saccade-inference") for it in range(2)),
            series("saccade_tensor_request_seconds_sum", "inference-0", "0+45x20", service="saccade-inference"),
            series("nv_inference_request_duration_us", "inference-0", "0+30000000x20", service="saccade-inference"),
            series("nv_inference_request_duration_us", "inference-1", "0x20", service="saccade-inference"),
            # Of another release, and of pods that serve tensors themselves.
            series("saccade_tensor_request_seconds_sum", 0, "0+150x20"),
        ],
        "promql_expr_test": [
            {
                "expr": name,
                "eval_time": "4m",
                "exp_samples": [{"labels": f"{name}{labels}", "value": it} for labels, it in samples.items()],
            }
            for name, samples in expected.items()
        ],
    }
    whole = {"rule_files": ["rules.yaml"], "evaluation_interval": "15s", "tests": [test]}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(whole))
    done = subprocess.run(
        ["promtool", "test", "rules", "test.yaml"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("mode", ["hpa", "keda"])
def test_pods_come_at_once_and_go_late(mode: str) -> None:
    manifests = render({"autoscaling": {"mode": mode}})
    if mode == "hpa":
        behavior = the(manifests, "HorizontalPodAutoscaler")["spec"]["behavior"]
    else:
        behavior = the(manifests, "ScaledObject")["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    up, down = behavior["scaleUp"], behavior["scaleDown"]
    assert 15 <= up["stabilizationWindowSeconds"] <= 60 and max(it["periodSeconds"] for it in up["policies"]) <= 60
    assert down["stabilizationWindowSeconds"] >= 300
    assert down["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 300}]
    assert "replicas" not in the(manifests, "StatefulSet")["spec"]


def test_queries_name_metrics_that_there_are() -> None:
    queries = list(chart.keda_queries().values())
    queries += [it["metricsQuery"] for it in adapter_rules().values()]
    queries += [
        rule["expr"] for group in the(render(profile("keda")), "PrometheusRule")["spec"]["groups"] for rule in group["rules"]
    ]
    for query in queries:
        named = {re.sub("_(count|sum|bucket)$", "", it) for it in re.findall(r"saccade_\w+", query)}
        assert named <= METRICS, named - METRICS
    assert all('namespace="vision"' in it for it in queries[:4]), "other releases' sessions are not counted"


def test_a_file_of_rules_goes_in_as_it_is() -> None:
    text = yaml.safe_dump(
        {
            "groups": [
                {
                    "name": "a",
                    "rules": [{"alert": "A", "expr": "up == 0", "annotations": {"summary": "{{ $labels.pod }} is down"}}],
                }
            ]
        }
    )
    rules = the(render({"monitoring": {"prometheusRule": {"enabled": True, "files": {"a": text}}}}), "PrometheusRule")
    chart.validate(rules)
    assert rules["spec"] == yaml.safe_load(text)


def test_a_pod_with_a_gpu_asks_for_it() -> None:
    manifests = render(profile("gpu"))
    assert server(manifests)["resources"]["limits"] == {"memory": "32Gi", "nvidia.com/gpu": 1}
    assert server(manifests)["image"].endswith("-cuda")
    spec = pod_spec(manifests)
    assert spec["runtimeClassName"] == "nvidia" and spec["priorityClassName"] == "saccade-live"
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]
    env = environment_of(manifests, "saccade-0")
    assert (env["SACCADE_HW__DECODE"], env["SACCADE_HW__INFER"]) == ("on", "on")
    assert "nvidia.com/gpu" not in server(render({}))["resources"]["limits"]


# --- servers of models ---


def asked_of(manifests: list[dict]) -> list[dict]:
    """The manifests of models that pods mount, by what they are called there."""
    mounts = [it for it in server(manifests)["volumeMounts"] if it["name"] == "remote-models"]
    data = the(manifests, "ConfigMap", "saccade-models")["data"]
    assert {it["subPath"] for it in mounts} == data.keys() and all(it["readOnly"] for it in mounts)
    for it in mounts:
        found = tomllib.loads(data[it["subPath"]])
        # Where the image has its models, which these are beside.
        assert it["mountPath"] == f"/usr/share/saccade/models/{found['name']}/{found['version']}/manifest.toml"
    return [tomllib.loads(it) for it in data.values()]


@pytest.mark.parametrize("mode", ["none", "cpu", "hpa", "keda"])
@pytest.mark.parametrize("values", [profile("inference"), TRITON], ids=["saccade", "triton"])
def test_pods_ask_every_server_of_models_that_there_may_be(values: dict, mode: str) -> None:
    manifests = render(merged(values, {"inference": {"replicas": 3, "autoscaling": {"mode": mode, "maxReplicas": 5}}}))
    for one in manifests:
        chart.validate(one)
    test_selectors_take_the_pods_and_what_is_named_is_there(manifests)
    test_containers_may_do_nothing_that_they_need_not(manifests)
    stateful = the(manifests, "StatefulSet", "saccade-inference")
    most = 3 if mode == "none" else 5
    assert stateful["spec"].get("replicas") == (3 if mode == "none" else None)
    [model] = asked_of(manifests)
    governing, [port] = stateful["spec"]["serviceName"], [
        it["containerPort"] for it in stateful["spec"]["template"]["spec"]["containers"][0]["ports"] if it["name"] == "grpc"
    ]
    assert model["remote"]["urls"] == [f"http://saccade-inference-{it}.{governing}:{port}" for it in range(most)]
    assert (model["run"]["backend"], model["run"]["instances"]) == ("kserve", 2 * most)
    assert model["remote"]["model"] == "ppe-nano" and model["classes"] == {"names": ["head", "helmet"]}
    scalers = [it for it in of_kind(manifests, "HorizontalPodAutoscaler", "ScaledObject")]
    assert [it["metadata"]["name"] for it in scalers] == ([] if mode == "none" else ["saccade-inference"])
    for one in scalers:
        inner = one["spec"].get("advanced", {}).get("horizontalPodAutoscalerConfig", one["spec"])
        up, down = inner["behavior"]["scaleUp"], inner["behavior"]["scaleDown"]
        assert up["stabilizationWindowSeconds"] <= 60 and down["stabilizationWindowSeconds"] >= 300


@pytest.mark.parametrize("values, metrics", [(profile("inference"), 9180), (TRITON, 8002)], ids=["saccade", "triton"])
def test_servers_of_models_hear_the_release_s_pods_alone(values: dict, metrics: int) -> None:
    manifests = render(values)
    [(_, own)] = chart.pods(chart.parts(manifests, "server"), 1)
    [(_, models)] = chart.pods(chart.parts(manifests, "inference"), 1)
    theirs = chart.parts(manifests, "inference")
    operators = {"namespace": "x", "kubernetes.io/metadata.name": "monitoring"}
    assert allowed(theirs, "ingress", "TCP", 8001, {}, pod=own)
    assert not allowed(theirs, "ingress", "TCP", 8001, {}, pod=models)
    assert not allowed(theirs, "ingress", "TCP", 8001, operators) and allowed(theirs, "ingress", "TCP", metrics, operators)
    assert not allowed(theirs, "ingress", "TCP", 8001, {}, "198.51.100.7")
    for port in (53, 80, 443):
        assert not allowed(theirs, "egress", "TCP", port, {}, "198.51.100.7")
    assert allowed(manifests, "egress", "TCP", 8001, {}, pod=models) and not allowed(manifests, "egress", "TCP", 8001, {}, pod=own)
    assert not allowed(render({}), "egress", "TCP", 8001, {}, pod=models)


def test_servers_of_models_on_gpus_ask_for_them() -> None:
    for values in (profile("inference"), TRITON):
        manifests = render(merged(values, {"inference": {"gpu": {"enabled": True}}}))
        container = the(manifests, "StatefulSet", "saccade-inference")["spec"]["template"]["spec"]["containers"][0]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
        assert "nvidia.com/gpu" not in server(manifests)["resources"]["limits"], "pods need none then"
        env = {it["name"]: it["value"] for it in container["env"]}
        assert env["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"
        assert container["image"] == ("registry.example/triton:1" if values is TRITON else "saccade:0.1.0-cuda")


def test_a_manifest_that_changes_starts_the_pods_anew_and_more_servers_do_not() -> None:
    def template(*more: dict) -> dict:
        return the(render(merged(profile("inference"), *more)), "StatefulSet", "saccade")["spec"]["template"]

    assert template() != template(remote({"remote": {"timeout_ms": 150}}))
    assert template() == template({"inference": {"autoscaling": {"minReplicas": 4, "requestsPerServer": 4}}})


def served(manifests: list[dict], grpc: str) -> Server:
    """A server of models, as the chart has it run, at an address of its own."""
    [container] = the(manifests, "StatefulSet", "saccade-inference")["spec"]["template"]["spec"]["containers"]
    own = [f"{it['name']}={it['value']}" for it in container["env"] if not it["name"].startswith("XDG")]
    within = ("env", *own, "sh", "-c", 'exec "$@" ' + " ".join(container["args"][1:]), "sh")
    return Server(within, grpc__listen=grpc)


def tensors(one: Server) -> float:
    """Requests of the inference protocol that a server has answered."""
    with urllib.request.urlopen(f"{one.ops}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return sum(float(it) for it in re.findall(r"^saccade_tensor_requests_total\{.*\} (\S+)$", text, re.M))


def test_pictures_are_answered_by_the_servers_that_are_there(tmp_path: Path) -> None:
    """Two of three that there may be, as real processes, and then one."""
    scene = yaml.safe_load(json.dumps(tomllib.loads((ROOT / "models/scene-blobs/1/manifest.toml").read_text())))
    manifest = {key: scene[key] for key in ("task", "licence", "input", "output", "classes", "defaults", "batching")}
    model = {"name": "scene-remote", "manifest": manifest | {"remote": {"model": "scene-blobs", "timeout_ms": 5000}}}
    manifests = render(
        merged(profile("inference"), {"inference": {"models": [model], "replicas": 3, "autoscaling": {"mode": "none"}}})
    )
    [text] = the(manifests, "ConfigMap", "saccade-models")["data"].values()
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(3)]
    for index, address in enumerate(addresses):
        text = text.replace(f"saccade-inference-{index}.saccade-inference:8001", address)
    place = tmp_path / "scene-remote" / "1"
    place.mkdir(parents=True)
    (place / "manifest.toml").write_text(text)
    jpeg = (ROOT / "deploy/load/scene.jpg").read_bytes()

    def asks(one: Server, number: int) -> list[dict]:
        # A comment makes a picture of its own of it.
        body = jpeg[:2] + b"\xff\xfe\x00\x06%04d" % number + jpeg[2:]
        request = urllib.request.Request(f"{one.url}/v1/detect", body, {"content-type": "image/jpeg"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["detections"]

    servers: list[Server] = []
    try:
        servers += [served(manifests, address) for address in addresses[:2]]
        front = Server(models__dir=tmp_path, models__default="scene-remote")
        servers.append(front)
        assert front.ready() == 200
        before = [tensors(it) for it in servers[:2]]
        assert all(asks(front, number) for number in range(20))
        assert all(tensors(it) > earlier for it, earlier in zip(servers[:2], before, strict=True)), "each has its share"
        first = servers.pop(0)
        first.stop()
        assert all(asks(front, number) for number in range(20, 30))
        assert front.ready() == 200
    finally:
        # The one that asks first, so that it complains of nobody.
        for one in reversed(servers):
            one.stop()


# --- kustomize ---

OVERLAYS = sorted(it.name for it in (KUSTOMIZE / "overlays").iterdir())


def kustomized(folder: Path) -> list[dict]:
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return chart.parse(done.stdout)


def plain() -> dict[str, str]:
    """The files of kustomize's base: what Helm makes of the defaults, less what is Helm's own."""
    out = {}
    for name, text in chart.files({}, namespace="saccade").items():
        lines = [
            it
            for it in text.splitlines()
            if not re.match(r"\s+(helm\.sh/chart:|app\.kubernetes\.io/managed-by:|checksum/config:|# Without addresses)", it)
        ]
        text = "\n".join(lines).strip().removeprefix("---").strip()
        if name == "configmap.yaml":
            out["saccade.toml"] = the(chart.parse(text), "ConfigMap")["data"]["saccade.toml"]
        elif text:
            out[name] = f"{text}\n"
    return out


def test_the_base_is_what_the_chart_makes_of_its_defaults() -> None:
    base = KUSTOMIZE / "base"
    wanted = plain()
    if os.environ.get("UPDATE_KUSTOMIZE"):
        for name, text in wanted.items():
            (base / name).write_text(text)
    there = {it.name: it.read_text() for it in base.iterdir() if it.name != "kustomization.yaml"}
    assert there == wanted, "UPDATE_KUSTOMIZE=1 writes what is different"


@pytest.mark.parametrize("folder", ["base", *(f"overlays/{it}" for it in OVERLAYS)])
def test_kubernetes_takes_what_kustomize_makes(folder: str) -> None:
    manifests = kustomized(KUSTOMIZE / folder)
    for one in manifests:
        chart.validate(one)
        assert one["kind"] in chart.GLOBAL or one["metadata"]["namespace"] == "saccade"
    test_selectors_take_the_pods_and_what_is_named_is_there(manifests)
    test_a_session_s_media_survives_the_drain_of_its_pod(manifests)
    test_containers_may_do_nothing_that_they_need_not(manifests)
    test_no_secret_is_in_a_manifest(manifests)


def essence(manifests: list[dict]) -> dict:
    """What kustomize's manifests and Helm's have to agree in."""
    spec, container = pod_spec(manifests), server(manifests)
    stateful = the(manifests, "StatefulSet")["spec"]
    return {
        "container": {
            it: container.get(it)
            for it in (
                "args",
                "ports",
                "startupProbe",
                "livenessProbe",
                "readinessProbe",
                "lifecycle",
                "securityContext",
                "resources",
            )
        },
        "env": {it["name"]: it.get("value", it.get("valueFrom")) for it in container["env"]},
        "mounts": {it["mountPath"]: it for it in container["volumeMounts"]},
        "pod": {
            it: spec.get(it)
            for it in (
                "securityContext",
                "terminationGracePeriodSeconds",
                "automountServiceAccountToken",
                "enableServiceLinks",
                "tolerations",
                "runtimeClassName",
            )
        },
        "volumes": {it["name"]: it for it in spec["volumes"] if it["name"] != "config"},
        "stateful": {it: stateful[it] for it in ("serviceName", "podManagementPolicy", "selector")},
        "services": {it["metadata"]["name"]: it["spec"] for it in of_kind(manifests, "Service")},
        "policy": the(manifests, "NetworkPolicy")["spec"],
        "budget": the(manifests, "PodDisruptionBudget")["spec"],
        "configs": {pod: tomllib.loads(config_of(manifests, pod)) for pod in ("saccade-0", "saccade-1")},
    }


@pytest.mark.parametrize("folder", ["base", *(f"overlays/{it}" for it in OVERLAYS)])
def test_the_binary_takes_the_configuration_that_kustomize_makes(folder: str, tmp_path: Path) -> None:
    takes(check(kustomized(KUSTOMIZE / folder), "saccade-1", tmp_path))


@pytest.mark.parametrize(
    "folder, values",
    [
        ("base", {}),
        (
            "overlays/load-balancer",
            {
                "media": {
                    "mode": "loadBalancer",
                    "loadBalancer": {"pods": [{"address": "203.0.113.10"}, {"address": "203.0.113.11"}]},
                }
            },
        ),
        ("overlays/turn-only", {key: profile("turn-only")[key] for key in ("media", "iceServers", "networkPolicy")}),
        ("overlays/gpu", {"gpu": {"enabled": True, "runtimeClassName": "nvidia"}}),
    ],
)
def test_helm_and_kustomize_agree(folder: str, values: dict) -> None:
    ours, theirs = essence(kustomized(KUSTOMIZE / folder)), essence(render(values, namespace="saccade"))
    for part in ours:
        assert ours[part] == theirs[part], part


def test_every_overlay_is_compared_with_the_chart() -> None:
    [mark] = [it for it in test_helm_and_kustomize_agree.pytestmark if it.name == "parametrize"]
    assert {folder for folder, _ in mark.args[1]} == {"base", *(f"overlays/{it}" for it in OVERLAYS)}
