{{/* sigward's container, its init container and their volumes. All take sigward's own context. */}}

{{- define "sigward.guarded" -}}
{{- if and (eq .Values.mode "sidecar") (or .Values.metadataGuard (eq .Values.entry "transparent")) }}true{{ end -}}
{{- end -}}

{{- define "sigward.trusted" -}}
{{- if and (eq .Values.mode "sidecar") (ne .Values.entry "endpoint-url") }}true{{ end -}}
{{- end -}}

{{- define "sigward.reverse" -}}
{{- $host := ternary "127.0.0.1" "0.0.0.0" (eq .Values.mode "sidecar") -}}
{{- range $number, $endpoint := .Values.endpoints -}}
{{- if $number }},{{ end }}{{ $host }}:{{ .port }}={{ .upstream }}
{{- end -}}
{{- end -}}

{{- define "sigward.container" -}}
{{- if ge (float64 .Values.grace) (float64 .Values.terminationGracePeriodSeconds) -}}
{{- fail (printf "grace: %v s do not end within terminationGracePeriodSeconds (%v s): requests would be cut off." .Values.grace .Values.terminationGracePeriodSeconds) -}}
{{- end -}}
name: sigward
image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- if eq .Values.mode "sidecar" }}
# A native sidecar: it is ready before the app starts, and ends after it.
restartPolicy: Always
{{- end }}
env:
  - name: SIGWARD_CONFIG
    value: /etc/sigward/sigward.toml
  - name: SIGWARD_GRACE
    value: {{ .Values.grace | quote }}
  - name: AWS_REGION
    value: {{ .Values.region }}
  {{- if ne .Values.credentials.source "none" }}
  # Not the node's role.
  - name: AWS_EC2_METADATA_DISABLED
    value: "true"
  {{- end }}
  {{- if eq .Values.mode "standalone" }}
  - name: SIGWARD_ALLOW_REMOTE
    value: "true"
  {{- with .Values.standalone.tlsSecret }}
  - name: SIGWARD_TLS__CERTIFICATE
    value: /etc/sigward-tls/tls.crt
  - name: SIGWARD_TLS__KEY
    value: /etc/sigward-tls/tls.key
  {{- end }}
  {{- end }}
  {{- if eq .Values.entry "https-proxy" }}
  - name: SIGWARD_LISTEN
    value: 127.0.0.1:{{ .Values.proxy.port }}
  {{- else }}
  - name: SIGWARD_LISTEN
    value: "off"
  {{- end }}
  {{- if eq .Values.entry "endpoint-url" }}
  - name: SIGWARD_REVERSE
    value: {{ include "sigward.reverse" . }}
  {{- end }}
  {{- if eq .Values.entry "transparent" }}
  - name: SIGWARD_TRANSPARENT
    value: localhost:{{ .Values.transparent.port }}
  {{- end }}
  {{- if include "sigward.trusted" . }}
  - name: SIGWARD_TRUST_DIR
    value: /var/lib/sigward-trust
  {{- end }}
  {{- if eq .Values.credentials.source "irsa" }}
  - name: AWS_ROLE_ARN
    value: {{ .Values.credentials.roleArn }}
  - name: AWS_WEB_IDENTITY_TOKEN_FILE
    value: /var/run/secrets/sigward/token
  {{- else if eq .Values.credentials.source "pod-identity" }}
  - name: AWS_CONTAINER_CREDENTIALS_FULL_URI
    value: {{ .Values.credentials.agent }}
  - name: AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE
    value: /var/run/secrets/sigward/token
  {{- end }}
  {{- with .Values.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- if eq .Values.mode "standalone" }}
ports:
  {{- range .Values.endpoints }}
  - name: p{{ .port }}
    containerPort: {{ .port }}
  {{- end }}
{{- end }}
# The admin listener is on loopback, where the kubelet's httpGet does not reach it.
startupProbe:
  exec:
    command: [sigward, healthcheck]
  periodSeconds: 1
  timeoutSeconds: 5
  failureThreshold: 60
readinessProbe:
  exec:
    command: [sigward, healthcheck]
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  runAsUser: {{ int64 .Values.uid }}
  runAsGroup: {{ int64 .Values.uid }}
  runAsNonRoot: true
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
  seccompProfile:
    type: RuntimeDefault
volumeMounts:
  - name: sigward-config
    mountPath: /etc/sigward
    readOnly: true
  - name: sigward-state
    mountPath: /var/lib/sigward
  - name: sigward-trust
    mountPath: /var/lib/sigward-trust
  {{- if ne .Values.credentials.source "none" }}
  - name: sigward-token
    mountPath: /var/run/secrets/sigward
    readOnly: true
  {{- end }}
  {{- if and (eq .Values.mode "standalone") .Values.standalone.tlsSecret }}
  - name: sigward-tls
    mountPath: /etc/sigward-tls
    readOnly: true
  {{- end }}
  {{- with .Values.volumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "sigward.initContainer" -}}
name: sigward-init
image: "{{ .Values.initImage.repository }}:{{ .Values.initImage.tag | default .Chart.AppVersion }}"
imagePullPolicy: {{ .Values.initImage.pullPolicy }}
env:
  - name: PROXY_UID
    value: {{ int64 .Values.uid | quote }}
  - name: REDIRECT_TO
    value: {{ ternary (toString .Values.transparent.port) "off" (eq .Values.entry "transparent") | quote }}
  {{- if eq .Values.entry "transparent" }}
  - name: REDIRECT_PORTS
    value: {{ join "," .Values.transparent.ports | quote }}
  - name: EXCLUDE_CIDRS
    value: {{ join "," .Values.transparent.excludeCidrs | quote }}
  {{- end }}
resources:
  requests:
    cpu: 10m
    memory: 16Mi
  limits:
    memory: 64Mi
# Root and NET_ADMIN are here alone, and gone when the app starts.
securityContext:
  runAsUser: 0
  runAsGroup: 0
  runAsNonRoot: false
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
    add: [NET_ADMIN]
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{- define "sigward.volumes" -}}
- name: sigward-config
  configMap:
    name: {{ include "sigward.name" . }}
# The CA's key, and bodies that are too large for memory. The app never mounts it.
- name: sigward-state
  emptyDir:
    sizeLimit: {{ .Values.stateSize }}
# What clients trust: certificates, no key.
- name: sigward-trust
  emptyDir:
    sizeLimit: 16Mi
{{- if ne .Values.credentials.source "none" }}
- name: sigward-token
  projected:
    sources:
      - serviceAccountToken:
          audience: {{ ternary "sts.amazonaws.com" "pods.eks.amazonaws.com" (eq .Values.credentials.source "irsa") }}
          expirationSeconds: 86400
          path: token
{{- end }}
{{- if and (eq .Values.mode "standalone") .Values.standalone.tlsSecret }}
- name: sigward-tls
  secret:
    secretName: {{ .Values.standalone.tlsSecret }}
    defaultMode: 0440
{{- end }}
{{- with .Values.volumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
