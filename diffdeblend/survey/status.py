"""What became of a stamp."""

from collections.abc import Mapping
from enum import StrEnum


class Status(StrEnum):
    """What became of a stamp; the column `status`."""

    OK = "ok"
    NOT_CONVERGED = "not_converged"
    NO_SOURCES = "no_sources"
    BAD_INPUT = "bad_input"
    UNREADABLE = "unreadable"
    FAILED = "failed"
    KILLED_WORKER = "killed_worker"


STATUS_MEANINGS: Mapping[Status, str] = {
    Status.OK: "fitted",
    Status.NOT_CONVERGED: "fitted, but stopped before the fit's own criterion was met",
    Status.NO_SOURCES: "no position was given: nothing to fit",
    Status.BAD_INPUT: "the stamp, its PSF or its positions were refused; `error` says why",
    Status.UNREADABLE: "the store could not be read there; `error` says why",
    Status.FAILED: "the fit failed; `error` says how",
    Status.KILLED_WORKER: "the process that fitted it died, each time that it was tried",
}

# `--retry-failed` fits these again.
RETRIED = (Status.BAD_INPUT, Status.UNREADABLE, Status.FAILED, Status.KILLED_WORKER)
