{{- define "saccade.inferenceName" -}}
{{ include "saccade.fullname" . }}-inference
{{- end -}}

{{- /* What tells the servers of models of one release from all other pods; never changes. */ -}}
{{- define "saccade.inferenceSelector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: inference
{{- end -}}

{{- define "saccade.inferenceLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "saccade.inferenceSelector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- /* How many servers of models there may be at most. */ -}}
{{- define "saccade.mostServers" -}}
{{- $scaling := .Values.inference.autoscaling -}}
{{- if eq $scaling.mode "none" -}}{{ int .Values.inference.replicas }}{{- else -}}{{ int $scaling.maxReplicas }}{{- end -}}
{{- end -}}

{{- /* Manifests of the models that they run, by file: what the values say, and where they are. All that there may be are named, so
that one that comes is asked as soon as it is ready; one that is not there is left alone. */ -}}
{{- define "saccade.remoteModels" -}}
{{- $name := include "saccade.inferenceName" . -}}
{{- $most := int (include "saccade.mostServers" .) -}}
{{- $urls := list -}}
{{- range $index := until $most -}}
{{- $urls = append $urls (printf "http://%s-%d.%s:8001" $name $index $name) -}}
{{- end -}}
{{- range .Values.inference.models }}
{{- $manifest := deepCopy .manifest -}}
{{- $run := merge (dict "backend" "kserve") (default dict $manifest.run) -}}
{{- if not (hasKey $run "instances") -}}{{- $_ := set $run "instances" (max 4 (mul 2 $most)) -}}{{- end -}}
{{- $_ := set $manifest "name" .name -}}
{{- $_ := set $manifest "version" (default "1" .version) -}}
{{- $_ := set $manifest "run" $run -}}
{{- $_ := set $manifest "remote" (merge (dict "urls" $urls) (default dict $manifest.remote)) }}
{{ .name }}.{{ default "1" .version }}.toml: |
  # Written by the chart: `inference.models` of its values, and where the servers are.
  {{- include "saccade.toml" (dict "path" "" "table" $manifest) | nindent 2 }}
{{- end -}}
{{- end -}}

{{- /* What the schema cannot say of values that have to fit together. */ -}}
{{- define "saccade.checkInference" -}}
{{- $inference := .Values.inference -}}
{{- if $inference.enabled -}}
{{- if not $inference.models -}}
{{- fail "inference.enabled is true and inference.models is empty: nobody would ask the servers for anything" -}}
{{- end -}}
{{- if .Values.models.existingClaim -}}
{{- fail "inference.models and models.existingClaim are both there: the chart cannot add manifests to a claim that is read only; put them into it, and leave inference.enabled false or models.existingClaim empty" -}}
{{- end -}}
{{- if and (eq $inference.server "triton") (not $inference.image) -}}
{{- fail "inference.image is empty: name an image of Triton, such as nvcr.io/nvidia/tritonserver:YY.MM-py3" -}}
{{- end -}}
{{- if and (eq $inference.server "triton") (not $inference.repository.existingClaim) -}}
{{- fail "inference.repository.existingClaim is empty: Triton's image has no models" -}}
{{- end -}}
{{- if and (ne $inference.autoscaling.mode "none") (gt (int $inference.autoscaling.minReplicas) (int $inference.autoscaling.maxReplicas)) -}}
{{- fail "inference.autoscaling.minReplicas is above inference.autoscaling.maxReplicas" -}}
{{- end -}}
{{- if and (eq $inference.autoscaling.mode "cpu") (not (dig "requests" "cpu" "" $inference.resources)) -}}
{{- fail "inference.resources.requests.cpu is empty: inference.autoscaling.mode cpu compares with it" -}}
{{- end -}}
{{- $seen := dict -}}
{{- range $index, $model := $inference.models -}}
{{- $key := printf "%s@%s" $model.name (default "1" $model.version) -}}
{{- if hasKey $seen $key -}}{{- fail (printf "inference.models has %s twice" $key) -}}{{- end -}}
{{- $_ := set $seen $key true -}}
{{- if hasKey (default dict $model.manifest.remote) "urls" -}}
{{- fail (printf "inference.models.%d.manifest.remote.urls is the chart's to say: it names its own servers" $index) -}}
{{- end -}}
{{- if ne "kserve" (dig "run" "backend" "kserve" $model.manifest) -}}
{{- fail (printf "inference.models.%d.manifest.run.backend is not kserve: such a model belongs into models.existingClaim or the image" $index) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
