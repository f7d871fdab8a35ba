"""Text from a trained model, token by token, with the keys and values of the tokens before kept in a cache."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lm import model
from lm.config import LanguageModel
from lm.tokens import Tokenizer
from lm.trained import Trained
from toybench.arguments import check_seed
from toybench.config import LARGEST, LARGEST_FLOAT, ConfigError, ConfigWarning
from toybench.runtime import memory

BLOCK = 128  # lengths are rounded up to multiples of it, so that most prompts share a compiled program


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    Raises:
        ConfigError: a number that cannot be.
    """

    tokens: int = 100  # at most
    count: int = 1  # texts
    temperature: float = 1.0  # by which logits are divided; 0 takes the most likely token
    top_k: int | None = None  # choose among so many, the most likely
    seed: int = 0

    def __post_init__(self):
        for name in ("tokens", "count", "top_k"):
            value = getattr(self, name)
            if value is not None and not 1 <= value < LARGEST:
                raise ConfigError(name, f"must be >= 1 and < {LARGEST}, got {value}")
        if not 0 <= self.temperature <= LARGEST_FLOAT:
            raise ConfigError("temperature", f"must be >= 0 and <= {LARGEST_FLOAT}, got {self.temperature}")
        check_seed(self.seed)


class Sample(NamedTuple):
    """A text."""

    text: str  # the prompt's with what follows
    tokens: list[int]  # that follow the prompt; the end of the document is none of them
    ended: bool  # by itself, before so many tokens as were asked for


def sample(trained: Trained, prompt: str, how: Sampling) -> list[Sample]:
    """Documents that begin with a prompt, continued.

    The model reads an end of document, then the prompt, as it met the openings of documents in training.

    Raises:
        ConfigError: the prompt is no text, or what is asked for does not fit the memory.
    """
    tokenizer = trained.tokenizer()
    ids = prompt_ids(tokenizer, prompt)
    found = generate(trained.settings, trained.params, [tokenizer.end, *ids], how, tokenizer.end, tokenizer.vocabulary)
    return [Sample(tokenizer.decode([*ids, *tokens]), tokens, ended=len(tokens) < how.tokens) for tokens in found]


def prompt_ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """A prompt as tokens.

    Raises:
        ConfigError: it is no Unicode text.
    """
    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise ConfigError("prompt", "is no Unicode text") from None
    [ids] = tokenizer.encode([prompt]) if prompt else [[]]
    ids = [int(i) for i in ids]
    if (read := tokenizer.decode(ids)) != prompt:
        warnings.warn(f"prompt: the tokenizer reads it as {read!r}", ConfigWarning, stacklevel=3)
    return ids


def generate(
    settings: LanguageModel, params: Any, prompt: Sequence[int], how: Sampling, end: int, known: int | None = None
) -> list[list[int]]:
    """Tokens that follow a prompt's, `how.count` times.

    Positions are rotary, so that a model runs beyond the length that it was trained on; it has learned nothing there.

    Args:
        settings, params: of the model.
        prompt: one token or more.
        how: the tokens are chosen. The i-th text has random numbers of its own, and so has its j-th token: more texts
            or tokens do not change those before, but for round-off.
        end: the token that ends a text; it is left out.
        known: only tokens below it are chosen (default: all that the model knows).

    Raises:
        ConfigError: a token of the prompt that the model does not know, more choices than tokens, or too little memory.
    """
    known = settings.vocabulary if known is None else known
    if not 0 <= min(prompt) <= max(prompt) < settings.vocabulary:
        said = f"token {max(prompt)} is beyond the model's vocabulary of {settings.vocabulary}"
        raise ConfigError("prompt", said)
    if how.top_k is not None and how.top_k > known:
        raise ConfigError("top_k", f"must be <= {known}, the tokens that there are, got {how.top_k}")
    padded, room = _up(len(prompt)), _up(len(prompt) + how.tokens)
    _check_memory(settings, how, room)
    if (length := len(prompt) + how.tokens) > settings.sequence:
        said = f"{length} with the prompt are more than the {settings.sequence} that the model was trained on at a time"
        warnings.warn(f"tokens: {said}; beyond those it has learned nothing", ConfigWarning, stacklevel=3)
    tokens, counts = _generate(
        settings,
        params,
        np.pad(np.asarray(prompt, np.int32), (0, padded - len(prompt)))[None],
        len(prompt),
        np.arange(how.count, dtype=np.uint32),
        how.seed,
        how.tokens,
        end,
        known,
        np.float32(how.temperature),
        room=room,
        greedy=np.float32(how.temperature) == 0,
        top_k=how.top_k,
    )
    return [row[:count].tolist() for row, count in zip(np.asarray(tokens), np.asarray(counts))]


