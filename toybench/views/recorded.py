"""The committed records as the pages show them: read when they change, and what cannot be read said in a line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from toybench.config import ConfigError
from toybench.records import read_json
from toybench.views import state


class Missing(ConfigError):
    """A record that is not there."""


@st.cache_data(max_entries=8, show_spinner=False)
def _read(path: Path, changed: int, size: int) -> Any:
    return read_json(path)


def document(folder: Path | None, name: str) -> dict[str, Any]:
    """A record of the folder.

    Raises:
        Missing: it is not there.
        ConfigError: it cannot be read.
    """
    if folder is None:
        raise Missing("records", "the app was started without a folder of records")
    path = folder / name
    if not path.is_file():
        raise Missing("records", f"there is no {str(path)!r}")
    stat = path.stat()
    return _read(path, stat.st_mtime_ns, stat.st_size)


def read_as(make: Callable[[], Any], name: str, maker: str) -> Any:
    """What `make` takes from a record.

    Raises:
        ConfigError: the record is not of the form that `maker` writes.
    """
    try:
        return make()
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(name, f"is not what `{maker}` writes ({type(error).__name__}: {str(error)[:80]})") from None


def message(error: ConfigError, maker: str) -> None:
    """Say what is wrong with a record, and what makes it."""
    if isinstance(error, Missing):
        st.info(f"{error.problem[0].upper()}{error.problem[1:]}.", icon=":material/folder_off:")
    else:
        st.error(state.plain(str(error)), icon=":material/error:")
    st.markdown("`streamlit run app.py` in a checkout of toybench shows its committed records. To make them anew:")
    st.code(maker, "bash")


def between(value: Sequence[float | None], form: str = "+.1f") -> str:
    """An interval's ends, of ``[mean, low, high]``."""
    return f"[{said(value[1], form)}, {said(value[2], form)}]"


def said(number: float | None, form: str) -> str:
    return "–" if number is None else f"{number:{form}}"


def setting_words(settings: Mapping[str, Any]) -> str:
    """Tuned settings in few words."""
    return ", ".join(f"{key.removeprefix('outer.')} {value}" for key, value in settings.items())


def span(seeds: Sequence[int]) -> str:
    """Seeds as text, neighbours by their ends."""
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}–{seeds[-1]}"
    return ", ".join(map(str, seeds))
