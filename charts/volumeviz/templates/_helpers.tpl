{{/* Base of every name; leaves room for the longest ending. A release may have dots in its name, a Service may not. */}}
{{- define "volumeviz.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | replace "." "-" | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "volumeviz.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "volumeviz.labels" -}}
{{ include "volumeviz.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The same with others that go before them: dict "root" $ "labels" those of the values. */}}
{{- define "volumeviz.labelsAnd" -}}
{{- toYaml (mergeOverwrite (include "volumeviz.labels" .root | fromYaml) (.labels | default dict)) -}}
{{- end -}}

{{/* Labels of a pod: dict "root" $ "component" controller|agent|… "labels" those of the values. */}}
{{- define "volumeviz.podLabels" -}}
{{- $component := dict "app.kubernetes.io/component" .component -}}
{{- toYaml (mergeOverwrite (include "volumeviz.labels" .root | fromYaml) $component (.labels | default dict)) -}}
{{- end -}}

{{/* What selects the pods of a component: dict "root" $ "component" controller|agent|…. */}}
{{- define "volumeviz.selector" -}}
{{ include "volumeviz.selectorLabels" .root }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "volumeviz.image" -}}
{{- $repository := required "image.repository: where is the image? Nobody publishes one yet: build it, push it to your registry, and give REGISTRY/volumeviz" .Values.image.repository -}}
{{- with .Values.image.digest -}}
{{ printf "%s@%s" $repository . }}
{{- else -}}
{{ printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end -}}
{{- end -}}

{{- define "volumeviz.imagePullSecrets" -}}
{{- with .Values.imagePullSecrets -}}
imagePullSecrets:
  {{- range . }}
  - name: {{ if kindIs "map" . }}{{ .name | quote }}{{ else }}{{ . | quote }}{{ end }}
  {{- end }}
{{- end -}}
{{- end -}}

{{/* Linux nodes, and of them those that the argument selects. */}}
{{- define "volumeviz.nodeSelector" -}}
nodeSelector: {{- mergeOverwrite (deepCopy .) (dict "kubernetes.io/os" "linux") | toYaml | nindent 2 }}
{{- end -}}

{{/* A ServiceAccount: dict "root" $ "component" controller|agent|… "annotations" those of the values. Its token is mounted where a pod asks for it. */}}
{{- define "volumeviz.serviceAccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "volumeviz.fullname" .root }}-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "volumeviz.labels" .root | nindent 4 }}
  {{- with .annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end -}}

{{/* The token for the Kubernetes API, for one container instead of all of its pod. */}}
{{- define "volumeviz.tokenMount" -}}
- {name: service-account, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
{{- end -}}

{{- define "volumeviz.tokenVolume" -}}
- name: service-account
  projected:
    defaultMode: 0444
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3607}
      - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
      - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
{{- end -}}

{{- define "volumeviz.agentSelector" -}}
app.kubernetes.io/component=agent,app.kubernetes.io/instance={{ .Release.Name }}
{{- end -}}

{{/* Environment and mount by which every process of ours logs; the filter is read again when the file changes. */}}
{{- define "volumeviz.logEnv" -}}
- {name: VOLUMEVIZ_LOG_FILTER_FILE, value: /etc/volumeviz/log/filter}
- {name: VOLUMEVIZ_LOG_FORMAT, value: {{ .Values.log.format | quote }}}
{{- end -}}

{{- define "volumeviz.logMount" -}}
- {name: log, mountPath: /etc/volumeviz/log, readOnly: true}
{{- end -}}

{{- define "volumeviz.logVolume" -}}
- {name: log, configMap: {name: {{ include "volumeviz.fullname" . }}-log}}
{{- end -}}

{{/* What the Pod Security Standard "restricted" asks of a container. */}}
{{- define "volumeviz.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* Annotations of what `helm test` makes; the argument says in which order. What its Pod, the last one, may is gone whatever comes of it; a Pod that failed
is kept for its log. */}}
{{- define "volumeviz.testHook" -}}
helm.sh/hook: test
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded{{ if ne . "0" }},hook-failed{{ end }}
{{- end -}}

{{/* Pods of components, as peers of a NetworkPolicy: dict "root" $ "components" list. */}}
{{- define "volumeviz.peers" -}}
{{- $root := .root -}}
{{- range $index, $component := .components }}
{{- if $index }}{{ print "\n" }}{{ end -}}
- podSelector: {matchLabels: {{ include "volumeviz.selector" (dict "root" $root "component" $component) | fromYaml | toJson }}}
{{- end -}}
{{- end -}}

{{/* Where to read what to do about an alert: dict "root" $ "alert" its name. */}}
{{- define "volumeviz.runbook" -}}
{{- with .root.Values.prometheusRule.runbookBaseUrl -}}
runbook_url: {{ printf "%s#%s" . (lower $.alert) | quote }}
{{- end -}}
{{- end -}}
