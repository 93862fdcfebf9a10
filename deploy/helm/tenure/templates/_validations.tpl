{{/* What values.schema.json cannot say: values that contradict each other. Each sentence names the value to change. */}}
{{- define "tenure.validate" -}}
{{- if .Values.coordinator.enabled }}{{ include "tenure.validateCoordinators" . }}{{ else }}{{ include "tenure.validateRunnersAlone" . }}{{ end -}}
{{- range $key, $unused := .Values.runners -}}
{{- include "tenure.validateRunner" (dict "root" $ "name" $key "w" (include "tenure.runner" (dict "root" $ "name" $key) | fromYaml)) -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]([a-z0-9-]*[a-z0-9])?$" (include "tenure.fullname" .)) -}}
{{- fail (printf "fullnameOverride: %s, made from the names of release and chart, is no name of a Service, which begins with a letter and has no dots; give another one" (include "tenure.fullname" .)) -}}
{{- end -}}
{{- end -}}

{{/* Nothing is left out in silence that was asked for. */}}
{{- define "tenure.validateRunnersAlone" -}}
{{- $why := "is for a release with coordinators, and coordinator.enabled is false" -}}
{{- if not .Values.runners -}}
{{- fail "runners: give one, as coordinator.enabled is false and nothing else would be installed" -}}
{{- end -}}
{{- range $key, $value := .Values.workers -}}
{{- if or $value (ne $key "default") }}{{ fail (printf "workers.%s: %s; name it in runners" $key $why) }}{{ end -}}
{{- end -}}
{{- $pg := .Values.postgres -}}
{{- $etcd := .Values.etcd -}}
{{- $asked := dict "postgres.bundled.enabled" $pg.bundled.enabled "postgres.external.existingSecret" $pg.external.existingSecret
    "postgres.external.hosts" $pg.external.hosts "postgres.tls.enabled" $pg.tls.enabled "etcd.bundled.enabled" $etcd.bundled.enabled
    "etcd.external.endpoints" $etcd.external.endpoints "etcd.external.existingSecret" $etcd.external.existingSecret
    "etcd.external.workerSecret" $etcd.external.workerSecret "etcd.tls.enabled" $etcd.tls.enabled
    "ingress.grpc.enabled" .Values.ingress.grpc.enabled "ingress.http.enabled" .Values.ingress.http.enabled
    "ingress.dashboard.enabled" .Values.ingress.dashboard.enabled
    "ingress.runners.enabled" .Values.ingress.runners.enabled "tls.coordinators.enabled" .Values.tls.coordinators.enabled
    "monitoring.serviceMonitor.enabled" .Values.monitoring.serviceMonitor.enabled "objectStore.url" .Values.objectStore.url -}}
{{- range $key, $value := $asked -}}
{{- if $value }}{{ fail (printf "%s: %s" $key $why) }}{{ end -}}
{{- end -}}
{{- end -}}

{{- define "tenure.validateCoordinators" -}}
{{- $pg := .Values.postgres -}}
{{- $etcd := .Values.etcd -}}
{{- $c := .Values.coordinator -}}
{{- if and (not $pg.bundled.enabled) (not $pg.external.existingSecret) (not $pg.external.hosts) -}}
{{- fail "postgres.external.existingSecret: name a Secret with the DSN, or give postgres.external.hosts; to try it out, set postgres.bundled.enabled=true" -}}
{{- end -}}
{{- if and $pg.bundled.enabled (or $pg.external.existingSecret $pg.external.hosts) -}}
{{- fail "postgres.bundled.enabled: not together with postgres.external; choose one Postgres" -}}
{{- end -}}
{{- if and (not $etcd.bundled.enabled) (not $etcd.external.endpoints) -}}
{{- fail "etcd.external.endpoints: name the members of etcd; to try it out, set etcd.bundled.enabled=true" -}}
{{- end -}}
{{- if and $etcd.bundled.enabled $etcd.external.endpoints -}}
{{- fail "etcd.bundled.enabled: not together with etcd.external.endpoints; choose one etcd" -}}
{{- end -}}
{{- if and $etcd.bundled.enabled (gt ($etcd.bundled.members | int) 1) (not $etcd.bundled.persistence.enabled) -}}
{{- fail "etcd.bundled.persistence.enabled: with several members needed, as one that comes back empty is refused by the others" -}}
{{- end -}}
{{- range $etcd.external.endpoints -}}
{{- $secure := or (hasPrefix "grpcs://" .) (hasPrefix "https://" .) -}}
{{- if and $etcd.tls.enabled (not $secure) -}}
{{- fail (printf "etcd.external.endpoints: %s is not encrypted, but etcd.tls.enabled is true; write grpcs://" .) -}}
{{- end -}}
{{- end -}}
{{- if and $etcd.tls.enabled (not $etcd.tls.secretName) (not .Values.certManager.enabled) -}}
{{- fail "etcd.tls.secretName: name a Secret with ca.crt, or set certManager.enabled=true" -}}
{{- end -}}
{{- if and $etcd.tls.enabled $etcd.bundled.enabled (not $etcd.bundled.tlsSecretName) (not .Values.certManager.enabled) -}}
{{- fail "etcd.bundled.tlsSecretName: name a Secret with the members' certificate, or set certManager.enabled=true" -}}
{{- end -}}
{{- if and $pg.tls.enabled (not $pg.tls.secretName) (not .Values.certManager.enabled) -}}
{{- fail "postgres.tls.secretName: name a Secret with ca.crt, or set certManager.enabled=true" -}}
{{- end -}}
{{- if and $pg.tls.enabled $pg.bundled.enabled (not $pg.bundled.tlsSecretName) (not .Values.certManager.enabled) -}}
{{- fail "postgres.bundled.tlsSecretName: name a Secret with the server's certificate, or set certManager.enabled=true" -}}
{{- end -}}
{{- $tls := .Values.tls.coordinators -}}
{{- if and (not .Values.security.allowInsecure) (not (and $tls.enabled .Values.auth.required)) -}}
{{- fail "security.allowInsecure: coordinators are reached from other pods, so set tls.coordinators.enabled=true and auth.required=true (docs/TLS.md), or, to try it out where whoever reaches them may do everything, security.allowInsecure=true" -}}
{{- end -}}
{{- if and $tls.enabled (not $tls.secretName) (not .Values.certManager.enabled) -}}
{{- fail "tls.coordinators.secretName: name a Secret with the coordinators' certificate, or set certManager.enabled=true" -}}
{{- end -}}
{{- if and (not $tls.enabled) (ne $tls.clientCertificates "none") -}}
{{- fail "tls.coordinators.clientCertificates: needs tls.coordinators.enabled=true" -}}
{{- end -}}
{{- if and (eq $tls.clientCertificates "required") .Values.workers (not .Values.tls.workers.secretName) (not .Values.certManager.enabled) -}}
{{- fail "tls.workers.secretName: name a Secret with the workers' certificate, or set certManager.enabled=true" -}}
{{- end -}}
{{- if and .Values.auth.required .Values.workers (not .Values.auth.workers.tokenSecret) (ne $tls.clientCertificates "required") -}}
{{- fail "auth.workers.tokenSecret: name a Secret with the workers' token, or set tls.coordinators.clientCertificates=required" -}}
{{- end -}}
{{- if and .Values.certManager.enabled (not .Values.certManager.issuerRef.name) -}}
{{- fail "certManager.issuerRef.name: name the issuer" -}}
{{- end -}}
{{- $os := .Values.objectStore -}}
{{- if and (hasPrefix "file:" $os.url) (not $os.existingClaim) -}}
{{- fail "objectStore.existingClaim: name a PersistentVolumeClaim, ReadWriteMany, as a folder must be shared by all coordinators; or give objectStore.url=s3://…" -}}
{{- end -}}
{{- if and $os.sseKmsKeyId (ne $os.sse "aws:kms") -}}
{{- fail "objectStore.sseKmsKeyId: needs objectStore.sse=aws:kms" -}}
{{- end -}}
{{- $tracing := .Values.tracing -}}
{{- if and (not $tracing.endpoint) (or $tracing.sampler (ne (toString $tracing.samplerArg) "")) -}}
{{- fail "tracing.sampler: samples nothing without tracing.endpoint" -}}
{{- end -}}
{{- if and (ne (toString $tracing.samplerArg) "") (not (hasSuffix "traceidratio" $tracing.sampler)) -}}
{{- fail "tracing.samplerArg: is for the samplers traceidratio and parentbased_traceidratio" -}}
{{- end -}}
{{- if $c.terminationGracePeriodSeconds -}}
{{- $needed := include "tenure.coordinatorGraceSeconds" . | int -}}
{{- if le ($c.terminationGracePeriodSeconds | int) $needed -}}
{{- fail (printf "coordinator.terminationGracePeriodSeconds: %d s is not longer than preStopSleepSeconds and settings.graceS together, %d s" ($c.terminationGracePeriodSeconds | int) $needed) -}}
{{- end -}}
{{- end -}}
{{- range $key, $value := $pg.bundled.parameters -}}
{{- if and (has (lower $key) (list "fsync" "full_page_writes" "synchronous_commit")) (regexMatch "^(of|off|f|fa|fal|fals|false|n|no|0)$" (toString $value | lower)) -}}
{{- fail (printf "postgres.bundled.parameters.%s: leave it on; without it Postgres may forget what it has confirmed" $key) -}}
{{- end -}}
{{- end -}}
{{- range $key, $unused := $etcd.bundled.extraFlags -}}
{{- if hasPrefix "auto-compaction" $key -}}
{{- fail (printf "etcd.bundled.extraFlags.%s: leave it out; the leader of tenure compacts" $key) -}}
{{- end -}}
{{- end -}}
{{- $postgresEnv := include "tenure.env.postgres" . -}}
{{- $coordinatorEnv := list $postgresEnv (include "tenure.env.etcd" .) (include "tenure.env.coordinatorSecurity" .) (include "tenure.env.objectStore" .) (include "tenure.env.tracing" .) (include "tenure.env.settings" (dict "prefix" "TENURE_" "settings" (merge (dict) $c.settings .Values.settings))) | join "\n" -}}
{{- $own := list "POD_IP" "TENURE_GRPC_LISTEN" "TENURE_HTTP_LISTEN" "TENURE_GRPC_ADVERTISE" "TENURE_MIGRATE" -}}
{{- include "tenure.validateEnv" (dict "at" "coordinator.extraEnv" "env" $coordinatorEnv "own" $own "extra" $c.extraEnv) -}}
{{- include "tenure.validateEnv" (dict "at" "migrations.extraEnv" "env" $postgresEnv "own" list "extra" .Values.migrations.extraEnv) -}}
{{- if gt ($c.autoscaling.minReplicas | int) ($c.autoscaling.maxReplicas | int) -}}
{{- fail "coordinator.autoscaling.minReplicas: above coordinator.autoscaling.maxReplicas" -}}
{{- end -}}
{{- range $which := list "grpc" "http" "dashboard" "runners" -}}
{{- $ingress := get $.Values.ingress $which -}}
{{- if and $ingress.enabled (not $ingress.host) -}}
{{- fail (printf "ingress.%s.host: name the host" $which) -}}
{{- end -}}
{{- end -}}
{{- $egress := .Values.networkPolicy.egress -}}
{{- if and .Values.networkPolicy.enabled $egress.enabled -}}
{{- if and (not $pg.bundled.enabled) (not $egress.postgres) -}}
{{- fail "networkPolicy.egress.postgres: name where the external Postgres is, for example [{ipBlock: {cidr: 10.0.0.0/24}}]" -}}
{{- end -}}
{{- if and (not $etcd.bundled.enabled) (not $egress.etcd) -}}
{{- fail "networkPolicy.egress.etcd: name where the external etcd is, for example [{ipBlock: {cidr: 10.0.0.0/24}}]" -}}
{{- end -}}
{{- end -}}
{{- range $key, $unused := .Values.workers -}}
{{- include "tenure.validateWorker" (dict "root" $ "name" $key "w" (include "tenure.worker" (dict "root" $ "name" $key) | fromYaml)) -}}
{{- end -}}
{{- end -}}

{{/* at, env (of the chart, as YAML), own (more of its names), extra: what is set twice would be refused, or win by chance. */}}
{{- define "tenure.validateEnv" -}}
{{- $taken := .own -}}
{{- range fromYamlArray .env }}{{ $taken = append $taken .name }}{{ end -}}
{{- range .extra -}}
{{- if has .name $taken -}}
{{- fail (printf "%s: %s is set by the chart already; use the value that stands for it" $.at .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tenure.validateWorker" -}}
{{- $w := .w -}}
{{- $at := printf "workers.%s" .name -}}
{{- $keda := $w.autoscaling.keda -}}
{{- include "tenure.validateProcess" (dict "at" $at "w" $w "env" (include "tenure.env.worker" .)) -}}
{{- if and $w.autoscaling.hpa.enabled $keda.enabled -}}
{{- fail (printf "%s.autoscaling: hpa.enabled and keda.enabled exclude each other" $at) -}}
{{- end -}}
{{- if and $keda.enabled (eq $keda.trigger "prometheus") (or (not $keda.serverAddress) (not $keda.query)) -}}
{{- fail (printf "%s.autoscaling.keda: the trigger prometheus needs serverAddress and query" $at) -}}
{{- end -}}
{{- $pg := .root.Values.postgres -}}
{{- if and $keda.enabled (eq $keda.trigger "postgresql") (not $keda.dsnSecret) (not $pg.bundled.enabled) (not $pg.external.existingSecret) -}}
{{- fail (printf "%s.autoscaling.keda.dsnSecret: KEDA needs a DSN, as postgres.external has no Secret" $at) -}}
{{- end -}}
{{- if and $keda.enabled (eq $keda.trigger "postgresql") (not $keda.dsnSecret) $pg.tls.enabled (or (ne $pg.tls.mode "require") $pg.tls.clientCertificate) -}}
{{- fail (printf "%s.autoscaling.keda.dsnSecret: KEDA has none of the files of postgres.tls; name a Secret with a DSN for it, for example with sslmode=require" $at) -}}
{{- end -}}
{{- end -}}

{{/* root, name, w. */}}
{{- define "tenure.validateRunner" -}}
{{- $at := printf "runners.%s" .name -}}
{{- if not .w.urls -}}
{{- fail (printf "%s.urls: name where the coordinators' HTTP side is reached, for example [https://tenure.example.com]" $at) -}}
{{- end -}}
{{- if not (or .w.tokenSecret .w.certificateSecret) -}}
{{- fail (printf "%s.tokenSecret: name a Secret with a token of role runner in the key token, or certificateSecret" $at) -}}
{{- end -}}
{{- if and .w.proxy.noProxy (not .w.proxy.https) (not .w.extraEnv) (not .w.extraEnvFrom) -}}
{{- fail (printf "%s.proxy.noProxy: there is no proxy; give proxy.https, or HTTPS_PROXY in extraEnv" $at) -}}
{{- end -}}
{{- include "tenure.validateProcess" (dict "at" $at "w" .w "env" (include "tenure.env.runner" .)) -}}
{{- end -}}

{{/* at, w, env (of the chart, as YAML): what holds for workers and runners. */}}
{{- define "tenure.validateProcess" -}}
{{- $w := .w -}}
{{- $at := .at -}}
{{- include "tenure.validateEnv" (dict "at" (printf "%s.extraEnv" $at) "env" .env "own" (list "TENURE_WORKER_HTTP_LISTEN") "extra" $w.extraEnv) -}}
{{- if and $w.terminationGracePeriodSeconds (le ($w.terminationGracePeriodSeconds | int) (add ($w.graceSeconds | int) 20 | int)) -}}
{{- fail (printf "%s.terminationGracePeriodSeconds: %d s is not longer than graceSeconds and the 20 s in which the last reports are sent, %d s together" $at ($w.terminationGracePeriodSeconds | int) (add ($w.graceSeconds | int) 20 | int)) -}}
{{- end -}}
{{- if and $w.autoscaling.hpa.enabled (lt ($w.autoscaling.minReplicas | int) 1) -}}
{{- fail (printf "%s.autoscaling.minReplicas: 0 is for KEDA alone" $at) -}}
{{- end -}}
{{- if gt ($w.autoscaling.minReplicas | int) ($w.autoscaling.maxReplicas | int) -}}
{{- fail (printf "%s.autoscaling.minReplicas: above %s.autoscaling.maxReplicas" $at $at) -}}
{{- end -}}
{{- if and (eq (toString $w.maxUnavailable) "0") (eq (toString $w.maxSurge) "0") -}}
{{- fail (printf "%s.maxSurge: with maxUnavailable 0 nothing could ever be replaced" $at) -}}
{{- end -}}
{{- end -}}
