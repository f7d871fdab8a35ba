"""The confirmation campaign: outer methods on a language model, each at its best rate, as `lm leaderboard` does.

First the speed of a wave of visits at some batches; from it and the time given the length of all runs, written down
before the first; one pretrained checkpoint; then method by method: rates on one seed, the best on two others. Finished
runs are kept in ``PART.sqlite``, and ``PART.leaderboard.json`` is written anew after every method.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from experiments.accelerator.bench import Bench, OutOfTime
from experiments.accelerator.campaign import (
    BATCHES,
    CAMPAIGNS,
    LOCAL_STEPS,
    PRETRAINING,
    REPORTED,
    START,
    TUNING,
    Campaign,
    base_run,
    model_of,
    planned,
    pretraining,
    shrunken,
    who_of,
)
from experiments.accelerator.packing import unpacked
from experiments.accelerator.starts import folder_of, read_start, rounded, save_start
from lm.config import LanguageModel
from toybench.config import ConfigError, Run
from toybench.leaderboard import Contestant, Entry, Seeds, enter, judge
from toybench.records import plain, provenance, writable_folder, write_json
from toybench.tuning import Make, Measure, Tuning, climb

SEEDS = Seeds(TUNING, (), REPORTED)


def add(parser: argparse.ArgumentParser) -> None:
    text = "packed tokens, of `prepare` (default: Python's standard library, as bytes; a test's data)"
    parser.add_argument("--tokens", type=Path, metavar="FILE", help=text)
    text = "that all calls of this part together may take; decides how long runs are (default: the part's own)"
    parser.add_argument("--campaign-seconds", type=float, metavar="S", help=text)
    text = f"of a visit (default {LOCAL_STEPS}; the toy's board has 60, and with as many DyLU divides alike)"
    parser.add_argument("--local-steps", type=int, default=LOCAL_STEPS, metavar="H", help=text)


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """What decides the numbers, for the document to hold."""
    campaign = CAMPAIGNS[options.part]
    seconds = campaign.seconds if options.campaign_seconds is None else options.campaign_seconds
    if not seconds > 0:
        raise ConfigError("campaign-seconds", f"must be > 0, got {seconds:g}")
    if options.tokens is None and not options.small:
        raise ConfigError("tokens", "must name a file that `prepare` packed; without one there is only --small")
    if not 1 <= options.local_steps <= 10_000:
        raise ConfigError("local-steps", f"must be from 1 to 10000, got {options.local_steps}")
    steps = 3 if options.small else options.local_steps
    return {
        "campaign_seconds": seconds,
        "local_steps": steps,
        "tokens": None if options.tokens is None else options.tokens.name,
    }


def run(bench: Bench, options: argparse.Namespace) -> None:
    """Speed, plan, checkpoint, methods."""
    from toybench.store import Store

    campaign = CAMPAIGNS[bench.part]
    campaign = shrunken(campaign) if bench.small else campaign
    data = None if options.tokens is None else str(unpacked(options.tokens, bench.scratch))
    model = model_of(campaign, data, bench.small)
    plan = bench.unit("plan", lambda: _plan(bench, campaign, model))
    model = replace(model, batch=plan["batch"])
    begun = any(started for _, started, _ in campaign.boards.values())
    start = checkpoint(bench, campaign, model, plan) if begun else None
    with Store(str(bench.out / f"{bench.part}.sqlite")) as store:
        for board, (workers, started, _) in campaign.boards.items():
            base = base_run(campaign, model, workers, plan["rounds"], bench.settings["local_steps"])
            compete(bench, store, campaign, board, base, start if started else None, plan)


def _plan(bench: Bench, campaign: Campaign, model: LanguageModel) -> dict[str, Any]:
    """See `campaign.planned`; a test's has no time to measure anything."""
    seconds, steps = bench.settings["campaign_seconds"], bench.settings["local_steps"]
    if bench.small:
        return {"batch": model.batch, "rounds": 2, "pretraining_rounds": 1, "run_seconds": 0.1, "seconds": seconds}
    pace = {}
    for batch in BATCHES:
        unit = bench.tried(f"pace {batch}", lambda b=batch: _paced(campaign, replace(model, batch=b)), 30)
        if "tokens_per_second" in unit:
            pace[batch] = unit["tokens_per_second"]
    if not pace:
        raise ConfigError("memory", f"no batch of {', '.join(map(str, BATCHES))} sequences fits this device")
    return planned(campaign, pace, seconds, model.sequence, steps)


def _paced(campaign: Campaign, model: LanguageModel) -> dict[str, Any]:
    """Tokens a second of a wave of visits, as `lm.benchmark` measures."""
    from lm.benchmark import measure

    return asdict(measure(campaign.size, model, campaign.lanes, 10, 1))


