"""The transfer study as Markdown and as a figure."""

from __future__ import annotations

import io
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from experiments.accelerator.bench import aligned
from experiments.accelerator.orders import SPLITS, Halves, Replaced, Rule, Yardstick, searched_for
from experiments.accelerator.transfer import sentence
from toybench.compare import Agreement, rank_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

IN, OUT, GREY = "#D55E00", "#0072B2", "#777777"


def markdown(
    studies: Sequence[Mapping[str, Any]],
    sources: Mapping[str, Sequence[str]],
    methods: Sequence[str],
    between: Sequence[Yardstick],
) -> str:
    """A section for each board of a language model, and one for how well they predict each other."""
    options = " ".join(f"--{name} {shlex.join(words)}" for name, words in sources.items())
    command = f"python -m experiments.accelerator transfer {options}"
    lines = ["# Does the toy's order of methods predict a language model's?", "", f"Made by `{command}`.", ""]
    for found in studies:
        lines += [f"## {found['title']}, {found['cluster']}", "", f"**Verdict.** {sentence(found)}", ""]
        lines += [
            "The interval: bootstrap over methods, as if they were drawn independently, and over the seeds of each "
            "side. Methods outside F1-F8: those for whose order the toy's preset was not searched. The toy's board is "
            "that of the same cluster, "
            + ("with settings changed." if ", " in found["board"] else "fixed before any language model ran."),
            "",
            *([found["searched_apart"], ""] if found["searched_apart"] else []),
            "### Description, no evidence",
            "",
            f"Boards of the toy against this language model, {len(found['all'])} looks at one order, not corrected:",
            "",
            aligned([_board(o, a) for o, a in zip(found["outside"], found["all"])]),
            "",
            _halves(found["halves"], found["board"]),
            "",
            *([_rule(*found["rule"]), ""] if all(found["rule"]) else []),
            *(line for one in found["replaced"] for line in (_replaced(one), "")),
            f"Gaps to sync Nesterov (per cent, 95 % t-interval, {found['seeds'][0]} and {found['seeds'][1]} seeds) and "
            "ranks without it; * among F1-F8:",
            "",
            aligned([_method(row, found["seeds"]) for row in found["rows"]]),
            "",
        ]
    if between:
        outside = len(methods) - sum(name in searched_for() for name in methods)
        lines += [
            "## What a tau is to be held against",
            "",
            f"How well an order predicts another, on the {len(methods)} methods that all boards have. Two language "
            "models, or two clusters of the toy, do not agree to 1 either. Description, no evidence.",
            "",
            aligned([_yardstick(y, outside, len(methods)) for y in between]),
            "",
        ]
    return "\n".join(lines)


def _told(a: Agreement) -> str:
    return f"{a.tau:+.2f} [{a.low:+.2f}, {a.high:+.2f}], p {a.chance:.2g}"


def _board(outside: Any, every: Any) -> dict[str, str]:
    return {
        "board of the toy": outside.board,
        f"outside F1-F8 ({len(outside.methods)})": _told(outside.agreement),
        f"all ({len(every.methods)})": _told(every.agreement),
    }


def _yardstick(found: Yardstick, outside: int, every: int) -> dict[str, str]:
    return {
        "one order": found.first,
        "the other": found.second,
        f"outside F1-F8 ({outside})": _told(found.outside),
        f"all ({every})": _told(found.every),
    }


def _halves(found: Halves | None, own: str) -> str:
    if found is None:
        return "Too few methods outside F1-F8 to choose a board on half of them."
    chosen = ", ".join(f"{name} {share:.0%}" for name, share in sorted(found.chosen.items(), key=lambda i: -i[1]))
    return (
        f"Which of them predicts best, chosen on half of the methods outside F1-F8 and judged on the other half, over "
        f"{SPLITS:,} random splits: mean tau {found.judged:+.2f} of the chosen on methods that did not choose it (95 % "
        f"of the splits within {found.spread[0]:+.2f} and {found.spread[1]:+.2f}, p = {found.chance:.2g} against "
        f"random orders chosen and judged alike), {found.fixed:+.2f} of {own} without a choice. Chosen: {chosen}."
    )


