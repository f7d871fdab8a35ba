"""A model as a safetensors file: names, the way back, another program's reading, what is refused."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

pytest.importorskip("flax")
pytest.importorskip("safetensors")

from safetensors.numpy import load_file, save_file

from lm import model
from lm.config import BYTES, SIZES, TWIN, parameters
from lm.export import FORMAT, params_of, read_export, tensors_of, write_export
from lm.trained import Trained
from toybench.config import ConfigError

DATA = {
    "tokenizer": {"sha256": "bytes", "vocabulary": BYTES, "end": BYTES - 1},
    "held_out_share": 0.1,
    "held_out": {"sha256": ""},
}
SOURCE = {"run": {}, "seed": 3, "arrivals": 7, "local_steps": 9, "total_steps": 9, "loss": 1.5, "rounded": False}
SETTINGS = [TWIN, replace(TWIN, tied=False, heads=3, layers=3, expansion=2), replace(TWIN, layers=1)]


def params(settings):
    """An untrained model's, moved, so that no norm is all ones."""
    params = jax.device_get(model.init(settings, jax.random.key(0)))
    return jax.tree.map(lambda leaf: leaf + np.random.default_rng(leaf.size).normal(0, 0.1, leaf.shape), params)


def trained(settings=TWIN):
    single = jax.tree.map(lambda leaf: leaf.astype(np.float32), params(settings))
    return Trained("results/a", settings, single, SOURCE | {"data": DATA}, ())


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


# Names


@pytest.mark.parametrize("settings", SETTINGS)
def test_every_parameter_has_a_name_a_layer(settings):
    found = tensors_of(params(settings))
    inside = [f"attention.{name}" for name in ("query", "key", "value", "out")] + ["perceptron.up", "perceptron.down"]
    inside += ["attention_norm", "perceptron_norm"]
    names = {f"blocks.{i}.{name}.weight" for i in range(settings.layers) for name in inside}
    names |= {"embedding.weight", "norm.weight"} | (set() if settings.tied else {"output.weight"})
    assert found.keys() == names
    assert sum(tensor.size for tensor in found.values()) == parameters(settings)
    width, heads = settings.width, settings.heads * settings.head_size
    assert found["blocks.0.attention.query.weight"].shape == (heads, width)  # [outputs, inputs]
    assert found["blocks.0.perceptron.up.weight"].shape == (settings.expansion * width, width)
    assert all(tensor.flags.c_contiguous for tensor in found.values())


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_way_back_is_bit_for_bit(settings, tmp_path):
    before = trained(settings)
    assert_same(params_of(settings, tensors_of(before.params)), before.params)
    write_export(before, str(tmp_path / "a.safetensors"))
    after = read_export("x", tmp_path)
    assert_same(after.params, before.params)
    assert (after.settings, after.source) == (settings, before.source | {"name": "results/a"})


def test_half_precision_is_rounded_once(tmp_path):
    before = trained()
    write_export(before, str(tmp_path / "a" / "x.safetensors"), "bfloat16")
    half = read_export("half", tmp_path / "a" / "x.safetensors")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2**-8, atol=0), half.params, before.params)
    assert half.source["rounded"]
    write_export(half, str(tmp_path / "b" / "x.safetensors"), "bfloat16")
    write_export(half, str(tmp_path / "c" / "x.safetensors"))
    for folder in "bc":
        again = read_export("again", tmp_path / folder)
        assert_same(again.params, half.params)
        assert again.source == half.source


def test_the_header_is_the_configuration_beside_it_and_says_it_all(tmp_path):
    from safetensors import safe_open

    write_export(trained(), str(tmp_path / "x.safetensors"))
    beside = json.loads((tmp_path / "config.json").read_text())
    with safe_open(tmp_path / "x.safetensors", framework="numpy") as file:
        assert json.loads(file.metadata()["config"]) == beside
    assert beside["format"] == FORMAT and beside["tokenizer"]["sha256"] == "bytes" and beside["source"]["seed"] == 3
    once = (tmp_path / "x.safetensors").read_bytes()
    write_export(trained(), str(tmp_path / "x.safetensors"))
    assert (tmp_path / "x.safetensors").read_bytes() == once


# Another program


