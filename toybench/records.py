"""What a run leaves behind: plain JSON with its configuration, curves and provenance; written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import subprocess
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toybench import __version__
from toybench.config import ConfigError
from toybench.loading import dump_run
from toybench.runtime import processor

if TYPE_CHECKING:
    from toybench.training import Result

SCHEMA = 1


def plain(value: Any) -> Any:
    """Arrays and containers as JSON can say them; a number that is not finite becomes null, others keep every digit."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.floating):
        return plain(float(str(value)))  # the shortest text that gives the number back, in its own precision
    if isinstance(value, np.generic):
        return value.item()
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        return plain(list(array) if array.ndim else array[()])
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


# What decides a run's numbers; the rest of the package may change without making old runs another's.
SPINE = (
    "config",
    "curves",
    "shards",
    "scheduler",
    "presence",
    "timeline",
    "outer",
    "inner",
    "server",
    "task",
    "gaussians",
    "engine",
    "training",
)


@cache
def code() -> str:
    """A digest of the sources that decide a run's numbers."""
    folder, found = Path(__file__).parent, hashlib.sha256()
    for room in SPINE:
        for path in sorted((folder / room).glob("*.py")) or [folder / f"{room}.py"]:
            found.update(path.read_bytes())
    return found.hexdigest()[:16]


@cache
def commit() -> str | None:
    """The commit of the working tree that this package lies in, marked if it was changed; None if it is in none."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    return None


@cache
def maker() -> dict[str, str]:
    """Who makes a run, as far as its numbers may depend on it: code, versions, kind of device."""
    import jax

    versions = {name: metadata.version(name) for name in ("jax", "jaxlib", "numpy", "optax")}
    names = ("enable_x64", "default_prng_impl", "threefry_partitionable", "default_matmul_precision")
    settings = {name: str(getattr(jax.config, f"jax_{name}")) for name in names}
    devices = {"device": jax.local_devices()[0].device_kind, "devices": str(len(jax.local_devices()))}
    flags = {"xla_flags": os.environ.get("XLA_FLAGS", ""), "processor": processor()}
    return {"code": code(), **versions, **devices, **settings, **flags}


def provenance() -> dict[str, Any]:
    """Who made it, when, where."""
    return {
        "schema": SCHEMA,
        "toybench": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        **maker(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def record(result: Result) -> dict[str, Any]:
    """A result as JSON: its configuration, and for each seed the final metrics, the curves and whether it diverged."""
    runs = [
        {
            "seed": seed,
            "diverged": result.diverged[s],
            "final": {name: curve[s, -1] for name, curve in result.metrics.items()},
            "staleness": {"mean": timeline.staleness.mean(), "max": timeline.staleness.max()},
            "simulated_time": timeline.time[-1],
            "curves": {"local_steps": result.local_steps[s], "time": result.time[s]}
            | {name: curve[s] for name, curve in result.metrics.items()},
        }
        for s, (seed, timeline) in enumerate(zip(result.seeds, result.timelines))
    ]
    custom = {"custom": result.custom} if result.custom else {}
    return plain({"run": dump_run(result.run), **custom, "seeds": runs})


def writable_folder(path: str | Path) -> Path:
    """The folder, made if it is not there.

    Raises:
        ConfigError: it cannot be made or written to.
    """
    if not str(path):
        raise ConfigError("out", "must be the path of a folder, got ''")
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError("out", f"cannot write to {str(path)!r}: {error.strerror}") from None
    return folder


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader, or a crash, meets the old one or the new one and nothing between."""
    data = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):  # told of the file that was meant
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: Path, document: Any) -> None:
    """`write_whole` of a document as JSON."""
    write_whole(path, json.dumps(plain(document), ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """A document as JSON.

    Raises:
        ConfigError: it cannot be read, or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}") from None
    except RecursionError:
        raise ConfigError(str(path), "cannot be read: nested too deeply") from None
    except ValueError as error:  # also text that is not UTF-8, and a name that no file can have
        raise ConfigError(repr(str(path)), f"not JSON: {error}") from None
