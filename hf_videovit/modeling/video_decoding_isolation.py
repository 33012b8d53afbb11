"""
Decoding in a child process that can be killed: for files of unknown origin.

A codec library that hangs or crashes on a hostile file takes its process with it. Here that process is a child, which
is kept from call to call (this costs a few milliseconds a clip), killed when its time is up, and started again when it
is next needed. It protects from hangs and crashes. It is no sandbox: it runs with the rights of its parent.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from .video_decoding_folders import FrameFolderReader, open_reader
from .video_decoding_pyav import PyAVReader
from .video_decoding_types import Reading, VideoDecodingError, VideoLimits, VideoProbe


DEFAULT_TIMEOUT = 60.0
LONGEST_TIMEOUT = 365 * 86400.0  # timers do not take an infinite time
CLOSING_TIMEOUT = 5.0
# The child sees this folder as a package of its own, so that it needs neither the package around it nor torch: the
# same for the installed package and for code that came with a checkpoint.
CHILD = """
import importlib, json, sys, types
folder, sys.path[:] = sys.argv[1], json.loads(sys.argv[2])
package = types.ModuleType("isolated_decoding")
package.__path__ = [folder]
sys.modules["isolated_decoding"] = package
importlib.import_module("isolated_decoding.video_decoding_isolation").serve()
"""


def _trusted_path() -> list[str]:
    """
    Where the child imports from: the parent's path without the working directory. A `json.py` beside downloaded videos
    must not run. The child starts with `-I`, which keeps the working directory off its path from the first import on.
    """
    here = os.path.realpath(os.getcwd())
    return [entry for entry in sys.path if entry and os.path.realpath(entry) != here]


class _DecodingProcess:
    """The child, seen from its parent. Not for two threads at once: see `_lock`."""

    def __init__(self) -> None:
        if not sys.executable:
            raise RuntimeError("`isolate=True` needs a Python executable to start, and `sys.executable` is empty.")
        folder = str(Path(__file__).resolve().parent)
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", CHILD, folder, json.dumps(_trusted_path())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._requests, self._answers):
            try:
                pipe.close()
            except OSError:  # bytes that the dead child never read
                continue

    def ask(self, video: str, deadline: float, content: bytes = b"", **request: Any) -> tuple[dict[str, Any], bytes]:
        """
        One request and its answer.

        Raises:
            VideoDecodingError: the child answered with one, died, or did not answer in time.
            ImportError: the child has no PyAV, or one that cannot be used.
        """
        too_late = threading.Event()

        def stop() -> None:
            too_late.set()
            self._process.kill()

        timer = threading.Timer(max(deadline - time.monotonic(), 0.0), stop)
        timer.start()
        try:
            answer, payload = self._exchange(request | {"size": len(content)}, content)
        except (OSError, EOFError):
            self.kill()
            if too_late.is_set():
                raise VideoDecodingError(video, "pyav", "decoding takes too long; stopped", "timeout") from None
            code = self._process.returncode
            raise VideoDecodingError(video, "pyav", f"the decoding process died (exit status {code})") from None
        except BaseException:  # an interrupt in the middle of an answer: the rest of it would be taken for the next
            self.kill()
            raise
        finally:
            timer.cancel()
            if too_late.is_set() and self._process.returncode is None:  # a moment after the answer
                self.kill()
        if "error" in answer:
            raise VideoDecodingError(*answer["error"])
        if "import_error" in answer:
            raise ImportError(answer["import_error"])
        return answer, payload

    def _exchange(self, request: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
        self._requests.write(json.dumps(request).encode() + b"\n")
        self._requests.write(content)
        self._requests.flush()
        line = self._answers.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        answer = json.loads(line)
        payload = self._answers.read(answer["size"])
        if len(payload) < answer["size"]:
            raise EOFError
        return answer, payload


_child: _DecodingProcess | None = None
_lock = threading.Lock()


def _forget_child() -> None:
    """In a forked process: the child belongs to the parent, and another thread may have held the lock."""
    global _child, _lock
    _child, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_forget_child)


class IsolatedReader:
    """
    As [`PyAVReader`], in the child process; holds it until closed.

    Args:
        path (`str` or `None`):
            The file, or the folder of pictures.
        content (`bytes` or `None`):
            Its content, if there is no path.
        name (`str`):
            Name for messages.
        limits ([`VideoLimits`]):
            Upper bounds.
        num_threads (`int`, *optional*, defaults to 1):
            Threads of the decoder.
        timeout (`float`, *optional*, defaults to 60):
            Seconds after which the child is killed. Waiting for another thread's video counts.
        fps (`float`, *optional*):
            Frame rate of a folder of pictures; `None` for a file.

    Raises:
        VideoDecodingError: the file cannot be read, or time is up.
    """

    def __init__(
        self,
        path: str | None,
        content: bytes | None,
        name: str,
        *,
        limits: VideoLimits,
        num_threads: int = 1,
        timeout: float | None = None,
        fps: float | None = None,
    ) -> None:
        global _child
        timeout = DEFAULT_TIMEOUT if timeout is None else min(timeout, LONGEST_TIMEOUT)
        self.name = name
        self.decoder = PyAVReader.decoder if fps is None else FrameFolderReader.decoder
        # Waiting for other threads and for the child to start counts too: nothing may take longer than asked for.
        self._deadline = time.monotonic() + timeout
        self._lock = _lock
        if not self._lock.acquire(timeout=timeout):
            raise VideoDecodingError(
                name, self.decoder, "waiting for the video of another thread takes too long", "timeout"
            )
        try:
            if _child is None or not _child.alive():
                _child = _DecodingProcess()
            self._child = _child
            left = max(self._deadline - time.monotonic(), 0.0)
            request = {"path": path, "name": name, "limits": asdict(limits), "num_threads": num_threads, "fps": fps}
            facts, _ = self._ask("open", content or b"", timeout=left, **request)
        except BaseException:
            self._lock.release()
            raise
        self.num_frames: int = facts["num_frames"]
        self.fps: float | None = facts["fps"]
        self.duration: float | None = facts["duration"]
        self.damaged_packets: int = facts["damaged_packets"]

    def __enter__(self) -> "IsolatedReader":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        """Close the video in the child, which stays alive, and release the lock."""
        try:
            if self._child.alive():
                self._child.ask(self.name, time.monotonic() + CLOSING_TIMEOUT, do="close")
        except VideoDecodingError:
            self._child.kill()
        finally:
            self._lock.release()

    def probe(self) -> VideoProbe:
        """See [`PyAVReader.probe`]."""
        facts, times = self._ask("probe")
        facts.pop("size")
        return VideoProbe(**facts, timestamps=np.frombuffer(times, dtype=np.float64) if times else None)

    def read(self, positions: Sequence[int]) -> Reading:
        """See [`PyAVReader.read`]."""
        return self._read("read", positions)

    def read_counted(self, positions: Sequence[int]) -> Reading:
        """See [`PyAVReader.read_counted`]."""
        return self._read("read_counted", positions)

    def count(self) -> tuple[int, int]:
        """See [`PyAVReader.count`]."""
        num_frames, damaged = self._ask("count")[0]["count"]
        return num_frames, damaged

    def _read(self, method: str, positions: Sequence[int]) -> Reading:
        answer, payload = self._ask(method, positions=[int(position) for position in positions])
        reading = Reading(**{name: answer[name] for name in ("damaged_packets", "problem", "reason")})
        if "shape" in answer:
            # Through a bytearray: an array over bytes would be read-only.
            reading.frames = np.frombuffer(bytearray(payload), dtype=np.uint8).reshape(answer["shape"])
            reading.timestamps = np.array(answer["timestamps"])
        return reading

    def _ask(self, what: str, content: bytes = b"", **request: Any) -> tuple[dict[str, Any], bytes]:
        return self._child.ask(self.name, self._deadline, content, do=what, **request)


def serve() -> None:
    """
    The child: answer requests on standard input until it ends. A request is a line of JSON and `size` bytes; an answer
    has the same form. `open` takes a path, or else the file itself; `close` forgets it; the rest are methods of the
    reader. If the parent dies while a codec library hangs, an alarm ends the child.
    """
    for number in (signal.SIGTERM, signal.SIGINT):  # to a whole group of processes: the parent may need this one yet
        signal.signal(number, signal.SIG_IGN)
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # output of libraries must not mix with the answers
    reader: PyAVReader | FrameFolderReader | None = None
    for line in requests:
        request = json.loads(line)
        content = requests.read(request["size"])
        payload: Any = b""
        try:
            if request["do"] in ("open", "close") and reader is not None:
                reader.close()
                reader = None
                _set_alarm(0)
            if request["do"] == "open":
                _set_alarm(request["timeout"] + CLOSING_TIMEOUT)
                reader = _open_here(request, content)
            answer, payload = _answer(reader, request)
        except VideoDecodingError as error:
            answer = {"error": list(error.args)}
        except ImportError as error:
            answer = {"import_error": str(error)}
        answers.write(json.dumps(answer | {"size": len(payload)}).encode() + b"\n")
        answers.write(payload)
        answers.flush()


def _set_alarm(seconds: float) -> None:
    if hasattr(signal, "setitimer"):  # not on Windows
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _open_here(request: dict[str, Any], content: bytes) -> PyAVReader | FrameFolderReader:
    return open_reader(
        request["path"] or BytesIO(content),
        request["name"],
        fps=request["fps"],
        limits=VideoLimits(**request["limits"]),
        num_threads=request["num_threads"],
        deadline=time.monotonic() + request["timeout"],
    )


def _answer(reader: PyAVReader | FrameFolderReader | None, request: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    what = request["do"]
    if reader is None:
        return {}, b""
    if what == "open":
        return {name: getattr(reader, name) for name in ("num_frames", "fps", "duration", "damaged_packets")}, b""
    if what == "count":
        return {"count": reader.count()}, b""
    if what == "probe":
        facts = asdict(reader.probe())
        times = facts.pop("timestamps")
        return facts, b"" if times is None else times.tobytes()
    read = reader.read if what == "read" else reader.read_counted
    reading = read(request["positions"])
    facts = {"damaged_packets": reading.damaged_packets, "problem": reading.problem, "reason": reading.reason}
    if reading.problem:
        return facts, b""
    facts |= {"shape": reading.frames.shape, "timestamps": reading.timestamps.tolist()}
    return facts, reading.frames.data.cast("B")
