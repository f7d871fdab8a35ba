"""The folder of a run: what training leaves there beside checkpoints, and the model that is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lm.checkpoint import read_last, steps_after
from lm.config import CHECKPOINTS, CHOICES, LanguageModel
from lm.data import Corpus
from lm.export import CONFIG, read_export
from lm.prepare import MODEL
from lm.trained import Trained, shapes
from toybench.config import ConfigError, Run
from toybench.loading import load_run
from toybench.records import read_json, write_json, write_whole

DATA = "data.json"
EXPECTED = "expected the folder that `python -m lm train` left of a run, or an export of one"


def keep_data(folder: Path, corpus: Corpus, resumed: bool) -> None:
    """Note in a run's folder what it is trained on, and keep the tokenizer, so that the model can do without the data.

    Raises:
        ConfigError: a run that is resumed was begun on other data.
    """
    path = folder / DATA
    if resumed and path.is_file() and read_json(path) != corpus.note:
        raise ConfigError("resume", f"{str(folder)!r} was begun on other data than are in {str(corpus.folder)!r} now")
    if (corpus.folder / MODEL).is_file():
        write_whole(folder / MODEL, (corpus.folder / MODEL).read_bytes())
    write_json(path, corpus.note)


def open_trained(name: str) -> Trained:
    """The model of a run's folder, as its last checkpoint has it; or of an export: its file, or the folder of that.

    Raises:
        ConfigError: there is none, or it cannot be read.
    """
    path = Path(name).expanduser()
    if (path / CHECKPOINTS).is_dir():
        return _read_run(name, path)
    if path.is_file() or (path / CONFIG).is_file():
        return read_export(name, path)
    if not path.is_dir():
        raise ConfigError("model", f"{name!r} is not there; {EXPECTED}")
    runs = sorted(folder.parent.name for folder in path.glob(f"*/{CHECKPOINTS}"))
    raise ConfigError("model", f"{name!r} holds {'runs, ' + ', '.join(runs) if runs else 'no model'}; {EXPECTED}")


def _read_run(name: str, path: Path) -> Trained:
    found = read_last(path / CHECKPOINTS, lambda meta: shapes(run_of(meta["run"], name).task))
    run, arrivals, seed = run_of(found.meta["run"], name), found.arrivals, found.meta["seed"]
    at, _, _, metrics = found.meta["points"][-1]
    source = {
        "run": found.meta["run"],
        "seed": seed,
        "arrivals": arrivals,
        "local_steps": steps_after(run, seed, arrivals),
        "total_steps": run.budget.total_steps(run.cluster),
        "loss": metrics["loss"] if at == arrivals else None,
        "rounded": False,
        # One that was trained before this was noted needs the data.
        "data": read_json(path / DATA) if (path / DATA).is_file() else _note(name, run.task),
    }
    return Trained(name, run.task, found.params, source, (path, Path(run.task.data).expanduser()))


def run_of(tables: Any, name: str, setting: str = "model") -> Run:
    """The run of a checkpoint.

    Args:
        tables: as the checkpoint has them.
        name: of the folder, as the user named it.
        setting: that named it.

    Raises:
        ConfigError: this version knows no such run.
    """
    try:
        return load_run(tables, CHOICES)
    except ConfigError as error:
        raise ConfigError(setting, f"{name!r} is of no run that this version knows: {error}") from None


def _note(name: str, settings: LanguageModel) -> dict[str, Any]:
    try:
        return Corpus.open(settings.data, settings.vocabulary).note
    except ConfigError as error:
        raise ConfigError("model", f"{name!r} does not say what it was trained on, and {error.problem}") from None
