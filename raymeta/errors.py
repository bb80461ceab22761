"""Everything raymeta raises on purpose, with the exit code a command ends with.

RaymetaError (1)
├── ConfigError (2)            a mistake in options or files that a person wrote
├── DataError (3)              missing, unreadable or unsuitable data
├── EnvironmentProblem (3)     Ray not reachable, output not writable, disk full
├── CheckpointError (3)        no readable checkpoint
└── RunFailed (1)              the run itself went wrong
    ├── NonFiniteGradient      a meta-gradient with NaN or infinity in it
    ├── NotTwiceDifferentiable a layer without the derivative the algorithm needs
    ├── OutOfMemory            memory does not suffice for a single task
    └── WorkerFailed           a worker raised, or none is left
"""

from __future__ import annotations


class RaymetaError(Exception):
    """Base of all errors raised on purpose; its text says what, where and what to do."""

    exit_code = 1

    def __init__(self, *args: object) -> None:
        super().__init__(*(shortened(arg) if isinstance(arg, str) else arg for arg in args))


LONGEST_LINE, MOST_LINES = 2_000, 60


def shortened(text: str) -> str:
    """A text for people: a value of a megabyte, or a thousand mistakes, tell no more than their beginning and end."""
    lines = text.split("\n")
    if len(lines) > MOST_LINES:
        lines[MOST_LINES - 1 :] = [f"and {len(lines) - MOST_LINES + 1:,} lines more"]
    return "\n".join(map(_shortened_line, lines))


def _shortened_line(line: str) -> str:
    if len(line) <= LONGEST_LINE:
        return line
    head, tail = line[: LONGEST_LINE * 2 // 3], line[-LONGEST_LINE // 4 :]
    return f"{head} … ({len(line) - len(head) - len(tail):,} characters are left out) … {tail}"


class ConfigError(RaymetaError):
    """One or more mistakes in the configuration; all of them are listed at once."""

    exit_code = 2


class DataError(RaymetaError):
    """Data that is missing, unreadable, or too small for the episodes asked of it."""

    exit_code = 3


class EnvironmentProblem(RaymetaError):
    """The machine or the cluster does not allow what was asked."""

    exit_code = 3


class CheckpointError(RaymetaError):
    """No checkpoint that can be read."""

    exit_code = 3


class RunFailed(RaymetaError):
    """The run itself failed; what it had written before stays."""


class NonFiniteGradient(RunFailed):
    """A meta-gradient contained NaN or infinity."""


class NotTwiceDifferentiable(RunFailed):
    """A layer lacks the derivative that second-order adaptation needs."""


class OutOfMemory(RunFailed):
    """Memory did not suffice for `num_tasks` tasks at once; it ends a run where that is one task."""

    def __init__(self, message: str, num_tasks: int) -> None:
        super().__init__(message, num_tasks)
        self.num_tasks = num_tasks

    def __str__(self) -> str:
        return str(self.args[0])


class WorkerFailed(RunFailed):
    """A worker raised repeatedly, or no worker could be started."""


class RaymetaWarning(UserWarning):
    """Something a person should know, while the work goes on; commands print it on stderr."""
