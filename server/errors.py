"""Every error of the service and its gRPC status, in one place.

ServiceError
├── ConflictError       ALREADY_EXISTS      known id, another body
├── NotFoundError       NOT_FOUND
├── PermissionDeniedError  PERMISSION_DENIED  another person must do it, or one of more authority
├── PreconditionError   FAILED_PRECONDITION  not in this state
├── OverloadedError     RESOURCE_EXHAUSTED  with a retry delay
├── DeadlineError       DEADLINE_EXCEEDED   shed before work started
└── UnavailableError    UNAVAILABLE         send the same request again; never decided twice
InvalidFieldError       INVALID_ARGUMENT    names the field (google.rpc.BadRequest)
StoreError              UNAVAILABLE
└── NotDurableError     UNAVAILABLE         recorded, and too few confirm it
"""

from dataclasses import dataclass

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from features.application import InvalidFieldError
from features.durability import NotDurableError, StoreError

RETRY_DELAY_MS = 50


class ServiceError(Exception):
    """An answer other than a decision; `code` is its gRPC status."""

    code = grpc.StatusCode.INTERNAL


class ConflictError(ServiceError):
    """The id is known with another body."""

    code = grpc.StatusCode.ALREADY_EXISTS


class NotFoundError(ServiceError):
    """Nothing of that id."""

    code = grpc.StatusCode.NOT_FOUND


class PermissionDeniedError(ServiceError):
    """Another person must do it, or one of more authority."""

    code = grpc.StatusCode.PERMISSION_DENIED


class PreconditionError(ServiceError):
    """Not in the state that it is in now; sending it again changes nothing."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class OverloadedError(ServiceError):
    """The queue is full."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class DeadlineError(ServiceError):
    """Too little time was left to start."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class UnavailableError(ServiceError):
    """The store or the graph is not ready."""

    code = grpc.StatusCode.UNAVAILABLE


@dataclass(frozen=True)
class Status:
    """What goes on the wire. `field` is empty where the error is not about one."""

    code: grpc.StatusCode
    message: str
    field: str = ""

    @property
    def number(self) -> int:
        """The status code as a number."""
        return int(self.code.value[0])

    def metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """Trailing metadata: google.rpc.Status with the field or the retry delay."""
        detail = any_pb2.Any()
        if self.field:
            violation = error_details_pb2.BadRequest.FieldViolation(field=self.field, description=self.message)
            detail.Pack(error_details_pb2.BadRequest(field_violations=[violation]))
        elif self.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromMilliseconds(RETRY_DELAY_MS)
            detail.Pack(retry)
        else:
            return ()
        rich = status_pb2.Status(code=self.number, message=self.message, details=[detail])
        return (("grpc-status-details-bin", rich.SerializeToString()),)


def status_of(error: Exception) -> Status:
    """The status of any error; one that is not foreseen is INTERNAL and says nothing of its cause."""
    match error:
        case InvalidFieldError():
            return Status(grpc.StatusCode.INVALID_ARGUMENT, str(error), error.field)
        case ServiceError():
            return Status(error.code, str(error))
        case NotDurableError():
            return Status(
                grpc.StatusCode.UNAVAILABLE,
                "it is recorded, but too few copies are confirmed; send the same request again",
            )
        case StoreError():
            return Status(grpc.StatusCode.UNAVAILABLE, "the store cannot be reached; send the same request again")
        case _:
            return Status(grpc.StatusCode.INTERNAL, "internal error; the request may be sent again")
