"""Every error assay raises on purpose, and the one place where foreign failures are caught.

    AssayError                 the base; its message is one line that says what, where and what to do
    |-- ConfigError            (ValueError)    a configuration that cannot mean anything
    |-- DataError              (ValueError)    a file or row that is missing, malformed or contradicts itself
    |-- CheckpointError        (RuntimeError)  a checkpoint that is incomplete or of another architecture
    |-- EnvironmentProblem     (RuntimeError)  the machine lacks something: a compiler, a namespace, a package
    |-- WeightMismatch         (RuntimeError)  the engine does not hold the trainer's weights
    |-- TrainingDiverged       (RuntimeError)  a loss, reward or gradient that is not a finite number
    |-- InfraFailure           (RuntimeError)  a worker, box or service failed; never the sample's fault

The command line prints an `AssayError` as one line and leaves with status 2; anything else is a bug and keeps
its traceback. All of them can be pickled (Ray carries them between processes): one positional message each.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class AssayError(Exception):
    """The base of everything assay raises on purpose."""


class ConfigError(AssayError, ValueError):
    """A configuration that cannot mean anything."""


class DataError(AssayError, ValueError):
    """A file or row that is missing, malformed or contradicts itself."""


class CheckpointError(AssayError, RuntimeError):
    """A checkpoint that is incomplete, or of another architecture."""


class EnvironmentProblem(AssayError, RuntimeError):
    """The machine lacks something assay needs; the message says what to install."""


class WeightMismatch(AssayError, RuntimeError):
    """The rollout engine does not hold the trainer's weights; the message names what differs."""


class TrainingDiverged(AssayError, RuntimeError):
    """A loss, reward or gradient is not a finite number."""


class InfraFailure(AssayError, RuntimeError):
    """A worker, sandbox or service failed. It says nothing about the sample that was being handled."""


@contextmanager
def boundary(what: str) -> Iterator[None]:
    """Turn whatever foreign code raises inside the block into `InfraFailure`, naming what was being done.

    The only broad `except` in assay. Errors that are already ours pass through, and so do KeyboardInterrupt and
    SystemExit: those are orders, not failures.
    """
    try:
        yield
    except AssayError:
        raise
    except Exception as error:  # foreign code may raise anything; this is the boundary
        raise InfraFailure(f"{what}: {type(error).__name__}: {error}") from error
