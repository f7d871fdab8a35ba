"""Pseudo-gradients on their way: what arrives, what is lost of it, and what is not."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toybench.transports.codec import BLOCK, CODECS, decode, encode, fits, wire_shapes
from toybench.transports.frames import pack, read_frames

LIKE = {"a": jnp.zeros((3, 700)), "b": (jnp.zeros(5), jnp.zeros(()))}
LOSSY = [name for name, codec in CODECS.items() if not codec.exact]


def noise(seed: int, scale: float = 1.0):
    keys = iter(jax.random.split(jax.random.key(seed), 3))
    return jax.tree.map(lambda leaf: scale * jax.random.normal(next(keys), leaf.shape), LIKE)


@pytest.mark.parametrize("name", CODECS)
def test_what_is_sent_has_the_shapes_that_the_server_expects(name):
    arrays, _ = encode(CODECS[name], noise(0), None)
    assert [(a.shape, a.dtype) for a in arrays] == [(s.shape, s.dtype) for s in wire_shapes(CODECS[name], LIKE)]
    assert fits(CODECS[name], arrays, LIKE) is None
    got = decode(CODECS[name], arrays, LIKE)
    assert jax.tree.structure(got) == jax.tree.structure(LIKE)


def test_nothing_is_lost_of_what_is_sent_as_it_is():
    arrays, lost = encode(CODECS["none"], noise(1), None)
    assert lost is None
    jax.tree.map(np.testing.assert_array_equal, decode(CODECS["none"], arrays, LIKE), noise(1))


@pytest.mark.parametrize("name, most", (("bfloat16", 2**-8), ("int8", 0.5 / 127)))
def test_how_much_is_lost_of_one(name, most):
    """Of a bfloat16 half of its last bit, relative to each number; of int8 half a step, relative to the largest."""
    g = noise(2)
    got = decode(CODECS[name], encode(CODECS[name], g, None)[0], LIKE)
    for sent, arrived in zip(jax.tree.leaves(g), jax.tree.leaves(got)):
        scale = np.abs(sent) if name == "bfloat16" else np.abs(sent).max()
        assert (np.abs(sent - arrived) <= most * scale * 1.001).all()


@pytest.mark.parametrize("name", LOSSY)
def test_error_feedback_loses_nothing_in_the_long_run(name):
    """The sum of what arrives is the sum of what was sent, but for what is still owed."""
    residual, sent, arrived = jax.tree.map(jnp.zeros_like, LIKE), LIKE, LIKE
    for seed in range(20):
        g = noise(seed, 0.1)
        arrays, residual = encode(CODECS[name], g, residual)
        sent = jax.tree.map(jnp.add, sent, g)
        arrived = jax.tree.map(jnp.add, arrived, decode(CODECS[name], arrays, LIKE))
    owed = jax.tree.map(jnp.subtract, sent, arrived)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), owed, residual)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(residual)) < 0.02


@pytest.mark.parametrize("name, bytes_each", (("none", 4), ("bfloat16", 2), ("int8", 1 + 4 / BLOCK)))
def test_how_much_is_sent(name, bytes_each):
    like = {"w": jnp.zeros((512, 1024))}
    arrays, _ = encode(CODECS[name], like, None if name == "none" else like)
    assert sum(a.nbytes for a in arrays) == bytes_each * 512 * 1024


def test_zeros_arrive_as_zeros():
    for name in LOSSY:
        got = decode(CODECS[name], encode(CODECS[name], LIKE, LIKE)[0], LIKE)
        jax.tree.map(np.testing.assert_array_equal, got, LIKE)


def test_what_does_not_fit_is_named():
    arrays, _ = encode(CODECS["int8"], noise(0), LIKE)
    assert "arrays instead of" in fits(CODECS["int8"], arrays[:-1], LIKE)
    assert "array 0 is int8[2099] instead of int8[2100]" in fits(CODECS["int8"], [arrays[0][:-1], *arrays[1:]], LIKE)
    assert "float32" in fits(CODECS["bfloat16"], encode(CODECS["none"], noise(0), None)[0], LIKE)


# Frames


def test_arrays_and_values_come_back_from_a_frame():
    arrays = [np.arange(6, dtype=np.int8).reshape(2, 3), np.float32(3), np.zeros((0, 4)), np.array([True, False])]
    arrays.append(np.asarray(jnp.arange(4, dtype=jnp.bfloat16)))
    file = io.BytesIO(b"".join(bytes(piece) for piece in pack({"kind": "push", "at": 0.1}, arrays)))
    [(end, frame)] = read_frames(file)
    assert end == len(file.getvalue()) and frame.told == {"kind": "push", "at": 0.1}
    for sent, got in zip(arrays, frame.arrays, strict=True):
        assert (np.asarray(sent).dtype, np.shape(sent)) == (got.dtype, got.shape)
        np.testing.assert_array_equal(sent, got)


def test_a_frame_cut_off_or_damaged_anywhere_is_not_taken_for_whole():
    one = b"".join(bytes(piece) for piece in pack({"n": 1}, [np.arange(3)]))
    for end in range(len(one)):
        assert [frame.told for _, frame in read_frames(io.BytesIO(one + one[:end]))] == [{"n": 1}]
    for at in range(len(one)):
        damaged = bytearray(one)
        damaged[at] ^= 1
        assert not [*read_frames(io.BytesIO(bytes(damaged)))]
