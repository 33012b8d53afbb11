"""The HTTP server: answers, limits, overload, and its end. The quick tests run a worker in a thread."""

import asyncio
import copy
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from litserve.loops import inference_worker
from litserve.utils import wrap_litserve_start
from starlette.testclient import TestClient
from transformers import pipeline

from hf_videovit.cli.common import load_classifier
from hf_videovit.inference.exporting import export_model
from hf_videovit.inference.serving import FAULTS, LIMITS, ServingOptions, make_server
from hf_videovit.modeling import video_decoding
from hf_videovit.modeling.video_decoding import VideoDecodingError, VideoLimits
from tests.clips import moving_square_clip, write_clip
from tests.families import cases
from tests.saved_model import LABELS, save_tiny_classifier, tiny_processor


DIRECTIONS = ("right", "up", "left", "down")


class ThreadWorker(threading.Thread):
    """A worker of LitServe without a process of its own; it ends with its queue."""

    def run(self):
        with suppress(EOFError, OSError, TypeError):  # whatever its queue says when it is gone
            super().run()

    def terminate(self):
        pass


@contextmanager
def client_of(load, **options):
    """A client of a server in this process."""
    server = make_server(load, ServingOptions(**options))
    apis = list(server.litapi_connector)

    def launch(api):
        api.spec.setup(server)
        server.workers_setup_status["predict_0"] = "starting"
        status, queue = server.workers_setup_status, server._get_request_queue(api.api_path)
        arguments = (api, "cpu", 0, queue, server._transport, status, server._callback_runner, True)
        worker = ThreadWorker(target=inference_worker, args=arguments, daemon=True)
        worker.start()
        worker.join = lambda: server.manager.shutdown()  # which is what ends the thread
        return [worker]

    server.launch_inference_worker = launch
    with wrap_litserve_start(server), TestClient(server.app) as client:
        server.verify_worker_status()
        client.requests = apis[0].spec
        yield client


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return [
        write_clip(folder / f"{name}.mp4", moving_square_clip(name, seed=index))
        for index, name in enumerate(DIRECTIONS)
    ]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    model = save_tiny_classifier(tmp_path_factory.mktemp("model") / "classifier", num_clips=2)
    return pipeline("video-classification", model=str(model), device="cpu")


@pytest.fixture(scope="module")
def client(classifier):
    limits = VideoLimits(max_bytes=100_000, max_duration=3.0, max_pixels=128 * 128, max_decoded_bytes=2**20)
    with client_of(lambda: copy.copy(classifier), batch_size=4, limits=limits, top_k=3) as client:
        yield client
        assert client.requests._held == 0 and not client.requests.response_buffer


def test_answers_are_those_of_the_pipeline(client, classifier, clips):
    expected = classifier([str(clip) for clip in clips], top_k=3)
    for clip, answer in zip(clips, expected):
        content = clip.read_bytes()
        for form in ({"content": content}, {"files": {"video": ("clip.mp4", content)}}):
            response = client.post("/predict", **form)
            assert response.status_code == 200, response.text
            assert response.json()["predictions"] == answer
            assert 0 < response.json()["seconds"] < 60


def test_each_request_gets_its_own_answer(client, classifier, clips):
    """Many at once, batched with videos that cannot be read."""
    expected = {clip.read_bytes(): answer for clip, answer in zip(clips, classifier(list(map(str, clips)), top_k=3))}
    expected[b"no video"] = None
    videos = [list(expected)[index % 5] for index in range(30)]
    with ThreadPoolExecutor(10) as pool:
        responses = list(pool.map(lambda video: client.post("/predict", content=video), videos))
    for video, response in zip(videos, responses):
        assert response.status_code == (422 if expected[video] is None else 200)
        if expected[video] is not None:
            found = response.json()["predictions"]
            assert [one["label"] for one in found] == [one["label"] for one in expected[video]]
            np.testing.assert_allclose(*([one["score"] for one in x] for x in (found, expected[video])), rtol=1e-4)


def test_videos_are_decoded_apart(client, clips, monkeypatch):
    monkeypatch.setattr(video_decoding, "PyAVReader", None)  # nothing is decoded here
    assert client.post("/predict", content=clips[0].read_bytes()).status_code == 200


