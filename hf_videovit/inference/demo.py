"""
A page on which a model answers for itself: a clip in, its labels, its labels over time, the frames that mattered.

`hf-videovit demo MODEL` serves it on this machine, a Space of the Hub runs the same function. Files come from anybody,
so they are decoded in a process of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd
from PIL import Image
from transformers import pipeline

from ..modeling.video_decoding import VideoDecodingError, probe_video
from ..modeling.video_processing_base import ClipVideoProcessor
from .timeline import Moment, Window, moments_that_mattered, scores_over_time


TASK = "video-classification"
NO_VIDEO = "There is no clip yet: upload one, or record one with the camera."
ABOUT_TIME = "The score of each of these labels in windows along the clip."
ABOUT_FRAMES = (
    "How the score of the first label changes when a moment is hidden, the largest fall first. Moments that show the "
    "same stand in for each other, and small differences mean little."
)
# Fonts of the visitor's own machine: the page asks no other server for anything.
FONT, FONT_MONO = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")
THUMBNAIL = 480  # pixels of the longer side


@dataclass(frozen=True)
class Analysis:
    """
    All that the page shows of a clip.

    Args:
        labels (`dict[str, float]`):
            The best labels and their scores, as the pipeline gives them.
        windows (`Sequence[Window]`):
            All scores along the clip.
        moments (`Sequence[Moment]`):
            What the best label rests on, the most important first.
    """

    labels: dict[str, float]
    windows: Sequence[Window]
    moments: Sequence[Moment]

    def timeline(self) -> pd.DataFrame:
        """Rows of `seconds` (the middle of a window), `label` and `score`."""
        rows = [
            {"seconds": (window.start_seconds + window.end_seconds) / 2, "label": label, "score": window.scores[label]}
            for window in self.windows
            for label in self.labels
        ]
        return pd.DataFrame(rows)

    def table(self) -> pd.DataFrame:
        """A row a window: its time, and a column for each label."""
        rows = [
            {
                "seconds": f"{window.start_seconds:.2f} - {window.end_seconds:.2f}",
                **{label: f"{window.scores[label]:.4f}" for label in self.labels},
            }
            for window in self.windows
        ]
        return pd.DataFrame(rows)

    def gallery(self) -> list[tuple[Image.Image, str]]:
        """The moments as pictures with their captions."""
        pictures = []
        for moment in self.moments:
            picture = Image.fromarray(moment.frame)
            picture.thumbnail((THUMBNAIL, THUMBNAIL))
            pictures.append((picture, f"{moment.seconds:.2f} s: {-moment.drop:+.4f}"))
        return pictures


def load_classifier(model: str, device: str | None = None) -> Any:
    """
    The model's pipeline, ready for files of unknown origin.

    Args:
        model (`str`):
            Folder or Hub id of a video classifier of this package.
        device (`str`, *optional*):
            Such as `"cuda:0"`; by default an accelerator if there is one.
    """
    classifier: Any = pipeline(TASK, model=model, device=device)
    if not isinstance(classifier.video_processor, ClipVideoProcessor):
        raise ValueError(
            f"`model` must be a video classifier of this package, got {model!r} with a "
            f"{type(classifier.video_processor).__name__}."
        )
    classifier.video_processor.isolate_decoding = True
    return classifier


def analyse(classifier: Any, video: str, *, top_k: int = 5, num_windows: int = 8, num_moments: int = 8) -> Analysis:
    """
    Ask a model about a clip.

    Args:
        classifier ([`~pipelines.ClipClassificationPipeline`]):
            See [`load_classifier`].
        video (`str`):
            Path of the clip.
        top_k (`int`, *optional*, defaults to 5):
            Labels to show.
        num_windows (`int`, *optional*, defaults to 8):
            See [`~timeline.scores_over_time`].
        num_moments (`int`, *optional*, defaults to 8):
            See [`~timeline.moments_that_mattered`].

    Raises:
        VideoDecodingError: the clip cannot be read.
    """
    labels: dict[str, float] = {}
    for answer in classifier(video, top_k=top_k):
        labels.setdefault(answer["label"], answer["score"])
    windows = scores_over_time(classifier, video, num_windows=num_windows)
    moments = moments_that_mattered(classifier, video, next(iter(labels)), num_moments=num_moments)
    return Analysis(labels, windows, sorted(moments, key=lambda moment: -moment.drop))


def build_demo(model: str, *, title: str | None = None, device: str | None = None, top_k: int = 5) -> gr.Blocks:
    """
    The page of a model.

    Args:
        model (`str`):
            Folder or Hub id of a video classifier of this package.
        title (`str`, *optional*):
            Headline. Defaults to the model's name.
        device (`str`, *optional*):
            Such as `"cuda:0"`; by default an accelerator if there is one.
        top_k (`int`, *optional*, defaults to 5):
            Labels to show.

    Returns:
        `gradio.Blocks`: to be served by [`serve_demo`].
    """
    classifier = load_classifier(model, device)
    title = title or Path(model).name

    def answer(video: str | None) -> tuple[dict[str, float], pd.DataFrame, pd.DataFrame, list[Any]]:
        if not video:
            raise gr.Error(NO_VIDEO, print_exception=False)
        try:
            _warn_if_short(classifier, video)
            found = analyse(classifier, video, top_k=top_k)
        except (VideoDecodingError, OSError) as error:
            raise gr.Error(_reason(error, video), print_exception=False) from error
        return found.labels, found.timeline(), found.table(), found.gallery()

    with gr.Blocks(title=title, analytics_enabled=False) as page:
        gr.Markdown(f"# {title}")
        with gr.Row():
            with gr.Column():
                # A mirrored recording would turn "to the left" into "to the right".
                camera = gr.WebcamOptions(mirror=False)
                video = gr.Video(label="Clip", sources=["upload", "webcam"], webcam_options=camera)
                button = gr.Button("Classify", variant="primary", elem_id="classify")
            labels = gr.Label(label="Labels", num_top_classes=top_k, elem_id="labels")
        gr.Markdown(f"### Over time\n{ABOUT_TIME}")
        plot = gr.LinePlot(x="seconds", y="score", color="label", y_lim=[0, 1], show_label=False, elem_id="plot")
        table = gr.Dataframe(show_label=False, interactive=False, elem_id="timeline")
        gr.Markdown(f"### Frames that mattered\n{ABOUT_FRAMES}")
        frames = gr.Gallery(show_label=False, columns=4, object_fit="contain", interactive=False, elem_id="frames")
        outputs = [labels, plot, table, frames]
        button.click(answer, video, outputs, api_name="classify", concurrency_limit=1)
    return page


def serve_demo(
    page: gr.Blocks,
    *,
    host: str | None = None,
    port: int | None = None,
    open_browser: bool = False,
    wait: bool = True,
) -> str:
    """
    Serve a page, on this machine only unless told otherwise; nothing is shared or reported.

    Args:
        page (`gradio.Blocks`):
            See [`build_demo`].
        host (`str`, *optional*):
            Address to listen on. Defaults to `GRADIO_SERVER_NAME`, which a Space sets, else `127.0.0.1`.
        port (`int`, *optional*):
            Defaults to the first free one from 7860 on.
        open_browser (`bool`, *optional*, defaults to `False`):
            Open the page in the default browser.
        wait (`bool`, *optional*, defaults to `True`):
            Return only when the server is stopped.

    Returns:
        `str`: the page's address.
    """
    _, address, _ = page.queue().launch(
        server_name=host,
        server_port=port,
        inbrowser=open_browser,
        prevent_thread_lock=not wait,
        share=False,
        ssr_mode=False,
        quiet=True,
        show_error=True,
        footer_links=["api"],
        theme=gr.themes.Default(font=FONT, font_mono=FONT_MONO),
    )
    return address


def _warn_if_short(classifier: Any, video: str) -> None:
    processor = classifier.video_processor
    wanted = processor.num_frames or processor.published_num_frames or classifier.model.config.num_frames
    there = probe_video(video, isolate=True).num_frames
    if there < wanted:
        gr.Warning(f"The clip has {there} frames and the model looks at {wanted}: some are seen more than once.")


def _reason(error: Exception, video: str) -> str:
    """Why a clip cannot be read, without this machine's folder of uploads."""
    return str(error).replace(video, Path(video).name)


__all__ = ["Analysis", "analyse", "build_demo", "load_classifier", "serve_demo"]
