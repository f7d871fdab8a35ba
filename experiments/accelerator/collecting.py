"""A folder's results merged into the records: every part's document and table, every leaderboard, and what is pending.

Nothing is invented: a part without a document is listed as pending in ``experiments/records/README.md``.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

from experiments.accelerator.bench import aligned, made_with, read_document
from toybench.config import ConfigError
from toybench.records import read_json, write_json, write_whole

RECORDS = Path(__file__).parent.parent / "records"
BEGIN, END = "<!-- accelerator: written by collect -->", "<!-- /accelerator -->"


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, nargs="?", metavar="DIR", help="a part's --out; without it: only the list")
    text = "where records are (default: experiments/records)"
    parser.add_argument("--records", type=Path, default=RECORDS, metavar="DIR", help=text)
    parser.add_argument("--replace", action="store_true", help="a record made with other settings is replaced")


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Both documents' units, the new one's where both have one, each with its own maker."""
    makers = [*old["made_by"]]
    numbers = []
    for made in new["made_by"]:
        if made not in makers:
            makers.append(made)
        numbers.append(makers.index(made))
    units = {name: unit | {"made": numbers[unit["made"]]} for name, unit in new["units"].items()}
    return new | {"made_by": makers, "units": {**old["units"], **units}}


def collect(folder: Path, records: Path, replace: bool = False) -> list[str]:
    """Merge every document of a folder; the names of the parts.

    Raises:
        ConfigError: there is none, one is a test's, or a record there was made with other settings.
    """
    from experiments.accelerator.__main__ import PARTS

    found = {part: folder / f"{part}.json" for part in PARTS if (folder / f"{part}.json").exists()}
    if not found:
        raise ConfigError("folder", f"{str(folder)!r} holds no part's document; expected {', '.join(PARTS)}")
    documents = {part: read_document(path) for part, path in found.items()}
    for part, document in documents.items():
        if document["settings"].get("small"):
            raise ConfigError("folder", f"{part} was made with --small, which is a test's size and no record")
        there = records / "accelerator" / f"{part}.json"
        if there.exists() and not replace:
            old = read_document(there)
            if old["settings"] != document["settings"]:
                raise ConfigError("records", f"{part} was made with other settings; --replace takes the new one")
            documents[part] = merged(old, document)
    (records / "accelerator").mkdir(parents=True, exist_ok=True)
    for part, document in documents.items():
        _keep(part, document, folder, records / "accelerator")
    return [*documents]


def _keep(part: str, document: dict[str, Any], folder: Path, records: Path) -> None:
    from experiments.accelerator.__main__ import PARTS
    from toybench.leaderboard import save

    room = importlib.import_module(f"experiments.accelerator.{PARTS[part][0]}")
    write_json(records / f"{part}.json", document)
    lines = [f"# {part}", "", f"{PARTS[part][1].capitalize()}.", "", f"Made with: {made_with(document)}.", ""]
    write_whole(records / f"{part}.md", "\n".join([*lines, aligned(room.rows(document["units"])), ""]))
    if (board := folder / f"{part}.leaderboard.json").exists():
        (records / part).mkdir(exist_ok=True)
        save(read_json(board), records / part)


def listed(records: Path) -> str:
    """Every part with device, versions and date, or pending."""
    from experiments.accelerator.__main__ import PARTS

    rows = []
    for part in PARTS:
        path = records / "accelerator" / f"{part}.json"
        document = read_document(path) if path.exists() else None
        told = "pending" if document is None else made_with(document)
        rows.append({"part": f"`{part}`", "result": told if document is None else f"[{told}](accelerator/{part}.md)"})
    return aligned(rows)


def list_in(readme: Path, records: Path) -> None:
    """Write the list between its marks.

    Raises:
        ConfigError: the marks are not there.
    """
    text = readme.read_text(encoding="utf-8") if readme.exists() else ""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ConfigError("records", f"{str(readme)!r} has no {BEGIN} ... {END}")
    write_whole(readme, f"{before}{BEGIN}\n{listed(records)}\n{END}{after}")


def run(options: argparse.Namespace) -> int:
    """Merge a folder, and write the list of what there is."""
    if options.folder is not None:
        print(", ".join(collect(options.folder, options.records, options.replace)))
    list_in(options.records / "README.md", options.records)
    print(listed(options.records))
    return 0
