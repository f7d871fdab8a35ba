"""The third part of the Compare page: the paper's statements, and what the toy says of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import streamlit as st

from toybench.config import ConfigError
from toybench.views import recorded, state

FILE = "paper/report.json"
MAKER = "python -m experiments.paper"
DEFAULTS = {"paper.verdict": "all", "paper.question": "all"}
BADGES = {
    "agrees": ":green-badge[:material/check: agrees]",
    "disagrees": ":orange-badge[:material/close: disagrees]",
    "undecided": ":gray-badge[:material/question_mark: undecided]",
    "holds": ":green-badge[:material/check: holds]",
    "does not hold": ":orange-badge[:material/close: does not hold]",
}
VERDICTS = ("agrees", "disagrees", "undecided")  # on a statement of the paper
FILTERS = {"all": "all", **{verdict: verdict for verdict in VERDICTS}, "ours": "our own statements"}


class Claim(NamedTuple):
    """A statement with the number that decides it."""

    statement: str
    ours: str
    number: str
    verdict: str
    of_the_paper: bool


class Question(NamedTuple):
    """A figure or table of the paper, or an ablation."""

    title: str
    claims: list[Claim]
    rows: list[dict[str, str]]
    notes: list[str]


def body(records: Path | None) -> None:
    """Counts, filters, and every question with its statements and its figure."""
    try:
        document = recorded.document(records, FILE)
        questions = recorded.read_as(lambda: read(document), FILE, MAKER)
    except ConfigError as error:
        recorded.message(error, MAKER)
        return
    counts(questions)
    verdict, chosen = choose(questions)
    shown = 0
    for name, question in questions.items():
        claims = [claim for claim in question.claims if passes(claim, verdict)]
        if claims and chosen in ("all", name):
            shown += len(claims)
            section(question, claims, records / "paper" / f"{name}.png" if records else None)
    if not shown:
        st.info("No statement has this verdict here.", icon=":material/filter_alt:")
    whole_report(records)


def whole_report(records: Path | None) -> None:
    """How it was made, as the report itself says, and the report as a file."""
    path = records / "paper" / "report.md" if records else None
    if path is None or not path.is_file():
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    _, made, *_ = [*text.split("\n\n", 2), "", ""]
    st.caption(made)
    st.download_button("report.md", text, "report.md", "text/markdown", icon=":material/download:", on_click="ignore")


def read(document: Mapping[str, Any]) -> dict[str, Question]:
    """The questions of a report."""
    return {name: read_question(answer) for name, answer in document["answers"].items()}


def read_question(answer: Mapping[str, Any]) -> Question:
    claims = [
        Claim(one["statement"], one["ours"], interval(one["value"]), one["verdict"], bool(one["of_the_paper"]))
        for one in answer["claims"]
    ]
    rows = [
        {
            "": row["label"],
            "best settings": recorded.setting_words(row["settings"]) + (" (edge)" if row["on_edge"] else ""),
            "final loss": f"{fmean(row['loss']):.4f}",
            "gap (%)": "" if row["gap"] is None else interval(row["gap"]),
        }
        for row in answer["rows"]
    ]
    return Question(str(answer["title"]), claims, rows, [str(note) for note in answer["notes"]])


def interval(value: Sequence[float]) -> str:
    """A number with its interval."""
    form = "+.1f" if abs(value[0]) >= 10 else "+.2f"
    ends = recorded.between(value, form).replace(" ", "\u00a0")  # on one line
    return f"{recorded.said(value[0], form)} {ends}"


def passes(claim: Claim, verdict: str) -> bool:
    """Whether a filter lets a statement through."""
    if verdict == "ours":
        return not claim.of_the_paper
    return verdict == "all" or (claim.of_the_paper and claim.verdict == verdict)


def counts(questions: Mapping[str, Question]) -> None:
    """How many of the paper's statements come out how."""
    claims = [claim for question in questions.values() for claim in question.claims if claim.of_the_paper]
    places = st.columns(4)
    places[0].metric("statements of the paper", len(claims), border=True)
    for place, verdict in zip(places[1:], VERDICTS):
        place.metric(verdict, sum(claim.verdict == verdict for claim in claims), border=True)


def choose(questions: Mapping[str, Question]) -> tuple[str, str]:
    """The verdict and the question to show."""
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    with left:
        verdict = state.pick(
            st.segmented_control, "verdict", "paper.verdict", [*FILTERS], format_func=lambda name: FILTERS[name]
        )
    titles = {"all": "all questions"} | {name: question.title for name, question in questions.items()}
    with right:
        chosen = state.pick(
            st.selectbox, "question", "paper.question", [*titles], format_func=lambda name: titles[name]
        )
    return verdict, chosen


def section(question: Question, claims: Sequence[Claim], figure: Path | None) -> None:
    """A question: what the paper says, our number, the verdict, and the figure."""
    with st.container(border=True):
        st.markdown(f"#### {literal(question.title)}")
        left, right = st.columns([3, 2], gap="medium")
        left.markdown(table(claims))
        for note in question.notes:
            left.caption(literal(note))
        with left.expander("Best settings", icon=":material/tune:"):
            st.dataframe(question.rows, hide_index=True, height="content")
        if figure is not None and figure.is_file():
            right.image(str(figure), width="stretch")
        else:
            right.info("Its figure is not here.", icon=":material/image_not_supported:")


def table(claims: Sequence[Claim]) -> str:
    """Statements as a table in Markdown."""
    lines = ["| the paper says | our number | 95 % interval | verdict |", "|:--|:--|:--|:--|"]
    for claim in claims:
        ours = "" if claim.of_the_paper else ":gray[(ours)] "
        badge = BADGES.get(claim.verdict, literal(claim.verdict))
        lines.append(f"| {ours}{literal(claim.statement)} | {literal(claim.ours)} | {claim.number} | {badge} |")
    return "\n".join(lines)


def literal(text: str) -> str:
    """A text that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|$~:])", r"\\\1", " ".join(str(text).split()))
