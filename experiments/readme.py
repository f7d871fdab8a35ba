"""The README's demo, redone: its two tables, its figure, and the record that both are made from.

Command:  python -m experiments.readme
Duration: as long as `toybench demo`.
Writes:   experiments/records/demo.json, docs/demo.png, and the two tables in README.md.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from toybench.records import write_whole
from toybench.report import per_cent

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "experiments" / "records" / "demo.json"


def methods_table(document: dict[str, Any]) -> str:
    """Markdown of the demo's methods."""
    lines = [
        "| method | outer rate | final loss | gap to sync Nesterov | simulated time | time to sync's loss |",
        "|---|---|---|---|---|---|",
    ]
    for m in document["methods"]:
        low, high = m["loss_interval"]
        gap = f"{m['gap']:+.1f} % [{m['interval'][0]:+.1f}, {m['interval'][1]:+.1f}]"
        reach = "never"
        if m["time_to_sync_loss"] is not None:
            some = m["reached_sync_loss"] < len(document["seeds"])
            reach = f"{m['time_to_sync_loss']:,.0f} s"
            reach += f" ({m['reached_sync_loss']} of {len(document['seeds'])})" if some else ""
        cells = (
            m["title"],
            f"{m['lr']:g}",
            f"{m['loss']:.3f} ± {(high - low) / 2:.3f}",
            "" if m["method"] == "sync_nesterov" else gap,
            f"{m['simulated_time']:,.0f} s",
            reach,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def findings_table(document: dict[str, Any]) -> str:
    """Markdown of the demo's findings."""
    lines = ["| | finding | verdict | 95 % interval |", "|---|---|---|---|"]
    for f in document["findings"]:
        digits, won, parts = 1 if "%" in f["statement"] else 2, f.get("won_back", {}), []
        for name, (mean, low, high) in f["intervals"].items():
            text = f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
            text = f"{name.replace('_', ' ')}: {text}" if len(f["intervals"]) > 1 else text
            parts.append(text + (f", {per_cent(won[name])} won back" if name in won else ""))
        lines.append(f"| {f['id']} | {f['statement']} | {f['status']} | {'; '.join(parts)} |")
    return "\n".join(lines)


def with_tables(readme: str, document: dict[str, Any]) -> str:
    """The README with the tables of a demo in place of its own."""
    for head, table in ((r"\| method \|", methods_table(document)), (r"\| \| finding \|", findings_table(document))):
        readme, found = re.subn(rf"^{head}[^\n]*\n(?:\|[^\n]*\n)+", lambda _, t=table: t + "\n", readme, flags=re.M)
        assert found == 1, head
    return readme


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "toybench.cli", "demo", "--out", folder], check=True)
        document = json.loads((Path(folder) / "demo.json").read_text())
        del document["records"]  # every curve: megabytes
        write_whole(ROOT / "docs" / "demo.png", (Path(folder) / "demo.png").read_bytes())
    write_whole(RECORD, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    readme = ROOT / "README.md"
    write_whole(readme, with_tables(readme.read_text(encoding="utf-8"), document))


if __name__ == "__main__":
    main()
