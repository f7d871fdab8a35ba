"""Do the paper's tables come out alike on a small language model: heterogeneity, workers, model sizes, DN's c?

Command:  python -m experiments.tables experiments/c4_visits.toml experiments/c4_wider.toml --init DIR DIR
Duration: some five hours of one core. Commands with another `--only` and another `--out` may share the store; the whole
          one then reads it. Use the same number of CPU devices throughout: stored runs are keyed by it.
Paper:    tables of final C4 perplexity (section 5 of its text, and its appendix on c): async DiLoCo behind DiLoCo
          throughout, DN + DyLU level with it, finetuning with k times the batch behind both but at k = 16.
Found:    30 statements: 15 agree, 8 disagree, 7 are undecided. DN + DyLU is DiLoCo with equal speeds (async DiLoCo is
          ahead of both), ahead of it with very unequal ones and both model sizes, behind it with moderately unequal
          ones; c = 0.1 costs at k = 8 and 16. Finetuning is far ahead.

Every run has as many tokens, so that with k workers each makes 4/k of the steps; the paper keeps a worker's steps.
What finetuning gains from more workers there is tokens, so it is not compared between columns here. Outer rates are
tuned for each cell; finetuning has none, and the inner rate of its file, which was chosen for synchronous DiLoCo. What
is on the speeds "very" at k = 4 shares its first seeds with `records/bridge`, and is no evidence beside it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.tables_cells import PAPER, STALE, WORKERS, Lab, Table, at, size, tables
from experiments.tables_report import beside, document, page
from lm.config import parameters
from lm.promote import read_run
from toybench.arguments import Parser, read_seeds
from toybench.compare import read_contest, sides
from toybench.config import ConfigError, Run
from toybench.curves import Curves
from toybench.leaderboard import Seeds
from toybench.records import plain, writable_folder, write_json, write_whole

BOARD = Path(__file__).parent / "records" / "leaderboard.json"


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "runs", nargs="+", metavar="RUN.toml", help="the model of all tables, then larger ones for the sizes"
    )
    parser.add_argument("--init", nargs="+", metavar="DIR", help="what each starts from: the folder of a run")
    parser.add_argument("--rounds", type=int, help="of four workers (default: the file's)")
    parser.add_argument("--only", nargs="+", choices=[*PAPER], default=[*PAPER], metavar="TABLE")
    parser.add_argument("--tuning-seeds", nargs="+", default=["1000:1001"], metavar="N")
    parser.add_argument("--seeds", nargs="+", default=["200:206"], metavar="N", help="reported (default 200:206)")
    parser.add_argument("--store", default="results/runs.sqlite", metavar="FILE", help="of the runs")
    text = "the toy's leaderboard, set beside it (default: experiments/records/leaderboard.json)"
    parser.add_argument("--toy", default=str(BOARD), metavar="FILE", help=text)
    parser.add_argument("--out", type=Path, default=Path("results/tables"), metavar="DIR")
    try:
        carry_out(parser.parse_args())
    except ConfigError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None


def carry_out(options: argparse.Namespace) -> None:
    """Train what is not in the store; write the record.

    Raises:
        ConfigError: runs that cannot be, models not in the order of their sizes, a start of another, or too few seeds.
    """
    from toybench.runtime import configure

    configure()
    from lm.assemble import corpus_of
    from lm.contest import Contest
    from lm.start import read_start
    from lm.task import LanguageTask
    from toybench.store import Store

    seeds = Seeds(read_seeds(options.tuning_seeds), (), read_seeds(options.seeds))
    if set(seeds.tuning) & set(seeds.reported) or len(seeds.reported) < 2:
        raise ConfigError("seeds", "must be two or more, and none that rates are tuned on")
    bases = [read_run(path)[0] for path in options.runs]
    if options.rounds is not None:
        bases = [replace(base, budget=replace(base.budget, rounds=options.rounds)) for base in bases]
    ordered = sorted(bases, key=lambda base: parameters(base.task))  # type: ignore[arg-type]
    if bases != ordered or len({*map(size, bases)}) < len(bases) or len(bases) > len(PAPER["sizes"][STALE]):
        raise ConfigError("runs", "must be one to three models, each larger than the one before")
    if "workers" in options.only:
        for workers in WORKERS:
            at(bases[0], workers, "very")  # refused now, not after hours
    if options.init is not None and len(options.init) != len(bases):
        raise ConfigError("init", f"must name as many folders as runs, {len(bases)}, got {len(options.init)}")
    folders = options.init or [None] * len(bases)
    starts = [
        (None, {}) if folder is None else read_start(folder, LanguageTask(base.task, corpus_of(base)))
        for base, folder in zip(bases, folders)
    ]
    boards, out = sides(read_contest(options.toy), "toy"), writable_folder(options.out)
    with Store(options.store) as store:
        contests = [Contest(store, None, start=params) for params, _ in starts]
        lab = Lab(lambda model: told(contests[model]), seeds)
        found: dict[str, Table] = {}
        for name, table in tables(lab, bases, options.only):
            found[name] = table
            toy, digests = beside(found, boards), [start.get("parameters") for _, start in starts]
            said = page(found, lab, bases, options.init is not None, toy)
            write_json(out / "tables.json", plain(document(found, lab, bases, digests, toy)))
            write_whole(out / "tables.md", said)
    print(said)


def told(contest: Any) -> Callable[[Sequence[Run], Sequence[int]], list[Curves]]:
    """`Contest.measure`, with a line for every run."""

    def measure(runs: Sequence[Run], seeds: Sequence[int]) -> list[Curves]:
        found = contest.measure(runs, seeds)
        for one, curves in zip(runs, found):
            rate = one.outer.lr  # type: ignore[attr-defined] every method has one
            means = f"{curves.final_loss.mean():.4f} on {len(seeds)} seeds"
            said = f"{one.cluster.workers} workers, {type(one.outer).__name__}, rate {rate:g}: {means}"
            print(said, file=sys.stderr, flush=True)
        return found

    return measure


if __name__ == "__main__":
    main()
