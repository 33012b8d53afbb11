"""
An HTTP server for one classifier: `POST /predict` takes the bytes of a video.

LitServe runs the model in processes of its own, hands requests to them in batches, and starts a process again that
died. What it leaves open is decided here: how much a request may hold, how many may wait, what a worker does while
there is none, and that a server which is told to stop answers the requests that it has taken.
"""

import asyncio
import gc
import math
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import Empty
from typing import Any

import uvicorn
from fastapi import HTTPException, Request
from fastapi.routing import APIRoute
from litserve import LitAPI, LitServer
from litserve.loops.simple_loops import BatchedLoop
from litserve.specs.base import LitSpec
from litserve.utils import LitAPIStatus, LoopResponseType, ResponseBufferItem, wrap_litserve_start
from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect
from transformers.utils import logging

from ..modeling.video_decoding import VideoLimits
from ..processes import trusted_imports
from .pipeline import ClipClassificationPipeline


logger = logging.get_logger(__name__)

PATH = "/predict"
LIMITS = VideoLimits(
    max_pixels=4096 * 2304, max_duration=600.0, max_frames=60_000, max_bytes=32 * 2**20, max_decoded_bytes=2 * 2**30
)
FORM_FIELDS = 10
RETRY_SECONDS = 1
WAIT = 0.05  # seconds; of a worker that died, the queue answers the last call, and that request is lost
HELD_TIMEOUTS = 4  # a worker that died may have taken a request that nobody knows of
REQUEST_BODY = {
    "required": True,
    "content": {
        "video/*": {"schema": {"type": "string", "format": "binary"}},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"video": {"type": "string", "format": "binary"}},
                "required": ["video"],
            }
        },
    },
}
FAULTS = {
    408: "The video did not arrive in time.",
    413: "The request has more bytes than allowed.",
    422: "The video cannot be read, or is beyond a limit.",
    503: "Too many requests wait. `Retry-After` says when to try again.",
    504: "There was no answer in time.",
}


