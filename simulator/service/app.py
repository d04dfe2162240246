"""App: the routes. Parses, calls one function, answers; who may call, and how much, is the gate's business."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from simulator.report import MODEL_VERSION
from simulator.service import answers, openapi
from simulator.service.cluster import Cluster
from simulator.service.gate import CALLER, Gate, Tokens
from simulator.service.ledger import FINISHED, Job, Ledger, Status
from simulator.service.problems import RefusalError, problem, problem_response
from simulator.service.requests import MODELS, Kind, read_request
from simulator.service.scheduler import Scheduler
from simulator.service.settings import Settings
from simulator.service.uploads import StoredTrace, Uploads

POLL_S: Final = 0.25
"""How often a stream of events looks."""
KEEP_ALIVE_S: Final = 15.0
"""A stream says something at least so often, so that what is between keeps it open."""
SUFFIXES: Final = {
    "application/json": ".json",
    "application/vnd.apache.parquet": ".parquet",
}
"""Content types of a trace."""

JobId = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="As a submission gives it.")]


class Service:
    """What the routes share."""

    def __init__(self, settings: Settings, ledger: Ledger, version: str) -> None:
        self.settings, self.ledger = settings, ledger
        self.version = f"{version} {MODEL_VERSION}"
        self.uploads = Uploads(settings)
        self.scheduler = Scheduler(settings, ledger)
        self.cluster = Cluster(settings.ray_address)
        self.num_streams = 0

    def job(self, kind: Kind, job_id: str) -> Job:
        job = self.ledger.job(job_id, kind)
        if job is None:
            raise RefusalError(404, "no-job", f"no {kind} {job_id}; it was never submitted, or deleted")
        return job

    def submit(self, kind: Kind, text: bytes, caller: str) -> Response:
        """Queue what a body asks, or return the job that already does."""
        request = read_request(kind, text, self.settings.trace_folder, self.settings.limits, self.version)
        if kind == "sweep" and not self.scheduler.has(request):
            self.cluster.check()
        is_new = self.scheduler.submit(request, caller)
        headers = {"Location": f"/v1/{kind}s/{request.id}"}
        return self.show(kind, request.id, status_code=202 if is_new else 200, headers=headers)

    def show(
        self, kind: Kind, job_id: str, *, status_code: int = 200, headers: Mapping[str, str] | None = None
    ) -> Response:
        job = self.job(kind, job_id)
        answer = self.ledger.answer(job_id) if job.status == "done" else None
        text = answers.job_text(job, self.scheduler.progress(job), answer)
        return Response(text, status_code=status_code, media_type="application/json", headers=headers)

    def list(self, kind: Kind, status: Status | None, limit: int, before: int | None) -> answers.JobList:
        found = self.ledger.jobs(kind, status, limit, before)
        shown = tuple(answers.job_status(job, self.scheduler.progress(job)) for job in found)
        return answers.JobList(jobs=shown, before=found[-1].number if len(found) == limit else None)

    async def events(self, kind: Kind, job_id: str) -> AsyncIterator[str]:
        """Yield a job's state whenever it changes, until it has finished."""
        self.num_streams += 1
        try:
            last, quiet_s = "", 0.0
            while True:
                job = await asyncio.to_thread(self.ledger.job, job_id, kind)
                if job is None:
                    yield "event: deleted\ndata: {}\n\n"
                    return
                state = {"status": job.status, "progress": round(self.scheduler.progress(job), 4)}
                if (text := json.dumps(state)) != last or quiet_s >= KEEP_ALIVE_S:
                    yield f"event: {'end' if job.status in FINISHED else 'progress'}\ndata: {text}\n\n"
                    last, quiet_s = text, 0.0
                if job.status in FINISHED:
                    return
                await asyncio.sleep(POLL_S)
                quiet_s += POLL_S
        finally:
            self.num_streams -= 1


