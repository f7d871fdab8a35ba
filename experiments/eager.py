"""How long does the paper's notebook take in eager PyTorch? A loop in its manner, a worker at a time.

Command:  python -m experiments.eager [--visits N] [--preset NAME] [--hidden N]
Duration: on an accelerator some seconds; on a CPU half a minute a visit at 65,000 hidden units.

Each visit copies the server's parameters into a worker, trains it with torch.optim.AdamW and a cosine schedule, and
hands the difference to torch.optim.SGD as a gradient, as the notebook does; written for this benchmark, on random
points, since only the time counts. Prints seconds a visit as JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from toybench.config import Run
from toybench.loading import overlay
from toybench.presets import load_preset


def eager_visits(run: Run, visits: int, device: str = "cpu") -> float:
    """Seconds of so many visits, after one that warms up.

    Args:
        run: whose shapes, batch, local steps and rates are used.
        visits: by one worker after the other.
        device: as torch calls it.
    """
    import torch

    t, steps = run.task, run.cluster.local_steps
    x = torch.randn(t.points, t.dimension, device=device)
    y = torch.randint(t.classes, (t.points,), device=device)

    def perceptron() -> Any:
        layers = torch.nn.Linear(t.dimension, t.hidden), torch.nn.ReLU(), torch.nn.Linear(t.hidden, t.classes)
        return torch.nn.Sequential(*layers).to(device)

    server, loss_of, cursor = perceptron(), torch.nn.CrossEntropyLoss(), 0
    outer = torch.optim.SGD(server.parameters(), lr=0.07, momentum=0.9)

    def visit() -> None:
        nonlocal cursor
        worker = perceptron()
        worker.load_state_dict(server.state_dict())
        inner = torch.optim.AdamW(worker.parameters(), lr=run.inner.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(inner, run.budget.rounds * steps)
        for _ in range(steps):
            rows = slice(cursor, cursor + t.batch)
            inner.zero_grad()
            loss_of(worker(x[rows]), y[rows]).backward()
            inner.step()
            schedule.step()
            cursor = (cursor + t.batch) % (t.points - t.batch)
        for ours, theirs in zip(server.parameters(), worker.parameters()):
            ours.grad = (ours - theirs).detach()
        outer.step()

    def wait() -> None:
        if device != "cpu":
            torch.cuda.synchronize()

    visit()
    wait()
    began = time.perf_counter()
    for _ in range(visits):
        visit()
    wait()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the notebook's manner in eager PyTorch.")
    parser.add_argument("--preset", default="notebook", help="whose shapes (default: notebook)")
    parser.add_argument("--hidden", type=int, help="hidden units, instead of the preset's")
    parser.add_argument("--points", type=int, help="points, instead of the preset's")
    parser.add_argument("--visits", type=int, default=8, help="that are timed (default: 8)")
    options = parser.parse_args()
    asked = {f"task.{name}": value for name in ("hidden", "points") if (value := getattr(options, name)) is not None}
    import torch

    run = overlay(load_preset(options.preset), asked)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    seconds = eager_visits(run, options.visits, device)
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    told = {"visits": options.visits, "visit_seconds": seconds / options.visits}
    print(json.dumps(told | {"hidden": run.task.hidden, "torch": torch.__version__, "device": name}))


if __name__ == "__main__":
    main()
