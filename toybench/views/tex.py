"""The formulas of `METHODS`, written in plain letters, as TeX."""

from __future__ import annotations

import re

SIGNS = {
    "θ": r"\theta ",
    "ε": r"\varepsilon ",
    "β": r"\beta ",
    "γ": r"\gamma ",
    "τ": r"\tau ",
    "λ": r"\lambda ",
    "ρ": r"\rho ",
    "α": r"\alpha ",
    "Δ": r"\Delta ",
    "Σ": r"\sum ",
    "←": r"\leftarrow ",
    "⊙": r"\odot ",
    "½": r"\tfrac{1}{2}",
    "≤": r"\le ",
    "−": "-",
    "√": r"\sqrt ",
}
FUNCTIONS = {"cos": r"\cos", "min": r"\min", "Adam": r"\mathrm{Adam}"}
SHORT_WORDS = {"an", "is", "if", "of", "in", "to", "on", "or", "so", "DN"}
_WORD = re.compile(r"[A-Za-z]+(?:-[A-Za-z]+)*")
_TOKEN = re.compile(r"[A-Za-z]+(?:-[A-Za-z]+)*|\d+|\s+|.")


def _is_word(token: str) -> bool:
    return bool(_WORD.fullmatch(token)) and (len(token) > 2 or token in SHORT_WORDS) and token not in FUNCTIONS


def tex(formula: str) -> str:
    """A formula of `Method.formula` in TeX; words stay text."""
    formula = re.sub(r"_(\w+)", lambda m: "_{" + (rf"\text{{{m[1]}}}" if len(m[1]) > 1 else m[1]) + "}", formula)
    formula = re.sub(r"\^(−?\w|\([^)]*\))", r"^{\1}", formula)
    out, words = [], []

    def flush() -> None:
        if words:
            text = "".join(words)
            out.append(rf"\text{{{text}}}")
            words.clear()

    tokens = re.findall(r"\\text\{\w+\}|" + _TOKEN.pattern, formula)
    for i, token in enumerate(tokens):
        if _is_word(token):
            words.append(token)
        elif words and token.isspace():
            words.append(" ")
        elif words and token in ",;:" and (i + 1 == len(tokens) or tokens[i + 1].isspace()):
            words.append(token)
        else:
            flush()
            out.append(SIGNS.get(token) or FUNCTIONS.get(token) or (r"\ " if token.isspace() and out else token))
    flush()
    text = "".join(out)
    text = text.replace(r"\ \leftarrow", r"\leftarrow").replace(r"\leftarrow \ ", r"\leftarrow ")
    return re.sub(r"\\ ([+\-=<>]|\\le )\\ ", r"\1", text)


def lines(formula: str) -> list[str]:
    """The statements of a formula, each in TeX."""
    return [tex(part.strip()) for part in re.split(r";\s|,\s(?=[^,;]*←)", formula)]