@pytest.mark.parametrize("settings", SETTINGS[:2])
def test_plain_pytorch_computes_the_same(settings, tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    before = trained(settings)
    write_export(before, str(tmp_path / "x.safetensors"))
    w = load_file(tmp_path / "x.safetensors")
    token = torch.from_numpy(np.random.default_rng(0).integers(settings.vocabulary, size=(2, 16)))
    heads, size = settings.heads, settings.head_size

    def norm(x, name):
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6) * w[f"{name}.weight"]

    def turned(x):  # [B, L, H, K], each pair of halves as a complex number
        angle = torch.outer(torch.arange(16.0), 10_000.0 ** (-torch.arange(size // 2) / (size // 2)))
        number = torch.complex(x[..., : size // 2], x[..., size // 2 :]) * torch.polar(torch.ones(()), angle)[:, None]
        return torch.cat([number.real, number.imag], -1)

    x = w["embedding.weight"][token] * settings.width**0.5
    for i in range(settings.layers):
        b = f"blocks.{i}"
        h = norm(x, f"{b}.attention_norm")
        q, k, v = (
            torch.nn.functional.linear(h, w[f"{b}.attention.{name}.weight"]).view(2, 16, heads, size)
            for name in ("query", "key", "value")
        )
        score = torch.einsum("blhk,bmhk->bhlm", turned(q), turned(k)) / size**0.5
        score = score.masked_fill(torch.ones(16, 16, dtype=torch.bool).triu(1), -torch.inf).softmax(-1)
        h = torch.einsum("bhlm,bmhk->blhk", score, v).reshape(2, 16, heads * size)
        x = x + h @ w[f"{b}.attention.out.weight"].T
        h = norm(x, f"{b}.perceptron_norm") @ w[f"{b}.perceptron.up.weight"].T
        x = x + torch.nn.functional.gelu(h, approximate="tanh") @ w[f"{b}.perceptron.down.weight"].T
    found = norm(x, "norm") @ w["embedding.weight" if settings.tied else "output.weight"].T
    expected = np.asarray(model.logits(settings, before.params, token.numpy()))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


# What is refused


def test_what_is_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "config.json").write_text('{"of": "something else"}')
    with pytest.raises(ConfigError, match=r"out: .*config.json' is not of 'x.safetensors'; name another folder"):
        write_export(trained(), str(tmp_path / "x.safetensors"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json"]
    write_export(trained(), str(tmp_path / "own" / "x.safetensors"))
    with pytest.raises(ConfigError, match="name another folder"):
        write_export(trained(), str(tmp_path / "own" / "y.safetensors"))
    write_export(trained(replace(TWIN, layers=1)), str(tmp_path / "own" / "x.safetensors"))
    assert read_export("x", tmp_path / "own").settings.layers == 1


@pytest.mark.parametrize("name", ["x.bin", "x", "folder.safetensors", "."])
def test_a_name_that_is_none(name, tmp_path):
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(ConfigError, match=r"out: expected a file's name that ends with .safetensors"):
        write_export(trained(), str(tmp_path / name))


def test_a_type_that_is_none(tmp_path):
    with pytest.raises(ConfigError, match="dtype: expected one of float32, bfloat16, got 'float16'"):
        write_export(trained(), str(tmp_path / "x.safetensors"), "float16")


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, -1])
def test_a_part_of_a_file_is_refused(kept, tmp_path):
    path = tmp_path / "x.safetensors"
    write_export(trained(), str(path))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept) if isinstance(kept, float) else kept])
    with pytest.raises(ConfigError, match=r"model: .* is no whole safetensors file"):
        read_export("x", path)


def test_a_folder_whose_file_is_not_there_is_refused(tmp_path):
    write_export(trained(), str(tmp_path / "x.safetensors"))
    (tmp_path / "x.safetensors").unlink()
    with pytest.raises(ConfigError, match="model: 'here' holds no whole export"):
        read_export("here", tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ConfigError, match="model: 'here' holds no whole export"):
        read_export("here", tmp_path)


def tampered(tmp_path, **changes):
    """An export whose configuration says something else."""
    path = tmp_path / "x.safetensors"
    write_export(trained(), str(path))
    config = json.loads((tmp_path / "config.json").read_text()) | changes
    save_file(load_file(path), path, {"config": json.dumps(config)})
    return path


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"format": "toybench-lm-0"}, "format: 'toybench-lm-0', this version reads"),
        ({"model": {"layers": 0}}, "task.layers: must be >= 1"),
        ({"model": {"colour": 1}}, "task.colour: language_model has no such setting"),
        ({"model": {}}, "tensors: blocks.0.attention.key.weight is of another model"),
        ({"model": {"layers": 3}}, "tensors: lacks blocks.2"),
        ({"model": {"layers": 1}}, "tensors: has an unknown blocks.1"),
        ({"model": None}, "is no export that can be read"),
        ({"source": {}}, "lacks run"),
    ],
    ids=lambda value: json.dumps(value)[:30] if isinstance(value, dict) else "",
)
def test_a_file_of_another_model_is_refused(changes, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        read_export("x", tampered(tmp_path, **changes))


def test_any_other_safetensors_file_is_refused(tmp_path):
    save_file({"a": np.zeros(3)}, tmp_path / "x.safetensors")
    with pytest.raises(ConfigError, match="is no export of a model: it has no 'config'"):
        read_export("x", tmp_path / "x.safetensors")


def test_the_sizes_of_the_paper_have_as_many_numbers_as_parameters():
    for size in SIZES.values():
        shapes = jax.eval_shape(lambda key, s=size.model: model.init(s, key), jax.random.key(0))
        assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == parameters(size.model)
