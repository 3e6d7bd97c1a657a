{{- define "nvml-exporter.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "nvml-exporter.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "nvml-exporter.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride }}
{{- end }}

{{- define "nvml-exporter.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "nvml-exporter.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "nvml-exporter.selectorLabels" -}}
app.kubernetes.io/name: {{ include "nvml-exporter.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "nvml-exporter.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "nvml-exporter.selectorLabels" . }}
app.kubernetes.io/component: metrics
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* Whether the pods are to know whose the processes are. */}}
{{- define "nvml-exporter.watchesPods" -}}
{{- if not .Values.mock.enabled }}true{{ end }}
{{- end }}

{{/* The nodes that some label marks as having an NVIDIA GPU. */}}
{{- define "nvml-exporter.gpuNodes" -}}
nodeAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    nodeSelectorTerms:
      - matchExpressions:
          - {key: nvidia.com/gpu.present, operator: In, values: ["true"]}
      - matchExpressions:
          - {key: feature.node.kubernetes.io/pci-10de.present, operator: In, values: ["true"]}
      - matchExpressions:
          - {key: feature.node.kubernetes.io/pci-0302_10de.present, operator: In, values: ["true"]}
      - matchExpressions:
          - {key: feature.node.kubernetes.io/pci-0300_10de.present, operator: In, values: ["true"]}
      - matchExpressions:
          - {key: aliyun.accelerator/nvidia_name, operator: Exists}
      - matchExpressions:
          - {key: cloud.google.com/gke-accelerator, operator: Exists}
      - matchExpressions:
          - {key: k8s.amazonaws.com/accelerator, operator: Exists}
{{- end }}

{{/* Whether processes are looked for, as far as the values tell. */}}
{{- define "nvml-exporter.looksForProcesses" -}}
{{- if .Values.customMetrics }}
{{- if regexMatch "(?m)^DCGM_CUSTOM_(PROCESS|ILLEGAL|CONTAINER)_" .Values.customMetrics }}true{{ end }}
{{- else if eq .Values.dialect "ack" }}true{{ end }}
{{- end }}

{{/* Whether the pods see the processes of their nodes. */}}
{{- define "nvml-exporter.hostPID" -}}
{{- if not .Values.mock.enabled }}
{{- if kindIs "bool" .Values.hostPID }}{{ if .Values.hostPID }}true{{ end }}
{{- else }}{{ include "nvml-exporter.looksForProcesses" . }}
{{- end }}
{{- end }}
{{- end }}

{{/* Whether the values ask for the ConfigMap of counters by the name that dcgm-exporter's chart gives it. */}}
{{- define "nvml-exporter.namesCounters" -}}
{{- if contains "exporter-metrics-config-map" (toJson (list .Values.extraConfigMapVolumes .Values.arguments .Values.extraEnv)) }}true{{ end }}
{{- end }}

{{/* Whether a Role has to let the exporter read that ConfigMap through the API server. */}}
{{- define "nvml-exporter.asksForCounters" -}}
{{- if contains "exporter-metrics-config-map" (toJson (list .Values.arguments .Values.extraEnv)) }}true{{ end }}
{{- end }}

{{- define "nvml-exporter.counters" -}}
{{- if include "nvml-exporter.namesCounters" . }}exporter-metrics-config-map
{{- else }}{{ include "nvml-exporter.fullname" . }}-counters
{{- end }}
{{- end }}

{{/* Whether the chart itself mounts its ConfigMap of counters. */}}
{{- define "nvml-exporter.mountsCounters" -}}
{{- if and .Values.customMetrics (not (include "nvml-exporter.namesCounters" .)) }}true{{ end }}
{{- end }}

{{/* Whether the values say where counters are. */}}
{{- define "nvml-exporter.choosesCounters" -}}
{{- range .Values.arguments }}
{{- if regexMatch "^(-f|--?collectors|-m|--?configmap-data)" . }}true{{ end }}
{{- end }}
{{- range .Values.extraEnv }}
{{- if has .name (list "DCGM_EXPORTER_COLLECTORS" "DCGM_EXPORTER_CONFIGMAP_DATA") }}true{{ end }}
{{- end }}
{{- end }}

{{/* Whether there is a file of web settings. */}}
{{- define "nvml-exporter.web" -}}
{{- if or .Values.tlsServerConfig.enabled .Values.basicAuth.users }}true{{ end }}
{{- end }}

{{/* Values that ask for what the exporter cannot do, or that contradict one another. */}}
{{- define "nvml-exporter.refuse" -}}
{{- if hasPrefix "nvcr.io/nvidia/" .Values.image.repository }}
{{- fail (printf "image.repository %s: this is the other exporter's; name the one that you have built, and its image.tag" .Values.image.repository) }}
{{- end }}
{{- if and .Values.tlsServerConfig.enabled (not .Values.tlsServerConfig.existingSecret) (not (and .Values.tlsServerConfig.cert .Values.tlsServerConfig.key)) }}
{{- fail "tlsServerConfig.enabled needs existingSecret, or cert and key; certificates that nobody has signed are not made up" }}
{{- end }}
{{- if and .Values.serviceMonitor.enabled .Values.podMonitor.enabled }}
{{- fail "serviceMonitor.enabled and podMonitor.enabled: both would scrape every node twice, which doubles every sum" }}
{{- end }}
{{- if and .Values.serviceMonitor.enabled (not .Values.service.enable) }}
{{- fail "serviceMonitor.enabled needs service.enable" }}
{{- end }}
{{- if not (hasSuffix (printf ":%d" (int .Values.service.port)) .Values.service.address) }}
{{- fail (printf "service.address %q does not end in the service.port %d" .Values.service.address (int .Values.service.port)) }}
{{- end }}
{{- end }}
