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

{{- define "nvml-exporter.groupLabels" -}}
app.kubernetes.io/component: {{ .Values.component }}
app.kubernetes.io/part-of: nvml-exporter
{{- end }}

{{/* Selectors cannot change, so the other labels of the pods are not part of them. */}}
{{- define "nvml-exporter.podLabels" -}}
{{- $fixed := include "nvml-exporter.selectorLabels" . | fromYaml }}
{{- merge $fixed (deepCopy .Values.podLabels) (include "nvml-exporter.groupLabels" . | fromYaml) | toYaml }}
{{- end }}

{{/* Of the cluster-scoped objects: releases in two namespaces have objects of their own. */}}
{{- define "nvml-exporter.clusterName" -}}
{{ include "nvml-exporter.namespace" . }}:{{ include "nvml-exporter.fullname" . }}
{{- end }}

{{- define "nvml-exporter.port" -}}
{{- $port := .Values.service.port | default (regexFind "[0-9]+$" .Values.service.address) | default 9400 }}
{{- int $port }}
{{- end }}

{{- define "nvml-exporter.address" -}}
{{- .Values.service.address | default (printf ":%s" (include "nvml-exporter.port" .)) }}
{{- end }}

{{/* Whether the cluster may require a quota for the priority class of the pods. */}}
{{- define "nvml-exporter.needsQuota" -}}
{{- $isCritical := has .Values.priorityClassName (list "system-node-critical" "system-cluster-critical") }}
{{- if and $isCritical (ne (include "nvml-exporter.namespace" .) "kube-system") }}true{{ end }}
{{- end }}