def create_app(settings: Settings, ledger: Ledger, tokens: Tokens, version: str) -> FastAPI:
    """Return the service; its workers start with its lifespan."""
    service = Service(settings, ledger, version)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        service.scheduler.start()
        yield
        await asyncio.to_thread(service.scheduler.close)

    app = FastAPI(
        title="Bebop",
        version=version,
        summary="Predict how much faster an LLM-RL run finishes with MTP speculative decoding, and why.",
        docs_url=None,  # they would load code from elsewhere
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
        responses=openapi.PROBLEMS,
        redirect_slashes=False,
    )
    app.state.service = service
    app.include_router(_health(service))
    for kind in MODELS:
        app.include_router(_jobs(service, kind))
    app.include_router(_sweep_results(service))
    app.include_router(_traces(service))
    app.get("/openapi.json", tags=["service"], summary="This description")(lambda: JSONResponse(openapi.schema(app)))
    _add_error_handlers(app)
    app.add_middleware(Gate, tokens=tokens, hosts=settings.hosts, limits=settings.limits)
    return app


async def raw_body(request: Request) -> bytes:
    """The body as it came, which the gate has bounded."""
    return await request.body()


Body = Annotated[bytes, Depends(raw_body)]


def _health(service: Service) -> APIRouter:
    router = APIRouter(tags=["service"])

    @router.get("/healthz", summary="Whether the service is there")
    async def healthz() -> answers.Health:
        return answers.Health()

    @router.get("/readyz", summary="Whether it takes jobs", responses=openapi.problems(503))
    def readyz() -> answers.Readiness:
        complaint = service.scheduler.storage_complaint
        try:
            service.ledger.check_writable()
        except OSError as error:
            complaint = error.strerror or "cannot be written"
        if complaint is not None:
            raise RefusalError(503, "storage", f"the ledger cannot be written: {complaint.lower()}; make room")
        if not service.scheduler.is_alive or not service.scheduler.num_up:
            raise RefusalError(503, "starting", "no worker is up yet; wait", headers={"Retry-After": "2"})
        service.cluster.check()
        return answers.Readiness(
            status="ready", workers=service.scheduler.num_up, queued=service.ledger.count("queued")
        )

    return router


def _jobs(service: Service, kind: Kind) -> APIRouter:
    """Return the routes of one kind of job; all kinds have the same."""
    router = APIRouter(prefix=f"/v1/{kind}s", tags=[f"{kind}s"])
    shown: type[BaseModel] = answers.JOB_MODELS[kind]
    one: dict[str, Any] = {"response_model": shown, "responses": openapi.problems(404, 422)}
    body = openapi.body(MODELS[kind])
    no_cluster = (503,) if kind == "sweep" else ()

    @router.post(
        "",
        status_code=202,
        response_model=shown,
        summary=f"Submit a {kind}",
        openapi_extra=body,
        responses={
            200: {"model": shown, "description": "Known already"},
            **openapi.problems(400, 422, *no_cluster, 507),
        },
    )
    def submit(text: Body, request: Request) -> Response:
        return service.submit(kind, text, request.scope[CALLER])

    @router.get("", summary=f"List {kind}s, the newest first", responses=openapi.problems(422))
    def list_jobs(
        status: Status | None = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        before: Annotated[int | None, Query(ge=0, le=2**53)] = None,
    ) -> answers.JobList:
        return service.list(kind, status, limit, before)

    @router.get("/{job_id}", summary=f"A {kind} and its answer", **one)
    def show(job_id: JobId) -> Response:
        return service.show(kind, job_id)

    @router.post("/{job_id}/cancel", summary=f"End a {kind}; what has finished stays as it is", **one)
    def cancel(job_id: JobId) -> Response:
        service.scheduler.cancel(service.job(kind, job_id))
        return service.show(kind, job_id)

    @router.delete(
        "/{job_id}", status_code=204, summary=f"End and forget a {kind}", responses=openapi.problems(404, 422)
    )
    def delete(job_id: JobId) -> None:
        service.scheduler.delete(service.job(kind, job_id))

    @router.get(
        "/{job_id}/events",
        summary="Its progress as server-sent events: progress, then end (or deleted)",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}}, **openapi.problems(404, 422)},
    )
    async def events(job_id: JobId) -> StreamingResponse:
        await asyncio.to_thread(service.job, kind, job_id)
        limit = service.settings.limits.streams
        if service.num_streams >= limit:
            said = f"{limit} streams are open, which is the limit; close one, or ask for the job itself"
            raise RefusalError(429, "streams", said, limit=limit, headers={"Retry-After": "5"})
        return StreamingResponse(service.events(kind, job_id), media_type="text/event-stream")

    return router


