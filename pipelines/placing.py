"""Give each task of a pipeline what its step is, and what a deployment profile says of it."""

from __future__ import annotations

from kfp import kubernetes
from kfp.dsl import PipelineTask

from pipelines.profile import OWN, SHARED, SHARED_VOLUME, Profile, Settings
from pipelines.steps import STEPS

USER = 65_532
"""Who a step is in its container, and its group: nobody in particular, never root."""

GPU = "nvidia.com/gpu"
IMAGE, RUN = OWN
RUN_LABEL = "metadata.labels['pipeline/runid']"
"""Where Kubeflow writes which run a step belongs to."""

WAIT, LONGEST = "30s", "300s"
"""Before the first retry, doubled for each, and never longer than that."""


def placed(task: PipelineTask, profile: Profile | None = None) -> PipelineTask:
    """Return the task with its name for people, its caching, and its place on a cluster.

    Args:
        profile: None compiles for this machine alone: nothing that only a cluster heeds.
    """
    name = task.component_spec.name
    step = STEPS[name]
    task.set_display_name(step.verb)
    if not step.cached:
        task.set_caching_options(False)
    if profile is None:
        return task
    settings = profile.of(name)
    if image := profile.images.get(step.group):
        task.set_container_image(image)
    # A version must say which image made it, and a container cannot tell.
    task.set_env_variable(IMAGE, task.container_spec.image)
    _pulled(task, profile)
    _sized(task, settings)
    _scheduled(task, settings)
    _informed(task, settings)
    _mounted(task, settings)
    return task


def _pulled(task: PipelineTask, profile: Profile) -> None:
    kubernetes.set_image_pull_policy(task, profile.image_pull_policy)
    if profile.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(profile.image_pull_secrets))
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)


def _sized(task: PipelineTask, settings: Settings) -> None:
    if settings.cpu:
        task.set_cpu_request(settings.cpu)
    if settings.cpu_limit:
        task.set_cpu_limit(settings.cpu_limit)
    if settings.memory:
        task.set_memory_request(settings.memory).set_memory_limit(settings.memory)
    if settings.gpus:
        task.set_accelerator_type(settings.gpu_kind or GPU).set_accelerator_limit(settings.gpus)
    if settings.timeout_s:
        kubernetes.set_timeout(task, settings.timeout_s)
    if settings.retries:
        task.set_retry(
            settings.retries,
            backoff_duration=WAIT,
            backoff_factor=2,
            backoff_max_duration=LONGEST,
        )


def _scheduled(task: PipelineTask, settings: Settings) -> None:
    for name, value in sorted(settings.node_selector.items()):
        kubernetes.add_node_selector(task, name, value)
    for one in settings.tolerations:
        kubernetes.add_toleration(
            task,
            key=one.key,
            operator=one.operator,  # pyright: ignore[reportArgumentType] - its form is checked
            value=one.value or None,
            effect=one.effect or None,  # pyright: ignore[reportArgumentType]
        )
    for name, value in sorted(settings.labels.items()):
        kubernetes.add_pod_label(task, name, value)
    for name, value in sorted(settings.annotations.items()):
        kubernetes.add_pod_annotation(task, name, value)


def _informed(task: PipelineTask, settings: Settings) -> None:
    for name, value in sorted(settings.env.items()):
        task.set_env_variable(name, value)
    kubernetes.use_field_path_as_env(task, RUN, RUN_LABEL)
    for one in settings.secret_env:
        kubernetes.use_secret_as_env(task, one.secret, {one.key: one.env}, optional=one.optional)
    for one in settings.config_env:
        kubernetes.use_config_map_as_env(
            task, one.config, {one.key: one.env}, optional=one.optional
        )


def _mounted(task: PipelineTask, settings: Settings) -> None:
    for one in settings.secret_mount:
        kubernetes.use_secret_as_volume(task, one.secret, one.path, optional=one.optional)
    for one in settings.pvc:
        kubernetes.mount_pvc(task, one.claim, one.path, one.sub_path or "")
    for one in settings.scratch:
        kubernetes.empty_dir_mount(task, one.name, one.path, one.medium or None, one.size)
    if settings.shared_memory:
        kubernetes.empty_dir_mount(task, SHARED_VOLUME, SHARED, "Memory", settings.shared_memory)
