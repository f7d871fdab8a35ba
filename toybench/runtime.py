"""How this process uses the machine: one lane device a core, and compiled programs kept between processes."""

from __future__ import annotations

import hashlib
import os
import platform
import tempfile
import warnings
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from toybench.config import ConfigError, ConfigWarning

CACHE_SWITCH = "TOYBENCH_CACHE"  # "off" keeps no compiled programs; a path keeps them there


def user_cache() -> Path:
    """This user's folder for what can be made anew; on a host that lacks platformdirs, where XDG says."""
    try:
        import platformdirs
    except ImportError:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "toybench"
    return Path(platformdirs.user_cache_dir("toybench"))


def cache_folder() -> Path | None:
    """Where compiled programs are kept: a folder of this user, this jaxlib and this kind of processor."""
    choice = os.environ.get(CACHE_SWITCH, "")
    if choice.lower() in ("off", "0", "false", "no"):
        return None
    root = Path(os.path.expanduser(choice)) if choice else user_cache()
    # A program compiled for another processor may not run here, though the cache would offer it.
    return root / f"jaxlib-{metadata.version('jaxlib')}-{processor()}"


def processor() -> str:
    """This kind of processor, told by its name and its instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        text = "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
    except OSError:
        text = platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def configure(devices: int | None = None) -> None:
    """Set jax up for lanes: a CPU device for every core, and the persistent compilation cache.

    For programs, not for `import toybench`: it changes the process. Call it before jax is first used.

    Args:
        devices: so many CPU devices, instead of `JAX_NUM_CPU_DEVICES` or one for every core.

    Raises:
        ConfigError: jax cannot start as the environment asks, or the cache folder that it names cannot be written.
    """
    folder = cache_folder()
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            if os.environ.get(CACHE_SWITCH):
                raise ConfigError(CACHE_SWITCH, f"cannot write to {str(folder)!r}: {error.strerror}") from None
            warnings.warn(f"no compiled programs are kept: {folder}: {error.strerror}", ConfigWarning, stacklevel=2)
            folder = None
    try:
        import jax

        if devices or "JAX_NUM_CPU_DEVICES" not in os.environ:
            with suppress(RuntimeError):  # jax is already running, with the devices that it has
                jax.config.update("jax_num_cpu_devices", devices or cores())
        if folder is not None:
            jax.config.update("jax_compilation_cache_dir", str(folder))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
            jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        jax.devices()
    except (RuntimeError, ValueError) as error:
        asked = " ".join(f"{name}={value!r}" for name, value in os.environ.items() if name.startswith("JAX_"))
        raise ConfigError("jax", f"does not start{f' with {asked}' if asked else ''}: {error}") from None


CGROUPS = Path("/sys/fs/cgroup")


def memory() -> int | None:
    """Bytes of memory that this process may use, where the machine tells: all, or what its control group is given."""
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    return min([there, *_limits(_groups())])


def _groups() -> list[str]:
    """Where in the tree of control groups this process may be: in a container that is the root, whatever it is told."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    fields = [line.split(":", 2) for line in lines]
    told = [field[2] for field in fields if len(field) == 3 and (not field[1] or "memory" in field[1].split(","))]
    return ["/", *told]


def _limits(groups: list[str]) -> list[int]:
    """Bytes that control groups and those around them are given, of either version; none where there is no limit."""
    found = []
    for folder, name in ((CGROUPS, "memory.max"), (CGROUPS / "memory", "memory.limit_in_bytes")):
        for group in groups:
            inner = Path(group.strip("/"))
            for one in (inner, *inner.parents):
                with suppress(OSError, ValueError):  # "max" is no limit
                    found.append(int((folder / one / name).read_text()))
    return found
