"""The gradio interface of a pipeline, asked as other programs ask it."""

import gradio as gr
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from transformers import pipeline

from hf_videovit.inference.pipeline_interface import interface_from_pipeline
from tests.clips import moving_square_clip, write_clip
from tests.saved_model import save_tiny_classifier


def test_the_interface_answers_as_the_pipeline(tmp_path):
    classifier = pipeline("video-classification", model=str(save_tiny_classifier(tmp_path / "model")))
    clip = write_clip(tmp_path / "clip.mp4", moving_square_clip())
    page = interface_from_pipeline(classifier, title="Squares")
    assert isinstance(page, gr.Interface) and page.title == "Squares"
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, show_error=True)
    try:
        client = Client(address, verbose=False)
        answer = client.predict(handle_file(clip), api_name="/classify")
        expected = classifier(str(clip))
        assert {one["label"]: one["confidence"] for one in answer["confidences"]} == {
            one["label"]: pytest.approx(one["score"], abs=1e-5) for one in expected
        }
        broken = tmp_path / "broken.mp4"
        broken.write_bytes(b"nothing" * 100)
        with pytest.raises(AppError, match="Invalid data|damaged|[Mm]oov|format"):
            client.predict(handle_file(broken), api_name="/classify")
    finally:
        page.close()
    with pytest.raises(ValueError, match="must be a ClipClassificationPipeline, got str"):
        interface_from_pipeline("model")
