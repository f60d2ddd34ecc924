"""How Triton is started so that it serves only what is right: a script, a runtime for KServe."""

from __future__ import annotations

from pathlib import Path

from penstock.bundle import write_text
from penstock.register.tritonconfig import Model

CLOSED = "model-repository,model-config,shared-memory,statistics,trace,logging"
"""Interfaces that only the holder of a key may use; the key is made at the start, for nobody."""


def options(repository: str) -> list[str]:
    """Return the options by which Triton serves only what is right, and nothing else besides."""
    return [
        f"--model-repository={repository}",
        "--model-control-mode=none",
        "--strict-readiness=true",
        "--exit-on-error=true",
        "--disable-auto-complete-config",
        "--exit-timeout-secs=45",
        "--http-port=8080",
        "--grpc-port=9000",
        "--metrics-port=8002",
    ]


def write_start(out: Path, model: Model, *, image: str) -> None:
    """Write ``start.sh`` and ``runtime.yaml`` beside a repository."""
    start, runtime = out / "start.sh", out / "runtime.yaml"
    held = " \\\n  ".join(options('"$models"'))
    write_text(start, _START.format(options=held, closed=CLOSED))
    start.chmod(0o755)
    arguments = "\n".join(f"        - {option}" for option in options("/mnt/models"))
    gpu = ', nvidia.com/gpu: "1"' if model.gpu else ""
    write_text(runtime, _RUNTIME.format(name=model.name, image=image, options=arguments, gpu=gpu))


_START = """\
#!/bin/sh
# Starts Triton in its image on the repository beside this file; options of Triton's may follow. It
# ends when a model does not load, does not warm up, or is not as configured.
models="$(dirname "$0")/models"
key="closed=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \\n')"
exec tritonserver \\
  {options} \\
  --http-address=127.0.0.1 --grpc-address=127.0.0.1 --metrics-address=127.0.0.1 \\
  --http-restricted-api="{closed}:$key" \\
  --grpc-restricted-protocol="{closed}:$key" \\
  "$@"
"""

_RUNTIME = """\
# A runtime of our own for KServe: its kserve-tritonserver is years old and has neither probes nor
# warm-up. Put the digest of the image in: a plan loads only with the TensorRT that built it.
# storageUri of the InferenceService is the folder "models", so that it lies at /mnt/models.
apiVersion: serving.kserve.io/v1alpha1
kind: ClusterServingRuntime
metadata:
  name: {name}-triton
  annotations: {{serving.kserve.io/server-type: tritonserver}}
spec:
  annotations: {{prometheus.kserve.io/port: "8002", prometheus.kserve.io/path: /metrics}}
  supportedModelFormats:
    - {{name: triton, version: "2", autoSelect: false}}
  protocolVersions: [v2, grpc-v2]
  containers:
    - name: kserve-container
      image: {image}
      args:
        - tritonserver
{options}
      startupProbe:  # until the golden rows are answered as recorded, nothing is sent here
        exec: {{command: [python3, /mnt/models/{name}/warmup/check.py, "http://127.0.0.1:8080"]}}
        periodSeconds: 5
        timeoutSeconds: 30
        failureThreshold: 120
      readinessProbe:
        httpGet: {{path: /v2/models/{name}/ready, port: 8080}}
        periodSeconds: 2
      livenessProbe:
        httpGet: {{path: /v2/health/live, port: 8080}}
        periodSeconds: 10
        failureThreshold: 6
      securityContext:
        runAsUser: 1000
        runAsNonRoot: true
        allowPrivilegeEscalation: false
        capabilities: {{drop: [ALL]}}
      resources:
        requests: {{cpu: "1", memory: 2Gi}}
        limits: {{cpu: "4", memory: 16Gi{gpu}}}
"""
