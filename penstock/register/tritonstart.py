"""How Triton is started so that it serves only what is right: a script, a runtime for KServe."""

from __future__ import annotations

import shlex
from pathlib import Path

from penstock.bundle import write_text
from penstock.register.tritoncheck import NOBODY
from penstock.register.tritonconfig import Model

SUMS = "SHA256SUMS"
"""File with the hash of every other one, which ``start.sh`` checks."""

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
    gpus = " --gpus all" if model.gpu else ""
    said = {"options": held, "closed": CLOSED, "image": image, "gpus": gpus, "sums": SUMS}
    check = shlex.quote(f"{model.name}/warmup/check.py")
    write_text(start, _START.format(**said, check=check, nobody=NOBODY))
    start.chmod(0o755)
    arguments = "\n".join(f"        - {option}" for option in options("/mnt/models"))
    gpu = ', nvidia.com/gpu: "1"' if model.gpu else ""
    filled = {"name": model.name, "image": image, "options": arguments, "gpu": gpu}
    write_text(runtime, _RUNTIME.format(**filled, closed=CLOSED))


_START = """\
#!/bin/sh
# Starts Triton on the repository beside this file; options of Triton's may follow, but no ports. It
# ends when a file is not as it was written, when a model does not load, does not warm up, or is not
# as configured, and when a golden row is answered otherwise than recorded. It runs in the image:
#   docker run --rm --network host{gpus} -v FOLDER:/triton:ro {image} /triton/start.sh
# FOLDER is the absolute path of this file's folder. With the host's network Triton is heard on
# the host's loopback and nowhere else.
folder="$(cd "$(dirname "$0")" && pwd)"
models="$folder/models"
if ! command -v tritonserver >/dev/null; then
  echo "there is no tritonserver here; start it in its image:" >&2
  echo "docker run --rm --network host{gpus} -v '$folder':/triton:ro {image} /triton/start.sh" >&2
  exit 127
fi
if ! (cd "$folder" && sha256sum --check --strict --quiet {sums}) >&2 ||
    [ "$(find "$models" -type f | wc -l)" -ne "$(grep -c '  models/' "$folder/{sums}")" ]; then
  echo "the files of $folder are not those that {sums} lists; write the repository again." >&2
  exit 1
fi
key="closed=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \\n')"
tritonserver \\
  {options} \\
  --http-address=127.0.0.1 --grpc-address=127.0.0.1 --metrics-address=127.0.0.1 \\
  --http-restricted-api="{closed}:$key" \\
  --grpc-restricted-protocol="{closed}:$key" \\
  "$@" &
triton=$!
trap 'kill -TERM "$triton" 2>/dev/null' TERM INT HUP

code={nobody}
while [ "$code" -eq {nobody} ] && kill -0 "$triton" 2>/dev/null; do
  sleep 0.2
  said="$(python3 "$models"/{check} http://127.0.0.1:8080 2>&1)"
  code=$?
done
if [ "$code" -ne 0 ] && [ "$code" -ne {nobody} ]; then
  echo "$said" >&2
  kill -TERM "$triton" 2>/dev/null
  wait "$triton"
  exit 1
fi
# A signal ends the waiting before Triton has ended.
wait "$triton"
ended=$?
while kill -0 "$triton" 2>/dev/null; do
  wait "$triton"
  ended=$?
done
exit "$ended"
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
  multiModel: false
  containers:
    - name: kserve-container
      image: {image}
      imagePullPolicy: IfNotPresent
      args:
        - sh
        - -c
        # The key is made at the start, for nobody.
        - >-
          key="closed=`head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \\n'`";
          exec tritonserver "$@"
          --http-restricted-api="{closed}:$key" --grpc-restricted-protocol="{closed}:$key"
        - triton
{options}
      ports:
        - {{name: http1, containerPort: 8080, protocol: TCP}}
        - {{name: metrics, containerPort: 8002, protocol: TCP}}
      startupProbe:  # until the golden rows are answered as recorded, nothing is sent here
        exec: {{command: [python3, /mnt/models/{name}/warmup/check.py, "http://127.0.0.1:8080"]}}
        periodSeconds: 5
        timeoutSeconds: 30
        failureThreshold: 120
      readinessProbe:
        httpGet: {{path: /v2/models/{name}/ready, port: 8080}}
        periodSeconds: 2
        timeoutSeconds: 2
      livenessProbe:
        httpGet: {{path: /v2/health/live, port: 8080}}
        periodSeconds: 10
        timeoutSeconds: 2
        failureThreshold: 6
      lifecycle:
        preStop: {{exec: {{command: [sleep, "15"]}}}}  # until the gateway sends nobody here
      resources:
        requests: {{cpu: "1", memory: 16Gi, ephemeral-storage: 1Gi}}
        limits: {{cpu: "4", memory: 16Gi, ephemeral-storage: 8Gi{gpu}}}
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        runAsGroup: 65532
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {{drop: [ALL]}}
        seccompProfile: {{type: RuntimeDefault}}
      volumeMounts:
        - {{name: tmp, mountPath: /tmp}}
        - {{name: shared, mountPath: /dev/shm}}
  volumes:
    - name: tmp
      emptyDir: {{sizeLimit: 1Gi}}
    - name: shared
      emptyDir: {{medium: Memory, sizeLimit: 1Gi}}
"""
