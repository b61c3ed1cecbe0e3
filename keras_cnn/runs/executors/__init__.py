"""Where runs are made, an executor a file: `local` processes, or a `cluster` (`slurm`, `ray`)."""

from __future__ import annotations

from collections.abc import Sequence

from keras_cnn import environment
from keras_cnn.recipe.resources import Ray, Resources, Slurm
from keras_cnn.recipe.spec import Spec
from keras_cnn.runs.engine import Executor
from keras_cnn.runs.executors.cluster import Cluster, Remote
from keras_cnn.runs.executors.local import Local
from keras_cnn.runs.jobs import Job


def executor(resources: Resources, jobs: Sequence[Job], parallel: int) -> Executor:
    """What runs jobs.

    Args:
        resources: Where, and what each is given there.
        jobs: All that will be submitted.
        parallel: How many run at a time, at most.

    Raises:
        UserError: A package that it needs is not installed.
    """
    if found := cluster_of(resources, parallel):
        is_array = isinstance(resources, Slurm)  # which takes all at once, and has a bound itself
        return Remote(found, slots=len(jobs) if is_array else parallel)
    return Local(jobs, parallel, environment.gpus())


def cluster_of(resources: Resources, parallel: int) -> Cluster | None:
    """The cluster of some resources; None on this machine.

    Raises:
        UserError: A package that it needs is not installed.
    """
    if isinstance(resources, Slurm):
        from keras_cnn.runs.executors.slurm import SlurmCluster

        return SlurmCluster(resources, parallel)
    if isinstance(resources, Ray):
        from keras_cnn.runs.executors.ray import RayCluster

        return RayCluster(resources)
    return None


def submission(resources: Resources, specs: Sequence[Spec], parallel: int) -> str:
    """What would be submitted to a cluster, in lines; empty on this machine."""
    if isinstance(resources, Slurm):
        from keras_cnn.runs.executors import slurm_arrays

        threads = [spec.threads for spec in specs]
        return "\n".join(slurm_arrays.submission(resources, threads, parallel))
    if isinstance(resources, Ray):
        from keras_cnn.runs.executors import ray

        return ray.submission(resources, specs, parallel)
    return ""