def write(path, **shape):
    return write_clip(path, moving_square_clip("up", **shape)).read_bytes()


@pytest.mark.parametrize(
    "content", [b"", b"nothing" * 100, b'{"path": "/etc/hosts"}', b"/etc/hosts", b"#EXTM3U\nx.ts"]
)
def test_what_is_no_video_is_told(client, content):
    response = client.post("/predict", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    assert "<bytes" in response.json()["detail"] and os.getcwd() not in response.text


def test_videos_beyond_a_limit_are_told(client, clips, tmp_path):
    damaged = clips[0].read_bytes()[:-2000]
    for content, reason in (
        (write(tmp_path / "long.mp4", num_frames=90), "allowed are 3"),
        (write(tmp_path / "large.mp4", height=160, width=160), "allowed are 16384"),
        (write(tmp_path / "narrow.mp4", height=16, width=1000), "allowed are 1048576"),
        (damaged, ""),
    ):
        response = client.post("/predict", content=content)
        assert response.status_code == 422 and reason in response.json()["detail"], (reason, response.text)
    assert client.post("/predict", content=clips[0].read_bytes()).status_code == 200


def test_large_requests_are_not_read(client):
    """What is declared is refused at once; of what is not, no more than the limit is taken."""
    assert client.post("/predict", content=bytes(100_001)).status_code == 413
    for headers in ({}, {"Content-Type": "multipart/form-data; boundary=x"}):
        taken = []

        def body(taken=taken):
            yield b'--x\r\nContent-Disposition: form-data; name="video"; filename="a.mp4"\r\n\r\n'
            for number in range(100):
                taken.append(number)
                yield bytes(20_000)

        response = client.post("/predict", content=body(), headers=headers)
        assert response.status_code == 413 and "100000 bytes" in response.json()["detail"]


def test_forms_need_one_file(client, clips):
    assert client.post("/predict", data={"video": "/etc/hosts"}, files={}).status_code == 422
    content = clips[0].read_bytes()[:100]
    two = [("video", ("a.mp4", content)), ("video", ("b.mp4", content))]
    assert client.post("/predict", files=two).status_code == 400
    no_file = client.post(
        "/predict", content=b"--x--\r\n", headers={"Content-Type": "multipart/form-data; boundary=x"}
    )
    # the oldest parser does not take an empty form
    assert (no_file.status_code, "no file" in no_file.text) in ((422, True), (400, False))
    assert client.post("/predict", content=b"x", headers={"Content-Type": "multipart/form-data"}).status_code == 400


def test_health_and_description(client):
    assert client.get("/health").status_code == 200
    described = client.get("/openapi.json").json()["paths"]["/predict"]["post"]
    assert {"video/*", "multipart/form-data"} == described["requestBody"]["content"].keys()
    assert {"200", *map(str, FAULTS)} <= described["responses"].keys()
    assert client.get("/docs").status_code == 200


class SlowClassifier:
    """Answers with the number that a video is, once it may."""

    def __init__(self):
        self.may, self.batches, self.video_processor = threading.Event(), [], tiny_processor()

    def __call__(self, videos, **options):
        videos = list(videos)
        self.may.wait(20)
        self.batches.append(videos)
        if b"spoiler" in videos:
            raise RuntimeError("a fault that nobody thought of")
        return [[{"label": video.decode(), "score": 1.0}] for video in videos]


def test_a_full_server_refuses_and_loses_nothing():
    slow = SlowClassifier()
    with client_of(lambda: slow, batch_size=3, max_requests=8) as client, ThreadPoolExecutor(20) as pool:
        jobs = [pool.submit(client.post, "/predict", content=str(number)) for number in range(20)]
        refused, deadline = [], time.monotonic() + 10
        while len(refused) < 12 and time.monotonic() < deadline:
            refused = [job.result() for job in jobs if job.done()]
            time.sleep(0.01)
        assert len(refused) == 12 and all(
            one.status_code == 503 and one.headers["Retry-After"] == "1" for one in refused
        )
        assert client.get("/health").status_code == 200
        slow.may.set()
        answers = {number: job.result() for number, job in enumerate(jobs)}
    taken = {number: answer for number, answer in answers.items() if answer.status_code == 200}
    assert len(taken) == 8
    assert all(answer.json()["predictions"][0]["label"] == str(number) for number, answer in taken.items())
    assert 3 in map(len, slow.batches) and max(map(len, slow.batches)) == 3


def test_an_unforeseen_fault_spoils_one_answer():
    slow = SlowClassifier()
    with client_of(lambda: slow, batch_size=4) as client, ThreadPoolExecutor(5) as pool:
        jobs = [pool.submit(client.post, "/predict", content=video) for video in (b"0", b"1", b"spoiler", b"3", b"4")]
        time.sleep(0.2)
        slow.may.set()
        assert sorted(job.result().status_code for job in jobs) == [200, 200, 200, 200, 500]
        assert jobs[4].result().json()["predictions"][0]["label"] == "4"


def test_requests_without_an_answer_in_time_are_told_and_forgotten():
    slow = SlowClassifier()
    with client_of(lambda: slow, batch_size=1, timeout=0.3, max_requests=2) as client, ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(client.post, "/predict", content=str(number)) for number in range(2)]
        assert [job.result().status_code for job in jobs] == [504, 504]
        assert client.post("/predict", content="2").status_code == 503  # they are still in the queue
        slow.may.set()
        while client.requests._held:
            time.sleep(0.01)
        assert client.post("/predict", content="3").status_code == 200
        assert len(slow.batches) == 2  # the second one was too late to be worth computing


