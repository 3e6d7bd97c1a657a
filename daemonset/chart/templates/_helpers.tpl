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

{{/* Values that ask for what the exporter cannot do, or that contradict one another. */}}
{{/* Whether there is a file of web settings. */}}
{{- define "nvml-exporter.web" -}}
{{- if or .Values.tlsServerConfig.enabled .Values.basicAuth.users }}true{{ end }}
{{- end }}

{{- define "nvml-exporter.refuse" -}}
{{- if and .Values.tlsServerConfig.enabled (not .Values.tlsServerConfig.existingSecret) (not (and .Values.tlsServerConfig.cert .Values.tlsServerConfig.key)) }}
{{- fail "tlsServerConfig.enabled needs existingSecret, or cert and key; certificates that nobody has signed are not made up" }}
{{- end }}
{{- if .Values.debugDump.enabled }}
{{- fail "debugDump.enabled: the exporter writes no dumps; add --debug to arguments to have it log more" }}
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
