"""Watched: the job that starts the watch pipeline of a workload by the clock, and no more."""

from __future__ import annotations

from penstock.rollout.adapters.granted import HOME
from penstock.rollout.adapters.server import Object

ACCOUNT = "penstock-watch"
IMAGE = "penstock-python-control"
NOBODY = 65532
HOURLY = "17 * * * *"
"""Whether a training is due is the pipeline's to decide; this is how often it looks."""

JOB = "metadata.labels['batch.kubernetes.io/job-name']"
TOKENS = "/var/run/secrets/kubeflow/pipelines"
"""Where Kubeflow's own client looks for a token, too."""


def schedule(workload: str, *, outcomes: str | None = None) -> list[Object]:
    """Return the job of a workload.

    Args:
        outcomes: Where what became of requests is; without it nobody knows how good the model is.

    A run that is late by more than half an hour is left out: the next one sees more.
    """
    labels = {
        "app.kubernetes.io/name": ACCOUNT,
        "app.kubernetes.io/part-of": "penstock",
        "penstock.io/workload": workload,
    }
    job = {
        "backoffLimit": 1,
        "activeDeadlineSeconds": 600,
        "ttlSecondsAfterFinished": 86_400,
        "template": {"metadata": {"labels": labels}, "spec": _pod(workload, outcomes)},
    }
    return [
        {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": {"name": f"{ACCOUNT}-{workload}", "namespace": HOME, "labels": labels},
            "spec": {
                "schedule": HOURLY,
                "timeZone": "Etc/UTC",
                "concurrencyPolicy": "Forbid",
                "startingDeadlineSeconds": 1800,
                "successfulJobsHistoryLimit": 1,
                "failedJobsHistoryLimit": 3,
                "jobTemplate": {"spec": job},
            },
        }
    ]


def command(workload: str, outcomes: str | None = None) -> list[str]:
    """Return what the job runs: it submits, and waits for nothing.

    A pod that the job starts a second time finds the run of the first one by the job's name.
    """
    return [
        "penstock",
        "submit",
        workload,
        "--pipeline=watch",
        # Without one its steps would have no account, no ledger and no store.
        "--profile=$(PENSTOCK_PROFILE)",
        "--host=$(PENSTOCK_KFP_HOST)",
        f"--namespace={HOME}",
        f"--token-file={TOKENS}/token",
        "--once=$(JOB)",
        *(() if outcomes is None else (f"-poutcomes={outcomes}",)),
    ]


def _pod(workload: str, outcomes: str | None) -> Object:
    return {
        "serviceAccountName": ACCOUNT,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Never",
        "priorityClassName": "penstock-training",
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": NOBODY,
            "runAsGroup": NOBODY,
            "fsGroup": NOBODY,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(workload, outcomes)],
        "volumes": [
            {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
            {"name": "token", "projected": {"sources": [{"serviceAccountToken": _TOKEN}]}},
        ],
    }


_TOKEN = {"path": "token", "audience": "pipelines.kubeflow.org", "expirationSeconds": 3600}


def _container(workload: str, outcomes: str | None) -> Object:
    host = {"configMapKeyRef": {"name": "penstock", "key": "kfp-host"}}
    profile = {"configMapKeyRef": {"name": "penstock", "key": "profile"}}
    return {
        "name": "submit",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": command(workload, outcomes),
        "env": [
            {"name": "PENSTOCK_KFP_HOST", "valueFrom": host},
            {"name": "PENSTOCK_PROFILE", "valueFrom": profile},
            {"name": "JOB", "valueFrom": {"fieldRef": {"fieldPath": JOB}}},
            {"name": "PENSTOCK_HOME", "value": "/tmp/penstock"},  # noqa: S108 - an emptyDir
        ],
        # The images that the pipeline's steps run in, by digest.
        "envFrom": [{"configMapRef": {"name": "penstock-images"}}],
        "resources": {
            "requests": {"cpu": "250m", "memory": "1Gi", "ephemeral-storage": "1Gi"},
            "limits": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "2Gi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - as above
            {"name": "token", "mountPath": TOKENS, "readOnly": True},
        ],
    }
