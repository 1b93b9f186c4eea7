"""The extractor's process, used from one thread of the service."""

from __future__ import annotations

from multiprocessing.connection import Connection

import structlog

from model.config import ExtractorId
from model.extraction.extractor import ExtractorError
from model.extraction.registry import registered
from service.api.errors import (
    ApiError,
    NoExtractorError,
    TooLargeError,
    UnavailableError,
    UnprocessableError,
)
from service.machine.child_process import ChildProcess, ClosedError, NoAnswerError, answer_of
from service.picture_extraction.messages import (
    Answer,
    Described,
    ExtractedPicture,
    Failed,
    NotInstalled,
    Picture,
    Ready,
    Refused,
    answer_from,
    encode,
    extracted,
)

log = structlog.get_logger(__name__)

STUCK_SECONDS = 120.0
"""A picture or a start that takes longer has hung. Generous, since the process has low priority."""


class ExtractorProcess:
    """The first picture starts the process; after a crash the next one restarts it. `start` and
    `extract` block and belong to one thread; `close` may be called from another."""

    def __init__(self, name: str | None, checkpoints: ExtractorId | None, count: int) -> None:
        """`name`: the extractor, None if pictures are not extracted; `checkpoints`: the extractor
        whose descriptors it must match, None for any; `count`: the most locals of an image."""
        self._name = name
        self._checkpoints = checkpoints
        self._count = count
        self._child = ChildProcess("service.picture_extraction.child")
        self._problem: str | None = None
        self.extractor: ExtractorId | None = None
        """None until it is known."""

    def start(self) -> Connection:
        """Raises NoExtractorError if no picture can be extracted here, UnavailableError where
        the process did not start."""
        if self._problem is None and self._child.connection is None:
            self._problem = self._begin()
        if self._problem is not None or self._child.connection is None:
            raise NoExtractorError(f"this service cannot extract pictures: {self._problem}")
        return self._child.connection

    def extract(self, picture: bytes, *, thumbnail: bool = False) -> ExtractedPicture:
        """Raises what `start` raises, UnprocessableError and TooLargeError for a picture that
        cannot be read, UnavailableError if it crashed the process."""
        connection = self.start()
        match self._ask(connection, Picture(picture, thumbnail)):
            case Described() as answer:
                return extracted(answer)
            case Refused(why, None):
                raise UnprocessableError(why, code="not_an_image")
            case Refused(why, max_pixels):
                raise TooLargeError(why, max_pixels=max_pixels)
            case other:
                log.error("extraction_failed", why=other.why if isinstance(other, Failed) else "")
                raise ApiError("the picture could not be extracted")

    def close(self) -> None:
        """Kills the process."""
        self._child.close()

    def _begin(self) -> str | None:
        """Starts the process. Returns why there is no extractor, or None."""
        if self._name is None:
            return "LOCORE_EXTRACTOR is none"
        try:
            registered(self._name)
        except ExtractorError as error:
            return str(error)
        try:
            connection = self._child.start(self._name, str(self._count))
        except ClosedError:
            raise _shutting_down() from None
        answer = self._hear(connection)
        if isinstance(answer, Ready):
            installed = ExtractorId(name=answer.name, version=answer.version)
            if self._checkpoints is None or installed.fits(self._checkpoints):
                self.extractor = installed
                log.info("extractor_ready", name=installed.name, version=installed.version)
                return None
            why = (
                f"{installed.name} is here in version {installed.version}; the checkpoint reads "
                f"descriptors of version {self._checkpoints.version}"
            )
        else:
            why = answer.why if isinstance(answer, NotInstalled) else "it said nothing"
        self._child.end(connection)
        return why

    def _ask(self, connection: Connection, picture: Picture) -> Answer:
        try:
            connection.send_bytes(encode(picture))
        except OSError:
            # The process may have died before. It read nothing of the picture, so a new one gets
            # it.
            self._child.end(connection)
            connection = self.start()
            connection.send_bytes(encode(picture))
        return self._hear(connection)

    def _hear(self, connection: Connection) -> Answer:
        try:
            return answer_from(answer_of(connection, STUCK_SECONDS))
        except NoAnswerError as error:
            code = self._child.end(connection)
            if self._child.closed:
                raise _shutting_down() from None
            log.error("extractor_process_ended", why=str(error), exit_code=code)
            message = "the process that extracts pictures ended; the next picture gets another"
            raise UnavailableError(message, code="extractor_unavailable", retry_after=5) from None


def _shutting_down() -> UnavailableError:
    return UnavailableError("the service is shutting down", code="shutting_down")
