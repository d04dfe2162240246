"""Client of a service (`bebop serve`): submits, waits, fetches; whatever goes wrong is one line.

Needs nothing beyond the standard library. Follows no redirect, because its token would go along.
"""

import http.client
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from simulator.config import Scenario
from simulator.errors import ServiceError
from traces.base import Trace
from traces.report import RunReport
from traces.store import save_trace, write_atomically

JobKind = Literal["run", "sweep", "plan"]

TIMEOUT_S: Final = 30.0
POLL_S: Final = 0.3
MAX_POLL_S: Final = 3.0
PATIENCE_S: Final = 60.0
"""How long a service may be away (it restarts) while a job is waited for."""


class RequestRefusedError(ServiceError):
    """The service said no."""

    def __init__(self, status: int, message: str, retry_after_s: float | None) -> None:
        super().__init__(message)
        self.status, self.retry_after_s = status, retry_after_s


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as the service shows it."""

    id: str
    kind: JobKind
    status: str
    """`queued`, `running`, `done`, `failed` or `cancelled`."""
    progress: float
    """0..1."""
    answer: Any
    """JSON; None before it is done."""
    problem: str | None
    """One line: why it failed."""
    estimate_s: float


class Client:
    """One service and one token."""

    def __init__(self, url: str, token: str, *, timeout_s: float = TIMEOUT_S) -> None:
        """Ask nothing yet.

        Raises:
            ServiceError: `url` is none.
        """
        if not url.startswith(("http://", "https://")):
            raise ServiceError(f"{url}: not the address of a service; give one like http://127.0.0.1:8420")
        if not token or not token.isascii() or not token.isprintable():
            raise ServiceError("no token, or one with other characters; `bebop serve --new-token NAME` makes one")
        self._url, self._token, self._timeout_s = url.rstrip("/"), token, timeout_s
        self._opener = urllib.request.build_opener(_NoRedirect)

    def run(self, scenario: Scenario, *, progress: Callable[[float], None] | None = None) -> RunReport:
        """Return what `simulate` returns, worked out by the service.

        Raises:
            ServiceError: It does not answer, or says no, or the run failed; one line.
        """
        job = self.wait(self.submit("run", scenario.model_dump(mode="json", exclude_unset=True)), progress=progress)
        return RunReport.model_validate_json(json.dumps(job.answer), strict=True)

    def submit(self, kind: JobKind, content: dict[str, Any]) -> JobView:
        """Queue a job, or find the one that asks the same; `content` is the body as /openapi.json describes it."""
        return _view(self._call("POST", f"/v1/{kind}s", json.dumps(content).encode()))

    def job(self, kind: JobKind, job_id: str) -> JobView:
        """Return where a job stands."""
        return _view(self._call("GET", f"/v1/{kind}s/{job_id}"))

    def wait(
        self,
        job: JobView,
        *,
        progress: Callable[[float], None] | None = None,
        timeout_s: float | None = None,
        max_poll_s: float = MAX_POLL_S,
    ) -> JobView:
        """Return a job that is done; a service that restarts meanwhile is waited for.

        Args:
            job: What `submit` returned.
            progress: Called with the share that is done, 0..1.
            timeout_s: How long to wait; None: until it has finished.
            max_poll_s: Longest pause between two looks, and so between two calls of `progress`.

        Raises:
            ServiceError: It failed, was cancelled, or took too long; or the service is gone.
        """
        begin_s = heard_s = time.monotonic()
        pause_s = POLL_S
        while job.status not in ("done", "failed", "cancelled"):
            if timeout_s is not None and time.monotonic() - begin_s > timeout_s:
                raise ServiceError(f"{job.kind} {job.id}: {job.status} after {timeout_s:g} s; it goes on, ask again")
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.2, max_poll_s)
            try:
                job = self.job(job.kind, job.id)
                heard_s = time.monotonic()
            except RequestRefusedError as error:
                if error.status not in (429, 503):
                    raise
                time.sleep(min(error.retry_after_s or 1.0, PATIENCE_S))
            except ServiceError:
                if time.monotonic() - heard_s > PATIENCE_S:
                    raise
            if progress is not None:
                progress(job.progress)
        if job.status != "done":
            raise ServiceError(f"{job.kind} {job.id}: {job.status}: {job.problem or 'somebody ended it'}")
        return job

    def cancel(self, job: JobView) -> JobView:
        """End a job."""
        return _view(self._call("POST", f"/v1/{job.kind}s/{job.id}/cancel"))

    def delete(self, job: JobView) -> None:
        """End and forget a job."""
        self._call("DELETE", f"/v1/{job.kind}s/{job.id}")

    def save_sweep(self, job: JobView, path: Path) -> None:
        """Write the table of a sweep that is done."""
        write_atomically(path, self._call_raw("GET", f"/v1/sweeps/{job.id}/results", None, "application/json"))

    def upload(self, path: Path) -> str:
        """Upload a trace from a file and return the name by which scenarios name it."""
        kinds = {".json": "application/json", ".parquet": "application/vnd.apache.parquet"}
        if path.suffix not in kinds:
            raise ServiceError(f"{path}: suffix {path.suffix!r} is neither .json nor .parquet; rename the file")
        answer = json.loads(self._call_raw("POST", "/v1/traces", path.read_bytes(), kinds[path.suffix]))
        return str(answer["name"])

    def upload_trace(self, trace: Trace, folder: Path) -> str:
        """Upload a trace that lies nowhere yet; `folder` takes it for a moment."""
        path = folder / f"{trace.name}.json"
        save_trace(trace, path)
        try:
            return self.upload(path)
        finally:
            path.unlink()

    def _call(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        text = self._call_raw(method, path, body, "application/json")
        try:
            content: dict[str, Any] = json.loads(text) if text else {}
        except ValueError:
            raise ServiceError(
                f"{self._url}{path}: answers, but not as a service of Bebop; check the address"
            ) from None
        return content

    def _call_raw(self, method: str, path: str, body: bytes | None, content_type: str) -> bytes:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": content_type, "User-Agent": "bebop"}
        request = urllib.request.Request(f"{self._url}{path}", data=body, headers=headers, method=method)
        try:
            with self._opener.open(request, timeout=self._timeout_s) as response:
                answer: bytes = response.read()
                return answer
        except urllib.error.HTTPError as error:
            raise _refused(f"{self._url}{path}", error) from None
        except (OSError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            said = "no answer in time" if isinstance(reason, socket.timeout) else str(reason) or type(reason).__name__
            raise ServiceError(f"{self._url}: no service answers there ({said}); is `bebop serve` running?") from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_arguments: object, **_options: object) -> None:
        """Go nowhere."""


def _refused(url: str, error: urllib.error.HTTPError) -> RequestRefusedError:
    try:
        problem = json.loads(error.read(100_000))
        said = f"{problem['title']}: {problem['detail']}"
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException):
        said = f"status {error.code}, not from a service of Bebop; check the address"
    finally:
        error.close()
    retry = error.headers.get("Retry-After", "")
    return RequestRefusedError(
        error.code, f"{url}: {' '.join(said.split())}", float(retry) if retry.isdigit() else None
    )


def _view(content: dict[str, Any]) -> JobView:
    try:
        problem = content["problem"]
        return JobView(
            id=content["id"],
            kind=content["kind"],
            status=content["status"],
            progress=content["progress"],
            answer=content.get("answer"),
            problem=None if problem is None else problem["detail"],
            estimate_s=content["estimate"]["seconds"],
        )
    except (KeyError, TypeError):
        raise ServiceError("the service answers in another form; update Bebop here or there") from None