def _rule(outside: Rule, every: Rule) -> str:
    said = [
        f"on {where} ({r.methods}) it orders {r.ordered} pairs, of which the language model has net {r.by_rule:+d} its "
        f"way and {r.by_toy:+d} the toy's; of the other {r.others} net {r.others_by_toy:+d} the toy's "
        f"(p = {r.chance:.2g})"
        for where, r in (("those outside F1-F8", outside), ("all", every))
    ]
    return (
        "What the toy adds to a rule that knows nothing of it, methods with DyLU before those without, thought of "
        f"afterwards: {'; '.join(said)}. The p-value is two-sided, with the language model's losses shuffled among "
        "methods that the rule does not tell apart."
    )


def _replaced(found: Replaced) -> str:
    gaps = ("{} {:+.1f} [{:+.1f}, {:+.1f}]".format(name, *gap) for name, gap in zip(found.methods, found.gaps))
    left = f" Not in the first contest, and left out: {', '.join(found.left_out)}." if found.left_out else ""
    still = f" {found.searched_apart}" if found.searched_apart else ""
    return (
        f"With other settings on the language model, looked at afterwards, these methods' gaps are {', '.join(gaps)} "
        f"%, and tau is {_told(found.outside.agreement)} on the {len(found.outside.methods)} outside F1-F8, "
        f"{_told(found.every.agreement)} on all {len(found.every.methods)}.{left}{still}"
    )


def _method(row: Mapping[str, Any], seeds: Sequence[int]) -> dict[str, str]:
    gaps = ["{:+.1f} [{:+.1f}, {:+.1f}]".format(*gap) for gap in row["gap"]]
    ranks = rank_words(row["rank"], seeds)
    name = row["name"] + ("*" if row["searched_for"] else "")
    return {
        "method": name,
        "gap, toy": gaps[0],
        "gap, language model": gaps[1],
        "rank, toy": ranks[0],
        "rank, language model": ranks[1],
    }


def figure(found: Mapping[str, Any]) -> bytes:
    """Gap against gap, methods of F1-F8 apart; and tau of every board of the toy, the fixed one marked."""
    from toybench.plots.style import SIZES, panels, styled

    size = SIZES["screen"]
    with styled(size):
        drawn, (gaps, boards) = panels(size, 2, [4.2, 4.2])
        _gaps(gaps, found)
        _boards(boards, found)
        verdict = found["verdict"].agreement
        said = f"Outside F1-F8: Kendall's tau {verdict.tau:+.2f} [{verdict.low:+.2f}, {verdict.high:+.2f}]"
        drawn.suptitle(f"{said}, p = {verdict.chance:.2g}; {found['title']}", fontsize=size.font)
        written = io.BytesIO()
        drawn.savefig(written, format="png", dpi=size.dpi, metadata={"Software": None})
    return written.getvalue()


def _gaps(axes: Axes, found: Mapping[str, Any]) -> None:
    for row in found["rows"]:
        (x, *xs), (y, _, _) = row["gap"]
        color = IN if row["searched_for"] else OUT
        axes.plot(xs, [y, y], color=color, linewidth=0.8, alpha=0.4)
        axes.plot(x, y, "o", color=color)
        axes.annotate(row["name"], (x, y), xytext=(4, 3), textcoords="offset points", fontsize="x-small")
    for label, color in (("outside F1-F8", OUT), ("of F1-F8", IN)):
        axes.plot([], [], "o", color=color, label=label)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set_xlabel(f"toy, {found['board']}: gap to sync Nesterov (%)")
    axes.set_ylabel("language model: gap (%)")
    axes.legend()


def _boards(axes: Axes, found: Mapping[str, Any]) -> None:
    for place, p in enumerate(reversed(found["outside"])):
        a, color = p.agreement, OUT if p.board == found["board"] else GREY
        axes.plot([a.low, a.high], [place, place], color=color)
        axes.plot(a.tau, place, "o", color=color)
    needed = found["verdict"].agreement.needed
    for value in (-needed, needed):
        axes.axvline(value, color=IN, linestyle=":", linewidth=1)
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set_yticks(range(len(found["outside"])), [p.board for p in reversed(found["outside"])])
    axes.set_xlim(-1, 1)
    axes.set_xlabel("Kendall's tau (dotted: needed for 5 %)")
