"""A trained model as a safetensors file, for this program and others: written whole or not at all, and read back.

Tensors have plain names, one a layer, and matrices the layout of PyTorch's linear layers, [outputs, inputs]. Beside the
file lie `config.json`, which says what the file's own header says, and the tokenizer's model, where it is a file.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lm.config import CHOICES, LanguageModel
from lm.prepare import MODEL
from lm.trained import Trained, shapes
from toybench.config import ConfigError
from toybench.loading import load_section
from toybench.records import plain, read_json, writable_folder, write_json, write_whole

FORMAT = "toybench-lm-1"
CONFIG, SUFFIX = "config.json", ".safetensors"
KIND = "language_model"  # of the task
DTYPES = ("float32", "bfloat16")
HEADER = "config"  # the one text of the file's header: more of them, and safetensors has them in any order


def tensors_of(params: Any, dtype: str = "float32") -> dict[str, np.ndarray]:
    """Parameters by their names, e.g. ``blocks.0.attention.query.weight``."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        names = _names(path, leaf)
        for name, array in zip(names, leaf if _stacked(path) else [leaf]):
            found[name] = np.ascontiguousarray(_turned(path, np.asarray(array)).astype(jnp.dtype(dtype)))
    return found


def params_of(settings: LanguageModel, tensors: dict[str, np.ndarray]) -> Any:
    """The parameters whose `tensors_of` these are; float32.

    Raises:
        ConfigError: they are not those of the model.
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(shapes(settings))
    wanted = {name for path, leaf in leaves for name in _names(path, leaf)}
    if wanted != tensors.keys():
        odd = sorted(wanted ^ tensors.keys())[0]
        raise ConfigError("tensors", f"{'lacks' if odd in wanted else 'has an unknown'} {odd}")
    found = []
    for path, leaf in leaves:
        arrays = [_turned(path, tensors[name].astype(np.float32)) for name in _names(path, leaf)]
        for name, array in zip(_names(path, leaf), arrays):
            if array.shape != (expected := leaf.shape[1:] if _stacked(path) else leaf.shape):
                raise ConfigError("tensors", f"{name} is of another model: {array.shape}, not {expected}")
        found.append(np.stack(arrays) if _stacked(path) else arrays[0])
    return tree.unflatten(found)


def _stacked(path: Any) -> bool:
    """Whether a parameter is of all blocks, [layers, ...]."""
    return path[0].key == "blocks"


def _names(path: Any, leaf: Any) -> list[str]:
    """What a parameter is called; flax's kernel, scale and embedding are all weights."""
    first, *inside = (entry.key for entry in path[:-1])
    layers = [str(i) for i in range(len(leaf))] if _stacked(path) else [None]
    return [".".join([first, *([layer] if layer else []), *inside, "weight"]) for layer in layers]


def _turned(path: Any, array: np.ndarray) -> np.ndarray:
    """Flax has matrices as [inputs, outputs]."""
    return array.T if path[-1].key == "kernel" else array


def write_export(trained: Trained, file: str, dtype: str = "float32") -> list[Path]:
    """Write a model and what belongs to it; returns the files, the model's last, which is written last.

    Raises:
        ConfigError: the folder cannot be written, or holds what would be lost.
    """
    package, path = _package(), Path(file).expanduser()
    if path.suffix != SUFFIX or path.is_dir():
        raise ConfigError("out", f"expected a file's name that ends with {SUFFIX}, got {file!r}")
    if dtype not in DTYPES:
        raise ConfigError("dtype", f"expected one of {', '.join(DTYPES)}, got {dtype!r}")
    tokenizer, rounded = trained.tokenizer(), dtype != "float32"
    _check_folder(path, tokenizer.model)
    config = {
        "format": FORMAT,
        "weights": path.name,
        "dtype": dtype,
        "model": asdict(trained.settings),
        "tokenizer": trained.source["data"]["tokenizer"] | {"file": MODEL if tokenizer.model is not None else None},
        "source": {"name": trained.name} | trained.source | {"rounded": rounded or trained.source["rounded"]},
    }
    tensors, header = tensors_of(trained.params, dtype), {HEADER: json.dumps(plain(config), ensure_ascii=False)}
    written = package.numpy.save(tensors, header)
    writable_folder(path.parent)
    files = [path.parent / CONFIG, path]
    if tokenizer.model is not None:
        files.insert(0, path.parent / MODEL)
        write_whole(files[0], tokenizer.model)
    write_json(path.parent / CONFIG, config)
    write_whole(path, written)
    return files


def _check_folder(path: Path, tokenizer: bytes | None) -> None:
    """Leave alone what is of somebody else."""
    config, model = path.parent / CONFIG, path.parent / MODEL
    said = read_json(config) if config.is_file() else None
    if isinstance(said, dict) and (said.get("format"), said.get("weights")) == (FORMAT, path.name):
        return
    if said is not None:
        raise ConfigError("out", f"{str(config)!r} is not of {path.name!r}; name another folder")
    if tokenizer is not None and model.is_file() and model.read_bytes() != tokenizer:
        raise ConfigError("out", f"{str(model)!r} is another tokenizer; name another folder")


def read_export(name: str, path: Path) -> Trained:
    """The model of an export: of its file, or of the folder that has one.

    Raises:
        ConfigError: it is none, or is damaged.
    """
    package = _package()
    if path.is_dir():
        said = read_json(path / CONFIG)
        weights = said.get("weights") if isinstance(said, dict) and said.get("format") == FORMAT else None
        if not isinstance(weights, str) or not (path / weights).is_file():
            raise ConfigError("model", f"{name!r} holds no whole export: its {CONFIG} names no model that is there")
        path = path / weights
    try:
        with package.safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, it is no dict
    except (package.SafetensorError, OSError) as error:
        raise ConfigError("model", f"{str(path)!r} is no whole safetensors file: {error}") from None
    try:
        config = json.loads(header[HEADER])
        if config["format"] != FORMAT:
            raise ConfigError("format", f"{config['format']!r}, this version reads {FORMAT!r}")
        settings: Any = load_section("task", {"kind": KIND} | config["model"], CHOICES)
        return Trained(name, settings, params_of(settings, tensors), config["source"], (path.parent,))
    except KeyError as error:
        raise ConfigError("model", f"{str(path)!r} is no export of a model: it has no {error}") from None
    except (ValueError, TypeError) as error:  # a ConfigError is one too
        raise ConfigError("model", f"{str(path)!r} is no export that can be read: {error}") from None


def _package() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise ConfigError("model", "safetensors is not installed: pip install 'toybench[export]'") from None
    return safetensors
