"""
A web page that shows a localiser: a long film, a picture of its timeline, and a table of the segments.

`demo.py` shows it for the folder of a localiser with an encoder.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd
from transformers import pipeline

from ..modeling.modeling_video_temporal_localizer import VideoTemporalLocalizer
from ..modeling.video_decoding import VideoDecodingError
from ..pictures.segments import draw_timeline
from .page_parts import PROGRESS, page_error, page_head, reveal, show_examples
from .temporal_localization import TASK


NO_VIDEO = "No film: upload one or record one with the camera."
DOES = "finds actions in long films"
COLUMNS = ["start", "end", "action", "score"]


def segment_table(segments: list[dict[str, Any]]) -> pd.DataFrame:
    """
    Segments as the page shows them.

    Args:
        segments (`list[dict]`):
            Of `pipeline("temporal-action-localization")`.

    Returns:
        `pd.DataFrame`: a row for each segment, in the order of time.
    """
    rows = [
        (f"{one['segment']['start']:.2f}", f"{one['segment']['end']:.2f}", one["label"], f"{one['score']:.4f}")
        for one in sorted(segments, key=lambda one: one["segment"]["start"])
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def build_localization_page(
    model: str,
    *,
    title: str | None = None,
    device: str | None = None,
    top_k: int = 20,
    examples: Sequence[str | Path] = (),
) -> gr.Blocks:
    """
    Build the page of a localiser.

    Args:
        model (`str`):
            Folder or Hub id of a [`VideoTemporalLocalizer`].
        title (`str`, *optional*):
            Headline. Defaults to the model's name.
        device (`str`, *optional*):
            For example `"cuda:0"`. Defaults to an accelerator if there is one.
        top_k (`int`, *optional*, defaults to 20):
            Largest number of segments.
        examples (`Sequence[str]`, *optional*, defaults to `()`):
            Video files that visitors can choose.

    Returns:
        `gradio.Blocks`

    Raises:
        ValueError: the model has no encoder.
    """
    localize: Any = pipeline(TASK, model=model, device=device)
    if not isinstance(localize.model, VideoTemporalLocalizer):
        raise ValueError(f"`model` must have an encoder: {model!r} is a localiser of features, which no film has.")
    localize.video_processor.isolate_decoding = True  # files may come from strangers
    title = title or Path(model).name
    pictures = tempfile.TemporaryDirectory(prefix="timelines-")

    def answer(video: str | None, threshold: float, progress: gr.Progress = PROGRESS) -> tuple[str, pd.DataFrame]:
        if not video:
            raise page_error(NO_VIDEO)
        with tempfile.NamedTemporaryFile(suffix=".png", dir=pictures.name, delete=False) as file:
            picture = Path(file.name)
        try:
            progress(0.0, "Finding actions")
            segments = localize(video, threshold=threshold, top_k=top_k)
            progress(0.9, "Drawing the timeline")
            draw_timeline(video, segments, picture, isolate=True)
        except (VideoDecodingError, OSError, ValueError) as error:
            picture.unlink()
            raise page_error(str(error).replace(video, Path(video).name)) from error
        return str(picture), segment_table(segments)

    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown(page_head(model, title, localize.model.config, DOES))
        with gr.Row():
            camera = gr.WebcamOptions(mirror=False)  # a mirrored recording would swap left and right
            video = gr.Video(label="Film", sources=["upload", "webcam"], webcam_options=camera)
            with gr.Column():
                threshold = gr.Slider(0, 1, 0.1, label="Lowest score of a segment")
                button = gr.Button("Find actions", variant="primary", elem_id="localize")
                show_examples(examples, video)
        timeline = gr.Image(label="Timeline", interactive=False, format="png", elem_id="timeline")
        with gr.Column(visible=False) as results:
            gr.Markdown("### Segments, in seconds")
            table = gr.Dataframe(show_label=False, interactive=False, elem_id="segments")
        inputs, outputs = [video, threshold], [timeline, table]
        done = button.click(
            answer, inputs, outputs, api_name="localize", concurrency_limit=1, show_progress_on=timeline
        )
        done.success(**reveal(results))
    return page


__all__ = ["build_localization_page", "segment_table"]