@pytest.mark.parametrize(("message", "status"), [("http.request", 408), ("http.disconnect", 400)])
def test_uploads_that_do_not_end_hold_no_place(message, status):
    server = make_server(SlowClassifier, ServingOptions(timeout=0.1))
    scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": [], "root_path": ""}
    sent = []

    async def receive():
        await asyncio.sleep(0.01)
        return {"type": message, "body": b"1", "more_body": True}

    async def send(message):
        sent.append(message)

    asyncio.run(server.app(scope, receive, send))
    assert sent[0]["status"] == status
    assert next(iter(server.litapi_connector)).spec._held == 0


CLASSIFIERS = [case for case in cases(options=False) if str(case).split("-")[0].endswith("ForVideoClassification")]


@pytest.mark.slow
@pytest.mark.parametrize("case", CLASSIFIERS, ids=str)
def test_every_family_is_served(case, clips, tmp_path):
    case.model().save_pretrained(tmp_path)
    case.family.processor_class(**case.family.processor).save_pretrained(tmp_path)
    classifier = pipeline("video-classification", model=str(tmp_path), device="cpu")
    with client_of(lambda: copy.copy(classifier)) as client:
        found = client.post("/predict", content=clips[0].read_bytes()).json()["predictions"]
    assert found == classifier(str(clips[0]))


@pytest.mark.slow
@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_exports_are_served(to, clips, tmp_path):
    pytest.importorskip("transformers.exporters", reason="this transformers has no exporters")
    for needed in {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino",)}[to]:
        pytest.importorskip(needed)
    model = save_tiny_classifier(tmp_path / "model", num_clips=2)
    export_model(model, tmp_path / "export", [clips[0]], to=to)
    with client_of(partial(load_classifier, str(tmp_path / "export"), "cpu")) as client:
        found = client.post("/predict", content=clips[0].read_bytes()).json()["predictions"]
    assert found == load_classifier(str(tmp_path / "export"), "cpu")(str(clips[0]))
    expected = load_classifier(str(model), "cpu")(str(clips[0]))
    assert [one["label"] for one in found] == [one["label"] for one in expected]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 0}, "`batch_size`"),
        ({"max_requests": 0}, "`max_requests`"),
        ({"num_workers": 0}, "`num_workers`"),
        ({"timeout": 0}, "`timeout`"),
        ({"decoding_timeout": float("nan")}, "`decoding_timeout`"),
        ({"batch_timeout": 61.0}, "`batch_timeout`"),
    ],
)
def test_wrong_options_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        ServingOptions(**fields)


