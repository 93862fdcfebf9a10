{{/* The environment of the processes: settings by name, and the two stores. */}}

{{/* One value as text: lists with commas, maps as JSON, whole numbers without an exponent. */}}
{{- define "tenure.text" -}}
{{- if kindIs "slice" . -}}
{{ join "," . }}
{{- else if kindIs "map" . -}}
{{ toJson . }}
{{- else if and (kindIs "float64" .) (eq (floor .) .) -}}
{{ printf "%.0f" . }}
{{- else -}}
{{ toString . }}
{{- end -}}
{{- end -}}

{{/* settings, prefix: graceS becomes PREFIX_GRACE_S; what both processes have is TENURE_ everywhere. */}}
{{- define "tenure.env.settings" -}}
{{- $shared := list "etcdPrefix" "etcdTimeoutS" "logLevel" "logFormat" -}}
{{- $prefix := .prefix -}}
{{- range $key, $value := .settings }}
- name: {{ ternary "TENURE_" $prefix (has $key $shared) }}{{ snakecase $key | upper }}
  value: {{ include "tenure.text" $value | quote }}
{{- end }}
{{- end -}}

{{/* root, w: what a worker's values say, and its settings. */}}
{{- define "tenure.env.workerSettings" -}}
{{- include "tenure.env.settings" (dict "prefix" "TENURE_WORKER_" "settings" (merge (dict
    "pools" .w.pools "imports" .w.imports "capacity" .w.capacity "labels" .w.labels "allowCommand" .w.allowCommand
    "httpAllow" .w.httpAllow "graceS" .w.graceSeconds) .w.settings .root.Values.settings)) -}}
{{- end -}}

{{/* root, w: where a runner finds coordinators, what it shows them and whom it believes, and the way out. */}}
{{- define "tenure.env.runner" -}}
- name: TENURE_RUNNER_URL
  value: {{ join "," .w.urls | quote }}
{{- if .w.caSecret }}
- name: TENURE_TLS_CA
  value: /etc/tenure/tls/ca.crt
{{- end }}
{{- if .w.certificateSecret }}
- name: TENURE_TLS
  value: "true"
- name: TENURE_TLS_CLIENT_CERT
  value: /etc/tenure/certificate/tls.crt
- name: TENURE_TLS_CLIENT_KEY
  value: /etc/tenure/certificate/tls.key
{{- end }}
{{- with .w.proxy.https }}
- name: HTTPS_PROXY
  value: {{ . | quote }}
{{- end }}
{{- with .w.proxy.noProxy }}
- name: NO_PROXY
  value: {{ join "," . | quote }}
{{- end }}
{{- with include "tenure.env.token" (dict "token" .w.tokenSecret) }}
{{ . }}
{{- end }}
{{- with include "tenure.env.objectStoreCa" .root }}
{{ . }}
{{- end }}
{{- with include "tenure.env.tracing" .root }}
{{ . }}
{{- end }}
{{- $shared := dict "Values" (dict "settings" (omit .root.Values.settings "etcdPrefix" "etcdTimeoutS")) }}
{{- include "tenure.env.workerSettings" (dict "root" $shared "w" .w) }}
{{- end -}}

{{/* root, w: a worker beside etcd. */}}
{{- define "tenure.env.worker" -}}
{{- include "tenure.env.etcd" (merge (dict "etcdSecret" .root.Values.etcd.external.workerSecret) .root) }}
{{- with .w.coordinators }}
- name: TENURE_COORDINATOR
  value: {{ join "," . | quote }}
{{- end }}
{{- with include "tenure.env.toCoordinators" (dict "root" .root "named" (not .w.coordinators)) }}
{{ . }}
{{- end }}
{{- with include "tenure.env.token" (dict "token" .root.Values.auth.workers.tokenSecret) }}
{{ . }}
{{- end }}
{{- with include "tenure.env.objectStoreCa" .root }}
{{ . }}
{{- end }}
{{- with include "tenure.env.tracing" .root }}
{{ . }}
{{- end }}
{{- include "tenure.env.workerSettings" . }}
{{- end -}}