def _up(length: int) -> int:
    return -(-length // BLOCK) * BLOCK


def _check_memory(s: LanguageModel, how: Sampling, room: int) -> None:
    size = jnp.dtype(s.compute).itemsize
    needed = how.count * (2 * s.layers * room * s.heads * s.head_size * size + 4 * s.vocabulary + 4 * room)
    if (there := memory()) is not None and needed > there / 2:
        said = f"{how.count} texts of {how.tokens} tokens take {needed / 1e9:,.1f} GB to remember"
        raise ConfigError("tokens, count", f"{said}; this machine has {there / 1e9:,.1f} GB, and half is for them")


@partial(jax.jit, static_argnums=0, static_argnames=("room", "greedy", "top_k"))
def _generate(
    settings, params, prompt_1xL, length, number_B, seed, most, end, known, temperature, *, room, greedy, top_k
) -> tuple[jax.Array, jax.Array]:
    """Tokens [B, room], those that count first, and how many count [B]."""
    batch = len(number_B)
    key_B = jax.vmap(partial(jax.random.fold_in, jax.random.key(seed)))(number_B)

    def choose(logits_BxV: jax.Array, i: jax.Array) -> jax.Array:
        logits_BxV = jnp.where(jnp.arange(settings.vocabulary)[None] < known, logits_BxV, -jnp.inf)
        if greedy:
            return logits_BxV.argmax(-1)
        if top_k is not None:
            least_Bx1 = jax.lax.top_k(logits_BxV, top_k)[0][:, -1:]
            logits_BxV = jnp.where(logits_BxV < least_Bx1, -jnp.inf, logits_BxV)
        # From the largest down, so that no temperature, however low, makes two of them infinite.
        below_BxV = (logits_BxV - logits_BxV.max(-1, keepdims=True)) / temperature
        below_BxV = jnp.where(jnp.isneginf(logits_BxV), -jnp.inf, below_BxV)
        return jax.vmap(jax.random.categorical)(jax.vmap(partial(jax.random.fold_in, data=i))(key_B), below_BxV)

    def going_on(carry: Any) -> jax.Array:
        i, _, going_B, *_ = carry
        return (i < most) & going_B.any()

    def step(carry: Any) -> Any:
        i, logits_BxV, going_B, count_B, token_BxR, cache = carry
        token_B = jnp.where(going_B, choose(logits_BxV, i), end).astype(jnp.int32)
        going_B &= token_B != end
        token_BxR = jax.lax.dynamic_update_slice(token_BxR, token_B[:, None], (0, i))
        logits_BxV, cache = model.extend(settings, params, token_B[:, None], cache, length + i, 0)
        return i + 1, logits_BxV, going_B, count_B + going_B, token_BxR, cache

    # The prompt is read once for all texts.
    logits_1xV, cache = model.extend(settings, params, prompt_1xL, model.empty_cache(settings, 1, room), 0, length - 1)
    cache = jax.tree.map(lambda leaf: jnp.repeat(leaf, batch, axis=1), cache)
    none_B = jnp.zeros(batch, jnp.int32)
    begin = 0, jnp.repeat(logits_1xV, batch, axis=0), none_B == 0, none_B, jnp.zeros((batch, room), jnp.int32), cache
    _, _, _, count_B, token_BxR, _ = jax.lax.while_loop(going_on, step, begin)
    return token_BxR, count_B
