"""`python -m lm leaderboard`: outer methods on a language model, each at its own best outer rate."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm.config import CHOICES
from lm.promote import read_run
from toybench.arguments import add_settings, add_store, flags, read_seeds, told_of_file
from toybench.clusters import CLUSTERS
from toybench.config import LARGEST_FLOAT, ConfigError, Run
from toybench.console import print_json, progress_bar
from toybench.interrupt import INTERRUPT, INTERRUPTED
from toybench.loading import dump_run, nearest, overlay_text

if TYPE_CHECKING:
    from lm.data import Corpus
    from lm.loop import Progress
    from toybench.tuning import Tuning

RULES = ("cluster.barrier", "cluster.dynamic_steps", "cluster.coalesce", "cluster.quorum")
OTHER = "run"  # a cluster of no name
START = 0.2  # the outer rate in the middle of the first three that are tried


def add(parser: argparse.ArgumentParser, preset: Run) -> None:
    parser.usage = f"{parser.prog} RUN.toml [METHOD ...] [--init DIR] [--SECTION.FIELD VALUE ...] ..."
    parser.add_argument("file", metavar="RUN.toml", help="model, cluster, inner optimizer and length of every run")
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="only these, and the reference; as in `toybench`")
    text = "rates are tried on (default 1000:1001; one number is a count)"
    parser.add_argument("--tuning-seeds", nargs="+", default=["1000:1001"], metavar="N", help=text)
    parser.add_argument("--seeds", nargs="+", default=["200:202"], metavar="N", help="reported (default 200:202)")
    parser.add_argument("--init", metavar="DIR", help="start from the parameters of this run's last checkpoint")
    text = "a leaderboard: what it found best of a method beside the rate, on the cluster of the same name, is kept"
    parser.add_argument("--settings", metavar="BOARD.json", help=f"{text} (default: the published ones)")
    text = f"outer rate in the middle of the first three tried, an octave apart (default {START})"
    parser.add_argument("--start", type=float, default=START, metavar="RATE", help=text)
    parser.add_argument("--lanes", type=int, default=1, metavar="N", help="visits computed side by side (default 1)")
    parser.add_argument("--out", default="results/lm-leaderboard", metavar="DIR", help="for the table and the figure")
    add_store(parser)
    add_settings(parser, preset, CHOICES)


def run(arguments: argparse.Namespace) -> int:
    from toybench.leaderboard import REFERENCE, Seeds, check, contestants, span, with_reference

    base, note = base_of(arguments)
    seeds = Seeds(read_seeds(arguments.tuning_seeds), [], read_seeds(arguments.seeds))
    if set(seeds.tuning) & set(seeds.reported) or len(seeds.reported) < 2:
        said = f"must be two or more and no tuning seeds, got {span(seeds.reported)}; tuned on {span(seeds.tuning)}"
        raise ConfigError("seeds", said)
    if not 1 <= arguments.lanes <= base.cluster.workers:
        said = f"must be from 1 to {base.cluster.workers}, the run's workers, got {arguments.lanes}"
        raise ConfigError("lanes", said)
    if not 0 < arguments.start <= LARGEST_FLOAT:
        raise ConfigError("start", f"must be > 0 and <= {LARGEST_FLOAT}, got {arguments.start}")
    known = contestants()
    if unknown := [name for name in arguments.methods if name not in known]:
        raise ConfigError("method", f"unknown {unknown[0]!r}; {nearest(unknown[0], known)}")
    found = {} if arguments.settings is None else settings_of(arguments.settings, cluster_name(base))
    # What else a method has is not searched: here a run is dear.
    asked = arguments.methods or [*known]
    asked = with_reference({name: known[name] for name in asked})
    who = {name: one._replace(also=(found.get(name, {}),)) for name, one in asked.items()}
    from toybench.runtime import configure

    configure()
    from lm.assemble import corpus_of
    from lm.contest import Contest
    from lm.lock import alone
    from lm.loop import Stopped, as_record
    from lm.start import read_start
    from lm.task import LanguageTask
    from toybench.leaderboard import board, save
    from toybench.records import writable_folder
    from toybench.store import Store

    stored = as_record(base)
    check(stored, who)
    corpus = corpus_of(base)
    start, init = (
        (None, None) if arguments.init is None else read_start(arguments.init, LanguageTask(base.task, corpus))
    )
    out, began = writable_folder(arguments.out), time.perf_counter()
    told = {"preset": Path(arguments.file).stem, "model": model_of(base, corpus), **note}
    told |= {"search": f"an octave apart from {arguments.start:g} to where both neighbours are worse, then half of one"}
    if arguments.settings is not None:
        told["settings"] = {"sha256": sha256(Path(arguments.settings).read_bytes()).hexdigest()[:16]}
        told["search"] += f"; other settings as another leaderboard ({told['settings']['sha256']}) found them best"
        if left := [name for name in who if name not in found]:
            told["search"] += f", but for {', '.join(left)}, which it does not have"
    told |= {"init": init["parameters"]} if init is not None else {}
    document: dict[str, Any] = {}
    try:
        with (
            alone(out),
            INTERRUPT.held(),
            Store(arguments.store) as store,
            contest_bar(len(who)) as (say, report),
        ):
            contest = Contest(store, out / "unfinished", arguments.lanes, start)

            def measure(runs: Sequence[Run], seeds: Sequence[int]):
                return contest.measure(runs, seeds, report, lambda: INTERRUPT.asked)

            def search(make, one, seeds, measure) -> Tuning:
                from toybench.tuning import climb

                return climb(make, arguments.start, seeds.tuning, measure, settings=one.also[0])

            where = {cluster_name(base): ("", {})}
            for document in board(stored, where, who, seeds, measure, say, search):
                save(document | told | {"seconds": time.perf_counter() - began}, out)
    except Stopped:
        print(f"interrupted; the same command goes on from {arguments.store}", file=sys.stderr)
        return INTERRUPTED
    if arguments.json:
        print_json(document | told)
    else:
        from toybench.report import leaderboard_table, show

        show(*(leaderboard_table(name, rows) for name, rows in document["clusters"].items()))
    print(f"{out / 'leaderboard.md'}   {time.perf_counter() - began:.0f} s, gaps to {REFERENCE}", file=sys.stderr)
    return 0


def base_of(arguments: argparse.Namespace) -> tuple[Run, dict[str, Any]]:
    """The run that the file and the flags ask for, and the file's note of where it comes from."""
    words = flags(arguments)
    base, note = read_run(arguments.file)
    given = {key.replace("-", "_") for key in words}
    if refused := sorted(given & {"outer.method", "outer.lr", *RULES}):
        raise ConfigError(refused[0], "is what the methods differ by, or what is tuned")
    try:
        return overlay_text(base, words, choices=CHOICES), {"promoted": note} if note else {}
    except ConfigError as error:
        raise told_of_file(error, arguments, {}) from None