{{- define "tenure.env.etcd" -}}
{{- $tls := .Values.etcd.tls -}}
- name: TENURE_ETCD_ENDPOINTS
{{- if .Values.etcd.bundled.enabled }}
  {{- $scheme := ternary "grpcs" "grpc" $tls.enabled }}
  {{- $name := printf "%s-etcd" (include "tenure.fullname" .) }}
  {{- $members := list }}
  {{- range $i := until (.Values.etcd.bundled.members | int) }}
  {{- $members = append $members (printf "%s://%s-%d.%s-headless.%s.svc:2379" $scheme $name $i $name $.Release.Namespace) }}
  {{- end }}
  value: {{ join "," $members | quote }}
{{- else }}
  value: {{ join "," .Values.etcd.external.endpoints | quote }}
{{- /* etcdSecret: that of workers, where they have one of their own. */}}
{{- with default .Values.etcd.external.existingSecret .etcdSecret }}
- name: TENURE_ETCD_USER
  valueFrom:
    secretKeyRef:
      name: {{ . | quote }}
      key: {{ $.Values.etcd.external.userKey | quote }}
- name: TENURE_ETCD_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ . | quote }}
      key: {{ $.Values.etcd.external.passwordKey | quote }}
{{- end }}
{{- end }}
{{- if $tls.enabled }}
- name: TENURE_ETCD_CA
  value: /etc/tenure/etcd/ca.crt
{{- if $tls.clientCertificate }}
- name: TENURE_ETCD_CERT
  value: /etc/tenure/etcd/tls.crt
- name: TENURE_ETCD_KEY
  value: /etc/tenure/etcd/tls.key
{{- end }}
{{- end }}
{{- end -}}

{{/* A part of a URI: libpq knows no plus for a space. */}}
{{- define "tenure.percent" -}}
{{ toString . | urlquery | replace "+" "%20" }}
{{- end -}}

{{/* A host of Postgres with its port: an IPv6 address, which is what has more than one colon, stands in brackets. */}}
{{- define "tenure.hostPort" -}}
{{- if or (hasPrefix "[" .) (lt (len (splitList ":" .)) 3) -}}
{{ ternary . (printf "%s:5432" .) (regexMatch ":[0-9]+$" (regexReplaceAll "^\\[.*\\]" . "h")) }}
{{- else -}}
{{ printf "[%s]:5432" . }}
{{- end -}}
{{- end -}}

{{/* The password and the TLS files go to libpq by its own variables, so that no DSN has to be put together from a Secret. */}}
{{- define "tenure.env.postgres" -}}
{{- $pg := .Values.postgres -}}
{{- $external := $pg.external -}}
- name: TENURE_POSTGRES_DSN
{{- if $pg.bundled.enabled }}
  value: {{ printf "postgresql://tenure@%s-postgres.%s.svc:5432/tenure" (include "tenure.fullname" .) .Release.Namespace | quote }}
{{- else if $external.hosts }}
  {{- $hosts := list }}
  {{- range $external.hosts }}
  {{- $hosts = append $hosts (include "tenure.hostPort" .) }}
  {{- end }}
  {{- $options := list }}
  {{- range $key, $value := $external.options }}
  {{- $options = append $options (printf "%s=%s" $key (include "tenure.percent" $value)) }}
  {{- end }}
  value: {{ printf "postgresql://%s@%s/%s%s" (include "tenure.percent" $external.user) (join "," $hosts) (include "tenure.percent" $external.database) (ternary (printf "?%s" (join "&" $options)) "" (gt (len $options) 0)) | quote }}
{{- else }}
  valueFrom:
    secretKeyRef:
      name: {{ $external.existingSecret | quote }}
      key: {{ $external.dsnKey | quote }}
{{- end }}
{{- if and (include "tenure.postgresPasswordSecret" .) (or $pg.bundled.enabled $external.hosts) }}
- name: PGPASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ include "tenure.postgresPasswordSecret" . | quote }}
      key: {{ ternary "password" $external.passwordKey $pg.bundled.enabled | quote }}
{{- end }}
{{- if $pg.tls.enabled }}
- name: PGSSLMODE
  value: {{ $pg.tls.mode }}
- name: PGSSLROOTCERT
  value: /etc/tenure/postgres/ca.crt
{{- if $pg.tls.clientCertificate }}
- name: PGSSLCERT
  value: /etc/tenure/postgres/tls.crt
- name: PGSSLKEY
  value: /etc/tenure/postgres/tls.key
{{- end }}
{{- end }}
{{- end -}}

{{/* What a coordinator shows, whom it lets in, and how it speaks to the others. */}}
{{- define "tenure.env.coordinatorSecurity" -}}
{{- $tls := .Values.tls.coordinators -}}
- name: TENURE_AUTH
  value: {{ ternary "required" "none" .Values.auth.required }}
{{- if .Values.security.allowInsecure }}
- name: TENURE_ALLOW_INSECURE
  value: "true"
{{- end }}
{{- if $tls.enabled }}
- name: TENURE_TLS_CERT
  value: /etc/tenure/tls/tls.crt
