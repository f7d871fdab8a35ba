"""Text from a model: the cache against plain decoding, chances, seeds, ends, and what is refused."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("flax")

import lm.decode
from lm import model
from lm.config import BYTES, TWIN
from lm.decode import Sampling, generate, sample
from lm.tokens import Bytes
from lm.trained import Trained
from toybench.config import ConfigError, ConfigWarning

NEVER = -1  # no token: nothing ends
SOURCE = {"run": {}, "seed": 0, "arrivals": 0, "local_steps": 0, "total_steps": 1, "loss": None, "rounded": False}
DATA = {
    "tokenizer": {"sha256": "bytes", "vocabulary": BYTES, "end": BYTES - 1},
    "held_out_share": 0.1,
    "held_out": {"sha256": ""},
}


pytestmark = pytest.mark.filterwarnings("ignore:tokens. .* more than the 16")  # which the model was made for


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Lengths are rounded up to few, so that prompts of a few tokens cross the border."""
    monkeypatch.setattr(lm.decode, "BLOCK", 8)


def params_of(settings, seed=0):
    """An untrained model's, with an embedding that makes some tokens far likelier than others."""
    params = model.init(settings, jax.random.key(seed))
    return jax.tree.map(lambda leaf: 3 * leaf, params)


PARAMS = params_of(TWIN)


def prompt_of(length, seed=0):
    return np.random.default_rng(seed).integers(TWIN.vocabulary, size=length).tolist()


def plainly(settings, params, prompt, tokens):
    """The definition of greedy decoding: the whole context again for every token."""
    found = list(prompt)
    for _ in range(tokens):
        padded = jnp.array([found + [0] * (48 - len(found))])  # what follows changes nothing, and one program will do
        found.append(int(model.logits(settings, params, padded)[0, len(found) - 1].argmax()))
    return found[len(prompt) :]


# The cache


@pytest.mark.parametrize("length", [1, 7, 8, 9, 30])
def test_greedy_decoding_is_the_plain_one(length):
    prompt = prompt_of(length)
    expected = plainly(TWIN, PARAMS, prompt, 12)  # 30 and 12 are more than the 16 that it is made for
    assert len(set(expected)) > 1
    assert generate(TWIN, PARAMS, prompt, Sampling(12, temperature=0), NEVER) == [expected]


@pytest.mark.parametrize(
    "changes",
    [{"tied": False}, {"scan_layers": True}, {"heads": 3, "expansion": 2}, {"layers": 1}, {"remat": True}],
    ids=lambda changes: " ".join(changes),
)
def test_so_it_is_for_other_models(changes):
    settings = replace(TWIN, **changes)
    params, prompt = params_of(settings, 1), prompt_of(5)
    expected = plainly(settings, params, prompt, 6)
    assert generate(settings, params, prompt, Sampling(6, temperature=0), NEVER) == [expected]


@pytest.mark.parametrize("compute, tolerance", [("float32", 1e-5), ("bfloat16", 0.1)])
def test_logits_are_those_of_the_whole_context_in_whatever_pieces(compute, tolerance):
    settings, token = replace(TWIN, compute=compute), jnp.array([prompt_of(20), prompt_of(20, 1)])
    whole = model.logits(settings, PARAMS, token)
    cache, at = model.empty_cache(settings, 2, 24), 0
    assert cache.keys.dtype == compute
    for length in (7, 1, 1, 9):
        piece = token[:, at : at + length]
        padded = jnp.pad(piece, ((0, 0), (0, 24 - 18)), constant_values=3)  # what stands behind does not matter
        logits, cache = model.extend(settings, PARAMS, padded, cache, at, length - 1)
        at += length
        np.testing.assert_allclose(logits, whole[:, at - 1], rtol=tolerance, atol=tolerance * jnp.abs(whole).max())


# Chances


def chances(prompt, temperature, known=TWIN.vocabulary):
    logits = np.asarray(model.logits(TWIN, PARAMS, jnp.array([prompt]))[0, -1], np.float64)[:known] / temperature
    return np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_tokens_are_as_frequent_as_the_model_says(temperature):
    prompt, count = prompt_of(5), 4000
    found = generate(TWIN, PARAMS, prompt, Sampling(1, count, temperature), NEVER)
    frequency = np.bincount([token for [token] in found], minlength=TWIN.vocabulary) / count
    expected = chances(prompt, temperature)
    assert (np.abs(frequency - expected) < 5 * np.sqrt(expected / count) + 5 / count).all()
    assert expected.max() > 2 / TWIN.vocabulary  # or the test says little


def test_top_k_leaves_the_most_likely():
    prompt = prompt_of(5)
    found = generate(TWIN, PARAMS, prompt, Sampling(1, 500, 1e6, top_k=5), NEVER)
    assert {token for [token] in found} == set(np.argsort(chances(prompt, 1.0))[-5:].tolist())
    one = Sampling(12, 2, top_k=1)
    assert generate(TWIN, PARAMS, prompt, one, NEVER) == 2 * [plainly(TWIN, PARAMS, prompt, 12)]


def test_tokens_that_the_tokenizer_does_not_know_are_never_chosen():
    found = generate(TWIN, PARAMS, [1], Sampling(8, 100, 3e38), NEVER, known=40)
    assert {token for tokens in found for token in tokens} == set(range(40))


