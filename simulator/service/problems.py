"""Problems: how the service says no (RFC 9457, application/problem+json). One line, with the number and the limit."""

from http import HTTPStatus
from typing import Annotated, Any, Final

from pydantic import Field
from starlette.responses import Response

from traces.base import Strict

MEDIA_TYPE: Final = "application/problem+json"


class Problem(Strict):
    """Why a request, or a job, came to nothing (RFC 9457)."""

    type: str = "about:blank"
    """`urn:bebop:problem:NAME`, for programs; about:blank where the status says it all."""
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str
    """One line: value, limit, next step."""
    limit: float | None = None
    """What was exceeded."""
    value: float | None = None
    """By what."""


class RefusalError(Exception):
    """A request that is not served."""

    def __init__(
        self,
        status: int,
        name: str,
        detail: str,
        *,
        limit: float | None = None,
        value: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Say no; `name` is the last word of the problem's type."""
        super().__init__(detail)
        self.problem = problem(status, detail, name, limit=limit, value=value)
        self.headers = headers or {}


def problem(status: int, detail: str, name: str | None = None, **numbers: float | None) -> Problem:
    """Return a problem with the title that its status has."""
    try:
        title = HTTPStatus(status).phrase
    except ValueError:
        title = "Error"
    kind: dict[str, Any] = {} if name is None else {"type": f"urn:bebop:problem:{name}"}
    return Problem(title=title, status=status, detail=" ".join(detail.split()), **kind, **numbers)


def problem_response(found: Problem, headers: dict[str, str] | None = None) -> Response:
    """Return a problem as an answer."""
    text = found.model_dump_json(exclude_none=True)
    return Response(text, status_code=found.status, media_type=MEDIA_TYPE, headers=headers)
