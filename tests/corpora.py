"""What the tests of text and tokens share: small C4-like files, and what was made of them."""

import gzip
import json

import numpy as np
import pytest

from lm.prepare import prepare
from lm.sources import find_sources
from lm.tokens import Bytes
from toybench.config import ConfigError

FILES = [f"{side}.{kind}" for side in ("train", "held_out") for kind in ("bin", "ends.bin", "domains.bin")]
WORDS = ["the", "of", "and", "to", "a", "in", "is", "it", "you", "that", "he", "was", "for", "on", "are", "with"]

# A contest's run that is trained in a second.
SMALL = """
[task]
kind = "language_model"
width = 16
heads = 2
head_size = 8
sequence = 16
batch = 2
held_out = 4

[cluster]
sec_per_step = [0.58, 0.75, 1.51, 3.33]
local_steps = 2

[budget]
rounds = 2
evaluations = 2
"""


def texts(n, seed=0):
    """Different texts of a few words, some with letters beyond ASCII."""
    rng = np.random.default_rng(seed)
    return [f"{seed}-{i} " + " ".join(rng.choice(WORDS, rng.integers(3, 40))) + " é€𝄞"[: i % 5] for i in range(n)]


def lines(documents, hosts=7):
    """The bytes of a file of C4: a JSON object a line."""
    rows = ({"text": text, "url": f"https://host{i % hosts}.org/{i}"} for i, text in enumerate(documents))
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def fill_shelf(folder):
    """Three C4-like files of 200 documents each, gzipped and not."""
    folder.mkdir()
    (folder / "a.json.gz").write_bytes(gzip.compress(lines(texts(200, 0))))
    (folder / "b.jsonl").write_bytes(lines(texts(200, 1)))
    (folder / "c.json.gz").write_bytes(gzip.compress(lines(texts(200, 2))))
    return folder


def made_of_words(folder):
    """A folder of tokens, all bytes, of forty small documents."""
    for i in range(40):
        (folder / f"{i:02}.txt").write_text(f"document {i} " * (10 + i))
    prepare(find_sources([str(folder)]), Bytes(), str(folder / "tokens"), 0.2)
    return folder / "tokens"


def content(folder):
    """All that must be the same however a folder came about."""
    meta = json.loads((folder / "meta.json").read_text())
    return [(folder / name).read_bytes() for name in FILES], {key: meta[key] for key in meta if key != "date"}


def documents(folder, side):
    """The texts that a prepared folder holds as bytes."""
    tokens, ends = np.fromfile(folder / f"{side}.bin", "<u2"), np.fromfile(folder / f"{side}.ends.bin", "<i8")
    return [Bytes().decode(part) for part in np.split(tokens, ends[:-1])]


def refused(call, *said):
    """It raises a ConfigError of one line, with these words in it."""
    with pytest.raises(ConfigError) as caught:
        call()
    assert "\n" not in str(caught.value)
    for words in said:
        assert words in str(caught.value)