def test_limits_of_a_processor_are_kept_but_not_saved(clips, tmp_path):
    processor = tiny_processor()
    processor.decoding_limits, processor.decoding_timeout = VideoLimits(max_frames=5), 3.0
    with pytest.raises(VideoDecodingError, match="more than 5 frames") as found:
        copy.copy(processor)(clips[0])
    assert found.value.kind == "limit"
    processor.save_pretrained(tmp_path)
    assert type(processor).from_pretrained(tmp_path)(clips[0], return_tensors="pt")["pixel_values"].shape[-1] == 32
    processor.decoding_limits = VideoLimits(max_decoded_bytes=10_000)
    with pytest.raises(VideoDecodingError, match="resized to 32x2000") as found:
        processor(torch.zeros(4, 3, 16, 1000, dtype=torch.uint8))
    assert found.value.kind == "limit"


@contextmanager
def started(*arguments):
    """`hf-videovit serve` and its address."""
    command = [
        sys.executable,
        "-m",
        "hf_videovit.cli",
        "serve",
        *map(str, arguments),
        "--port",
        "0",
        "--device",
        "cpu",
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    server = subprocess.Popen(command, start_new_session=True, **pipes)
    try:
        yield server, server.stdout.readline().split()[-1]
    finally:
        with suppress(ProcessLookupError):  # all have ended
            os.killpg(server.pid, signal.SIGKILL)
        server.communicate()


def post(address, content):
    """The predictions for a video."""
    with urllib.request.urlopen(urllib.request.Request(address, data=content), timeout=60) as response:
        return json.loads(response.read())["predictions"]


def children(pid):
    """Processes below one, with all their own."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            name_and_more = status.read_text().rpartition(")")[2].split()
            if int(name_and_more[1]) == pid and name_and_more[0] != "Z":
                found += [int(status.parent.name), *children(int(status.parent.name))]
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="processes are listed by /proc")
def test_the_command_answers_until_it_is_ended(clips, tmp_path, monkeypatch):
    model = save_tiny_classifier(tmp_path / "model")
    scratch = Path(tempfile.mkdtemp())  # not under `tmp_path`: the path of a socket has at most 107 characters
    monkeypatch.setenv("TMPDIR", str(scratch))
    expected = pipeline("video-classification", model=str(model), device="cpu")([str(clip) for clip in clips])
    with started(model) as (server, address), ThreadPoolExecutor(20) as pool:
        assert address.startswith("http://127.0.0.1:")
        assert post(address, clips[0].read_bytes()) == expected[0]
        # a worker that dies is started again
        worker = next(pid for pid in children(server.pid) if children(pid))  # its child decodes
        os.kill(worker, signal.SIGKILL)
        time.sleep(0.5)
        assert post(address, clips[0].read_bytes()) == expected[0]
        assert worker not in children(server.pid)
        jobs = [pool.submit(post, address, clips[number % 4].read_bytes()) for number in range(20)]
        while not any(job.done() for job in jobs):
            time.sleep(0.01)
        processes = children(server.pid)
        server.send_signal(signal.SIGTERM)
        for number, job in enumerate(jobs):  # what was taken is answered
            if job.exception() is None:
                assert job.result()[0]["label"] == expected[number % 4][0]["label"]
                assert job.result()[0]["score"] == pytest.approx(expected[number % 4][0]["score"], rel=1e-3)
        assert server.wait(30) == 0
        errors = server.stderr.read()
        assert "Traceback" not in errors, errors
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and any(Path(f"/proc/{pid}").exists() for pid in processes):
            time.sleep(0.05)
        assert not [pid for pid in processes if Path(f"/proc/{pid}/cmdline").is_file() and cmdline(pid)]
    scratch.rmdir()  # which fails if anything is left


def cmdline(pid):
    """What a process runs; nothing for one that has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def test_the_command_refuses_what_is_no_classifier(tmp_path):
    from typer.testing import CliRunner

    from hf_videovit.cli import app
    from tests.saved_model import save_tiny_localizer

    result = CliRunner().invoke(app, ["serve", str(save_tiny_localizer(tmp_path))])
    assert result.exit_code == 2 and "classifier" in result.output
    assert LIMITS.max_bytes == 32 * 2**20 and len(LABELS) == 6