def model_of(run: Run, corpus: Corpus) -> dict[str, Any]:
    """The model's settings, its data by what they are instead of where they lie."""
    tables = dump_run(run, CHOICES)
    said = {"sha256": corpus.meta["train"]["sha256"][:16], "train_tokens": corpus.meta["train"]["tokens"]}
    return tables["task"] | {"data": said, "inner": tables["inner"], "budget": tables["budget"]}


def cluster_name(base: Run) -> str:
    """What `toybench leaderboard` calls the cluster; 'run' if it is none of its own.

    Only the workers' speeds and the partition of the data are compared: names pair a board with one of the toy. Grace,
    local steps and whatever else a cluster has may differ: of them only the run file tells, which the board names.
    """
    partition = {"iid": "iid", "domain": "clusters"}[base.task.partition]
    for name, (_, changes) in CLUSTERS.items():
        same = list(base.cluster.sec_per_step) == changes["cluster.sec_per_step"]
        if same and partition == changes.get("task.partition", "iid"):
            return name
    return OTHER


def settings_of(path: str, cluster: str) -> dict[str, dict[str, Any]]:
    """What a leaderboard found best of every method on a cluster, beside the outer rate.

    Raises:
        ConfigError: it cannot be read, has no such cluster, or settings that are none of an outer method.
    """
    from toybench.compare import RATE, read_contest, sides

    boards = sides(read_contest(path), path)
    if cluster == OTHER:
        raise ConfigError("settings", "are kept for a cluster of `toybench leaderboard`; this run's speeds are none's")
    if cluster not in boards:
        raise ConfigError("settings", f"{path!r} has no cluster {cluster!r}, only {', '.join(boards)}")
    found = {
        name: {key: value for key, value in best.items() if key != RATE}
        for name, best in boards[cluster].searched.items()
    }
    if odd := [key for best in found.values() for key in best if not key.startswith("outer.") or key == "outer.method"]:
        raise ConfigError("settings", f"{path!r} has {odd[0]!r}, which is no setting of an outer method")
    return found


@contextmanager
def contest_bar(total: int) -> Iterator[tuple[Callable[[str], None], Callable[[Run, int, Progress], None]]]:
    """A bar of contestants on a terminal, elsewhere a line for each run that ends: `say` names the one that begins."""
    names: list[str] = []
    ended: list[tuple[Run, int]] = []
    with progress_bar(total) as progress:

        def say(name: str) -> None:
            progress(name, 1 if names else 0)  # the one before is done
            names.append(name)

        def report(run: Run, seed: int, so_far: Progress) -> None:
            over = so_far.local_steps == so_far.total_steps and (run, seed) not in ended  # which is told of twice
            if over and not sys.stderr.isatty():
                ended.append((run, seed))
                loss = so_far.point.metrics["loss"]
                said = f"rate {outer_rate(run):g}, seed {seed}: held-out loss {loss:.4f}"
                print(f"{names[-1]}: {said}", file=sys.stderr, flush=True)

        yield say, report


def outer_rate(run: Run) -> float:
    """The outer learning rate of a run."""
    return run.outer.lr  # type: ignore[attr-defined] every method has one
