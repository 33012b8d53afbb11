"""The page of an action detector: as functions, over its interface, and in a real browser where there is one."""

import json
import shutil
from pathlib import Path

import av
import gradio as gr
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from transformers import pipeline
from typer.testing import CliRunner

from hf_videovit.cli import app
from hf_videovit.inference.action_page import NO_PEOPLE, NO_VIDEO, detect_in_clip
from hf_videovit.inference.demo import build_demo, serve_demo
from tests.clips import moving_square_clip, write_clip
from tests.saved_model import save_tiny_classifier, save_tiny_detector


BOXES = {"0.2": [[4, 4, 20, 30], [30, 8, 50, 36]], "0.6": [[6, 4, 22, 30]], "1.0": []}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((path for path in map(shutil.which, BROWSERS) if path), None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(save_tiny_detector(tmp_path_factory.mktemp("model") / "people"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    frames = moving_square_clip(height=40, width=56, num_frames=40)
    return str(write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", frames, fps=25))


@pytest.fixture(scope="module")
def page(folder):
    """Served on a free port."""
    page = build_demo(folder, top_k=2)
    address = serve_demo(page, wait=False)
    yield address
    page.close()


@pytest.fixture(scope="module")
def expected(folder, clip):
    """What the pipeline says: seconds, person, action, score."""
    boxes = {float(time): people for time, people in BOXES.items()}
    answers = pipeline("action-detection", model=folder)(clip, boxes=boxes, threshold=0.3, top_k=2)
    rows = []
    for answer in answers:
        for person in answer["people"]:
            for action in person["actions"] or [{"label": "", "score": None}]:
                score = "" if action["score"] is None else f"{action['score']:.4f}"
                rows.append([f"{answer['time']:.2f}", str(person["person_id"]), action["label"], score])
        if not answer["people"]:
            rows.append([f"{answer['time']:.2f}", "nobody", "", ""])
    return rows


def without_box(rows):
    return [[cell for index, cell in enumerate(row) if index != 2] for row in rows]


def frames_of(path):
    with av.open(str(path)) as film:
        return sum(1 for _ in film.decode(video=0))


def test_page_answers_over_its_interface(page, clip, expected):
    client = Client(page, verbose=False)
    film, table, intervals = client.predict(handle_file(clip), json.dumps(BOXES), 1.0, 0.3, api_name="/detect")
    assert without_box(table["data"]) == expected and any(row[2] for row in expected)
    assert table["data"][0][2] == "4, 4, 20, 30"
    assert frames_of(film["video"] if isinstance(film, dict) else film) == 40
    assert intervals["headers"] == ["person", "action", "seconds", "score"]


def test_what_goes_wrong_is_said(page, clip, tmp_path):
    client, broken = Client(page, verbose=False), tmp_path / "broken.mp4"
    broken.write_bytes(b"nothing" * 100)
    for video, boxes, message in (
        (None, "{}", NO_VIDEO.partition(":")[0]),
        (handle_file(clip), "", NO_PEOPLE.partition(":")[0]),
        (handle_file(clip), "no JSON", "Expecting value"),
        (handle_file(clip), "[1, 2]", "boxes must be a JSON object"),
        (handle_file(clip), '{"0.2": [[1, 2, 3]]}', "boxes must be a JSON object .* got '0.2'"),
        (handle_file(clip), '{"soon": []}', "boxes must be a JSON object .* got 'soon'"),
        (handle_file(clip), '{"9": [[1, 2, 3, 4]]}', "must lie between 0 and"),
        (handle_file(str(broken)), json.dumps(BOXES), r"^broken\.mp4: "),
    ):
        with pytest.raises(AppError, match=message) as error:
            client.predict(video, boxes, 1.0, 0.5, api_name="/detect")
        assert str(tmp_path) not in str(error.value)


def test_without_boxes_the_page_s_detector_finds_the_people(folder, clip):
    seen = []

    def somebody(images):
        seen.extend(images)
        return [([[2, 2, 20, 30]], [0.9])] * len(images)

    answer = build_demo(folder, detector=somebody).fns[0].fn
    film, table, intervals = answer(clip, "", 0.5, 0.0)
    assert [image.size for image in seen] == [(56, 40)] * 4
    assert set(table["seconds"]) == {"0.00", "0.50", "1.00", "1.50"} and set(table["person"]) == {"0"}
    assert len(intervals) and Path(film).is_file()
    with pytest.raises(gr.Error, match="`every` must be a positive number"):
        answer(clip, "", 0, 0.5)


def test_strangers_clips_are_decoded_elsewhere(folder, clip, tmp_path, monkeypatch):
    """Frames and film."""
    from hf_videovit.pictures import films

    asked = []
    for name in ("decode_video", "probe_video"):
        real = getattr(films, name)
        monkeypatch.setattr(
            films, name, lambda *words, real=real, **named: (asked.append(named["isolate"]), real(*words, **named))[1]
        )
    detect = pipeline("action-detection", model=folder)
    detect.video_processor.isolate_decoding = True
    found = detect_in_clip(detect, clip, tmp_path / "film.mp4", boxes={0.2: [[4, 4, 20, 30]]}, threshold=1.0)
    assert asked and all(asked)
    assert found.table().to_numpy().tolist() == [["0.20", "0", "4, 4, 20, 30", "", ""]]


def test_a_classifier_takes_no_detector(tmp_path):
    folder = save_tiny_classifier(tmp_path / "squares")
    with pytest.raises(ValueError, match="`detector` is for action detectors only"):
        build_demo(str(folder), detector=len)


def test_the_command_shows_a_detector(folder, monkeypatch):
    shown = []

    class Page:
        def block_thread(self):
            shown.append("served")

    monkeypatch.setattr(
        "hf_videovit.inference.demo.build_demo", lambda model, **named: (shown.append((model, named)), Page())[1]
    )
    monkeypatch.setattr("hf_videovit.inference.demo.serve_demo", lambda page, **named: "http://here")
    words = ["--detector", "org/people", "--top-k", "3", "--device", "cpu", "--example", "clip.mp4"]
    done = CliRunner().invoke(app, ["demo", folder, *words])
    assert done.exit_code == 0, done.output
    named = {"device": "cpu", "top_k": 3, "detector": "org/people", "examples": ["clip.mp4"]}
    assert shown == [(folder, named), "served"]


@pytest.mark.slow
def test_in_a_browser(page, clip, expected):
    """A visitor uploads a clip, writes boxes, and sees the film and the actions; no other server is asked."""
    if BROWSER is None:
        pytest.skip(f"no browser on this machine: none of {', '.join(BROWSERS)} is on the PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=BROWSER, args=["--no-sandbox", "--disable-dev-shm-usage"], timeout=0
        )
        view = browser.new_page(viewport={"width": 1200, "height": 1600})
        view.set_default_timeout(0)  # a busy machine
        asked = []
        view.on("request", lambda request: asked.append(request.url))
        view.goto(page)
        with view.expect_file_chooser() as chooser:
            view.click("button[aria-label*='to upload']")
        chooser.value.set_files(clip)
        view.wait_for_selector("video[src*='/file=']", state="attached")
        view.fill("#boxes textarea", json.dumps(BOXES))
        view.click("#detect")
        view.wait_for_selector("#film video[src*='/file=']", state="attached")
        view.wait_for_function("() => document.querySelector('#actions')?.innerText.includes('nobody')")
        shown = view.inner_text("#actions")
        assert "nobody" in shown and "4, 4, 20, 30" in shown
        assert not [url for url in asked if not url.startswith((page, "data:", "blob:"))]
        browser.close()
