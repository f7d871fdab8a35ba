"""Every figure and table of the paper's study, redone on the toy at each method's own best rate, into one report.

Command:  python -m experiments.paper [--quick] [--only NAME ...]
Duration: about 25 minutes on two cores, and twenty more of a core for the ablations of momentum and moments; without
          these two --quick took two and a half, or five beside other work.
Writes:   report.md, report.json and a figure a question into experiments/records/paper; into results/paper (or --out)
          where it is not the whole report; where that folder has a report already, the answers to --only take their
          places in it. Runs go to a store and are not made twice: stopped, it goes on from there.

Rates are tuned on seeds 1000-1003, eight to the octave over three octaves around the best of eleven an octave apart;
the best five are decided on seeds 1004-1011 too, and the winner is reported on seeds 200-211. --quick asks the same
questions of eight rates an octave apart (and wider at an edge) on two tuning seeds, without a runoff, and reports four
seeds; of ladders that are no statements of the paper's it leaves out every second rung (`Lab.some`). To look at, not to
quote; its runs go to a store of their own.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.paper.lab import QUICK_RATES, Answer, Lab, quick_calls
from experiments.paper.report import document, figure, markdown
from toybench.arguments import Parser
from toybench.config import ConfigError, Run
from toybench.curves import Curves
from toybench.leaderboard import Seeds
from toybench.presets import load_preset
from toybench.records import plain, read_json, writable_folder, write_json, write_whole
from toybench.runtime import configure
from toybench.store import Store
from toybench.sweep import measure

QUESTIONS = (
    *(
        "figure_02",
        "figure_05",
        "figure_06",
        "figure_07",
        "figure_08",
        "figure_09",
        "figure_10",
        "figure_11",
        "figure_12",
    ),
    *("ablation_parts", "ablation_shards", "ablation_period", "ablation_rate", "ablation_momentum", "ablation_moments"),
)
HEAD = """\
Preset `{preset}`, every method at its own best outer rate unless it says otherwise: tuned on seeds {tuning}, the best
five rates decided on {runoff} too, reported on {reported}. """
QUICK_HEAD = """\
**A quick look, not to be quoted:** `--quick`, so that verdicts may stay undecided or differ from the whole report's.
Preset `{preset}`, every method at its own best of {rates} outer rates an octave apart, and more where the best is on an
edge, unless it says otherwise: chosen on seeds {tuning}, without a runoff, reported on {reported}. Left out are every
second of SGD's inner rates, of the grace periods and of the periods N, and clusters of 1 and 2 workers. """
CAUTION = """\
Gaps are paired by seed; a verdict needs the whole 95 %
t-interval, not corrected for the number of statements. The preset was searched for eight of these statements (F1-F8 in
the README), and is no evidence for them elsewhere. Made by {commands}."""
FULL = Seeds(range(1000, 1004), range(1004, 1012), range(200, 212))
QUICK = Seeds(range(1000, 1002), (), range(200, 204))
RECORDED = {"preset", "quick", "seeds", "commands", "answers"}
RECORDS = Path(__file__).parent.parent / "records" / "paper"


def main() -> None:
    parser = Parser(description="The paper's study, redone on the toy.")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--quick", action="store_true", help="fewer rates and seeds, no runoff")
    parser.add_argument(
        "--only", nargs="+", choices=QUESTIONS, default=QUESTIONS, metavar="NAME", help=", ".join(QUESTIONS)
    )
    parser.add_argument("--out", type=Path, help="a folder")
    parser.add_argument("--store", type=Path, help="results/paper.sqlite, or paper-quick.sqlite, if left out")
    arguments = parser.parse_args()
    configure()
    whole = not arguments.quick and arguments.only == QUESTIONS and arguments.preset == "default"
    began, answers, quick = time.perf_counter(), {}, arguments.quick
    try:
        base = load_preset(arguments.preset)
        out = writable_folder(arguments.out or (RECORDS if whole else Path("results/paper")))
        before = {} if arguments.only == QUESTIONS else earlier(out, arguments.preset, quick)
    except ConfigError as error:
        parser.error(str(error))
    with Store(arguments.store or Path("results", "paper-quick.sqlite" if quick else "paper.sqlite")) as store:

        def measured(runs: Sequence[Run], seeds: Sequence[int]) -> list[Curves]:
            return measure(runs, seeds, store, calls=quick_calls(runs, seeds) if quick else None)

        lab = Lab(base, QUICK if quick else FULL, measured, quick)
        for name in arguments.only:
            answers[name] = importlib.import_module(f"experiments.paper.{name}").answer(lab)
            verdicts = ", ".join(c.verdict for c in answers[name].claims)
            print(f"{name:18} {time.perf_counter() - began:6.0f} s  {verdicts}", flush=True)
    save(answers, out, arguments.preset, quick, before)
    if kept := before and [name for name in before["answers"] if name not in answers]:
        print(f"{out}: {len(kept)} earlier answers kept")


def earlier(out: Path, preset: str, quick: bool) -> dict[str, Any]:
    """The record in a folder, if it has one.

    Raises:
        ConfigError: it is of another preset or other seeds, or one is quick and the other not; or it is no such record.
    """
    if not (out / "report.json").exists():
        return {}
    record = read_json(out / "report.json")
    if not isinstance(record, dict) or not record.keys() >= RECORDED:
        raise ConfigError("out", f"{str(out)!r} has no report of this version: name another folder")
    if (kind := (record["preset"], record["quick"])) != (preset, quick):
        said = f"{str(out)!r} has a report of preset {kind[0]}, {'quick' if kind[1] else 'whole'}: name another folder"
        raise ConfigError("out", said)
    if record["seeds"] != plain(seeds_of(quick)):
        raise ConfigError("out", f"{str(out)!r} has a report of other seeds: name another folder")
    return record


def seeds_of(quick: bool) -> dict[str, Any]:
    """Which seeds decide what, as the record says it."""
    return {name: list(own) for name, own in (QUICK if quick else FULL)._asdict().items()}


def command(asked: Iterable[str], out: Path, preset: str, quick: bool) -> str:
    """What asks these questions again, wherever runs and results were put."""
    words = ["python -m experiments.paper"] + ["--quick"] * quick + [f"--preset {preset}"] * (preset != "default")
    if (names := tuple(asked)) != QUESTIONS:
        words += ["--only", *names] + ["--out experiments/records/paper"] * (out.resolve() == RECORDS.resolve())
    return " ".join(words)


def save(
    answers: Mapping[str, Answer],
    out: Path,
    preset: str,
    quick: bool,
    before: Mapping[str, Any] | None = None,
) -> None:
    """The report, its figures and its record; with the answers of an earlier record to what was not asked now."""
    before = before or {"answers": {}, "commands": []}
    commands = [*dict.fromkeys([*before["commands"], command(answers, out, preset, quick)])]
    told = plain({**before["answers"], **document(answers)})
    told = {name: told[name] for name in QUESTIONS if name in told}
    seeds, head = seeds_of(quick), QUICK_HEAD if quick else HEAD
    spans = {name: f"{own[0]}-{own[-1]}" for name, own in seeds.items() if own}
    said = ", then ".join(f"`{one}`" for one in commands)
    head = (head + CAUTION).format(preset=preset, commands=said, rates=len(QUICK_RATES), **spans)
    for name, answer in answers.items():
        write_whole(out / f"{name}.png", figure(answer))
    write_whole(out / "report.md", markdown(told, head))
    record = {"preset": preset, "quick": quick, "seeds": seeds, "commands": commands, "answers": told}
    write_json(out / "report.json", record)


if __name__ == "__main__":
    main()
