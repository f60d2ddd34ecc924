"""Write the graph as an MLflow model, which ``mlflow models serve`` serves.

python -m benchmarks.serving.rivals.mlflow_model FOLDER FEATURES
"""

from __future__ import annotations

import os
import sys

import mlflow.onnx
import numpy as np
import onnx
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from benchmarks.serving.rivals.network import MODEL


def main() -> None:
    """Write it."""
    folder, features = sys.argv[1], int(sys.argv[2])
    rows = TensorSpec(np.dtype(np.float32), (-1, features), name="rows")
    logits = TensorSpec(np.dtype(np.float32), (-1, 2), name="logits")
    mlflow.onnx.save_model(
        onnx.load(os.environ[MODEL]), folder,
        signature=ModelSignature(Schema([rows]), Schema([logits])),
        onnx_execution_providers=["CPUExecutionProvider"],
        onnx_session_options={"intra_op_num_threads": 1, "inter_op_num_threads": 1},
        pip_requirements=["onnxruntime"],
    )  # fmt: skip


if __name__ == "__main__":
    main()
