{{/* Labels that select the pods of a component: a dict of `root` and `name`. */}}
{{- define "eventpush.labels" -}}
{app.kubernetes.io/name: eventpush, app.kubernetes.io/component: {{ .name }}}
{{- end }}

{{- define "eventpush.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* What every pod has. */}}
{{- define "eventpush.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false  # they would add EVENTPUSH_… variables that are not settings
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "eventpush.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* A secret as variables: a dict of `name` and `required`. */}}
{{- define "eventpush.secret" -}}
{{- if .name }}
- secretRef: {name: {{ .name }}{{ if not .required }}, optional: true{{ end }}}
{{- end }}
{{- end }}

{{/* A service: Deployment and PodDisruptionBudget. A dict of `root`, `name`, `port` (of its metrics), `secrets`, and
     `public` if it has the API's port, `stateless` if it shares no partitions and clients connect to it. */}}
{{- define "eventpush.service" -}}
{{- $values := index .root.Values .name -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: eventpush-{{ .name }}
  labels: {{ include "eventpush.labels" . }}
spec:
  {{- if not ($values.autoscaling).enabled }}
  replicas: {{ $values.replicas }}
  {{- end }}
  selector:
    matchLabels: {{ include "eventpush.labels" . }}
  strategy:
    {{- if .stateless }}
    rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
    {{- else }}
    rollingUpdate: {maxSurge: 0, maxUnavailable: 1}
    {{- end }}
  template:
    metadata:
      labels: {{ include "eventpush.labels" . }}
      annotations:
        prometheus.io/scrape: "true"
        prometheus.io/port: "{{ .port }}"
        {{- if .root.Values.hooks }}
        checksum/settings: {{ .root.Values.settings | toJson | sha256sum }}  # a changed setting replaces the pods
        {{- end }}
    spec:
      {{- include "eventpush.pod" .root | nindent 6 }}
      terminationGracePeriodSeconds: 30
      topologySpreadConstraints:
        {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
        - maxSkew: 1
          topologyKey: {{ . }}
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels: {{ include "eventpush.labels" $ }}
        {{- end }}
      containers:
        - name: {{ .name }}
          image: {{ include "eventpush.image" .root }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          args: [{{ .name }}]
          envFrom:
            - configMapRef: {name: eventpush}
            {{- range .secrets }}
            {{- include "eventpush.secret" . | trim | nindent 12 }}
            {{- end }}
          ports:
            {{- if .public }}
            - {name: http, containerPort: 8080}
            {{- end }}
            - {name: metrics, containerPort: {{ .port }}}
          {{- if .stateless }}
          lifecycle:
            preStop:
              # Give load balancers time to remove this pod before it drains.
              exec: {command: [sleep, "5"]}
          {{- end }}
          livenessProbe:
            httpGet: {path: /healthz, port: {{ ternary "http" "metrics" (not (not .public)) }}}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          readinessProbe:
            httpGet: {path: /readyz, port: {{ ternary "http" "metrics" (not (not .public)) }}}
            periodSeconds: 5
            timeoutSeconds: 3
            failureThreshold: 2
          securityContext:
            {{- include "eventpush.containerSecurity" . | nindent 12 }}
          resources:
            {{- toYaml $values.resources | nindent 12 }}
          volumeMounts:
            - {name: data, mountPath: /var/lib/eventpush}
            - {name: tmp, mountPath: /tmp}
      volumes:
        # Can be rebuilt from Kafka, so it may be lost with the pod.
        - name: data
          emptyDir: {}
        - name: tmp
          emptyDir: {medium: Memory, sizeLimit: 64Mi}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: eventpush-{{ .name }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels: {{ include "eventpush.labels" . }}
{{- end }}

{{/* KEDA: as many pods as the lag asks for, at most one for each partition. A dict of `root` and `name`. */}}
{{- define "eventpush.scaledObject" -}}
{{- $scaling := (index .root.Values .name).autoscaling -}}
{{- $partitions := int .root.Values.settings.EVENTPUSH_TOPIC_PARTITIONS -}}
{{- if $scaling.enabled }}
---
# The lag is our own metric: records that are not yet read. The offsets of a transactional topic never come to an end,
# since its last one is a marker. A change of the number of pods moves partitions, so it does not follow every dip.
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: eventpush-{{ .name }}
spec:
  scaleTargetRef: {name: eventpush-{{ .name }}}
  minReplicaCount: {{ $scaling.minReplicas }}
  maxReplicaCount: {{ min (int $scaling.maxReplicas) $partitions }}
  advanced:
    horizontalPodAutoscalerConfig:
      behavior:
        scaleUp: {stabilizationWindowSeconds: 60}
        scaleDown:
          stabilizationWindowSeconds: 900
          policies: [{type: Pods, value: 1, periodSeconds: 300}]
  triggers:
    - type: prometheus
      metadata:
        serverAddress: {{ .root.Values.prometheus.address }}
        query: {{ printf "sum(eventpush_%s_lag_records{%s})" .name .root.Values.prometheus.selector | quote }}
        threshold: {{ $scaling.lagRecords | quote }}
{{- end }}
{{- end }}

{{/* How a service is reached from outside: TLS terminates here, and only one path is public. A dict of `values` (the
     service's `public`), `name` (of the Service), `path`, `pathType` and `port`. */}}
{{- define "eventpush.public" -}}
{{- with .values }}
{{- if .enabled }}
---
# TLS terminates here; only this path is public.
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {{ $.name }}
  {{- with .annotations }}
  annotations: {{ toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- with .className }}
  ingressClassName: {{ . }}
  {{- end }}
  tls:
    - hosts: [{{ .host }}]
      secretName: {{ .tlsSecret }}
  rules:
    - host: {{ .host }}
      http:
        paths:
          - path: {{ $.path }}
            pathType: {{ $.pathType }}
            backend:
              service:
                name: {{ $.name }}
                port: {name: http}
{{- end }}
{{- end }}
{{- end }}
