"""`python -m lm train`: train a language model on a simulated cluster; with nothing else, two of them, compared."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm.config import CHOICES, default_arms
from lm.promote import read_run
from toybench.arguments import add_settings, add_store, flags, told_of_file
from toybench.config import ConfigError, Run, check_seeds
from toybench.console import print_json
from toybench.interrupt import INTERRUPT, INTERRUPTED
from toybench.loading import overlay_text

if TYPE_CHECKING:
    from lm.loop import Progress
    from lm.placement import Placement
    from lm.train import Training
    from toybench.curves import Curves

CHECKPOINTS = "checkpoints"  # the folder of a run's
TERMINATED = 143  # the exit status after SIGTERM


def add(parser: argparse.ArgumentParser, preset: Run) -> None:
    parser.usage = f"{parser.prog} [RUN.toml] [--SECTION.FIELD VALUE ...] [--resume] [--json] ..."
    text = "a run, from `promote` or by hand; without it and without settings: DN + DyLU against sync DiLoCo, small"
    parser.add_argument("file", nargs="?", metavar="RUN.toml", help=text)
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of parameters, shards and batches (default 0)"
    )
    text = "visits computed side by side: more fill an accelerator better and take more memory (default 1)"
    parser.add_argument("--lanes", type=int, default=1, metavar="N", help=text)
    text = (
        "devices that lanes are laid over, times devices that a batch is split over (default: all, for lanes; CPU 1x1)"
    )
    parser.add_argument("--mesh", metavar="WxD", help=text)
    text = "where what workers hold between visits is kept: device (default) or host, which takes longer"
    parser.add_argument("--snapshots", default="device", metavar="MEMORY", help=text)
    text = "of what workers pull: float32 (default) or bfloat16, from which they then start"
    parser.add_argument("--snapshot-dtype", default="float32", metavar="DTYPE", help=text)
    parser.add_argument("--init", metavar="DIR", help="start from the parameters of this run's last checkpoint")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in the folder, if any")
    parser.add_argument("--every", type=float, default=60.0, metavar="SECONDS", help="between checkpoints (default 60)")
    parser.add_argument("--keep", type=int, default=2, metavar="N", help="checkpoints (default 2)")
    parser.add_argument("--out", default="results/lm", metavar="DIR", help="for checkpoints, record and figure")
    add_store(parser)
    add_settings(parser, preset, CHOICES)


def run(arguments: argparse.Namespace) -> int:
    runs = wanted(arguments)
    [seed] = check_seeds([arguments.seed])
    if arguments.lanes < 1 or arguments.keep < 1 or not arguments.every >= 0:
        raise ConfigError("lanes, keep", "must be >= 1, and every >= 0")
    from toybench.runtime import configure

    configure()
    from lm.loop import NotFinite, Stopped
    from toybench.records import writable_folder

    for one in runs.values():
        placed(one, arguments)
    out, found = writable_folder(arguments.out), {}
    for name in runs:
        if not arguments.resume and any((out / name / CHECKPOINTS).glob("*")):
            said = f"{str(out / name)!r} holds checkpoints of an earlier run"
            raise ConfigError("out", f"{said}; --resume goes on with it, another --out leaves it")
    try:
        with INTERRUPT.held(), terminated() as stop:
            for name, one in runs.items():
                found[name] = train(name, one, seed, out / name, arguments, stop)
    except Stopped as stopped:
        print(f"{stopped}; the same command with --resume goes on", file=sys.stderr)
        return INTERRUPTED if INTERRUPT.asked else TERMINATED
    except NotFinite as error:
        print(f"toybench: error: {error}", file=sys.stderr)
        return 1
    return say(found, out, arguments.json)


def wanted(arguments: argparse.Namespace) -> dict[str, Run]:
    """The runs that the file and the flags ask for, by name.

    Raises:
        ConfigError: they are no language-model runs.
    """
    words = flags(arguments)
    if arguments.file is None and not words:
        return default_arms()
    if arguments.file is None:
        base, note = default_arms()["dn_dylu"], {}
    else:
        base, note = read_run(arguments.file)
    arguments.note = note
    try:
        return {"run": overlay_text(base, words, choices=CHOICES)}
    except ConfigError as error:
        raise told_of_file(error, arguments, {}) from None


@contextmanager
def terminated() -> Iterator[Callable[[], bool]]:
    """Within, SIGTERM and Ctrl-C only ask to stop: whether one has."""
    asked: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    try:
        yield lambda: bool(asked) or INTERRUPT.asked
    finally:
        signal.signal(signal.SIGTERM, before)


def placed(run: Run, arguments: argparse.Namespace) -> Placement:
    """How a run is laid out on this machine.

    Raises:
        ConfigError: it cannot be laid out so, or does not fit.
    """
    import jax

    from lm.fitting import Plan, check_fits, this_machine
    from lm.placement import place

    devices, machine = len(jax.local_devices()), this_machine()
    # The cores of a CPU are devices only if asked: one device uses them all.
    mesh = "1x1" if arguments.mesh is None and machine.backend == "cpu" else arguments.mesh
    found = place(mesh, arguments.lanes, run.task.batch, devices, arguments.snapshots, arguments.snapshot_dtype)
    check_fits(Plan(run, arguments.lanes, found), machine)
    return found


def prepare(run: Run, seed: int, arguments: argparse.Namespace) -> Training:
    """A run with its data and its model.

    Raises:
        ConfigError: data that are not there or do not fit, or a model that does not fit the machine.
    """
    import numpy as np

    from lm.data import Corpus
    from lm.task import DEALT, LanguageTask, check_count
    from lm.train import Training

    model, cluster = run.task, run.cluster
    corpus = Corpus.open(model.data, model.vocabulary)
    task = LanguageTask(model, corpus)
    shards = corpus.split(cluster.num_shards, model.partition, DEALT).ordered(task.order(seed))
    check_count(model, shards.count(model.sequence))
    start = None if arguments.init is None else parameters_of(Path(arguments.init), task)
    held_out = np.uint32(0), {"held_out": corpus.held_out(model.held_out, model.sequence)}
    return Training(run, seed, task, shards, held_out, arguments.lanes, start, placed(run, arguments))


def parameters_of(folder: Path, task: Any) -> Any:
    """The parameters of a run's last checkpoint."""
    from lm.checkpoint import read_parameters

    return read_parameters(folder / CHECKPOINTS, task)