@dataclass(frozen=True)
class ServingOptions:
    """
    Limits and batches of a server.

    Args:
        batch_size (`int`, *optional*, defaults to 8):
            Videos per forward pass, at most.
        batch_timeout (`float`, *optional*, defaults to 0.0):
            Seconds that a batch waits for more videos. With 0 it takes those that came while the last one ran.
        max_requests (`int`, *optional*, defaults to 32):
            Requests that the server holds: uploads, those that wait, and those in the model. One more gets status 503.
        num_workers (`int`, *optional*, defaults to 1):
            Processes with a copy of the model each.
        top_k (`int`, *optional*, defaults to 5):
            Labels in an answer; `None` for all.
        timeout (`float`, *optional*, defaults to 60.0):
            Seconds until a request gets status 504; also for its upload (408), and for open requests when the server
            stops.
        limits ([`VideoLimits`], *optional*):
            Upper bounds of a video. `max_bytes` counts the whole request. By default 32 MiB, 10 minutes, 60,000
            frames, 4096 x 2304 pixels a frame and 2 GiB of decoded frames.
        decoding_timeout (`float`, *optional*, defaults to 10.0):
            Seconds for decoding a video.
        isolate (`bool`, *optional*, defaults to `True`):
            Whether videos are decoded in a child process, see [`~video_decoding.decode_video`].

    Raises:
        ValueError: a number is too small.
    """

    batch_size: int = 8
    batch_timeout: float = 0.0
    max_requests: int = 32
    num_workers: int = 1
    top_k: int | None = 5
    timeout: float = 60.0
    limits: VideoLimits = LIMITS
    decoding_timeout: float = 10.0
    isolate: bool = True

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_requests", "num_workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        for name in ("timeout", "decoding_timeout"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")
        if not 0 <= self.batch_timeout < self.timeout:
            raise ValueError(f"`batch_timeout` must be from 0 to `timeout` {self.timeout}, got {self.batch_timeout}.")


@dataclass
class Prediction:
    """
    A label and its score.

    Args:
        label (`str`):
            Name of the class.
        score (`float`):
            Score, as `pipeline("video-classification")` gives it.
    """

    label: str
    score: float


@dataclass
class Classification:
    """
    The answer to a request.

    Args:
        predictions (`list[Prediction]`):
            Labels, best first.
        seconds (`float`):
            From the start of the request to its answer.
    """

    predictions: list[Prediction]
    seconds: float


def make_server(
    load: Callable[[], ClipClassificationPipeline], options: ServingOptions = ServingOptions()
) -> LitServer:
    """
    A server that is not running yet.

    Args:
        load (`Callable`):
            Returns the classifier. It is called in each worker, so it must be possible to pickle it, such as a
            `functools.partial` of `transformers.pipeline`.
        options ([`ServingOptions`], *optional*):
            Limits and batches.

    Returns:
        `litserve.LitServer`: its `app` is the ASGI application.
    """
    server = LitServer(
        _Classifier(load, options),
        accelerator="cpu",  # `load` chooses the device
        workers_per_device=options.num_workers,
        timeout=options.timeout,
        restart_workers=True,
    )
    server.response_buffer = _Waiting()
    server.app.title = "hf_videovit"
    route = next(one for one in server.app.routes if isinstance(one, APIRoute) and one.path == PATH)
    faults = {str(status): {"description": words} for status, words in FAULTS.items()}
    route.openapi_extra = {"requestBody": REQUEST_BODY, "responses": faults}
    return server


def serve(
    load: Callable[[], ClipClassificationPipeline],
    options: ServingOptions = ServingOptions(),
    host: str = "127.0.0.1",
    port: int = 8000,
    ready: Callable[[str], Any] = logger.info,
) -> None:
    """
    Answer requests until the process gets SIGTERM or SIGINT. Then no new ones are taken, and open ones are answered.

    Args:
        load (`Callable`):
            As in [`make_server`].
        options ([`ServingOptions`], *optional*):
            Limits and batches.
        host (`str`, *optional*, defaults to `"127.0.0.1"`):
            Address to listen on; `"0.0.0.0"` for all.
        port (`int`, *optional*, defaults to 8000):
            Port; 0 for a free one.
        ready (`Callable`, *optional*):
            Called with the address once the model is loaded.

    Raises:
        OSError: the port is taken.
        RuntimeError: a worker cannot load the model.
    """
    server = make_server(load, options)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listening, _stopped_by_sigterm(), trusted_imports():
        config = uvicorn.Config(
            server.app, log_level="warning", server_header=False, timeout_graceful_shutdown=math.ceil(options.timeout)
        )
        gc.freeze()  # LitServe's queue is a fork of this process: what the collector touches here would be copied
        with suppress(KeyboardInterrupt), wrap_litserve_start(server, worker_monitor=True):
            try:
                server.verify_worker_status()
            except RuntimeError:
                raise RuntimeError("A worker could not load the model; its error stands above.") from None
            shown = f"[{host}]" if ":" in host else host
            ready(f"http://{shown}:{listening.getsockname()[1]}")
            uvicorn.Server(config).run(sockets=[listening])


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """
    SIGTERM ends the block as an exception does, so that no process is left. uvicorn, which handles the signal while it
    runs, raises it again once it has finished.
    """

    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(*_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(0)


class _Waiting(dict):
    """Requests without an answer. LitServe walks through them in a thread while others come and go."""

    def items(self) -> Any:
        return list(super().items())


class _PatientLoop(BatchedLoop):
    """LitServe's loop asks for requests a thousand times a second or without a pause; this one waits for them."""

    def get_batch_requests(self, lit_api: LitAPI, request_queue: Any, transport: Any) -> tuple[list, list]:
        batch: list[tuple[int, str, bytes]] = []
        late: list[tuple[int, str]] = []
        deadline: float | None = None
        while len(batch) < lit_api.max_batch_size:
            wait = WAIT if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                consumer, uid, arrived, video = request_queue.get(timeout=wait)
            except Empty:
                break
            self.put_response(transport, consumer, uid, (), LitAPIStatus.START, LoopResponseType.REGULAR)
            if time.monotonic() - arrived > lit_api.request_timeout:
                late.append((consumer, uid))
                continue
            deadline = time.monotonic() + lit_api.batch_timeout if deadline is None else deadline
            batch.append((consumer, uid, video))
        return batch, late


class _Classifier(LitAPI):
    """The model in a worker: bytes of videos in, results of the pipeline out."""

    def __init__(self, load: Callable[[], ClipClassificationPipeline], options: ServingOptions):
        super().__init__(
            max_batch_size=options.batch_size,
            batch_timeout=options.batch_timeout,
            loop=_PatientLoop(),
            spec=_VideoRequests(options),
        )
        self.load = load
        self.options = options

    def setup(self, device: str) -> None:
        self.classifier = self.load()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the server ends its workers
            signal.signal(signal.SIGTERM, _end)
        processor = self.classifier.video_processor
        processor.isolate_decoding = self.options.isolate
        processor.decoding_limits = self.options.limits
        processor.decoding_timeout = self.options.decoding_timeout

    def decode_request(self, request: Any) -> Any:
        return request

    def predict(self, videos: list[bytes]) -> list[Any]:
        try:
            found = self.classifier(iter(videos), batch_size=len(videos), top_k=self.options.top_k, on_error="report")
            return list(found)
        except Exception:
            if len(videos) == 1:
                logger.exception("A video was not classified")
                return [None]
            return [self.predict([video])[0] for video in videos]  # no request suffers from another one's video

    def encode_response(self, output: Any) -> Any:
        return output


class _VideoRequests(LitSpec):
    """The address of the server that takes videos."""

    def __init__(self, options: ServingOptions):
        super().__init__()
        self.api_path = PATH
        self.options = options
        self._held = 0

    def __getstate__(self) -> dict[str, Any]:
        """State for a worker. Events of waiting requests cannot be pickled."""
        return {**super().__getstate__(), "response_buffer": None, "_endpoints": []}

    def pre_setup(self, lit_api: LitAPI) -> None:
        self.add_endpoint(PATH, self.predict, ["POST"])

    async def predict(self, request: Request) -> Classification:
        """
        Classify a video. Its bytes are the body of the request, or the one file of a form.
        """
        started = time.monotonic()
        if self._held >= self.options.max_requests:
            raise HTTPException(503, FAULTS[503], headers={"Retry-After": str(RETRY_SECONDS)})
        self._held += 1
        try:
            video = await asyncio.wait_for(_read_video(request, self.options.limits.max_bytes), self.options.timeout)
        except asyncio.TimeoutError:
            self._release()
            raise HTTPException(408, FAULTS[408]) from None
        except BaseException:
            self._release()
            raise
        # A request that got no answer in time is held until the worker has come to it: it takes memory until then.
        job = asyncio.create_task(self._ask(video))
        job.add_done_callback(self._release)
        left = max(0.0, started + self.options.timeout - time.monotonic())
        try:
            answer = await asyncio.wait_for(asyncio.shield(job), left)
        except asyncio.TimeoutError:
            raise HTTPException(504, FAULTS[504]) from None
        return Classification([Prediction(**one) for one in _predictions(answer)], time.monotonic() - started)

    def _release(self, job: Any = None) -> None:
        self._held -= 1
        if job is not None and not job.cancelled():
            job.exception()  # one that nobody waits for any more is no fault of the program

    async def _ask(self, video: bytes) -> Any:
        """Hand a video to the workers and wait for what one of them says."""
        uid, item = str(uuid.uuid4()), ResponseBufferItem(event=asyncio.Event())
        self.response_buffer[uid] = item
        request = (self.response_queue_id, uid, time.monotonic(), video)
        try:
            await asyncio.to_thread(self.request_queue.put, request)
            await asyncio.wait_for(item.event.wait(), HELD_TIMEOUTS * self.options.timeout)
        finally:
            del self.response_buffer[uid]
        return item.response


def _predictions(answer: Any) -> list[dict[str, Any]]:
    """Labels and scores in a worker's answer, or the fault that it tells."""
    content, status = answer
    if isinstance(content, HTTPException):
        raise content
    if status == LitAPIStatus.ERROR or content is None:
        raise HTTPException(500, "The video was not classified because of a fault of the server; its log has more.")
    if isinstance(content, dict):
        raise HTTPException(422, content["error"])
    return content


async def _read_video(request: Request, max_bytes: int) -> bytes:
    """The body of a request, or the file in it. Reading stops where it becomes too large."""
    received, declared = 0, request.headers.get("content-length", "")
    too_large = HTTPException(413, f"The request has more than {max_bytes} bytes.")

    async def receive() -> Any:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > max_bytes:
            raise too_large
        return message

    if declared.isdigit() and int(declared) > max_bytes:
        raise too_large
    limited = Request(request.scope, receive)
    try:
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            return await limited.body()
        async with limited.form(max_files=1, max_fields=FORM_FIELDS) as form:
            files = [part for part in form.values() if isinstance(part, UploadFile)]
            if not files:
                raise HTTPException(422, "The form has no file.")
            return await files[0].read()
    except FormParserError as error:  # older starlettes pass it on
        raise HTTPException(400, f"The form cannot be read: {error}.") from error
    except ClientDisconnect:
        raise HTTPException(400, "The connection was closed before the video had arrived.") from None


__all__ = ["Classification", "Prediction", "ServingOptions", "make_server", "serve"]
