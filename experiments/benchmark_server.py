"""What a real server costs: seconds an arrival, their share of a worker's round, and memory, by size and codec.

Command:  python -m experiments.benchmark_server [--sizes 1 5 20] [--folder DIR]
Duration: about two minutes on two cores.

Every size is a process of its own, so that its memory is told apart. A push of each codec is made beforehand; timed is
what the server does with it (looks at it, writes it to the journal and waits for the disk, applies it by DN, and hands
out the next visit), without the way there: calls and a second of Python's are in `--engine threads`, Ray's are its own.
A round is 50 steps of 100 ms.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from toybench.config import Budget, Cluster
from toybench.loading import overlay
from toybench.presets import load_preset
from toybench.runtime import configure
from toybench.transports.codec import CODECS, encode
from toybench.transports.live import Live
from toybench.transports.messages import Push, Rules
from toybench.transports.work import ToyWork

ROUND, REPEATS, WORKERS = 5.0, 12, 4  # seconds, pushes that are timed, workers


@dataclass(frozen=True)
class Shapes(ToyWork):
    """No model, but parameters of a size."""

    millions: float = 1.0

    def init(self):
        side = 1024
        return {"w": jnp.zeros((int(self.millions * 1e6) // side, side), jnp.float32), "b": jnp.zeros(side)}

    def evaluate(self, params):
        return {"loss": 0.0}


def resident() -> int:
    """Bytes of memory in use now."""
    words = Path("/proc/self/statm").read_text().split()
    return int(words[1]) * resource.getpagesize()


def measure(millions: float, codec: str, folder: Path) -> dict[str, float]:
    """Seconds of a push's parts, the bytes sent, and memory beside the parameters."""
    run = overlay(load_preset("fast"), {"outer.method": "delayed_nesterov"})
    run = type(run)(
        run.task, Cluster(sec_per_step=(0.1,) * WORKERS, local_steps=50), run.inner, run.outer, Budget(10**5)
    )
    work: Any = Shapes(run, 0, millions)
    params = sum(leaf.nbytes for leaf in jax.tree.leaves(work.init()))
    g = jax.tree.map(lambda leaf: 1e-3 * jax.random.normal(jax.random.key(0), leaf.shape), work.init())
    sent, _ = encode(CODECS[codec], g, None if CODECS[codec].exact else jax.tree.map(jnp.zeros_like, g))
    arrays = [np.array(array) for array in sent]
    del g, sent
    before = resident()
    live = Live(work, folder, Rules(codec, every=1e9))
    replies = [live.hello(w) for w in range(WORKERS)]
    replies = [reply if reply.given else live.next(reply.worker, 0.0) for reply in replies]
    replies = [reply._replace(params=None) for reply in replies]
    seconds, written, append = [], [], live.ledger.append

    def timed(*told: Any) -> None:
        began = time.perf_counter()
        append(*told)
        written.append(time.perf_counter() - began)

    setattr(live.ledger, "append", timed)  # noqa: B010 a method is not to be assigned to, says the type checker
    for n in range(REPEATS + 3):
        w = n % WORKERS
        given = replies[w].given
        assert given is not None
        push = Push(w, given.id, 5.0, 1.0, arrays)
        began = time.perf_counter()
        replies[w] = live.push(push)._replace(params=None)  # which are the worker's to keep
        jax.block_until_ready(live.server)
        seconds.append(time.perf_counter() - began)
    began = time.perf_counter()
    live.checkpoint()
    kept = time.perf_counter() - began
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "millions": millions,
        "push": median(seconds[3:]),
        "written": median(written[3:]),
        "bytes": sum(array.nbytes for array in arrays),
        "params": params,
        "held": (resident() - before) / params,
        "peak": (peak - before) / params,
        "checkpoint": kept,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=float, nargs="+", default=[0.1, 1.0, 5.0, 20.0], help="millions of parameters")
    parser.add_argument("--folder", help="on the disk to be measured (default: that of temporary files)")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        configure()
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            print(json.dumps(measure(float(arguments.one[0]), arguments.one[1], Path(folder) / "server")))
        return
    print("million   codec      bytes    push  journal   share of    pushes   checkpoint  memory beside the")
    print("numbers              sent     (ms)     (ms)  a 5 s round  a second     (s)     rest, in parameters")
    for size in arguments.sizes:
        for codec in CODECS:
            words = [sys.executable, "-m", "experiments.benchmark_server", "--one", str(size), codec]
            words += ["--folder", arguments.folder] if arguments.folder else []
            found = json.loads(
                subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
            )
            push = found["push"]
            print(
                f"{size:7g}   {codec:8} {found['bytes'] / 1e6:6.1f} M {1e3 * push:7.1f} {1e3 * found['written']:8.1f}"
                f" {100 * push / ROUND:9.2f} % {1 / push:10.1f} {found['checkpoint']:10.2f}"
                f"     {found['held']:.1f} held, {found['peak']:.1f} at most",
                flush=True,
            )


if __name__ == "__main__":
    main()