- name: TENURE_TLS_KEY
  value: /etc/tenure/tls/tls.key
{{- if ne $tls.clientCertificates "none" }}
- name: TENURE_TLS_CLIENT_CA
  value: /etc/tenure/client-ca/ca.crt
- name: TENURE_TLS_CLIENT_REQUIRED
  value: {{ eq $tls.clientCertificates "required" | quote }}
{{- end }}
{{ include "tenure.env.toCoordinators" (dict "root" . "named" true) }}
{{- end }}
{{- end -}}

{{/* Where coordinators keep what is too large for Postgres. */}}
{{- define "tenure.env.objectStore" -}}
{{- $os := .Values.objectStore -}}
{{- $shown := .Values.ingress.dashboard -}}
{{- if and $shown.enabled $shown.tlsSecretName (not (hasPrefix "file:" $os.url)) }}
- name: TENURE_HTTP_ADVERTISE
  value: {{ printf "https://%s" $shown.host | quote }}
{{ end -}}
{{- if $os.url -}}
- name: TENURE_OBJECT_STORE
  value: {{ $os.url | quote }}
{{- if hasPrefix "file:" $os.url }}
- name: TENURE_HTTP_ADVERTISE
  value: {{ default (printf "%s://%s-http.%s.svc:%d" (ternary "https" "http" .Values.tls.coordinators.enabled) (include "tenure.fullname" .) .Release.Namespace (.Values.coordinator.service.httpPort | int)) $os.advertise | quote }}
{{- else }}
{{- range $name, $value := dict "ENDPOINT" $os.endpoint "REGION" $os.region "SSE" $os.sse "SSE_KMS_KEY_ID" $os.sseKmsKeyId }}
{{- if $value }}
- name: TENURE_OBJECT_STORE_{{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}
{{- if not (kindIs "invalid" $os.pathStyle) }}
- name: TENURE_OBJECT_STORE_PATH_STYLE
  value: {{ $os.pathStyle | quote }}
{{- end }}
{{- with $os.existingSecret }}
- name: TENURE_OBJECT_STORE_ACCESS_KEY_ID
  valueFrom:
    secretKeyRef:
      name: {{ . | quote }}
      key: {{ $os.accessKeyIdKey | quote }}
- name: TENURE_OBJECT_STORE_SECRET_ACCESS_KEY
  valueFrom:
    secretKeyRef:
      name: {{ . | quote }}
      key: {{ $os.secretAccessKeyKey | quote }}
{{- end }}
{{- if $os.caSecret }}
{{ include "tenure.env.objectStoreCa" . }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Whom workers and runners believe, too, when they upload. */}}
{{- define "tenure.env.objectStoreCa" -}}
{{- if .Values.objectStore.caSecret -}}
- name: TENURE_OBJECT_STORE_CA
  value: /etc/tenure/object-store/ca.crt
{{- end }}
{{- end -}}

{{/* root, named (whether they are this release's own): how to speak to coordinators. */}}
{{- define "tenure.env.toCoordinators" -}}
{{- $tls := .root.Values.tls.coordinators -}}
{{- if $tls.enabled -}}
- name: TENURE_TLS
  value: "true"
- name: TENURE_TLS_CA
  value: /etc/tenure/tls/ca.crt
{{- if eq $tls.clientCertificates "required" }}
- name: TENURE_TLS_CLIENT_CERT
  value: /etc/tenure/tls/tls.crt
- name: TENURE_TLS_CLIENT_KEY
  value: /etc/tenure/tls/tls.key
{{- end }}
{{- if .named }}
- name: TENURE_TLS_SERVER_NAME
  value: {{ include "tenure.coordinatorServerName" .root | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* token: the name of a Secret, or none. */}}
{{- define "tenure.env.token" -}}
{{- if .token -}}
- name: TENURE_TOKEN_FILE
  value: /etc/tenure/token/token
{{- end }}
{{- end -}}

{{/* Where spans go: the same variables for coordinators, workers and runners. */}}
{{- define "tenure.env.tracing" -}}
{{- $tracing := .Values.tracing -}}
{{- if $tracing.endpoint -}}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ $tracing.endpoint | quote }}
{{- if $tracing.sampler }}
- name: OTEL_TRACES_SAMPLER
  value: {{ $tracing.sampler | quote }}
{{- end }}
{{- if ne (toString $tracing.samplerArg) "" }}
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ include "tenure.text" $tracing.samplerArg | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "tenure.env.podIp" -}}
- name: POD_IP
  valueFrom:
    fieldRef:
      fieldPath: status.podIP
{{- end -}}
