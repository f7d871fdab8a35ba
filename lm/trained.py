"""A model that was trained, with all that its use needs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lm import model
from lm.config import LanguageModel
from lm.prepare import MODEL
from lm.tokens import Bytes, SentencePiece, Tokenizer
from toybench.config import ConfigError

SOURCE = (  # what is known of where a model comes from
    *("run", "seed", "arrivals", "local_steps", "total_steps", "loss", "rounded"),
    *("data.held_out_share", "data.held_out.sha256"),
    *("data.tokenizer.sha256", "data.tokenizer.vocabulary", "data.tokenizer.end"),
)


@dataclass(frozen=True)
class Trained:
    """Parameters and what belongs to them.

    Args:
        name: as the user named it.
        settings: of the model.
        params: NumPy, float32.
        source: where they come from, plain: `run` (its tables), `seed`, `arrivals`, `local_steps` and `total_steps`,
            `loss` (held-out, of these parameters, or None), `rounded` (whether they were since) and `data`
            (`Corpus.note`).
        places: folders where the tokenizer's file may lie.

    Raises:
        ConfigError: the source lacks something, or a parameter is not finite.
    """

    name: str
    settings: LanguageModel
    params: Any
    source: dict[str, Any]
    places: tuple[Path, ...]

    def __post_init__(self):
        for path in SOURCE:
            node: Any = self.source
            for key in path.split("."):
                if not isinstance(node, dict) or key not in node:
                    raise ConfigError("model", f"{self.name!r} is damaged: of where it comes from it lacks {path}")
                node = node[key]
        said = self.source["data"]["tokenizer"]
        kinds = {"vocabulary": int, "sha256": str}
        if wrong := [key for key, kind in kinds.items() if type(said.get(key)) is not kind]:
            odd = f"its tokenizer's {wrong[0]} is {said.get(wrong[0])!r}"
            raise ConfigError("model", f"{self.name!r} is damaged: {odd}")
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(self.params)):
            raise ConfigError("model", f"{self.name!r} has parameters that are not finite: its training diverged")

    def tokenizer(self) -> Tokenizer:
        """What makes text of its tokens.

        Raises:
            ConfigError: its file is not there, or knows more tokens than the model.
        """
        said = self.source["data"]["tokenizer"]
        if said["vocabulary"] > self.settings.vocabulary:
            known = f"{said['vocabulary']} tokens, the model {self.settings.vocabulary}"
            raise ConfigError("model", f"{self.name!r} is damaged: its tokenizer knows {known}")
        if said["sha256"] == Bytes.identity:
            return Bytes()
        for folder in self.places:
            path = folder / MODEL
            if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == said["sha256"]:
                return SentencePiece.load(path, said["end"])
        looked = " or ".join(repr(str(folder)) for folder in self.places)
        raise ConfigError("tokenizer", f"that of {self.name!r}, {MODEL} of {said['sha256'][:12]}…, is not in {looked}")


def shapes(settings: LanguageModel) -> Any:
    """The parameters of a model, as shapes."""
    return jax.eval_shape(lambda key: model.init(settings, key), jax.random.key(0))
