{{/* Names of what the chart makes. All take sigward's own context: `.` here, `.Subcharts.sigward` in a chart that depends on this one. */}}

{{- define "sigward.name" -}}
{{- if contains "sigward" .Release.Name -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-sigward" (.Release.Name | trunc 42 | trimSuffix "-") }}
{{- end -}}
{{- end -}}

{{- define "sigward.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "sigward.name" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end -}}

{{- define "sigward.labels" -}}
app.kubernetes.io/name: sigward
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* The label that the NetworkPolicy selects pods by. */}}
{{- define "sigward.selector" -}}
sigward: {{ include "sigward.name" . }}
{{- end -}}
