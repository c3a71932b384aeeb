"""Logs as JSON lines on standard error. They carry counts, codes and versions, never what identifies a person (R21)."""

import sys
import traceback

import structlog
from structlog.types import EventDict, WrappedLogger


def _frames_only(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """An exception's type and where it was raised; its message may quote a request, so it stays out."""
    error = event.pop("exc_info", None)
    if isinstance(error, BaseException):
        event["exception"] = type(error).__name__
        event["frames"] = [f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)]
    return event


def configure() -> None:
    """Set up structlog for this process."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _frames_only,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