def checkpoint(bench: Bench, campaign: Campaign, model: LanguageModel, plan: Mapping[str, Any]) -> Any:
    """The parameters that runs start from: those kept in the folder, or pretrained now and kept there.

    Raises:
        ConfigError: runs in the store began from parameters that are no longer there.
    """
    import jax

    from lm.assemble import assemble, corpus_of, placed
    from lm.loop import carry_out
    from lm.maker import digest
    from lm.task import LanguageTask

    name = campaign.starts or bench.part
    corpus = corpus_of(base_run(campaign, model, 4, 1, bench.settings["local_steps"]))
    like = jax.eval_shape(LanguageTask(model, corpus).init, jax.random.key(0))
    folder = writable_folder(folder_of(like, bench.out, bench.scratch))
    if (found := read_start(folder, name, like)) is not None:
        params, note = found
        bench.unit("start", lambda: note | {"digest": digest(params)})
        return params
    if "start" in bench.units:
        said = f"runs there began from parameters that {folder / name}.start.json kept, which is gone"
        raise ConfigError("out", f"{said}; name another folder")
    if campaign.starts is not None and not bench.small:
        raise ConfigError("out", f"holds no {name}.start.json; run {name} into it first")
    if bench.left < plan["seconds"] * PRETRAINING and not bench.small:
        raise OutOfTime("pretraining")
    own = pretraining(base_run(campaign, model, 4, 1, bench.settings["local_steps"]), plan["pretraining_rounds"])
    began = time.perf_counter()
    done = carry_out(assemble(corpus, own, 0, placement=placed(own)))
    params = rounded(done.state.server.params)
    tokens = int(done.curves.local_steps[0, -1]) * own.task.batch * own.task.sequence
    told = {"loss": done.curves.metrics["loss"][0].tolist(), "tokens": tokens, "size": campaign.size}
    save_start(folder, name, params, told)
    bench.unit("start", lambda: told | {"digest": digest(params), "pretraining_seconds": time.perf_counter() - began})
    return params


def measurer(bench: Bench, contest: Any, expected: float) -> Callable[[Sequence[Run], Sequence[int]], list]:
    """`Contest.measure` that begins no run which would not end in time.

    Raises:
        OutOfTime: before such a run, and within one that has taken a minute more than all of the time.
    """
    from lm.loop import Stopped

    spent = [expected]

    def measure(runs: Sequence[Run], seeds: Sequence[int]) -> list:
        try:
            for one in runs:
                for seed in contest.lacking(one, seeds):
                    if bench.left <= 1.3 * spent[-1]:
                        raise OutOfTime(f"{one.outer.lr:g} on seed {seed}")  # type: ignore[attr-defined]
                    began = time.monotonic()
                    contest.measure([one], [seed], stop=lambda: bench.left < -60)
                    spent.append(time.monotonic() - began)
            return contest.measure(runs, seeds)
        except Stopped:
            raise OutOfTime("the end of a run") from None

    return measure


def compete(
    bench: Bench,
    store: Any,
    campaign: Campaign,
    board: str,
    base: Run,
    start: Any,
    plan: Mapping[str, Any],
) -> None:
    """A board: method by method; what is finished is judged after each."""
    from lm.contest import Contest
    from lm.loop import as_record

    stored, entries = as_record(base), {}
    measure = measurer(bench, Contest(store, None, campaign.lanes, start), plan["run_seconds"])

    def search(make: Make, who: Contestant, seeds: Seeds, measure: Measure) -> Tuning:
        return climb(make, START, seeds.tuning, measure, campaign.halves)

    for name, who in who_of(campaign.boards[board][2]).items():
        try:
            entries[name] = enter(stored, name, who, SEEDS, measure, search)
        except OutOfTime as stopped:
            raise OutOfTime(f"{board}, {name}, {stopped}") from None
        if len(entries) > 1:
            keep_board(bench, board, base, entries, plan)


def keep_board(bench: Bench, board: str, base: Run, entries: Mapping[str, Entry], plan: Mapping[str, Any]) -> None:
    """Write the leaderboard with this board as it is now, as `toybench compare` and `transfer` read it."""
    from lm.assemble import corpus_of
    from lm.commands.leaderboard import model_of as told_model
    from toybench.records import read_json

    path = bench.out / f"{bench.part}.leaderboard.json"
    document = read_json(path) if path.exists() else {"clusters": {}, "control": {}}
    document["clusters"][board] = plain(judge(entries))
    document["control"][board] = None
    document |= {
        "preset": bench.part,
        "model": told_model(base, corpus_of(base)),
        "seeds": {name: list(own) for name, own in SEEDS._asdict().items()},
        "search": f"an octave apart from {START:g} to where both neighbours are worse, then half of one",
        "tokens_per_run": plan.get("tokens"),
        "seconds": bench.spent,
        "provenance": provenance(),
    }
    write_json(path, plain(document))
    losses = {name: float(entry.curves.final_loss.mean()) for name, entry in entries.items()}
    bench.keep(f"board {board}", {"losses": losses})


def rows(units: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """As a table: the plan, then every board's methods by final loss."""
    found = []
    if "plan" in units:
        plan = units["plan"]
        said = f"{plan['batch']} sequences, {plan['rounds']} rounds"
        tokens = f", {plan['tokens'] / 1e6:.1f} M tokens" if "tokens" in plan else ""
        found.append({"what": f"a run: {said}{tokens}", "held-out loss": ""})
    if "start" in units:
        found.append({"what": "pretrained", "held-out loss": f"{units['start']['loss'][-1]:.4f}"})
    for name, unit in units.items():
        if name.startswith("board "):
            order = sorted(unit["losses"].items(), key=lambda item: item[1])
            found += [
                {"what": f"{name.removeprefix('board ')}: {method}", "held-out loss": f"{loss:.4f}"}
                for method, loss in order
            ]
    return found
