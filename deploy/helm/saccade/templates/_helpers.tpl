{{- define "saccade.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* What tells the pods of one release from all others; never changes. */ -}}
{{- define "saccade.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: server
{{- end -}}

{{- define "saccade.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "saccade.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "saccade.image" -}}
{{- include "saccade.imageFor" (dict "root" . "gpu" .Values.gpu.enabled) -}}
{{- end -}}

{{- /* The server's image, for processors or for GPUs. Takes `root` and `gpu`. */ -}}
{{- define "saccade.imageFor" -}}
{{- $image := .root.Values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- $suffix := ternary .root.Values.gpu.tagSuffix "" .gpu -}}
{{- printf "%s:%s%s" $image.repository (default .root.Chart.AppVersion $image.tag) $suffix -}}
{{- end -}}
{{- end -}}

{{- define "saccade.serviceAccount" -}}
{{- default (include "saccade.fullname" .) .Values.serviceAccount.name -}}
{{- end -}}

{{- /* How many pods there may be at most. */ -}}
{{- define "saccade.mostPods" -}}
{{- if eq .Values.autoscaling.mode "none" -}}{{ int .Values.replicas }}{{- else -}}{{ int .Values.autoscaling.maxReplicas }}{{- end -}}
{{- end -}}

{{- /* What an init container asks the API for: "service", "node", or "" for nothing. */ -}}
{{- define "saccade.discovers" -}}
{{- if and (eq .Values.media.mode "loadBalancer") (eq .Values.media.loadBalancer.address "discover") -}}
service
{{- else if and (eq .Values.media.mode "hostPort") (eq .Values.media.hostPort.address "external") -}}
node
{{- end -}}
{{- end -}}

{{- /* Whether each pod has a configuration of its own, named after it. */ -}}
{{- define "saccade.podConfigs" -}}
{{- if and (eq .Values.media.mode "loadBalancer") (eq .Values.media.loadBalancer.address "static") -}}yes{{- end -}}
{{- end -}}

{{- define "saccade.publicUrl" -}}
{{- if .Values.http.publicUrl -}}
{{- .Values.http.publicUrl -}}
{{- else if .Values.istio.enabled -}}
https://{{ .Values.istio.host }}
{{- else if .Values.ingress.enabled -}}
https://{{ .Values.ingress.host }}
{{- end -}}
{{- end -}}

{{- define "saccade.tomlKey" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . -}}{{ . }}{{- else -}}{{ toJson . }}{{- end -}}
{{- end -}}

{{- define "saccade.isTables" -}}
{{- if kindIs "slice" . -}}{{- if . -}}{{- if kindIs "map" (first .) -}}yes{{- end -}}{{- end -}}{{- end -}}
{{- end -}}

{{- /* The lines of a table in TOML: plain values, then tables, then lists of tables. Takes `path` and `table`. */ -}}
{{- define "saccade.toml" -}}
{{- $path := .path -}}
{{- range $key, $value := .table -}}
{{- if not (or (kindIs "map" $value) (kindIs "invalid" $value) (include "saccade.isTables" $value)) }}
{{ include "saccade.tomlKey" $key }} = {{ toJson $value }}
{{- end -}}
{{- end -}}
{{- range $key, $value := .table -}}
{{- $inner := include "saccade.tomlKey" $key -}}
{{- if $path }}{{ $inner = printf "%s.%s" $path $inner }}{{ end -}}
{{- if kindIs "map" $value }}

[{{ $inner }}]
{{- include "saccade.toml" (dict "path" $inner "table" $value) -}}
{{- else if include "saccade.isTables" $value -}}
{{- range $value }}

[[{{ $inner }}]]
{{- include "saccade.toml" (dict "path" $inner "table" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* saccade.toml without what differs from pod to pod. */ -}}
{{- define "saccade.config" -}}
# Written by the chart: `config` and `iceServers` of its values. Addresses, ports and secrets come by the environment.
{{- $table := deepCopy .Values.config -}}
{{- $servers := list -}}
{{- range $index, $server := .Values.iceServers -}}
{{- $one := dict "urls" $server.urls -}}
{{- if $server.secretName -}}
{{- $_ := set $one "secret_file" (printf "/run/secrets/saccade/ice-%d" $index) -}}
{{- end -}}
{{- if $server.ttlSeconds -}}{{- $_ := set $one "ttl_s" (int $server.ttlSeconds) -}}{{- end -}}
{{- $servers = append $servers $one -}}
{{- end -}}
{{- if $servers -}}{{- $_ := set $table "ice_servers" $servers -}}{{- end -}}
{{- include "saccade.toml" (dict "path" "" "table" $table) }}
{{- end -}}

{{- /* What the schema cannot say of values that have to fit together. */ -}}
{{- define "saccade.check" -}}
{{- $owned := dict
    "auth.audience" "auth.audience"
    "auth.issuer" "auth.issuer"
    "auth.jwks_file" "auth.mode and auth.secretName"
    "auth.secret" "auth.secretName, a Secret's name"
    "auth.secret_file" "auth.secretName"
    "cache.redis_password" "cache.redis_password_file and secretFiles"
    "cache.s3_secret_access_key" "cache.s3_secret_access_key_file and secretFiles"
    "cluster.advertise" "cluster.enabled"
    "cluster.listen" "cluster.enabled"
    "cluster.name" "cluster.enabled"
    "cluster.redis_url" "cluster.redisSecretName"
    "cluster.secret" "cluster.secretName"
    "cluster.secret_file" "cluster.secretName"
    "grpc.listen" "grpc.enabled"
    "http.allowed_origins" "http.allowedOrigins"
    "http.listen" "service.port"
    "http.public_url" "http.publicUrl"
    "http.tls_cert" "ingress.tlsSecretName"
    "http.tls_key" "ingress.tlsSecretName"
    "http.trusted_proxies" "http.trustedProxies"
    "models.dir" "models.existingClaim"
    "ops.listen" "monitoring, which finds it at port 9180"
    "shutdown.grace_ms" "shutdown.graceSeconds"
    "store.password" "store.password_file and secretFiles" -}}
{{- range $key, $instead := $owned -}}
{{- $parts := splitList "." $key -}}
{{- if hasKey (default dict (get $.Values.config (first $parts))) (last $parts) -}}
{{- fail (printf "config.%s is not taken from here: use %s" $key $instead) -}}
{{- end -}}
{{- end -}}
{{- $most := int (include "saccade.mostPods" .) -}}
{{- $media := .Values.media -}}
{{- if and (gt $most 1) (not .Values.cluster.enabled) -}}
{{- fail (printf "cluster.enabled is false and there may be %d pods: requests that reach another pod than the session's would not find it; set cluster.enabled, or replicas to 1" $most) -}}
{{- end -}}
{{- if and (include "saccade.podConfigs" .) (lt (len $media.loadBalancer.pods) $most) -}}
{{- fail (printf "media.loadBalancer.pods has %d addresses and there may be %d pods: add addresses, or lower replicas or autoscaling.maxReplicas" (len $media.loadBalancer.pods) $most) -}}
{{- end -}}
{{- if and (eq $media.loadBalancer.assign "annotation") (not $media.loadBalancer.assignAnnotation) (eq $media.mode "loadBalancer") -}}
{{- fail "media.loadBalancer.assignAnnotation is empty: name the annotation that takes the address, or set media.loadBalancer.assign to field or none" -}}
{{- end -}}
{{- if eq $media.mode "turnOnly" -}}
{{- $turn := false -}}
{{- range .Values.iceServers -}}{{- range .urls -}}{{- if hasPrefix "turn" . -}}{{- $turn = true -}}{{- end -}}{{- end -}}{{- end -}}
{{- if not $turn -}}
{{- fail "media.mode is turnOnly and iceServers has no turn: or turns: URL: nobody would reach the pods" -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.mediaFrom) -}}
{{- fail "networkPolicy.mediaFrom is empty: in mode turnOnly it has to name the TURN servers" -}}
{{- end -}}
{{- end -}}
{{- if ne .Values.autoscaling.mode "none" -}}
{{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) -}}
{{- fail "autoscaling.minReplicas is above autoscaling.maxReplicas" -}}
{{- end -}}
{{- $sessions := dig "admission" "max_sessions" 32 .Values.config -}}
{{- if ge (int .Values.autoscaling.sessionsPerPod) (int $sessions) -}}
{{- fail (printf "autoscaling.sessionsPerPod is %d and config.admission.max_sessions %d: pods would be full before others are started" (int .Values.autoscaling.sessionsPerPod) (int $sessions)) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.ingress.enabled .Values.istio.enabled -}}
{{- fail "ingress.enabled and istio.enabled are both true: choose which of them takes HTTP" -}}
{{- end -}}
{{- include "saccade.checkInference" . -}}
{{- if and .Values.priorityClass.create (not .Values.priorityClass.name) -}}
{{- fail "priorityClass.create is true and priorityClass.name empty" -}}
{{- end -}}
{{- end -}}

{{- /* Annotations of a LoadBalancer Service for pod number `index`. Takes `root` and `index`. */ -}}
{{- define "saccade.mediaAnnotations" -}}
{{- $balancer := .root.Values.media.loadBalancer -}}
{{- $all := deepCopy $balancer.annotations -}}
{{- if include "saccade.podConfigs" .root -}}
{{- $pod := index $balancer.pods .index -}}
{{- $all = merge (deepCopy (default dict $pod.annotations)) $all -}}
{{- if eq $balancer.assign "annotation" -}}
{{- $_ := set $all $balancer.assignAnnotation $pod.address -}}
{{- end -}}
{{- end -}}
{{- if $all -}}
annotations:
  {{- toYaml $all | nindent 2 }}
{{- end -}}
{{- end -}}

{{- /* Sources of the files in /run/secrets/saccade: Secrets that are there, none of the chart's. */ -}}
{{- define "saccade.secrets" -}}
{{- if ne .Values.auth.mode "none" }}
- secret:
    name: {{ .Values.auth.secretName }}
    items:
      - key: {{ .Values.auth.secretKey }}
        path: auth
{{- end }}
{{- if .Values.cluster.enabled }}
- secret:
    name: {{ .Values.cluster.secretName }}
    items:
      - key: {{ .Values.cluster.secretKey }}
        path: cluster
{{- end }}
{{- range $index, $server := .Values.iceServers }}
{{- if $server.secretName }}
- secret:
    name: {{ $server.secretName }}
    items:
      - key: {{ $server.secretKey }}
        path: ice-{{ $index }}
{{- end }}
{{- end }}
{{- range .Values.secretFiles }}
- secret:
    name: {{ .secretName }}
    items:
      - key: {{ .key }}
        path: {{ .name }}
{{- end }}
{{- end -}}

{{- /* Where the page and its files are. */ -}}
{{- define "saccade.staticPaths" -}}
- /
- /api.html
- /api.js
- /favicon.svg
- /history.html
- /history.js
- /index.html
- /page.css
- /page.js
- /saccade-worker.js
- /saccade.d.ts
- /saccade.js
- /status.html
- /status.js
- /stills.html
- /stills.js
{{- end -}}

{{- /* Up at once and in strides, down late and by one pod at a time. Takes `scaling`, and `downPeriod`: seconds from one pod
that leaves to the next. */ -}}
{{- define "saccade.scalingBehavior" -}}
scaleUp:
  stabilizationWindowSeconds: {{ int .scaling.scaleUpSeconds }}
  selectPolicy: Max
  policies:
    - type: Percent
      value: 100
      periodSeconds: 30
    - type: Pods
      value: 2
      periodSeconds: 30
scaleDown:
  stabilizationWindowSeconds: {{ int .scaling.scaleDownSeconds }}
  selectPolicy: Min
  policies:
    - type: Pods
      value: 1
      periodSeconds: {{ .downPeriod }}
{{- end -}}
