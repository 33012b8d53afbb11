"""The page of `hf-videovit demo`: as functions, over its interface, and in a real browser where there is one."""

import shutil
import subprocess
import sys
from pathlib import Path

import gradio as gr
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from transformers import AutoConfig, VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEImageProcessor, pipeline
from typer.testing import CliRunner

from hf_videovit.cli import app
from hf_videovit.inference.demo import NO_VIDEO, analyse, build_demo, load_classifier, serve_demo
from hf_videovit.inference.explaining import explain_video
from hf_videovit.inference.page_parts import page_head
from hf_videovit.inference.timeline import scores_over_time
from tests.clips import moving_square_clip, write_clip
from tests.saved_model import LABELS, save_tiny_classifier


BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((path for path in map(shutil.which, BROWSERS) if path), None)
# As root chromium has no sandbox; the camera is a made-up one, and nobody is there to allow it.
FLAGS = ["--no-sandbox", "--disable-dev-shm-usage"]
CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(save_tiny_classifier(tmp_path_factory.mktemp("model") / "squares", num_clips=2, num_crops=3))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    frames = moving_square_clip(num_frames=40, width=96)
    return str(write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", frames))


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    path = tmp_path_factory.mktemp("damaged") / "broken.mp4"
    path.write_bytes(b"nothing" * 100)
    return str(path)


@pytest.fixture(scope="module")
def page(folder, clip):
    """Served on a free port, with an example clip."""
    page = build_demo(folder, examples=[clip])
    address = serve_demo(page, wait=False)
    yield address
    page.close()


@pytest.fixture(scope="module")
def expected(folder, clip):
    """What the pipeline says, and the functions beneath the page, with decoding in this process."""
    classifier = pipeline("video-classification", model=folder)
    scores = {one["label"]: one["score"] for one in classifier(clip, top_k=5)}
    windows = scores_over_time(classifier, clip)
    frames = sorted(explain_video(classifier, clip).frames(), key=lambda frame: -frame.share)[:8]
    captions = [f"{frame.seconds:.2f} s: {100 * frame.share:.0f} %" for frame in frames]
    rows = [
        [f"{one.start_seconds:.2f} - {one.end_seconds:.2f}", *(f"{one.scores[label]:.4f}" for label in scores)]
        for one in windows
    ]
    return {"scores": scores, "rows": rows, "captions": captions, "windows": windows}


def test_analysis_says_what_the_pipeline_says(folder, clip, expected):
    classifier = load_classifier(folder)
    assert classifier.video_processor.isolate_decoding  # files come from anybody
    stages = []
    found = analyse(classifier, clip, progress=lambda share, stage: stages.append((share, stage)))
    assert len(stages) == 3 and stages == sorted(stages)
    assert found.labels == expected["scores"] and next(iter(found.labels)) == max(found.labels, key=found.labels.get)
    assert found.table().to_numpy().tolist() == expected["rows"] and list(found.table())[1:] == list(found.labels)
    timeline = found.timeline()
    assert len(timeline) == len(expected["rows"]) * 3 and set(timeline["label"]) == set(list(found.labels)[:3])
    assert timeline["score"][0] == expected["windows"][0].scores[timeline["label"][0]]
    pictures = found.gallery()
    assert [caption for _, caption in pictures] == expected["captions"]
    assert all(picture.size == (256, 128) for picture, _ in pictures)  # the frame, enlarged, and its heat


def test_page_answers_over_its_interface(page, clip, expected):
    labels, plot, table, gallery = Client(page, verbose=False).predict(handle_file(clip), api_name="/classify")
    assert {one["label"]: one["confidence"] for one in labels["confidences"]} == expected["scores"]
    assert table["data"] == expected["rows"]
    assert [one["caption"] for one in gallery] == expected["captions"]
    assert plot["columns"] == ["seconds", "label", "score"]


def test_what_goes_wrong_is_said(page, damaged):
    client = Client(page, verbose=False)
    with pytest.raises(AppError, match=NO_VIDEO.partition(":")[0]):
        client.predict(None, api_name="/classify")
    with pytest.raises(AppError, match=r"^broken\.mp4: ") as error:
        client.predict(handle_file(damaged), api_name="/classify")
    assert "/" not in str(error.value).partition(": ")[0]  # no folder of the server


def test_a_clip_that_is_shorter_than_the_model_looks_gets_a_warning(folder, tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(gr, "Warning", warnings.append)
    path = str(write_clip(tmp_path / "short.mp4", moving_square_clip(num_frames=3)))
    answer = build_demo(folder).fns[0].fn
    labels, *_, gallery = answer(path)
    assert warnings == ["The clip has 3 frames, but the model uses 4; some frames are repeated."]
    assert set(labels) < set(LABELS) and len(gallery) <= 3
    with pytest.raises(gr.Error, match=NO_VIDEO.partition(":")[0]):
        answer(None)


def test_errors_stay_until_they_are_dismissed(folder):
    with pytest.raises(gr.Error) as error:
        build_demo(folder).fns[0].fn(None)
    assert error.value.duration is None


def test_the_head_links_the_card_of_a_model_on_the_hub(folder):
    config = AutoConfig.from_pretrained(folder)
    assert "huggingface.co" not in page_head(folder, "squares", config, "classifies video clips")
    head = page_head("owner/squares", "squares", config, "classifies video clips")
    assert head.startswith("# squares\nVideoMAEV2ForVideoClassification classifies video clips.")
    assert head.endswith("[Model card](https://huggingface.co/owner/squares)")
    config.id2label = {index: f"label {index}" for index in range(12)}
    assert "label 7 and 4 more." in page_head("owner/squares", "squares", config, "classifies video clips")


def test_examples_must_be_files(folder):
    with pytest.raises(ValueError, match="`examples` must be video files, 'nowhere.mp4' is none"):
        build_demo(folder, examples=["nowhere.mp4"])


def test_models_that_cannot_be_shown_are_refused(tmp_path):
    config = VideoMAEConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, num_frames=4
    )
    VideoMAEForVideoClassification(config).save_pretrained(tmp_path)
    VideoMAEImageProcessor(size={"shortest_edge": 32}).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="`model` must be a video classifier of this package"):
        load_classifier(str(tmp_path))


