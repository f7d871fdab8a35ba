"""What the pages ask of the desk, and whether a page may ask for so much. Heavy packages load in the desk's threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from toybench.config import Budget, Cluster, ConfigError, Gaussians, Run
from toybench.curves import Curves
from toybench.timeline import Timeline, simulate
from toybench.views.jobs import Job

if TYPE_CHECKING:
    from toybench.probes import Probes
    from toybench.projection import Projection

MOST_STEPS = 1_000_000  # local steps of one seed: more is no work for a page
MOST_VISITS = 50_000  # about: a page simulates them in a second
MOST_WORKERS = 100
MOST_EVALUATIONS = 500
MOST_OPERATIONS = 2e12  # floating point operations of a configuration on all seeds: about a minute on two cores
MOST_PROBED = 300_000  # local steps that are watched one arrival at a time
_compiled: set[Any] = set()


def operations(run: Run, seeds: int) -> float:
    """Floating point operations of training and evaluating a configuration of the toy, about."""
    task = run.task
    if not isinstance(task, Gaussians):
        return 0.0
    params = (task.dimension + 1) * task.hidden + (task.hidden + 1) * task.classes
    trained = 6.0 * params * task.batch * run.budget.total_steps(run.cluster)
    evaluated = 2.0 * params * task.held_out * run.budget.evaluations
    return seeds * (trained + evaluated + 4.0 * task.dimension * task.points)


def visits_of(run: Run) -> int:
    """How many visits a run has, about: with dynamic steps more than one a worker and round."""
    cluster, seconds = run.cluster, run.cluster.sec_per_step
    steps = [max(1, int(cluster.local_steps * min(seconds) / own)) for own in seconds]
    rates = [1 / (own * count) for own, count in zip(seconds, steps)]  # visits of a worker a second
    if cluster.barrier or not cluster.dynamic_steps:
        return run.budget.rounds * cluster.workers
    return int(run.budget.total_steps(cluster) * sum(rates) / sum(1 / own for own in seconds))


def check_affordable(run: Run, seeds: int) -> None:
    """Refuse what would keep a page busy for minutes; the command line takes it.

    Raises:
        ConfigError: too many steps, or too large a task.
    """
    steps, needed = run.budget.total_steps(run.cluster), operations(run, seeds)
    if steps > MOST_STEPS:
        raise ConfigError("budget.rounds", f"{steps:,} local steps are too many for a page (at most {MOST_STEPS:,})")
    if (visits := visits_of(run)) > MOST_VISITS:
        raise ConfigError("budget.rounds", f"about {visits:,} visits are too many for a page (at most {MOST_VISITS:,})")
    for name, count, most in (
        ("cluster.sec_per_step", run.cluster.workers, MOST_WORKERS),
        ("budget.evaluations", run.budget.evaluations, MOST_EVALUATIONS),
    ):
        if count > most:
            raise ConfigError(name, f"{count:,} are too many for a page (at most {most})")
    if needed > MOST_OPERATIONS:
        said = f"{needed:.2g} floating point operations on {seeds} seeds"
        raise ConfigError("task", f"{said} are too many for a page (at most {MOST_OPERATIONS:.0g})")


def curves_key(run: Run, seeds: tuple[int, ...]) -> tuple:
    return "curves", run, seeds


def train_curves(run: Run, seeds: tuple[int, ...]) -> Callable[[Job], Curves]:
    """Work that trains a configuration."""

    def work(job: Job) -> Curves:
        check_affordable(run, len(seeds))
        job.report(said="loading JAX")
        from toybench.runtime import configure

        configure()
        from toybench.training import check_memory, static_part, train

        check_memory(run, len(seeds), len(seeds))
        shape = static_part(run), len(seeds)
        job.report(said="training" if shape in _compiled else "compiling a program for these shapes (once)")

        def progress(done: float) -> None:
            job.report(done / len(seeds), "training")

        [result] = train(run, seeds, progress=progress)
        _compiled.add(shape)
        return Curves(result.run, result.seeds, result.local_steps, result.time, result.metrics)

    return work


def probes_key(run: Run, seed: int) -> tuple:
    return "probes", run, seed


def watch(run: Run, seed: int) -> Callable[[Job], Probes]:
    """Work that watches a configuration on one seed, arrival by arrival."""

    def work(job: Job) -> Probes:
        check_affordable(run, 1)
        if (steps := run.budget.total_steps(run.cluster)) > MOST_PROBED:
            raise ConfigError("budget.rounds", f"{steps:,} local steps are too many to watch (at most {MOST_PROBED:,})")
        job.report(said="watching every arrival")
        from toybench.runtime import configure

        configure()
        from toybench.probes import probe

        return probe(run, seed, progress=job.report)

    return work


def projection_key(run: Run, seed: int) -> tuple:
    return "projection", run.task, seed


def project_data(run: Run, seed: int) -> Callable[[Job], Projection]:
    """Work that projects a configuration's data."""

    def work(job: Job) -> Projection:
        check_affordable(run, 1)
        job.report(said="sampling the data")
        from toybench.runtime import configure

        configure()
        from toybench.projection import project
        from toybench.training import check_memory

        check_memory(run, 1, 1)
        return project(run.task, seed)

    return work


@lru_cache(maxsize=16)
def timeline_of(cluster: Cluster, budget: Budget, seed: int) -> Timeline:
    """The timeline of a configuration that is affordable."""
    return simulate(cluster, budget, seed)


def ready(jobs: Iterable[Job]) -> bool:
    return all(job.ended for job in jobs)


def probes_document(probes: Probes) -> dict[str, Any]:
    """Probes as the record that `plots.probes.numbers` reads."""
    from toybench.loading import dump_run
    from toybench.probes import record_probes

    return {"run": dump_run(probes.run), "probes": record_probes(probes)}
