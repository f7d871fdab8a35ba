"""What do bfloat16 and int8 pseudo-gradients, with error feedback, cost in final loss?

Command:  python -m experiments.compression
Duration: a few minutes of two cores with the defaults.
Writes:   compression.json and readme.md to --out, results/compression if not given

A timeline is simulated, and computed once as it is and once with each codec: the same seed, data, start and arrivals,
so that the codec alone differs. Where training is sensitive any change moves the loss, so there is a control: no codec,
and a start that differs by a millionth. The toy's default preset at the demo's rates, and the language model of
`lm train`, shorter. Rates are those tuned without a codec.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from lm.config import default_arms, parameters
from lm.work import text_recipe
from toybench.arguments import Parser, read_seeds
from toybench.config import ConfigError, Run
from toybench.presets import load_preset, load_tuning
from toybench.records import plain, provenance, writable_folder, write_json, write_whole
from toybench.runtime import configure
from toybench.statistics import Interval, interval, relative_gap
from toybench.study import ARMS, arm_run
from toybench.task import Params
from toybench.timeline import simulate
from toybench.transports.again import again
from toybench.transports.codec import CODECS, wire_shapes
from toybench.transports.work import Work, toy_recipe

RECORD = Path(__file__).parent / "records" / "compression"
PLAIN, CONTROL = "none", "control"
NUDGE = 2.0**-20  # of every parameter, in the control
TOY = ("async_nesterov", "delayed_nesterov_dylu", "sync_nesterov")
TEXT = {"sync": "sync Nesterov (DiLoCo)", "dn_dylu": "async DN + DyLU"}


class Case(NamedTuple):
    """A run in which codecs are compared."""

    task: str
    method: str
    run: Run
    make: Callable[[int], Work]  # of a seed
    seeds: Sequence[int]


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """The toy's, then the language model's."""
    base, tuned = load_preset("default"), load_tuning("default")["arms"]
    for arm in TOY:
        run = shortened(arm_run(base, arm, tuned[arm]["changes"]), options.rounds)
        yield Case("toy", ARMS[arm][0], run, partial(toy_of, run), read_seeds(options.seeds))
    for arm, own in default_arms().items():
        run = shortened(own, options.text_rounds)
        yield Case("language model", TEXT[arm], run, partial(text_of, run), read_seeds(options.text_seeds))


def shortened(run: Run, rounds: int | None) -> Run:
    """The run with so many rounds, or its own."""
    return run if rounds is None else replace(run, budget=replace(run.budget, rounds=rounds))


def toy_of(run: Run, seed: int) -> Work:
    """A run of the toy on a seed."""
    return toy_recipe(run, seed).make()


def text_of(run: Run, seed: int) -> Work:
    """A language-model run on a seed."""
    return text_recipe(run, seed).make()


class Nudged:
    """A work that starts a millionth off."""

    def __init__(self, work: Work):
        self._work = work

    def __getattr__(self, name: str) -> Any:
        return getattr(self._work, name)

    def init(self) -> Params:
        return jax.tree.map(lambda leaf: leaf * (1 + NUDGE), self._work.init())


class Found(NamedTuple):
    """A case on one seed."""

    losses: dict[str, float]  # by codec, and the control's
    arrivals: int
    sizes: dict[str, int]  # bytes of a push


def on_seed(case: Case, seed: int) -> Found:
    """One timeline, computed with every codec."""
    work, timeline = case.make(seed), simulate(case.run.cluster, case.run.budget, seed)
    ends = {codec: again(work, timeline, codec) for codec in CODECS}
    ends[CONTROL] = again(Nudged(work), timeline)  # type: ignore[arg-type]
    losses = {name: work.evaluate(params)["loss"] for name, params in ends.items()}
    print(f"{case.task}, {case.method}, seed {seed}: {losses}", flush=True)
    like = jax.eval_shape(work.init)
    return Found(losses, len(timeline.time), {codec: pushed(codec, like) for codec in CODECS})


def measured(cases: Sequence[Case], processes: int) -> Iterator[dict[str, Any]]:
    """Every case on all its seeds."""
    units = [(case, seed) for case in cases for seed in case.seeds]
    if processes == 1:
        found = iter([on_seed(*unit) for unit in units])
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, context, configure) as pool:
            found = iter([*pool.map(on_seed, *zip(*units))])
    for case in cases:
        yield told(case, [next(found) for _ in case.seeds])


def told(case: Case, found: Sequence[Found]) -> dict[str, Any]:
    """A case's losses [S] by codec, bytes a push, and the gap (per cent, paired by seed) of each to none."""
    losses = {name: [one.losses[name] for one in found] for name in (*CODECS, CONTROL)}
    arrivals = [one.arrivals for one in found]
    reference = np.array(losses[PLAIN])
    gaps = {name: interval(relative_gap(np.array(own), reference)) for name, own in losses.items() if name != PLAIN}
    return {
        "task": case.task,
        "method": case.method,
        "rounds": case.run.budget.rounds,
        "arrivals": [min(arrivals), max(arrivals)],
        "outer rate": case.run.outer.lr,
        "seeds": list(case.seeds),
        "losses": losses,
        "spread": float(100 * np.std(reference, ddof=1) / reference.mean()),
        "bytes a push": found[0].sizes,
        "gaps": {
            name: gap._asdict() | ({} if name == CONTROL else {"says": verdict(gap)}) for name, gap in gaps.items()
        },
    }


