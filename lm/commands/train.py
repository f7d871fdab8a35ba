"""`python -m lm train`: train a language model on a simulated cluster; with nothing else, two of them, compared."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lm.config import CHECKPOINTS, CHOICES, default_arms
from lm.promote import read_run
from lm.protocol import finetuning
from toybench.arguments import add_settings, add_store, check_seed, flags, told_of_file
from toybench.config import LARGEST, ConfigError, Run
from toybench.console import print_json
from toybench.engines import add_engine, carry_out_all, engine_of
from toybench.interrupt import INTERRUPT, INTERRUPTED, TERMINATED, terminated
from toybench.loading import overlay_text

if TYPE_CHECKING:
    from lm.loop import Progress
    from lm.placement import Placement
    from lm.trackers import Wanted
    from toybench.curves import Curves
    from toybench.transports.drive import Engine


WORKERS = True  # --finetune without a number: as many as there are workers


def add(parser: argparse.ArgumentParser, preset: Run) -> None:
    parser.usage = f"{parser.prog} [RUN.toml] [--SECTION.FIELD VALUE ...] [--resume] [--json] ..."
    text = "a run, from `promote` or by hand; without it and without settings: DN + DyLU against sync DiLoCo, small"
    parser.add_argument("file", nargs="?", metavar="RUN.toml", help=text)
    text = "no cluster but plain training with N times the batch, the paper's baseline (N: the workers, if left out)"
    parser.add_argument("--finetune", nargs="?", type=int, const=WORKERS, metavar="N", help=text)
    add_training(parser, preset, "results/lm")


def add_training(parser: argparse.ArgumentParser, preset: Run, out: str) -> None:
    """What every command has that trains."""
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
    text = f"for checkpoints, record and figure (default {out})"
    parser.add_argument("--out", default=out, metavar="DIR", help=text)
    text = "events of every visit and evaluation; the axis 'relative' is simulated time (extra `tensorboard`)"
    parser.add_argument("--tensorboard", metavar="DIR", help=text)
    text = "the same for Weights & Biases, offline unless WANDB_MODE says otherwise (extra `wandb`)"
    parser.add_argument("--wandb", metavar="PROJECT", help=text)
    add_store(parser)
    add_engine(parser)
    add_settings(parser, preset, CHOICES)


def run(arguments: argparse.Namespace) -> int:
    if arguments.file is None and arguments.finetune is None and not flags(arguments):
        return train_all(default_arms(), {}, arguments)
    base, note = chosen(arguments)
    if arguments.finetune is not None:
        base = finetuning(base, base.cluster.workers if arguments.finetune is WORKERS else arguments.finetune)
    return train_all({"run": base}, note, arguments)


def chosen(arguments: argparse.Namespace) -> tuple[Run, dict[str, Any]]:
    """The run that the file and the flags ask for, and the file's note of where it comes from.

    Raises:
        ConfigError: it is no language-model run.
    """
    base, note = (default_arms()["dn_dylu"], {}) if arguments.file is None else read_run(arguments.file)
    try:
        return overlay_text(base, flags(arguments), choices=CHOICES), note
    except ConfigError as error:
        raise told_of_file(error, arguments, {}) from None


def train_all(runs: dict[str, Run], note: dict[str, Any], arguments: argparse.Namespace) -> int:
    """Train runs one after another, each in a folder of its name, and say what came of them."""
    seed = check_seed(arguments.seed)
    if (engine := engine_of(arguments)) is not None:
        return train_real(runs, seed, engine, arguments)
    for name in ("lanes", "keep"):
        if not 1 <= (value := getattr(arguments, name)) < LARGEST:
            raise ConfigError(name, f"must be >= 1 and < {LARGEST}, got {value}")
    if not arguments.every >= 0:
        raise ConfigError("every", f"must be >= 0, got {arguments.every}")
    from toybench.runtime import configure

    configure()
    from lm.loop import NotFinite, Stopped
    from lm.trackers import Wanted
    from toybench.records import writable_folder

    wanted = Wanted(arguments.tensorboard, arguments.wandb)
    wanted.check()
    for one in runs.values():
        placed_as(one, arguments)
    out = writable_folder(arguments.out)
    found: dict[str, Made] = {}
    for name in runs:
        if not arguments.resume and any((out / name / CHECKPOINTS).glob("*")):
            said = f"{str(out / name)!r} holds checkpoints of an earlier run"
            raise ConfigError("out", f"{said}; --resume goes on with it, another --out leaves it")
    try:
        with terminated() as stop:
            for name, one in runs.items():
                found[name] = train(name, one, seed, note, wanted, arguments, stop)
    except Stopped as stopped:
        print(f"{stopped}; the same command with --resume goes on", file=sys.stderr)
        return INTERRUPTED if INTERRUPT.asked else TERMINATED
    except NotFinite as error:
        print(f"toybench: error: {error}", file=sys.stderr)
        return 1
    return say(found, out, arguments.json)


# What the simulated cluster alone can do, by its flag and what it is if left out
SIMULATED = {"lanes": 1, "mesh": None, "snapshots": "device", "snapshot_dtype": "float32"} | dict.fromkeys(
    ("finetune", "tensorboard", "wandb")
)


def train_real(runs: dict[str, Run], seed: int, engine: Engine, arguments: argparse.Namespace) -> int:
    """Train runs one after another by real workers, each in a folder of its name."""
    for name, default in SIMULATED.items():
        if getattr(arguments, name, default) != default:
            raise ConfigError(name, "is for the simulated cluster; leave out --engine")
    from toybench.runtime import configure

    configure()
    from lm.assemble import placed
    from lm.work import check_parts, text_recipe

    for one in runs.values():
        placed(one)  # what does not fit is told of now
        check_parts(one, max(1, int(engine.gpus_per_worker)))
    recipes = {name: text_recipe(one, seed, arguments.init) for name, one in runs.items()}
    return carry_out_all(recipes, engine, arguments)


def placed_as(run: Run, arguments: argparse.Namespace) -> Placement:
    """How the flags lay a run out on this machine."""
    from lm.assemble import placed

    return placed(run, arguments.lanes, arguments.mesh, arguments.snapshots, arguments.snapshot_dtype)


class Made(NamedTuple):
    """What came of a run."""

    curves: Curves
    record: dict[str, Any]  # as its folder has it


def train(
    name: str,
    run: Run,
    seed: int,
    note: dict[str, Any],
    wanted: Wanted,
    arguments: argparse.Namespace,
    stop: Callable[[], bool],
) -> Made:
    """One run to its end, with its record in the store and in its folder."""
    from lm.assemble import assemble, corpus_of
    from lm.checkpoint import Checkpoints
    from lm.display import display
    from lm.lock import alone
    from lm.loop import carry_out
    from lm.maker import maker_of
    from lm.pace import peak_of
    from lm.runs import keep_data
    from lm.start import read_start
    from lm.task import LanguageTask
    from lm.trackers import tracking
    from toybench.loading import dump_run
    from toybench.records import commit, writable_folder, write_json
    from toybench.store import Store

    corpus = corpus_of(run)
    task = LanguageTask(run.task, corpus)
    start, init = (None, None) if arguments.init is None else read_start(arguments.init, task)
    training = assemble(corpus, run, seed, arguments.lanes, start, placed_as(run, arguments))
    folder = writable_folder(Path(arguments.out) / name)
    Store(arguments.store).close()  # one that cannot be written is told of now
    peak = peak_of(run.task.compute, training.placement.devices)
    settings = dump_run(run, CHOICES) | {"seed": seed}
    with (
        alone(folder),
        closing(Checkpoints(folder / CHECKPOINTS, training, arguments.keep)) as checkpoints,
        tracking(wanted, name, settings, folder, peak) as track,
        display(name, peak) as show,
    ):
        keep_data(folder, corpus, resumed=arguments.resume)

        def report(progress: Progress) -> None:
            show(progress)
            track(progress)

        done = carry_out(
            training, checkpoints, resume=arguments.resume, every=arguments.every, report=report, stop=stop
        )
    with Store(arguments.store) as store:
        store.add([done.curves], maker_of(training), seconds=done.seconds, commit=commit())
    record = document(done.curves, done.seconds, {"promoted": note, "init": init})
    write_json(folder / "run.json", record)
    return Made(done.curves, record)


def document(curves: Curves, seconds: float, notes: dict[str, Any]) -> dict[str, Any]:
    """A run as JSON; of the notes those that say something."""
    from toybench.loading import dump_run
    from toybench.records import provenance

    columns = {"local_steps": curves.local_steps[0], "time": curves.time[0]}
    columns |= {name: values[0] for name, values in curves.metrics.items()}
    found = {"run": dump_run(curves.run), "seed": curves.seeds[0], "seconds": seconds, "curves": columns}
    return found | {name: told for name, told in notes.items() if told} | {"provenance": provenance()}


def say(found: dict[str, Made], out: Path, as_json: bool) -> int:
    """What came of the runs, and a figure of them."""
    from toybench.plots.curves import draw, numbers
    from toybench.plots.style import SIZES as WIDTHS
    from toybench.plots.style import rendered, styled
    from toybench.records import write_whole

    path = out / "lm.png"
    with styled(WIDTHS["screen"]):
        write_whole(path, rendered(draw(numbers([made.curves for made in found.values()]), WIDTHS["screen"]), path))
    if as_json:
        print_json({name: made.record for name, made in found.items()})
        return 0
    for name, (curves, _) in found.items():
        loss, perplexity = curves.metrics["loss"][0], curves.metrics["perplexity"][0]
        said = f"held-out loss {loss[0]:.4f} → {loss[-1]:.4f} (perplexity {perplexity[-1]:.2f})"
        print(
            f"{name:12} {said} after {curves.local_steps[0, -1]:,} local steps, {curves.time[0, -1]:,.0f} simulated s"
        )
    print(path, file=sys.stderr)
    return 0