{{- define "nvml-exporter.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "nvml-exporter.selectorLabels" . }}
{{ include "nvml-exporter.groupLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* Whether the exporter watches pods, to attribute processes. */}}
{{- define "nvml-exporter.watchesPods" -}}
{{- if not (or .Values.mock.enabled .Values.nodeOnly) }}true{{ end }}
{{- end }}

{{/* Affinity for nodes with a label that indicates an NVIDIA GPU. */}}
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
          - {key: feature.node.kubernetes.io/cpu-model.vendor_id, operator: In, values: [NVIDIA]}
      - matchExpressions:
          - {key: aliyun.accelerator/nvidia_name, operator: Exists}
      - matchExpressions:
          - {key: cloud.google.com/gke-accelerator, operator: Exists}
      - matchExpressions:
          - {key: kubernetes.azure.com/accelerator, operator: In, values: [nvidia]}
      - matchExpressions:
          - {key: karpenter.azure.com/sku-gpu-manufacturer, operator: In, values: [nvidia]}
      - matchExpressions:
          - {key: k8s.amazonaws.com/accelerator, operator: Exists}
      - matchExpressions:
          - {key: karpenter.k8s.aws/instance-gpu-manufacturer, operator: In, values: [nvidia]}
      - matchExpressions:
          - {key: eks.amazonaws.com/instance-gpu-manufacturer, operator: In, values: [nvidia]}
{{- end }}

{{/* Whether process or container series are selected, as far as the values show. */}}
{{- define "nvml-exporter.selectsProcesses" -}}
{{- if .Values.customMetrics }}
{{- if regexMatch "(?m)^DCGM_CUSTOM_(PROCESS|ILLEGAL|CONTAINER)_" .Values.customMetrics }}true{{ end }}
{{- else if eq .Values.dialect "ack" }}true{{ end }}
{{- end }}

{{/* Whether the pods run in the host PID namespace. */}}
{{- define "nvml-exporter.hostPID" -}}
{{- if not .Values.mock.enabled }}
{{- if kindIs "bool" .Values.hostPID }}{{ if .Values.hostPID }}true{{ end }}
{{- else }}{{ include "nvml-exporter.selectsProcesses" . }}
{{- end }}
{{- end }}
{{- end }}

{{/* Whether the values refer to the counters ConfigMap of dcgm-exporter's chart. */}}
{{- define "nvml-exporter.usesDcgmConfigMap" -}}
{{- if contains "exporter-metrics-config-map" (toJson (list .Values.extraConfigMapVolumes .Values.arguments .Values.extraEnv)) }}true{{ end }}
{{- end }}

{{/* Whether the exporter reads that ConfigMap from the API server, which requires a Role. */}}
{{- define "nvml-exporter.readsDcgmConfigMap" -}}
{{- if contains "exporter-metrics-config-map" (toJson (list .Values.arguments .Values.extraEnv)) }}true{{ end }}
{{- end }}

{{- define "nvml-exporter.counters" -}}
{{- if include "nvml-exporter.usesDcgmConfigMap" . }}exporter-metrics-config-map
{{- else }}{{ include "nvml-exporter.fullname" . }}-counters
{{- end }}
{{- end }}

{{/* Whether the chart mounts its own counters ConfigMap. */}}
{{- define "nvml-exporter.mountsCounters" -}}
{{- if and .Values.customMetrics (not (include "nvml-exporter.usesDcgmConfigMap" .)) }}true{{ end }}
{{- end }}

{{/* Whether the values set the location of the counters. */}}
{{- define "nvml-exporter.setsCountersSource" -}}
{{- range .Values.arguments }}
{{- if regexMatch "^(-f|--?collectors|-m|--?configmap-data)" . }}true{{ end }}
{{- end }}
{{- range .Values.extraEnv }}
{{- if has .name (list "DCGM_EXPORTER_COLLECTORS" "DCGM_EXPORTER_CONFIGMAP_DATA") }}true{{ end }}
{{- end }}
{{- end }}

{{/* Whether a web configuration file is needed. */}}
{{- define "nvml-exporter.web" -}}
{{- if or .Values.tlsServerConfig.enabled .Values.basicAuth.users }}true{{ end }}
{{- end }}

{{/* Path of the exporter's own metrics, if they are not at /metrics. Tools for dcgm-exporter expect pod labels on every series there. */}}
{{- define "nvml-exporter.ownMetricsPath" -}}
{{- default (ternary "/metrics/own" "" (eq .Values.dialect "dcgm-exporter")) .Values.ownMetricsPath }}
{{- end }}

{{/* Fails on unsupported or contradictory values. */}}
{{- define "nvml-exporter.validateValues" -}}
{{- if not .Values.image.repository }}
{{- fail "image.repository is not set, and no image is published; build one and push it (docs/installation.md#image), and set image.repository, for example: --set image.repository=registry.example.com/gpu/nvml-exporter" }}
{{- end }}
{{- if hasPrefix "nvcr.io/nvidia/" .Values.image.repository }}
{{- fail (printf "image.repository %s is an image of NVIDIA; set image.repository and image.tag to your build of nvml-exporter" .Values.image.repository) }}
{{- end }}
{{- if and .Values.tlsServerConfig.enabled (not .Values.tlsServerConfig.existingSecret) (not (and .Values.tlsServerConfig.cert .Values.tlsServerConfig.key)) }}
{{- fail "tlsServerConfig.enabled requires existingSecret, or cert and key; self-signed certificates are not generated" }}
{{- end }}
{{- $monitors := list }}
{{- range $name := list "serviceMonitor" "podMonitor" "podMonitoring" }}
{{- if (index $.Values $name).enabled }}{{ $monitors = append $monitors (printf "%s.enabled" $name) }}{{ end }}
{{- end }}
{{- if gt (len $monitors) 1 }}
{{- fail (printf "%s are set; every node would be scraped more than once, which multiplies every sum; enable one of them" (join " and " $monitors)) }}
{{- end }}
{{- if and .Values.gpuNodesOnly .Values.affinity }}
{{- fail "gpuNodesOnly and affinity are both set; gpuNodesOnly is an affinity: unset it, or use nodeSelector instead of affinity" }}
{{- end }}
{{- if and .Values.serviceMonitor.enabled (not .Values.service.enable) }}
{{- fail "serviceMonitor.enabled requires service.enable" }}
{{- end }}
{{- $port := include "nvml-exporter.port" . }}
{{- if not (hasSuffix (printf ":%s" $port) (include "nvml-exporter.address" .)) }}
{{- fail (printf "service.address %q does not end in service.port %s; set one of them, or both to the same port" .Values.service.address $port) }}
{{- end }}
{{- end }}
