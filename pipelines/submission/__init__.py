"""Submission: a compiled pipeline as a run, or a schedule, of a Kubeflow server."""
