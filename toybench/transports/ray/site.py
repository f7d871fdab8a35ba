"""A Ray to work on: one of our own, started and ended cleanly, or a cluster that is joined."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from toybench.config import ConfigError
from toybench.runtime import cores
from toybench.transports.ray.means import (
    MARK,
    Key,
    Needs,
    check_room,
    environment,
    joining,
    knock,
    private_folder,
    store_size,
    sweep,
)

NAMESPACE = "toybench"
KEY = "ray.json"  # in the folder of a run that is being made: where to join it


@contextmanager
def site(needs: Needs, address: str | None, store: int | None = None, token: str | None = None) -> Iterator[None]:
    """Within, this process is connected to a Ray on which such workers fit. What was started here is ended here.

    Args:
        needs: of the workers.
        address: HOST:PORT of a Ray's head; None takes the one that this process is connected to, or starts one.
        store: bytes of shared memory of one that is started.
        token: of the cluster, where the environment does not name one.

    Raises:
        ConfigError: Ray is not installed, nobody answers, or the workers do not fit.
    """
    needs.check()
    if connected():
        check_room(machines(), needs, "this Ray")
        yield
    elif address is None:
        here = {kind: needs.workers * need for kind, need in needs.each.items()} | {"CPU": cores()}
        check_room([here], needs, "this machine")  # of all else Ray knows how much there is
        with _own(needs, store_size(store)):
            yield
    else:
        knock(address)
        with _joined(needs, address, token):
            yield


def connected() -> bool:
    """Whether this process is at a Ray already."""
    found = sys.modules.get("ray")
    return found is not None and bool(found.is_initialized())


def _import(settings: dict[str, str]) -> Any:
    """Ray, with these in its environment from the beginning."""
    before = {name: os.environ.get(name) for name in settings}
    if sys.modules.get("ray") is not None and (untold := [name for name in settings if before[name] != settings[name]]):
        raise ConfigError("ray", f"it was imported before it could be told {', '.join(sorted(untold))}")
    os.environ.update(settings)
    try:
        import ray
    except ImportError:
        raise ConfigError("engine", "Ray is not installed: pip install 'toybench[ray]'") from None
    return ray


def machines() -> list[dict[str, float]]:
    """The resources of every machine of the Ray that this process is at."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


@contextmanager
def _own(needs: Needs, store: int) -> Iterator[None]:
    ray, folder = _import(environment()), private_folder()
    within = os.path.join(folder, "r")  # Ray lets everybody into its own
    try:
        os.environ[MARK] = folder
        try:
            _init(
                address="local", num_cpus=cores(), include_dashboard=False, object_store_memory=store, _temp_dir=within
            )
        finally:
            del os.environ[MARK]  # Ray's processes have it, and give it on; other children are not to be ended with it
        check_room(machines(), needs, "this machine")
        yield
    finally:
        ray.shutdown()
        sweep(folder)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _joined(needs: Needs, address: str, token: str | None) -> Iterator[None]:
    ray = _import(joining(address, token))
    try:
        _init(address=address)
        check_room(machines(), needs, f"the Ray at {address}")
        yield
    finally:
        ray.shutdown()


def _init(**settings: Any) -> None:
    import ray
    from ray.exceptions import RayError

    try:
        with warnings.catch_warnings():  # that this process forks; what it starts begins anew at once
            warnings.simplefilter("ignore")
            ray.init(namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR, **settings)
    except (RayError, RuntimeError, ValueError, ConnectionError) as error:
        ray.shutdown()
        raise ConfigError("ray", f"does not start: {' '.join(str(error).split())[:300]}") from None


@contextmanager
def shown(folder: Path, name: str) -> Iterator[None]:
    """Within, who may read the folder's `KEY` can join the run; only its owner may."""
    import ray

    token = os.environ.get("RAY_AUTH_TOKEN") if os.environ.get("RAY_AUTH_MODE") == "token" else None
    key = Key(str(ray.get_runtime_context().gcs_address), name, token)
    path = folder / KEY
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(key.told(), file)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def key_of(folder: Path) -> Key:
    """Where to join the run that is being made in a folder.

    Raises:
        ConfigError: none is, or it cannot be read.
    """
    try:
        told = json.loads((folder / KEY).read_text())
        return Key(str(told["address"]), str(told["name"]), told.get("token"))
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError("join", f"no run is being made over Ray in {str(folder)!r}") from None