@pytest.mark.parametrize("temperature", [1e-30, 1e-46])  # the latter is zero in single precision
def test_the_lowest_temperatures_are_greedy(temperature):
    expected = plainly(TWIN, PARAMS, [1, 2], 6)
    assert generate(TWIN, PARAMS, [1, 2], Sampling(6, temperature=temperature), NEVER) == [expected]


def test_more_texts_or_tokens_do_not_change_those_before():
    few, many = (generate(TWIN, PARAMS, [1, 2], Sampling(n, count), NEVER) for n, count in ((6, 1), (10, 3)))
    assert [tokens[:6] for tokens in many[:1]] == few
    assert len({tuple(tokens) for tokens in many}) == 3


def test_a_seed_chooses():
    a, again, b = (generate(TWIN, PARAMS, [1], Sampling(12, 2, seed=seed), NEVER) for seed in (0, 0, 1))
    assert a == again and a[0] != b[0] and a[1] != b[1]


# Ends


def test_it_stops_at_the_end_of_the_document():
    whole = plainly(TWIN, PARAMS, [1, 2], 12)
    end = whole[-1]
    found = generate(TWIN, PARAMS, [1, 2], Sampling(12, temperature=0), end)
    assert found == [whole[: whole.index(end)]]


def test_each_text_ends_for_itself():
    how, end = Sampling(12, 20, 3.0), 5
    whole = generate(TWIN, PARAMS, [1, 2], how, NEVER, known=8)
    expected = [tokens[: tokens.index(end)] if end in tokens else tokens for tokens in whole]
    assert len({len(tokens) for tokens in expected}) > 4
    assert generate(TWIN, PARAMS, [1, 2], how, end, known=8) == expected


# Text


def trained(**changes):
    settings = replace(TWIN, **changes)
    return Trained("here", settings, params_of(settings), SOURCE | {"data": DATA}, ())


def test_a_text_begins_with_its_prompt_and_what_is_no_utf_8_is_replaced():
    with pytest.warns(ConfigWarning, match="tokens: 38 with the prompt are more than the 16"):
        found = sample(trained(), "né€", Sampling(31, 3))
    for text, tokens, ended in found:
        assert text.startswith("né€") and text == Bytes().decode([*"né€".encode(), *tokens])
        assert max(tokens) < BYTES - 1 and ended == (len(tokens) < 31)
    assert any("\ufffd" in text for text, *_ in found)


def test_nothing_is_a_prompt_and_is_read_as_the_beginning_of_a_document():
    [one] = sample(trained(), "", Sampling(8, temperature=0))
    assert one.tokens == plainly(TWIN, PARAMS, [BYTES - 1], 8)


def test_a_prompt_that_the_tokenizer_changes_is_told():
    class Small(Bytes):
        def encode(self, texts):
            return super().encode([text.lower() for text in texts])

    with pytest.warns(ConfigWarning, match="prompt: the tokenizer reads it as 'hello'"):
        assert lm.decode.prompt_ids(Small(), "Hello") == [*b"hello"]


# What is refused


@pytest.mark.parametrize(
    "asked, said",
    [
        ({"temperature": -0.1}, "temperature: must be >= 0"),
        ({"temperature": float("nan")}, "temperature: must be >= 0"),
        ({"temperature": float("inf")}, "temperature: must be >= 0"),
        ({"tokens": 0}, "tokens: must be >= 1 and < 2147483648, got 0"),
        ({"tokens": 99999999999}, "tokens: must be >= 1 and < 2147483648, got 99999999999"),
        ({"count": -3}, "count: must be >= 1 and < 2147483648"),
        ({"top_k": 0}, "top_k: must be >= 1 and < 2147483648"),
        ({"seed": -1}, "seed: expected a whole number"),
        ({"top_k": BYTES + 1}, f"top_k: must be <= {BYTES}"),
        ({"tokens": 2**30, "count": 2**30}, "tokens, count: .* to remember; this machine has"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_is_refused(asked, said):
    with pytest.raises(ConfigError, match=said):
        generate(TWIN, PARAMS, [1], Sampling(**{"tokens": 5} | asked), NEVER)


def test_a_prompt_that_the_model_cannot_read_is_refused():
    with pytest.raises(ConfigError, match=f"prompt: token {TWIN.vocabulary} is beyond the model's vocabulary"):
        generate(TWIN, PARAMS, [1, TWIN.vocabulary], Sampling(), NEVER)
    with pytest.raises(ConfigError, match="prompt: is no Unicode text"):
        sample(trained(), "a\udce9", Sampling(2))
    with pytest.raises(ConfigError, match="model: 'here' is damaged: its tokenizer knows 257 tokens, the model 100"):
        sample(trained(vocabulary=100), "a", Sampling(2))


def test_what_is_lost_of_a_model_is_said():
    with pytest.raises(ConfigError, match=r"lacks data\.tokenizer\.end"):
        tokenizer = {key: value for key, value in DATA["tokenizer"].items() if key != "end"}
        Trained("here", TWIN, PARAMS, SOURCE | {"data": DATA | {"tokenizer": tokenizer}}, ())
    with pytest.raises(ConfigError, match="not finite: its training diverged"):
        Trained("here", TWIN, jax.tree.map(lambda leaf: leaf * np.inf, PARAMS), SOURCE | {"data": DATA}, (Path(),))
