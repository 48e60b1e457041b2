{{/* The agents' name, and of everything that belongs to them. */}}
{{- define "enforcer.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{/* What agents are selected by; never changes for a release. */}}
{{- define "enforcer.selector" -}}
app.kubernetes.io/name: enforcer
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: agent
{{- end }}

{{/* Labels of every object. */}}
{{- define "enforcer.labels" -}}
{{ include "enforcer.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{/* The image, by its digest where there is one. */}}
{{- define "enforcer.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end }}

{{/* A probe of a path; the address is the node's unless only another one is served. */}}
{{- define "enforcer.probe" -}}
httpGet:
  path: {{ .path }}
  port: metrics
  {{- if not (has .metrics.host (list "0.0.0.0" "[::]")) }}
  host: {{ .metrics.host }}
  {{- end }}
{{- end }}
