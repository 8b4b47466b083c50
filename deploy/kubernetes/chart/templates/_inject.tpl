{{/*
sigward.inject: a pod template with the sidecar in it.

    template:
      {{- include "sigward.inject" (dict "sigward" .Subcharts.sigward "template" $template) | nindent 6 }}

`sigward`: this chart's context (`.` within the chart itself). `template`: a dict with `metadata` and `spec`; it is changed.
Every container and init container of the app gets the variables and, where a CA is to be trusted, the volume. A variable that the
app sets itself stays as it is.
*/}}
{{- define "sigward.inject" -}}
{{- $sigward := .sigward -}}
{{- $template := .template -}}
{{- $spec := required "template.spec: a pod's spec is expected." $template.spec -}}
{{- $variables := include "sigward.appEnv" $sigward | fromYamlArray -}}
{{- $names := list "sigward" "sigward-init" -}}
{{- $containers := list -}}
{{- range concat ($spec.initContainers | default list) $spec.containers -}}
{{- include "sigward.checkUser" (dict "sigward" $sigward "spec" $spec "container" .) -}}
{{- $names = append $names .name -}}
{{- $own := list -}}
{{- range .env }}{{ $own = append $own .name }}{{ end -}}
{{- $env := .env | default list -}}
{{- range $variables }}{{ if not (has .name $own) }}{{ $env = append $env . }}{{ end }}{{ end -}}
{{- $_ := set . "env" $env -}}
{{- if include "sigward.trusted" $sigward -}}
{{- $_ := set . "volumeMounts" (append (.volumeMounts | default list) (dict "name" "sigward-trust" "mountPath" "/var/lib/sigward-trust" "readOnly" true)) -}}
{{- end -}}
{{- end -}}
{{- $first := list -}}
{{- if include "sigward.guarded" $sigward -}}
{{- $first = append $first (include "sigward.initContainer" $sigward | fromYaml) -}}
{{- end -}}
{{- $first = append $first (include "sigward.container" $sigward | fromYaml) -}}
{{- $_ := set $spec "initContainers" (concat $first ($spec.initContainers | default list)) -}}
{{- $_ := set $spec "volumes" (concat ($spec.volumes | default list) (include "sigward.volumes" $sigward | fromYamlArray)) -}}
{{- $pod := dict "runAsNonRoot" true "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- $_ := set $spec "securityContext" (merge ($spec.securityContext | default dict) $pod) -}}
{{- if not (hasKey $spec "automountServiceAccountToken") }}{{ $_ := set $spec "automountServiceAccountToken" false }}{{ end -}}
{{- $_ := set $spec "enableServiceLinks" false -}}
{{- $_ := set $spec "terminationGracePeriodSeconds" (max (int64 ($spec.terminationGracePeriodSeconds | default 0)) (int64 $sigward.Values.terminationGracePeriodSeconds)) -}}
{{- with $sigward.Values.imagePullSecrets }}{{ $_ := set $spec "imagePullSecrets" (concat ($spec.imagePullSecrets | default list) .) }}{{ end -}}
{{- $metadata := $template.metadata | default dict -}}
{{- $_ := set $metadata "labels" (merge (include "sigward.selector" $sigward | fromYaml) ($metadata.labels | default dict)) -}}
{{- $skip := dict "eks.amazonaws.com/skip-containers" (join "," $names) -}}
{{- $hash := dict "sigward/config" ($sigward.Values.config | sha256sum | trunc 16) -}}
{{- $_ := set $metadata "annotations" (merge $skip $hash ($metadata.annotations | default dict)) -}}
{{- $_ := set $template "metadata" $metadata -}}
{{- toYaml $template -}}
{{- end -}}

{{/* The packet filter and the state volume know sigward by its user: a container of the same user would pass for it. */}}
{{- define "sigward.checkUser" -}}
{{- $pod := .spec.securityContext | default dict -}}
{{- $own := .container.securityContext | default dict -}}
{{- $user := $own.runAsUser | default $pod.runAsUser -}}
{{- if eq (toString (int64 .sigward.Values.uid)) (toString (int64 ($user | default 0))) -}}
{{- fail (printf "container %q runs as user %v, which is sigward's: give one of them another (securityContext.runAsUser, uid)." .container.name $user) -}}
{{- end -}}
{{- if and (include "sigward.guarded" .sigward) (not $user) -}}
{{- fail (printf "container %q: set securityContext.runAsUser, to another user than sigward's (%v): the packet filter tells the two apart by it." .container.name .sigward.Values.uid) -}}
{{- end -}}
{{- end -}}

{{/* What the app's containers are told. */}}
{{- define "sigward.appEnv" -}}
{{- if eq .Values.entry "endpoint-url" }}
{{- range .Values.endpoints }}{{ if .service }}
- name: AWS_ENDPOINT_URL_{{ .service }}
  value: http://127.0.0.1:{{ .port }}
{{- end }}{{ end }}
{{- end }}
{{- if eq .Values.entry "https-proxy" }}
{{- range list "HTTPS_PROXY" "https_proxy" }}
- name: {{ . }}
  value: http://127.0.0.1:{{ $.Values.proxy.port }}
{{- end }}
{{- $direct := list "localhost" "127.0.0.1" "127.0.0.0/8" "::1" "169.254.169.254" "169.254.170.2" "169.254.170.23" "fd00:ec2::254" "fd00:ec2::23" }}
{{- range list "NO_PROXY" "no_proxy" }}
- name: {{ . }}
  value: {{ join "," (concat $direct $.Values.proxy.noProxy) }}
{{- end }}
{{- range list "NODE_USE_ENV_PROXY" "PERL_LWP_ENV_PROXY" }}
- name: {{ . }}
  value: "1"
{{- end }}
{{- end }}
{{- if include "sigward.trusted" . }}
{{- range list "SSL_CERT_FILE" "REQUESTS_CA_BUNDLE" "CURL_CA_BUNDLE" "AWS_CA_BUNDLE" "GIT_SSL_CAINFO" "PIP_CERT" "CARGO_HTTP_CAINFO" "PERL_LWP_SSL_CA_FILE" }}
- name: {{ . }}
  value: /var/lib/sigward-trust/bundle.pem
{{- end }}
{{- range list "NODE_EXTRA_CA_CERTS" "DENO_CERT" }}
- name: {{ . }}
  value: /var/lib/sigward-trust/ca.pem
{{- end }}
- name: PHP_INI_SCAN_DIR
  value: ":/var/lib/sigward-trust"
- name: WGETRC
  value: /var/lib/sigward-trust/wgetrc
- name: WGET2RC
  value: /var/lib/sigward-trust/wget2rc
- name: JAVA_TOOL_OPTIONS
  value: >-
    -Djavax.net.ssl.trustStore=/var/lib/sigward-trust/truststore.p12 -Djavax.net.ssl.trustStorePassword=changeit -Djavax.net.ssl.trustStoreType=PKCS12
    {{- if eq .Values.entry "https-proxy" }} -Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort={{ .Values.proxy.port }} -Dhttp.nonProxyHosts={{ include "sigward.javaDirect" . }}{{ end }}
{{- end }}
{{- range list "AWS_REGION" "AWS_DEFAULT_REGION" }}
- name: {{ . }}
  value: {{ $.Values.region }}
{{- end }}
# SDKs insist on keys; these open nothing.
- name: AWS_ACCESS_KEY_ID
  value: SIGWARDDUMMYKEYID000
- name: AWS_SECRET_ACCESS_KEY
  value: sigward-signs-this-is-no-secret
- name: AWS_EC2_METADATA_DISABLED
  value: "true"
{{- end -}}

{{/* What Java reaches directly: `.svc` is `*.svc` to it, and addresses of IPv6 stand in brackets. */}}
{{- define "sigward.javaDirect" -}}
{{- $direct := list "localhost" "127.*" "[::1]" "169.254.169.254" "169.254.170.2" "169.254.170.23" "[fd00:ec2::254]" "[fd00:ec2::23]" -}}
{{- range .Values.proxy.noProxy }}{{ $direct = append $direct (hasPrefix "." . | ternary (printf "*%s" .) .) }}{{ end -}}
{{- join "|" $direct -}}
{{- end -}}
