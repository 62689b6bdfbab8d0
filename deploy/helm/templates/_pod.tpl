{{/* What every pod of a fleet has in common: nobody's root, no token, nothing writable. */}}
{{- define "feddp.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: 90
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{/* One process: (dict "role" "image" "memory", and "user" or "gpus" where they differ). */}}
{{- define "feddp.container" -}}
name: {{ .role }}
image: {{ .image | quote }}
args: [{{ .role }}]
securityContext:
  {{- if .user }}
  runAsUser: {{ .user }}
  {{- end }}
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
resources:
  requests:
    memory: {{ .memory }}
  limits:
    memory: {{ .memory }}
    {{- if .gpus }}
    nvidia.com/gpu: {{ .gpus }}
    {{- end }}
{{- end }}

{{/* The mounts of one process: scratch, and the secrets of its role. */}}
{{- define "feddp.mounts" -}}
- name: scratch
  mountPath: /tmp
  subPath: {{ .role }}
- name: {{ .role }}-secrets
  mountPath: /run/secrets
  readOnly: true
{{- end }}

{{/* The secrets of one process: (dict "role" "secretName" "keys" [file ...] "config" file or ""). */}}
{{- define "feddp.secrets" -}}
name: {{ .role }}-secrets
projected:
  defaultMode: 0440
  sources:
    - secret:
        name: {{ .secretName }}
        items:
          {{- range .keys }}
          - key: {{ . }}
            path: {{ . }}
          {{- end }}
    {{- if .config }}
    - configMap:
        name: {{ .config }}
        items:
          - key: {{ .role }}.conf
            path: {{ .role }}.conf
    {{- end }}
{{- end }}

{{/* State on a block device, held by one pod at a time, and kept when the release goes. */}}
{{- define "feddp.claim" -}}
metadata:
  name: state
spec:
  accessModes: [ReadWriteOncePod]
  {{- if .storageClassName }}
  storageClassName: {{ .storageClassName }}
  {{- end }}
  resources:
    requests:
      storage: {{ .storage }}
{{- end }}
