{{/* Name of the Secret of a login: dict "root" $ "login" owner|controller|agent|superuser|tls. */}}
{{- define "volumeviz.loginSecret" -}}
{{- $existing := index .root.Values.database.existingSecrets .login -}}
{{- default (printf "%s-database-%s" (include "volumeviz.fullname" .root) .login) $existing -}}
{{- end -}}

{{/* Whether a certificate authority is known; empty when not. */}}
{{- define "volumeviz.caSecret" -}}
{{- if eq .Values.database.mode "bundled" -}}
{{ include "volumeviz.loginSecret" (dict "root" . "login" "tls") }}
{{- else -}}
{{ .Values.database.external.caSecret }}
{{- end -}}
{{- end -}}

{{/* Environment of a container that uses the database: dict "root" $ "login" owner|controller|agent. */}}
{{- define "volumeviz.databaseEnv" -}}
{{- $database := .root.Values.database -}}
{{- if eq $database.mode "bundled" -}}
- {name: DB_HOST, value: {{ printf "%s-database.%s.svc" (include "volumeviz.fullname" .root) .root.Release.Namespace | quote }}}
- {name: DB_PORT, value: "5432"}
- {name: DB_SSLMODE, value: verify-full}
{{- else -}}
{{- $direct := and (eq .login "owner") $database.external.direct.host -}}
- {name: DB_HOST, value: {{ required "database.external.host: where is your PostgreSQL?" (ternary $database.external.direct.host $database.external.host (not (empty $direct))) | quote }}}
- {name: DB_PORT, value: {{ ternary $database.external.direct.port $database.external.port (not (empty $direct)) | int64 | quote }}}
{{- if ne .login "owner" }}
- {name: DB_POOLER, value: {{ $database.external.pooler }}}
{{- end }}
{{- if $database.external.clientCertificates }}
- {name: DB_SSLCERT, value: /etc/volumeviz/database-{{ .login }}/tls.crt}
- {name: DB_SSLKEY, value: /etc/volumeviz/database-{{ .login }}/tls.key}
{{- end }}
{{- with $database.external.sslMode }}
- {name: DB_SSLMODE, value: {{ . | quote }}}
{{- end }}
{{- end }}
{{- if include "volumeviz.caSecret" .root }}
- {name: DB_SSLROOTCERT, value: /etc/volumeviz/database-ca/ca.crt}
{{- end }}
- {name: DB_NAME, value: {{ $database.name | quote }}}
- name: DB_USER
  valueFrom: {secretKeyRef: {name: {{ include "volumeviz.loginSecret" . }}, key: username}}
- {name: DB_PASSWORD_FILE, value: /etc/volumeviz/database-{{ .login }}/password}
- {name: DB_MAX_OPEN_CONNS, value: {{ $database.pool.maxOpenConns | int64 | quote }}}
- {name: DB_MAX_IDLE_CONNS, value: {{ $database.pool.maxIdleConns | int64 | quote }}}
- {name: DB_CONN_MAX_LIFETIME, value: {{ $database.pool.connMaxLifetime | quote }}}
- {name: DB_CONN_MAX_IDLE_TIME, value: {{ $database.pool.connMaxIdleTime | quote }}}
- {name: DB_LOG_QUERIES, value: {{ $database.logQueries | quote }}}
- {name: DB_SLOW_QUERY_THRESHOLD, value: {{ $database.slowQueryThreshold | quote }}}
- {name: DB_ENABLE_METRICS, value: {{ $database.enableMetrics | quote }}}
{{- end -}}

{{- define "volumeviz.databaseMounts" -}}
- {name: database-{{ .login }}, mountPath: /etc/volumeviz/database-{{ .login }}, readOnly: true}
{{- if include "volumeviz.caSecret" .root }}
- {name: database-ca, mountPath: /etc/volumeviz/database-ca, readOnly: true}
{{- end }}
{{- end -}}

{{- define "volumeviz.loginVolume" -}}
- name: database-{{ .login }}
  secret:
    secretName: {{ include "volumeviz.loginSecret" . }}
    # libpq refuses a key that everybody may read.
    defaultMode: 0440
    items:
      - {key: password, path: password}
      {{- if and (eq .root.Values.database.mode "external") .root.Values.database.external.clientCertificates }}
      - {key: tls.crt, path: tls.crt}
      - {key: tls.key, path: tls.key}
      {{- end }}
{{- end -}}

{{- define "volumeviz.caVolume" -}}
{{- with include "volumeviz.caSecret" . }}
- name: database-ca
  secret:
    secretName: {{ . }}
    items: [{key: ca.crt, path: ca.crt}]
{{- end }}
{{- end -}}

