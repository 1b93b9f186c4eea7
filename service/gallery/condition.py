"""Whether the store is up, by its operations, and its failures as the contract's errors."""

from __future__ import annotations

import re

import structlog
from redis import exceptions

from service.api.errors import ApiError, StoreFullError, StoreUnavailableError
from service.watch.metrics import STORE_UP

log = structlog.get_logger(__name__)

AWAY = (
    # The Sentinels that know of no primary are a ConnectionError too.
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    OSError,
    # Of a cluster: slots without a node, an unknown one, or one that moves away as we ask.
    exceptions.RedisClusterException,
    exceptions.ClusterError,
    exceptions.AskError,
    exceptions.TryAgainError,
)
"""What redis-py raises where a store is away, or changes its primary."""

FAILURES = (*AWAY, exceptions.RedisError)

NO_REPLICAS = "NOREPLICAS"
"""Refuses writes alone, for a while: what is there can be read, so the store is well."""

_DEFECTS = re.compile(
    r"WRONGTYPE|(ERR |^)user_script:\d+:|compiling script|wrong number of arguments|syntax error"
)
"""Answers that say that what we asked is wrong. All others are refusals: the store cannot do it, or
not for us (NOPERM, BUSY, MISCONF, a command that a hosted Redis switches off)."""

_ANY = "any"
"""What fails where the store does not answer; whatever succeeds next says that it is back."""


class StoreCondition:
    """With `log_changes` the log says when the store goes away, and why, and when it is back."""

    def __init__(self) -> None:
        self.log_changes = False
        self._failing: set[str] = set()

    def success(self, operation: str) -> None:
        # What refuses one kind of command may do others; a ping tries them all.
        self._note(set() if operation == "ping" else self._failing - {_ANY, operation})

    def failure(self, operation: str, error: Exception) -> ApiError | None:
        """What one of FAILURES is in the contract; None of a defect."""
        if isinstance(error, exceptions.OutOfMemoryError):
            return StoreFullError("the gallery store has no memory left")
        if _DEFECTS.search(str(error)):
            return None
        answered = isinstance(error, exceptions.ResponseError)
        if NO_REPLICAS not in str(error):
            failed = operation if answered else _ANY
            self._note(self._failing | {failed}, why=reason(error))
        does = "refuses commands" if answered else "does not answer"
        return StoreUnavailableError(f"the gallery store {does}")

    def _note(self, failing: set[str], **why: str) -> None:
        """The store is up unless something fails: an operation, or _ANY."""
        STORE_UP.set(not failing)
        if self.log_changes and bool(failing) != bool(self._failing):
            log.warning("store_away" if failing else "store_back", **why)
        self._failing = failing


def reason(error: BaseException) -> str:
    """What the store said, without the command that redis-py puts before it."""
    _, of_pipeline, message = str(error).rpartition("of pipeline caused error: ")
    return (message.strip("(,)'\"") if of_pipeline else message) or type(error).__name__
