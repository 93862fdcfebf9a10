{{/* What the pods of all components share. */}}

{{/* root, component, worker, c, antiAffinity: where a pod may run. */}}
{{- define "tenure.pod.placement" -}}
{{- $terms := dict "labelSelector" (dict "matchLabels" (include "tenure.selector" . | fromYaml)) "topologyKey" "kubernetes.io/hostname" -}}
{{- if .c.affinity }}
affinity:
  {{- toYaml .c.affinity | nindent 2 }}
{{- else if eq (default "none" .c.antiAffinity) "hard" }}
affinity:
  podAntiAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - {{- toYaml $terms | nindent 8 }}
{{- else if eq (default "none" .c.antiAffinity) "soft" }}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          {{- toYaml $terms | nindent 10 }}
{{- end }}
{{- with .c.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  - {{- toYaml (merge (dict) . (dict "labelSelector" $terms.labelSelector)) | nindent 4 }}
  {{- end }}
{{- end }}
{{- with .c.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .c.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .c.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* user, group: the restricted level of Pod Security. */}}
{{- define "tenure.pod.security" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .user | int }}
  runAsGroup: {{ .group | int }}
  fsGroup: {{ .group | int }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{- define "tenure.container.security" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{/* The values of startupProbe, livenessProbe and readinessProbe, and scheme: the three probes of a process of tenure. */}}
{{- define "tenure.probes" -}}
startupProbe:
  httpGet:
    path: /livez
    port: http
    {{- with .scheme }}
    scheme: {{ . }}
    {{- end }}
  {{- toYaml .startupProbe | nindent 2 }}
livenessProbe:
  httpGet:
    path: /livez
    port: http
    {{- with .scheme }}
    scheme: {{ . }}
    {{- end }}
  {{- toYaml .livenessProbe | nindent 2 }}
readinessProbe:
  httpGet:
    path: /readyz
    port: http
    {{- with .scheme }}
    scheme: {{ . }}
    {{- end }}
  {{- toYaml .readinessProbe | nindent 2 }}
{{- end -}}

{{/* root, etcd, postgres (whether the pod speaks to them), tls (coordinator or client, where the pod is one), token, ca,
certificate (Secrets), c: volumes. Keys are for the group alone, as libpq asks. */}}
{{- define "tenure.volumes" -}}
- name: tmp
  emptyDir: {}
{{- if and .etcd .root.Values.etcd.tls.enabled }}
- name: etcd-tls
  secret:
    secretName: {{ include "tenure.etcdTlsSecret" .root | quote }}
    defaultMode: 0440
{{- end }}
{{- if and .postgres .root.Values.postgres.tls.enabled }}
- name: postgres-tls
  secret:
    secretName: {{ include "tenure.postgresTlsSecret" .root | quote }}
    defaultMode: 0440
{{- end }}
{{- $tls := .root.Values.tls.coordinators }}
{{- if and .tls $tls.enabled }}
{{- $isShown := or (eq .tls "coordinator") (eq $tls.clientCertificates "required") }}
{{- $isOwn := and (eq .tls "client") $isShown }}
- name: tls
  secret:
    secretName: {{ ternary (include "tenure.workerTlsSecret" .root) (include "tenure.coordinatorTlsSecret" .root) $isOwn | quote }}
    defaultMode: 0440
    {{- if not $isShown }}
    items:
      - key: ca.crt
        path: ca.crt
    {{- end }}
{{- if and (eq .tls "coordinator") (ne $tls.clientCertificates "none") }}
- name: client-ca
  secret:
    secretName: {{ include "tenure.clientCaSecret" .root | quote }}
    defaultMode: 0440
    items:
      - key: ca.crt
        path: ca.crt
{{- end }}
{{- end }}
{{- with .ca }}
- name: tls
  secret:
    secretName: {{ . | quote }}
    defaultMode: 0440
    items:
      - key: ca.crt
        path: ca.crt
{{- end }}
{{- with .certificate }}
- name: certificate
  secret:
    secretName: {{ . | quote }}
    defaultMode: 0440
    items:
      - key: tls.crt
        path: tls.crt
      - key: tls.key
        path: tls.key
{{- end }}
{{- with .token }}
- name: token
  secret:
    secretName: {{ . | quote }}
    defaultMode: 0440
    items:
      - key: token
        path: token
{{- end }}
{{- $objects := .root.Values.objectStore }}
{{- if and (eq .component "coordinator") (hasPrefix "file:" $objects.url) $objects.existingClaim }}
- name: objects
  persistentVolumeClaim:
    claimName: {{ $objects.existingClaim | quote }}
{{- end }}
{{- if and $objects.caSecret (has .component (list "coordinator" "worker" "runner")) }}
- name: object-store-ca
  secret:
    secretName: {{ $objects.caSecret | quote }}
    defaultMode: 0440
    items:
      - key: ca.crt
        path: ca.crt
{{- end }}
{{- with .c.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "tenure.volumeMounts" -}}
- name: tmp
  mountPath: /tmp
{{- if and .etcd .root.Values.etcd.tls.enabled }}
- name: etcd-tls
  mountPath: /etc/tenure/etcd
  readOnly: true
{{- end }}
{{- if and .postgres .root.Values.postgres.tls.enabled }}
- name: postgres-tls
  mountPath: /etc/tenure/postgres
  readOnly: true
{{- end }}
{{- $tls := .root.Values.tls.coordinators }}
{{- if and .tls $tls.enabled }}
- name: tls
  mountPath: /etc/tenure/tls
  readOnly: true
{{- if and (eq .tls "coordinator") (ne $tls.clientCertificates "none") }}
- name: client-ca
  mountPath: /etc/tenure/client-ca
  readOnly: true
{{- end }}
{{- end }}
{{- if .ca }}
- name: tls
  mountPath: /etc/tenure/tls
  readOnly: true
{{- end }}
{{- if .certificate }}
- name: certificate
  mountPath: /etc/tenure/certificate
  readOnly: true
{{- end }}
{{- if .token }}
- name: token
  mountPath: /etc/tenure/token
  readOnly: true
{{- end }}
{{- $objects := .root.Values.objectStore }}
{{- if and (eq .component "coordinator") (hasPrefix "file:" $objects.url) $objects.existingClaim }}
- name: objects
  mountPath: {{ trimPrefix "file://" $objects.url | quote }}
{{- end }}
{{- if and $objects.caSecret (has .component (list "coordinator" "worker" "runner")) }}
- name: object-store-ca
  mountPath: /etc/tenure/object-store
  readOnly: true
{{- end }}
{{- with .c.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}
