"""The options of the executor for Ray. Free of torch and of Ray."""

from pydantic import Field

from idat_zoo.values import Frozen


class RayOptions(Frozen):
    """The resources of a pass, and the cluster.

    `cpus` are the cores that a pass reserves, and the threads that it computes with; `gpus` its
    part of a GPU or its GPUs, 1 on CUDA unless given. `workers` is the number of passes at the same
    time, unless given as many as there are cores or GPUs for. `retries` is how often a pass is
    tried again after its process was killed. `address` is a running cluster (`auto`, HOST:PORT, or
    ray://HOST:PORT),
    which must see the study's folder; unless it is given, Ray is started on this machine, and
    stopped at the end.
    """

    cpus: int = Field(default=1, ge=1)
    gpus: float | None = Field(default=None, ge=0)
    workers: int | None = Field(default=None, ge=1)
    retries: int = Field(default=3, ge=0)
    address: str | None = Field(default=None, pattern=r"^(auto|(ray://)?[^:/\s]+:\d{1,5})$")
