"""Many runs on a Ray cluster, or on a Ray that is started on this machine for them; each worker needs isthmus[twin]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from isthmus.domain.errors import Invalid, Unavailable

Case = TypeVar("Case")
Row = TypeVar("Row")
LOCAL = "local"


def on_ray(function: Callable[[Case], Row], cases: Sequence[Case], address: str) -> list[Row]:
    """`function` of every case, in order; `address` as Ray writes it (`10.0.0.1:6379`, `ray://...`, `auto`), or `local`.

    Invalid where Ray is not installed, Unavailable where the cluster does not answer. An error of a case is raised as it is.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise Invalid("ray", "Ray is not installed.", remedy="Install isthmus[ray].") from error
    where = {"num_cpus": None} if address == LOCAL else {"address": address}
    try:
        ray.init(
            include_dashboard=False if address == LOCAL else None, log_to_driver=False, configure_logging=False, **where
        )
    except Exception as error:  # Ray raises whatever it has, a bare Exception too
        raise Unavailable(f"No Ray answers at {address}: {error}", remedy="Start one, or use --ray local.") from error
    try:
        run = ray.remote(function)
        rows: list[Row] = ray.get([run.remote(case) for case in cases])
        return rows
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    finally:
        ray.shutdown()