def train(name: str, run: Run, seed: int, folder: Path, arguments: argparse.Namespace, stop: Callable) -> Curves:
    """One run to its end, with its record in the store and in the folder."""
    from lm.checkpoint import Checkpoints
    from lm.loop import carry_out, maker_of
    from toybench.records import commit, writable_folder, write_json
    from toybench.store import Store

    training = prepare(run, seed, arguments)
    checkpoints = Checkpoints(writable_folder(folder) / CHECKPOINTS, training, arguments.keep)
    try:
        with bar(name) as report:
            done = carry_out(
                training, checkpoints, resume=arguments.resume, every=arguments.every, report=report, stop=stop
            )
    finally:
        checkpoints.close()
    with Store(arguments.store) as store:
        store.add([done.curves], maker_of(training), seconds=done.seconds, commit=commit())
    write_json(folder / "run.json", document(done.curves, done.seconds, getattr(arguments, "note", {})))
    return done.curves


def document(curves: Curves, seconds: float, note: dict[str, Any]) -> dict[str, Any]:
    """A run as JSON."""
    from toybench.loading import dump_run
    from toybench.records import provenance

    columns = {"local_steps": curves.local_steps[0], "time": curves.time[0]}
    columns |= {name: values[0] for name, values in curves.metrics.items()}
    found = {"run": dump_run(curves.run), "seed": curves.seeds[0], "seconds": seconds, "curves": columns}
    return found | ({"promoted": note} if note else {}) | {"provenance": provenance()}


@contextmanager
def bar(name: str) -> Iterator[Callable[[Progress], None]]:
    """A bar on a terminal; elsewhere a line at each evaluation."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.fields[name]:10}"),
        BarColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, disable=not console.is_terminal) as shown:
        task, told = shown.add_task("compiling", total=None, name=name), None

        def report(progress: Progress) -> None:
            nonlocal told
            said = f"{progress.tokens_per_second:,.0f} tokens/s, {progress.operations_per_second / 1e9:,.0f} GFLOP/s"
            if progress.point is not None:
                said = f"held-out loss {progress.point.metrics['loss']:.4f}, {said}"
            shown.update(task, description=said, completed=progress.local_steps, total=progress.total_steps)
            if not console.is_terminal and progress.point != told:
                told = progress.point
                print(
                    f"{name}: {progress.local_steps:,} of {progress.total_steps:,} local steps, {said}", file=sys.stderr
                )

        yield report


def say(found: dict[str, Curves], out: Path, as_json: bool) -> int:
    """What came of the runs, and a figure of them."""
    from toybench.plots.curves import draw, numbers
    from toybench.plots.style import SIZES as WIDTHS
    from toybench.plots.style import rendered, styled
    from toybench.records import write_whole

    path = out / "lm.png"
    with styled(WIDTHS["screen"]):
        write_whole(path, rendered(draw(numbers([*found.values()]), WIDTHS["screen"]), path))
    if as_json:
        rows = {name: document(curves, 0.0, {}) for name, curves in found.items()}
        print_json(rows)
        return 0
    for name, curves in found.items():
        loss, perplexity = curves.metrics["loss"][0], curves.metrics["perplexity"][0]
        said = f"held-out loss {loss[0]:.4f} → {loss[-1]:.4f} (perplexity {perplexity[-1]:.2f})"
        print(
            f"{name:12} {said} after {curves.local_steps[0, -1]:,} local steps, {curves.time[0, -1]:,.0f} simulated s"
        )
    print(path, file=sys.stderr)
    return 0