def pushed(codec: str, like: Any) -> int:
    """Bytes of a pseudo-gradient on its way."""
    return sum(math.prod(shape.shape) * shape.dtype.itemsize for shape in wire_shapes(CODECS[codec], like))


def verdict(gap: Interval) -> str:
    """What an interval allows. That no cost is seen does not say that there is none."""
    if gap.low > 0:
        return f"costs {gap.low:.2g} to {gap.high:.2g} %"
    if gap.high < 0:
        return f"ends lower, by {-gap.high:.2g} to {-gap.low:.2g} %"
    return f"no cost seen; up to {gap.high:.2g} % is not ruled out"


def page(document: dict[str, Any]) -> str:
    """The record for a reader."""
    found = document["cases"]
    lines = ["# What compressed pseudo-gradients cost", "", "`python -m experiments.compression`", ""]
    lines += [
        "A simulated timeline computed with pseudo-gradients as they are, and again with each codec (error feedback: "
        "what is lost of a push is added to the worker's next): same seed, data, start and arrivals. The control has "
        "no codec, and starts with every parameter a millionth larger: how far it moves the loss, any change may. The "
        "gap is that of the final held-out loss above the one without a codec, in per cent, paired by seed, with its "
        "95 % t-interval, each on its own, not corrected for their number. Outer rates are those tuned without a "
        "codec; the language model's were tuned on longer runs.",
        "",
        "| task | method | seeds | final loss without (spread over seeds) | bfloat16 (%) | int8 (%) | control (%) |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in found:
        gaps = (f"{g['mean']:+.4f} [{g['low']:+.4f}, {g['high']:+.4f}]" for g in case["gaps"].values())
        loss = f"{np.mean(case['losses'][PLAIN]):.4f} ({case['spread']:.1f} %)"
        lines.append(f"| {case['task']} | {case['method']} | {len(case['seeds'])} | {loss} | {' | '.join(gaps)} |")
    lines += ["", "| task | method | codec | what the interval allows |", "|---|---|---|---|"]
    for case in found:
        told = ((codec, gap["says"]) for codec, gap in case["gaps"].items() if codec != CONTROL)
        lines += [f"| {case['task']} | {case['method']} | {codec} | {says} |" for codec, says in told]
    lines += ["", "| bytes a push | " + " | ".join(CODECS) + " |", "|---|" + "---|" * len(CODECS)]
    for task in dict.fromkeys(case["task"] for case in found):
        sizes = next(case["bytes a push"] for case in found if case["task"] == task)
        told = (f"{n:,} ({sizes[PLAIN] / n:.2f}× less)" if c != PLAIN else f"{n:,}" for c, n in sizes.items())
        lines.append(f"| {task} | {' | '.join(told)} |")
    lines.append("")
    lines += [
        "An interval that holds 0 does not say that a codec is free. These are small models, and the language model's "
        "runs are short: in few outer steps little can add up.",
        "",
    ]
    for task in dict.fromkeys(case["task"] for case in found):
        one = next(case for case in found if case["task"] == task)
        lines.append(f"- {task}: {document['tasks'][task]}, {one['rounds']} rounds of four workers.")
    return "\n".join([*lines, ""])


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", nargs="+", default=["200:208"], metavar="N", help="of the toy (default 200:208)")
    parser.add_argument("--rounds", type=int, help="of the toy (default: its preset's)")
    parser.add_argument("--text-seeds", nargs="+", default=["200:203"], metavar="N", help="(default 200:203)")
    parser.add_argument("--text-rounds", type=int, default=4, help="of the language model (default 4)")
    parser.add_argument("--processes", type=int, default=2, help="(default 2)")
    parser.add_argument("--out", type=Path, default=Path("results/compression"), metavar="DIR")
    options = parser.parse_args(argv)
    try:
        carry_out(options)
    except ConfigError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None


def carry_out(options: argparse.Namespace) -> None:
    """Measure every case; write the record.

    Raises:
        ConfigError: a run that cannot be, or too few seeds.
    """
    configure()
    out, each = writable_folder(options.out), [*cases(options)]
    if min(len(case.seeds) for case in each) < 2:
        raise ConfigError("seeds", "must be two or more, for an interval")
    toy, text = each[0].run.task, each[-1].run.task
    document = {
        "tasks": {
            "toy": f"the default preset, {toy.hidden} hidden units",
            "language model": f"byte-level, {parameters(text):,} parameters, on the standard library's sources",
        },
        "cases": [*measured(each, options.processes)],
        "provenance": provenance(),
    }
    write_json(out / "compression.json", plain(document))
    write_whole(out / "readme.md", page(document))
    print(page(document))


if __name__ == "__main__":
    main()
