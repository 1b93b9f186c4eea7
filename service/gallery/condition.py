"""Whether the store is up, judged by its operations; turns its failures into the contract's
errors."""

from __future__ import annotations

import re

import structlog
from redis import exceptions

from service.api.errors import ApiError, StoreFullError, StoreUnavailableError
from service.watch.metrics import STORE_UP

log = structlog.get_logger(__name__)

AWAY = (
    # If the Sentinels know no primary, that is a ConnectionError too.
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    OSError,
    # In a cluster: slots without a node, with an unknown one, or moving while we ask.
    exceptions.RedisClusterException,
    exceptions.ClusterError,
    exceptions.AskError,
    exceptions.TryAgainError,
)
"""What redis-py raises if a store is away or changes its primary."""

FAILURES = (*AWAY, exceptions.RedisError)

NO_REPLICAS = "NOREPLICAS"
"""The store refuses only writes, for a while. It can be read, so it counts as up."""

_DEFECTS = re.compile(
    r"WRONGTYPE|(ERR |^)user_script:\d+:|compiling script|wrong number of arguments|syntax error"
)
"""Answers to a wrong command, which are defects. All others are refusals: the store cannot do it,
or not for us (NOPERM, BUSY, MISCONF, a command that a hosted Redis disables)."""

_ANY = "any"
"""Stands for any operation: the store did not answer. The next success shows that it is back."""


class StoreCondition:
    """With `log_changes`, the log says when and why the store goes away, and when it is back."""

    def __init__(self) -> None:
        self.log_changes = False
        self._failing: set[str] = set()

    def success(self, operation: str) -> None:
        # A store that refuses one kind of command may accept others; a ping tries them all.
        self._note(set() if operation == "ping" else self._failing - {_ANY, operation})

    def failure(self, operation: str, error: Exception) -> ApiError | None:
        """The contract's error for one of FAILURES; None for a defect."""
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
    """The store's message, without the command that redis-py puts before it."""
    _, of_pipeline, message = str(error).rpartition("of pipeline caused error: ")
    return (message.strip("(,)'\"") if of_pipeline else message) or type(error).__name__