def test_command_needs_a_classifier(folder, tmp_path):
    config = (Path(folder) / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace("ForVideoClassification", "ForPreTraining"))
    done = CliRunner().invoke(app, ["demo", str(tmp_path)])
    assert done.exit_code == 2 and "has no classifier" in done.output


@pytest.mark.slow
def test_command_needs_the_extra(folder):
    script = "import sys; sys.modules['gradio'] = None; from hf_videovit.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", script, "demo", folder], capture_output=True, text=True)
    assert done.returncode == 2 and "pip install 'hf_videovit[space]'" in done.stderr


@pytest.fixture(scope="module")
def browser():
    if BROWSER is None:
        pytest.skip(f"no browser on this machine: none of {', '.join(BROWSERS)} is on the PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=[*FLAGS, *CAMERA], timeout=0)
        context = browser.new_context(viewport={"width": 1200, "height": 1600})
        context.set_default_timeout(0)  # a busy machine
        yield context
        browser.close()


def upload(view, path):
    """As a visitor does."""
    with view.expect_file_chooser() as chooser:
        view.click("button[aria-label*='to upload']")
    chooser.value.set_files(path)
    view.wait_for_selector("video[src*='/file=']", state="attached")


@pytest.mark.slow
def test_in_a_browser(page, browser, clip, damaged, expected):
    """A visitor forgets the clip, takes a broken one, then a real one; the page asks no other server for anything."""
    view = browser.new_page()
    asked = []
    view.on("request", lambda request: asked.append(request.url))
    view.goto(page)
    view.wait_for_selector("#classify")
    assert "It knows 6 labels: right, left, down, up, still, other." in view.inner_text("body")
    assert not view.is_visible("#timeline")  # nothing empty
    view.click("#classify")
    view.wait_for_selector(f"text={NO_VIDEO}")
    view.click("[data-testid='toast-close']")
    view.wait_for_selector(f"text={NO_VIDEO}", state="detached")
    upload(view, damaged)
    view.click("#classify")
    view.wait_for_selector("text=/broken.mp4: /")
    view.reload()
    upload(view, clip)
    view.click("#classify")
    view.wait_for_selector("#frames img")
    shown = view.inner_text("#labels")
    for label, score in expected["scores"].items():
        assert label in shown and f"{100 * score:.0f}%" in shown
    cells = [cell for cell in view.inner_text("#timeline").split("\n") if cell.strip()]
    assert cells[-6 * len(expected["rows"]) :] == [cell for row in expected["rows"] for cell in row]
    captions = view.inner_text("#frames").splitlines()
    assert [caption for caption in captions if " s: " in caption] == expected["captions"]
    assert view.locator("#frames img").count() == len(expected["captions"])
    view.set_viewport_size({"width": 390, "height": 844})
    assert view.evaluate("document.documentElement.scrollWidth") <= 390  # a phone shows all without sideways scrolling
    lefts = view.eval_on_selector_all("#frames .grid-container > *", "all => all.map(one => one.offsetLeft)")
    assert len(set(lefts)) == 2
    foreign = [url for url in asked if not url.startswith((page, "data:", "blob:"))]
    assert not foreign


def record(view, frames):
    """As a visitor does, for so many frames of the camera; says how many bytes were recorded."""
    view.click("button[aria-label='Capture from camera']")
    view.click("text=Click to Access Webcam")
    view.wait_for_function("() => document.querySelector('video')?.readyState >= 2")
    view.click("[aria-label='start recording']")
    view.wait_for_selector("[aria-label='start recording']:has-text('Stop')")
    shown = "document.querySelector('video').getVideoPlaybackQuality().totalVideoFrames"
    view.wait_for_function(f"end => {shown} >= end", arg=view.evaluate(shown) + frames)
    view.click("[aria-label='start recording']")
    view.wait_for_selector("video[src*='/file=']")
    return view.evaluate("async () => (await (await fetch(document.querySelector('video').src)).blob()).size")


@pytest.mark.slow
def test_with_the_camera_of_a_browser(page, browser):
    """What the browser records has no even rate and no length in its header; it is read like any other file."""
    view = browser.new_page()
    for frames in (20, 80, 320):  # the recorder of a busy machine starts late, and may have nothing at the first stop
        view.goto(page)
        if record(view, frames) > 5_000:
            break
    view.click("#classify")
    view.wait_for_selector("#frames img")
    assert sum(label in view.inner_text("#labels") for label in LABELS) == 5
    times = [line for line in view.inner_text("#timeline").splitlines() if " - " in line]
    assert times and times[0].startswith("0.00 - ")