def _sweep_results(service: Service) -> APIRouter:
    router = APIRouter(tags=["sweeps"])

    @router.get(
        "/v1/sweeps/{job_id}/results",
        summary="Its numbers: a Parquet table with a row per point and arm",
        response_class=FileResponse,
        responses={200: {"content": {"application/vnd.apache.parquet": {}}}, **openapi.problems(404, 409, 422)},
    )
    def results(job_id: JobId) -> FileResponse:
        job = service.job("sweep", job_id)
        path = service.settings.sweep_folder / job_id / "results.parquet"
        if job.status != "done" or not path.is_file():
            raise RefusalError(409, "not-done", f"the sweep is {job.status}; its table comes when it is done")
        return FileResponse(path, media_type="application/vnd.apache.parquet", filename=f"{job_id}.parquet")

    return router


def _traces(service: Service) -> APIRouter:
    router = APIRouter(prefix="/v1/traces", tags=["traces"])

    @router.post(
        "",
        status_code=201,
        summary="Upload a trace; scenarios name it by the name in the answer",
        openapi_extra=openapi.upload_body(),
        responses={200: {"model": answers.TraceEntry, "description": "Known already"}, **openapi.problems(415, 422)},
    )
    def upload(text: Body, request: Request, response: Response) -> answers.TraceEntry:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in SUFFIXES:
            raise RefusalError(415, "not-a-trace", f"Content-Type {kind[:100]!r} is none of {', '.join(SUFFIXES)}")
        trace, is_new = service.uploads.add(text, SUFFIXES[kind])
        response.status_code = 201 if is_new else 200
        return _entry(trace)

    @router.get("", summary="List shipped and uploaded traces")
    def list_traces() -> answers.TraceList:
        return answers.TraceList(traces=tuple(map(_entry, service.uploads.all())))

    @router.delete("/{name}", status_code=204, summary="Forget an uploaded trace", responses=openapi.problems(404, 422))
    def delete(name: Annotated[str, Path(pattern=r"^[0-9a-f]{64}\.(json|parquet)$")]) -> None:
        if not service.uploads.delete(name):
            raise RefusalError(404, "no-trace", f"no uploaded trace {name}; GET /v1/traces lists them")

    return router


def _entry(trace: StoredTrace) -> answers.TraceEntry:
    return answers.TraceEntry(name=trace.name, kind=trace.kind, is_uploaded=trace.is_uploaded, title=trace.title)


def _add_error_handlers(app: FastAPI) -> None:
    def refused(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RefusalError)
        return problem_response(error.problem, error.headers)

    def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        said = {404: f"nothing at {request.url.path[:200]}; /openapi.json lists what there is"}
        found = problem(error.status_code, said.get(error.status_code, str(error.detail)))
        return problem_response(found, dict(error.headers or {}))

    def invalid(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        return problem_response(problem(422, f"{'.'.join(map(str, first['loc']))}: {first['msg']}", "invalid"))

    def storage(_request: Request, _error: Exception) -> Response:
        return problem_response(problem(507, "the service's disk is full or cannot be written", "storage"))

    handlers: dict[Any, Callable[[Request, Exception], Response]] = {
        RefusalError: refused,
        HTTPException: http,
        RequestValidationError: invalid,
        OSError: storage,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
