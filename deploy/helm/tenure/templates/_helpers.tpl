{{/* Names, labels, images: what every object needs. Helpers that need more than values take a dict with "root". */}}

{{- define "tenure.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* root, component, worker (optional): what selects the pods of one component. Never changes with an upgrade. */}}
{{- define "tenure.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride | trunc 63 | trimSuffix "-" | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- with .worker }}
tenure.dev/worker: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* root, component, worker and more (optional). */}}
{{- define "tenure.labels" -}}
{{- $own := dict "helm.sh/chart" (printf "%s-%s" .root.Chart.Name (.root.Chart.Version | replace "+" "_")) "app.kubernetes.io/version" (.root.Chart.AppVersion | replace "+" "_" | trunc 63) "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- $selector := include "tenure.selector" . | fromYaml -}}
{{- toYaml (merge (dict) $selector $own (default (dict) .more) .root.Values.commonLabels) -}}
{{- end -}}

{{/* root, component, name, worker, more, annotations: the metadata of an object. */}}
{{- define "tenure.metadata" -}}
name: {{ .name | quote }}
namespace: {{ .root.Release.Namespace | quote }}
labels:
  {{- include "tenure.labels" . | nindent 2 }}
{{- with merge (dict) (default (dict) .annotations) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* root, component, worker, c: the metadata of a pod. Labels that change with each release stay out of it. */}}
{{- define "tenure.pod.metadata" -}}
labels:
  {{- toYaml (merge (dict) (include "tenure.selector" . | fromYaml) .c.podLabels .root.Values.commonLabels) | nindent 2 }}
{{- with merge (dict) .c.podAnnotations (default (dict) .annotations) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* root, image: registry/repository:tag or @digest. */}}
{{- define "tenure.image" -}}
{{- $registry := default .image.registry .root.Values.global.imageRegistry -}}
{{- $name := .image.repository -}}
{{- if $registry }}{{ $name = printf "%s/%s" $registry .image.repository }}{{ end -}}
{{- if .image.digest -}}
{{ printf "%s@%s" $name .image.digest }}
{{- else -}}
{{ printf "%s:%s" $name (default .root.Chart.AppVersion .image.tag) }}
{{- end -}}
{{- end -}}

{{/* root, image: the pull secrets of a pod. */}}
{{- define "tenure.pullSecrets" -}}
{{- with concat .root.Values.global.imagePullSecrets .image.pullSecrets | uniq }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* The workers of this release: none where its coordinators are elsewhere. */}}
{{- define "tenure.workers" -}}
{{ toYaml (ternary (default dict .Values.workers) dict .Values.coordinator.enabled) }}
{{- end -}}

{{/* root, name: a worker's values over the defaults of all workers, as YAML. */}}
{{- define "tenure.worker" -}}
{{- include "tenure.workerDefaultsAreThere" .root -}}
{{- $own := deepCopy (default (dict) (get .root.Values.workers .name)) -}}
{{- include "tenure.completed" (dict "root" .root "name" .name "w" (mergeOverwrite (deepCopy .root.Values.workerDefaults) $own)) -}}
{{- end -}}

{{/* root, name: a runner's values over the defaults of all runners, and these over those of workers, as YAML. */}}
{{- define "tenure.runner" -}}
{{- include "tenure.workerDefaultsAreThere" .root -}}
{{- if not (kindIs "map" .root.Values.runnerDefaults) }}{{ fail "runnerDefaults: cannot be null, as runners are made from it; leave it out, or give {}" }}{{ end -}}
{{- $own := deepCopy (default (dict) (get .root.Values.runners .name)) -}}
{{- $runner := mergeOverwrite (deepCopy .root.Values.workerDefaults) (deepCopy .root.Values.runnerDefaults) $own -}}
{{- /* What a runner has not: it knows no etcd, and nobody counts jobs for it. */}}
{{- $_ := set $runner "settings" (omit $runner.settings "etcdTimeoutS" "verifyS") -}}
{{- $_ := set $runner.autoscaling "keda" (dict "enabled" false) -}}
{{- include "tenure.completed" (dict "root" .root "name" .name "w" $runner) -}}
{{- end -}}

{{- define "tenure.workerDefaultsAreThere" -}}
{{- if not (kindIs "map" .Values.workerDefaults) }}{{ fail "workerDefaults: cannot be null, as workers are made from it; leave it out, or give {}" }}{{ end -}}
{{- end -}}

{{/* root, name, w: a worker's values with its image and its pools, as YAML. */}}
{{- define "tenure.completed" -}}
{{- $worker := .w -}}
{{- $image := deepCopy .root.Values.image -}}
{{- range $key, $value := $worker.image -}}
{{- if $value }}{{ $_ := set $image $key $value }}{{ end -}}
{{- end -}}
{{- if and (or $worker.image.tag $worker.image.repository) (not $worker.image.digest) }}{{ $_ := set $image "digest" "" }}{{ end -}}
{{- $_ := set $worker "image" $image -}}
{{- if not $worker.pools }}{{ $_ := set $worker "pools" (list .name) }}{{ end -}}
{{- toYaml $worker -}}
{{- end -}}

{{/* A worker's values: how many of it there are always. */}}
{{- define "tenure.fewestWorkers" -}}
{{- ternary .autoscaling.minReplicas .replicas (or .autoscaling.hpa.enabled .autoscaling.keda.enabled) | int -}}
{{- end -}}

{{/* A pool that some worker serves after the install; empty if none does. */}}
{{- define "tenure.servedPool" -}}
{{- $found := list -}}
{{- range $key, $unused := include "tenure.workers" . | fromYaml -}}
{{- $worker := include "tenure.worker" (dict "root" $ "name" $key) | fromYaml -}}
{{- if gt (include "tenure.fewestWorkers" $worker | int) 0 }}{{ $found = append $found (first $worker.pools) }}{{ end -}}
{{- end -}}
{{- first (append $found "") -}}
{{- end -}}

{{/* root, component, name (of a worker), account: the name of a ServiceAccount. */}}
{{- define "tenure.serviceAccountName" -}}
{{- $made := printf "%s-%s" (include "tenure.fullname" .root) .suffix -}}
{{- if .account.create }}{{ default $made .account.name }}{{ else }}{{ default "default" .account.name }}{{ end -}}
{{- end -}}

{{/* Whether the migration is a hook: not where the hook would come before what it needs. */}}
{{- define "tenure.migrationIsHook" -}}
{{- $pg := .Values.postgres -}}
{{- $certificates := and $pg.tls.enabled (not $pg.tls.secretName) -}}
{{- if and .Values.migrations.enabled .Values.migrations.useHelmHooks (not $pg.bundled.enabled) (not $certificates) }}true{{ end -}}
{{- end -}}

{{- define "tenure.coordinatorGraceSeconds" -}}
{{- $grace := 10.0 -}}
{{- if hasKey .Values.coordinator.settings "graceS" }}{{ $grace = .Values.coordinator.settings.graceS }}{{ end -}}
{{- add (.Values.coordinator.preStopSleepSeconds | int) ($grace | float64 | ceil | int) -}}
{{- end -}}

{{/* Where clients inside the cluster find the coordinators. */}}
{{- define "tenure.coordinatorAddress" -}}
{{ printf "%s-grpc.%s.svc:%d" (include "tenure.fullname" .) .Release.Namespace (.Values.coordinator.service.grpcPort | int) }}
{{- end -}}

{{- define "tenure.coordinatorTlsSecret" -}}
{{ default (printf "%s-coordinator-tls" (include "tenure.fullname" .)) .Values.tls.coordinators.secretName }}
{{- end -}}
{{/* Of workers and tests, where coordinators demand a client certificate. */}}
{{- define "tenure.workerTlsSecret" -}}
{{ default (printf "%s-worker-tls" (include "tenure.fullname" .)) .Values.tls.workers.secretName }}
{{- end -}}
{{- define "tenure.clientCaSecret" -}}
{{ default (include "tenure.coordinatorTlsSecret" .) .Values.tls.coordinators.clientCaSecretName }}
{{- end -}}
{{- define "tenure.coordinatorServerName" -}}
{{ default (printf "%s-grpc.%s.svc" (include "tenure.fullname" .) .Release.Namespace) .Values.tls.coordinators.serverName }}
{{- end -}}
{{- define "tenure.etcdTlsSecret" -}}
{{ default (printf "%s-etcd-client" (include "tenure.fullname" .)) .Values.etcd.tls.secretName }}
{{- end -}}
{{- define "tenure.etcdServerTlsSecret" -}}
{{ default (printf "%s-etcd-server" (include "tenure.fullname" .)) .Values.etcd.bundled.tlsSecretName }}
{{- end -}}
{{- define "tenure.postgresTlsSecret" -}}
{{ default (printf "%s-postgres-client" (include "tenure.fullname" .)) .Values.postgres.tls.secretName }}
{{- end -}}
{{- define "tenure.postgresServerTlsSecret" -}}
{{ default (printf "%s-postgres-server" (include "tenure.fullname" .)) .Values.postgres.bundled.tlsSecretName }}
{{- end -}}
{{- define "tenure.postgresPasswordSecret" -}}
{{- if .Values.postgres.bundled.enabled -}}
{{ default (printf "%s-postgres" (include "tenure.fullname" .)) .Values.postgres.bundled.existingSecret }}
{{- else -}}
{{ .Values.postgres.external.existingSecret }}
{{- end -}}
{{- end -}}
