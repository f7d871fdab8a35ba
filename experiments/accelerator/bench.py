"""Work done in units, each kept when it is finished: a part of the study that can be stopped and taken up again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toybench.config import ConfigError
from toybench.records import plain, provenance, read_json, write_json

Unit = dict[str, Any]
SAME = ("device", "devices", "jax", "jaxlib", "code")  # of a document whose numbers may stand side by side


class OutOfTime(Exception):
    """The next unit would not end within the seconds given."""


@dataclass(frozen=True)
class Bench:
    """A part's document, written whole after each unit of work.

    Args:
        part: its name.
        out: folder of the document, ``PART.json``.
        scratch: folder for what is large and can be made anew.
        seconds: that a call may take.
        small: sizes for a test; such a document is never taken for another.
        began: when the call began, of `time.monotonic`.
        document: what is kept so far.
        before: seconds of earlier calls.
    """

    part: str
    out: Path
    scratch: Path
    seconds: float
    small: bool = False
    began: float = field(default_factory=time.monotonic)
    document: dict[str, Any] = field(default_factory=dict)
    before: float = 0.0

    @property
    def path(self) -> Path:
        return self.out / f"{self.part}.json"

    @property
    def left(self) -> float:
        """Seconds that this call still has."""
        return self.seconds - (time.monotonic() - self.began)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the part's numbers."""
        return self.document["settings"]

    @property
    def units(self) -> dict[str, Unit]:
        """What is finished, by name."""
        return self.document["units"]

    def unit(self, name: str, job: Callable[[], Mapping[str, Any]], needs: float = 0.0) -> Unit:
        """What a unit found: as it is kept, or done now and kept.

        Args:
            name: of the unit, the same in every call.
            job: does it.
            needs: seconds that it is expected to take.

        Raises:
            OutOfTime: it is not there, and that much time is not left.
        """
        if name not in self.units:
            if self.left <= needs:
                raise OutOfTime(name)
            began = time.monotonic()
            found = dict(job())
            self.keep(name, found | {"unit_seconds": round(time.monotonic() - began, 3)})
        return self.units[name]

    def keep(self, name: str, found: Mapping[str, Any]) -> None:
        """Write what a unit found, in place of what it had found before."""
        self.units[name] = plain(dict(found)) | {"made": self._maker()}
        self.document["seconds"] = self.spent
        write_json(self.path, self.document)

    @property
    def spent(self) -> float:
        """Seconds of all calls so far."""
        return round(self.before + time.monotonic() - self.began, 1)

    def tried(self, name: str, job: Callable[[], Mapping[str, Any]], needs: float = 0.0) -> Unit:
        """`unit` of something that a device may lack memory or a kernel for: it then says why."""

        def attempt() -> Mapping[str, Any]:
            try:
                return job()
            except (RuntimeError, ValueError, NotImplementedError) as error:
                return {"failed": (str(error).strip() or type(error).__name__).splitlines()[0][:300]}

        return self.unit(name, attempt, needs)

    def _maker(self) -> int:
        """The number of who makes units now, among those that made this document."""
        now, known = provenance(), self.document["made_by"]
        told = {key: value for key, value in now.items() if key != "date"}
        for number, other in enumerate(known):
            if {key: value for key, value in other.items() if key != "date"} == told:
                return number
        known.append(now)
        return len(known) - 1


def open_bench(
    part: str, out: Path, seconds: float, small: bool = False, scratch: Path | None = None, **settings: Any
) -> Bench:
    """A part's document in a folder, as an earlier call left it, or a new one.

    Args:
        part, out, seconds, small, scratch: see `Bench`.
        **settings: what decides the part's numbers beside its name; a document of others is refused.

    Raises:
        ConfigError: the document there is damaged, or of another device, version or setting.
    """
    path = out / f"{part}.json"
    told = plain({"small": small} | settings)
    document = {"part": part, "settings": told, "made_by": [], "units": {}}
    if path.exists():
        document = _taken_up(path, told)
    before = document.get("seconds", 0.0)
    return Bench(part, out, scratch or out / "scratch", seconds, small, document=document, before=before)


def read_document(path: Path) -> dict[str, Any]:
    """What a part has kept.

    Raises:
        ConfigError: it is no such document.
    """
    found = read_json(path)
    if not isinstance(found, dict) or not all(
        isinstance(found.get(key), kind)
        for key, kind in {"part": str, "settings": dict, "made_by": list, "units": dict}.items()
    ):
        raise ConfigError("out", f"{str(path)!r} is no document of an accelerator part")
    return found


def _taken_up(path: Path, told: dict[str, Any]) -> dict[str, Any]:
    found = read_document(path)
    if found["settings"] != told:
        differ = sorted(k for k in {*told, *found["settings"]} if told.get(k) != found["settings"].get(k))
        raise ConfigError("out", f"{str(path)!r} was made with other {', '.join(differ)}; name another folder")
    now = provenance()
    for made in found["made_by"]:
        if changed := [key for key in SAME if made.get(key) != now[key]]:
            said = ", ".join(f"{key} {made.get(key)}, now {now[key]}" for key in changed)
            raise ConfigError("out", f"{str(path)!r} was made by another ({said}); name another folder")
    return found


def made_with(document: Mapping[str, Any]) -> str:
    """Device, versions and dates, in a line."""
    lines = []
    for made in document["made_by"]:
        commit = (made.get("commit") or "no commit")[:20]
        lines.append(f"{made['device']} x {made['devices']}, jax {made['jax']}, {commit}, {made['date'][:10]}")
    return "; ".join(dict.fromkeys(lines)) or "nothing yet"


def aligned(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows with the same keys as a table that is Markdown and reads well on a terminal."""
    if not rows:
        return "nothing yet"
    names = list(rows[0])
    width = {name: max(len(name), *(len(row[name]) for row in rows)) for name in names}
    left = names[0]

    def line(cells: Mapping[str, str]) -> str:
        padded = (cells[n].ljust(width[n]) if n == left else cells[n].rjust(width[n]) for n in names)
        return f"| {' | '.join(padded)} |"

    rule = "|".join("-" * (width[n] + 2) if n == left else "-" * (width[n] + 1) + ":" for n in names)
    return "\n".join([line(dict(zip(names, names))), f"|{rule}|", *map(line, rows)])
