"""Pipelines: the stages in their order, as Kubeflow Pipelines runs them."""
