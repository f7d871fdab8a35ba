"""Does the cluster model give published shares of computing over slow links?

python -m experiments.scale        a second; prints ours beside theirs, writes links.json and links.md to --out

Published: compute utilisation 11.6, 36.1, 71.5 and 87.0 % at 50 M, 200 M, 1 G and 5 G bit/s for H = 128 and a model of
31 million parameters. Neither the seconds of a step nor what else a round costs is known here, so they are fitted, by
least squares in the log odds: the seconds of a step alone, or a latency too. What is tested is the shape alone: that a
round is its steps, two transfers of 4 bytes a parameter, and a constant.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.optimize import least_squares

from experiments.options import out_folder
from toybench.arguments import Parser
from toybench.config import Budget, Cluster
from toybench.records import provenance, write_json, write_whole
from toybench.scale import measure
from toybench.timeline import play

PUBLISHED = {50e6: 0.116, 200e6: 0.361, 1e9: 0.715, 5e9: 0.870}  # bit/s -> share
BYTES = 4 * 31e6


def utilisation(bandwidth: float, sec_per_step: float, latency: float) -> float:
    """Of two equal workers behind a barrier, simulated."""
    cluster = Cluster(
        sec_per_step=(sec_per_step,) * 2,
        local_steps=128,
        barrier=True,
        latency=(latency,),
        bandwidth=(bandwidth,),
        pull_bytes=BYTES,
        push_bytes=BYTES,
    )
    return measure(cluster, play(cluster, Budget(rounds=4), 0))["utilisation"]


def odds(share: np.ndarray) -> np.ndarray:
    return np.log(share / (1 - share))


def fit(constant: bool) -> tuple[float, float]:
    """Seconds of a step and of latency, the latter 0 unless asked for."""

    def off(logs: np.ndarray) -> np.ndarray:
        step, latency = np.exp(logs[0]), np.exp(logs[1]) if constant else 0.0
        return odds(np.array([utilisation(rate, step, latency) for rate in PUBLISHED])) - odds(shares)

    shares = np.array([*PUBLISHED.values()])
    found = least_squares(off, np.log([0.05, 0.1]) if constant else np.log([0.05])).x
    return float(np.exp(found[0])), float(np.exp(found[1])) if constant else 0.0


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=out_folder, default="results/scale", metavar="DIR")
    out = parser.parse_args().out
    fits = {"transfers alone": fit(False), "transfers and a latency": fit(True)}
    rows = {name: [utilisation(rate, *own) for rate in PUBLISHED] for name, own in fits.items()}
    lines = [
        "# Computing over slow links, beside published numbers",
        "",
        "`python -m experiments.scale`: H = 128, 31 million parameters of 4 bytes, pulled and pushed each round behind",
        "a barrier. The published row is stated, not measured; seconds of a step and latency are fitted to it.",
        "",
        "| utilisation at | " + " | ".join(f"{rate / 1e6:g} M bit/s" for rate in PUBLISHED) + " |",
        "|---|" + "---|" * len(PUBLISHED),
        "| published | " + " | ".join(f"{100 * share:.1f} %" for share in PUBLISHED.values()) + " |",
    ]
    for name, (step, latency) in fits.items():
        said = f"ours, {name} ({1e3 * step:.1f} ms a step, {latency:.3g} s)"
        lines.append(f"| {said} | " + " | ".join(f"{100 * share:.1f} %" for share in rows[name]) + " |")
    print("\n".join(lines))
    fitted = {
        name: {"sec_per_step": step, "latency": latency, "utilisation": rows[name]}
        for name, (step, latency) in fits.items()
    }
    published = {str(rate): share for rate, share in PUBLISHED.items()}
    write_json(out / "links.json", {"published": published, "fitted": fitted, "provenance": provenance()})
    write_whole(out / "links.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
