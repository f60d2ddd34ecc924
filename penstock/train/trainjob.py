"""Training on several machines: the job that Kubeflow Trainer runs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.train.distributed import arguments_of
from penstock.workload import Training

MOUNT_VARIABLE = "PENSTOCK_SHARED"
CLAIM_VARIABLE = "PENSTOCK_SHARED_CLAIM"
IMAGE_VARIABLE = "PENSTOCK_IMAGE_TRAIN"
RUNTIME_VARIABLE = "PENSTOCK_TRAIN_RUNTIME"
GPU_VARIABLE = "PENSTOCK_TRAIN_GPUS"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the machines of a job find their image and the folder they share."""

    mount: Path
    """Folder that is the shared volume, here and there alike."""

    claim: str
    """Name of its PersistentVolumeClaim, of access mode ReadWriteMany."""

    image: str
    runtime: str
    """Name of the ClusterTrainingRuntime."""

    gpus: int
    """Of each machine."""

    @classmethod
    def from_environment(cls) -> Place:
        """Read it from the environment.

        Raises:
            ValueError: Something is not set; the text names all that is missing.
        """
        named = (MOUNT_VARIABLE, CLAIM_VARIABLE, IMAGE_VARIABLE)
        if missing := [n for n in named if not os.environ.get(n)]:
            raise ValueError(
                f"training on several machines needs {', '.join(missing)}: the folder that is a "
                "volume they share, the name of its claim, and their image."
            )
        return cls(
            mount=Path(os.environ[MOUNT_VARIABLE]),
            claim=os.environ[CLAIM_VARIABLE],
            image=os.environ[IMAGE_VARIABLE],
            runtime=os.environ.get(RUNTIME_VARIABLE) or "torch-distributed",
            gpus=int(os.environ.get(GPU_VARIABLE) or "1"),
        )


def manifest(name: str, folder: Path, settings: Training, place: Place) -> dict[str, Any]:
    """Return the TrainJob whose pods train what a folder asks for.

    Args:
        name: Of the job; a DNS label.
        folder: What :func:`penstock.train.distributed.ask` wrote, below the shared mount.

    Raises:
        ValueError: The folder is not on the volume that the pods share.
    """
    if not folder.resolve().is_relative_to(place.mount.resolve()):
        raise ValueError(
            f"{folder} is not below {place.mount}, which the machines share; run the stage with "
            f"its output there, or set {MOUNT_VARIABLE}."
        )
    # The runtime's torch plugin tells torchrun of the leader and of this machine's number.
    command = ["python", "-m", "torch.distributed.run", *arguments_of(folder, settings)]
    resources = {"limits": {"nvidia.com/gpu": place.gpus}} if place.gpus else {}
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "penstock"}},
        "spec": {
            "runtimeRef": {"name": place.runtime},
            "trainer": {
                "image": place.image,
                "numNodes": settings.nodes,
                "numProcPerNode": settings.processes,
                "command": command,
                "env": [{"name": "OMP_NUM_THREADS", "value": str(settings.threads)}],
                **({"resourcesPerNode": resources} if resources else {}),
            },
            "runtimePatches": [
                {
                    "manager": "penstock.io/train",
                    "trainingRuntimeSpec": {"template": {"spec": _volumes(place)}},
                }
            ],
        },
    }


def _volumes(place: Place) -> dict[str, Any]:
    mounts = [{"name": "shared", "mountPath": str(place.mount)}]
    pod = {
        "containers": [{"name": "node", "volumeMounts": mounts}],
        "volumes": [{"name": "shared", "persistentVolumeClaim": {"claimName": place.claim}}],
    }
    return {"replicatedJobs": [{"name": "node", "template": {"spec": {"template": {"spec": pod}}}}]}
