"""Schemas of the custom resources that the chart makes: the fields that it uses, as their projects' definitions have them
(prometheus-operator v1, KEDA v1alpha1, VPA v1, Istio networking v1, Traefik v1alpha1). What is not here is a mistake."""


def table(required: tuple[str, ...] = (), **fields: object) -> dict:
    return {"type": "object", "additionalProperties": False, "required": list(required), "properties": fields}


def listed(item: dict, at_least: int = 1) -> dict:
    return {"type": "array", "items": item, "minItems": at_least}


def one_of(*words: str) -> dict:
    return {"enum": list(words)}


TEXT = {"type": "string", "minLength": 1}
NUMBER = {"type": "integer", "minimum": 0}
STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
# Of Go, and of Prometheus.
DURATION = {"type": "string", "pattern": r"^([0-9]+(ms|s|m|h))+$"}
QUANTITY = {"type": ["string", "integer"]}
SELECTOR = table(matchLabels=STRINGS)
REFERENCE = table(("kind", "name"), apiVersion=TEXT, kind=TEXT, name=TEXT)
METADATA = table(("name", "labels"), name=TEXT, namespace=TEXT, labels=STRINGS, annotations=STRINGS)


def resource(spec: dict) -> dict:
    return table(("apiVersion", "kind", "metadata", "spec"), apiVersion=TEXT, kind=TEXT, metadata=METADATA, spec=spec)


POLICY = table(("type", "value", "periodSeconds"), type=one_of("Pods", "Percent"), value=NUMBER, periodSeconds=NUMBER)
STRIDES = table(
    stabilizationWindowSeconds={"type": "integer", "minimum": 0, "maximum": 3600},
    selectPolicy=one_of("Max", "Min", "Disabled"),
    policies=listed(POLICY),
)
RULE = table(
    ("expr",),
    alert=TEXT,
    record=TEXT,
    expr={"type": ["string", "integer"]},
    labels=STRINGS,
    annotations=STRINGS,
    keep_firing_for=DURATION,
    **{"for": DURATION},
)
ROUTE = table(
    ("destination",),
    destination=table(("host",), host=TEXT, subset=TEXT, port=table(("number",), number=NUMBER)),
    weight=NUMBER,
)
HEADERS = table(set=STRINGS, add=STRINGS, remove=listed(TEXT))

CRDS = {
    ("monitoring.coreos.com/v1", "ServiceMonitor"): resource(
        table(
            ("selector", "endpoints"),
            jobLabel=TEXT,
            selector=SELECTOR,
            namespaceSelector=table(matchNames=listed(TEXT)),
            endpoints=listed(table(("port",), port=TEXT, path=TEXT, interval=DURATION, scrapeTimeout=DURATION)),
        )
    ),
    ("monitoring.coreos.com/v1", "PrometheusRule"): resource(
        table(("groups",), groups=listed(table(("name", "rules"), name=TEXT, interval=DURATION, rules=listed(RULE))))
    ),
    ("keda.sh/v1alpha1", "ScaledObject"): resource(
        table(
            ("scaleTargetRef", "triggers"),
            scaleTargetRef=REFERENCE,
            minReplicaCount=NUMBER,
            maxReplicaCount=NUMBER,
            pollingInterval=NUMBER,
            cooldownPeriod=NUMBER,
            advanced=table(horizontalPodAutoscalerConfig=table(behavior=table(scaleUp=STRIDES, scaleDown=STRIDES))),
            triggers=listed(
                table(
                    ("type", "metadata"),
                    type=TEXT,
                    name=TEXT,
                    metricType=one_of("AverageValue", "Value", "Utilization"),
                    metadata=table(
                        ("serverAddress", "query", "threshold"),
                        serverAddress=TEXT,
                        query=TEXT,
                        threshold=TEXT,
                        ignoreNullValues=one_of("true", "false"),
                    ),
                )
            ),
        )
    ),
    ("autoscaling.k8s.io/v1", "VerticalPodAutoscaler"): resource(
        table(
            ("targetRef",),
            targetRef=REFERENCE,
            updatePolicy=table(updateMode=one_of("Off", "Initial", "Recreate", "InPlaceOrRecreate")),
            resourcePolicy=table(
                containerPolicies=listed(
                    table(
                        containerName=TEXT,
                        mode=one_of("Auto", "Off"),
                        minAllowed={"type": "object", "additionalProperties": QUANTITY},
                        maxAllowed={"type": "object", "additionalProperties": QUANTITY},
                        controlledResources=listed(one_of("cpu", "memory")),
                        controlledValues=one_of("RequestsAndLimits", "RequestsOnly"),
                    )
                )
            ),
        )
    ),
    ("networking.istio.io/v1", "VirtualService"): resource(
        table(
            ("hosts", "http"),
            hosts=listed(TEXT),
            gateways=listed(TEXT),
            http=listed(
                table(
                    ("route",),
                    name=TEXT,
                    match=listed(
                        table(uri={**table(exact=TEXT, prefix=TEXT, regex=TEXT), "minProperties": 1, "maxProperties": 1})
                    ),
                    headers=table(request=HEADERS, response=HEADERS),
                    route=listed(ROUTE),
                    timeout=DURATION,
                    retries=table(("attempts",), attempts=NUMBER, perTryTimeout=DURATION, retryOn=TEXT),
                )
            ),
        )
    ),
    ("networking.istio.io/v1", "DestinationRule"): resource(
        table(
            ("host",),
            host=TEXT,
            trafficPolicy=table(
                loadBalancer={
                    **table(
                        simple=one_of("UNSPECIFIED", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST"),
                        consistentHash={
                            **table(
                                httpCookie=table(("name",), name=TEXT, path=TEXT, ttl=DURATION),
                                httpHeaderName=TEXT,
                                useSourceIp={"type": "boolean"},
                            ),
                            "minProperties": 1,
                        },
                    ),
                    "minProperties": 1,
                    "maxProperties": 1,
                },
                connectionPool=table(http=table(idleTimeout=DURATION, maxRetries=NUMBER, h2UpgradePolicy=TEXT)),
                outlierDetection=table(
                    consecutive5xxErrors=NUMBER,
                    consecutiveGatewayErrors=NUMBER,
                    interval=DURATION,
                    baseEjectionTime=DURATION,
                    maxEjectionPercent={"type": "integer", "minimum": 0, "maximum": 100},
                ),
            ),
        )
    ),
    ("traefik.io/v1alpha1", "Middleware"): resource(table(("headers",), headers=table(customResponseHeaders=STRINGS))),
}
