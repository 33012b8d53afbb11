"""
A web page that shows a video classifier: its labels for a clip, the scores over time, and the important frames. For an
action detector it is that of `action_page.py`, for a localiser that of `localization_page.py`.

`hf-videovit demo MODEL` serves it locally; a Space on the Hub runs the same function. Files may come from strangers,
so they are decoded in a separate process.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd
from PIL import Image
from transformers import AutoConfig, pipeline

from ..modeling.video_decoding import VideoDecodingError, probe_video
from ..modeling.video_processing_base import ClipVideoProcessor
from ..pictures.importance import frame_and_heat
from .action_page import NO_VIDEO, build_action_page
from .explaining import FrameImportance, explain_video
from .localization_page import build_localization_page
from .page_parts import CSS, PROGRESS, page_error, page_head, reveal, show_examples
from .timeline import Window, scores_over_time


TASK = "video-classification"
LOCALIZERS = ("VideoTemporalLocalizer", "ActionFormerForTemporalActionLocalization")
DOES = "classifies video clips"
ABOUT_TIME = "Scores in windows along the clip; the chart shows the three labels with the best scores."
ABOUT_FRAMES = (
    "The frames that the score of the first label rests on most, with their shares of the importance of all frames. "
    "Beside each frame: the places that speak for the label, the brighter the more."
)
PLOTTED = 3  # labels in the plot; more are hard to tell apart
# Fonts of the visitor's machine, so that the page loads nothing from other servers.
FONT, FONT_MONO = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")

Progress = Callable[[float, str], Any]


@dataclass(frozen=True)
class Analysis:
    """
    Results that the page shows for a clip.

    Args:
        labels (`dict[str, float]`):
            The best labels and their scores, as the pipeline returns them.
        windows (`Sequence[Window]`):
            Scores of all labels along the clip.
        frames (`Sequence[FrameImportance]`):
            Frames that matter for the best label, the most important first.
    """

    labels: dict[str, float]
    windows: Sequence[Window]
    frames: Sequence[FrameImportance]

    def timeline(self) -> pd.DataFrame:
        """
        Scores of the first labels over time, for the plot.

        Returns:
            `pd.DataFrame`: columns `seconds` (the middle of a window), `label` and `score`.
        """
        rows = [
            {"seconds": (window.start_seconds + window.end_seconds) / 2, "label": label, "score": window.scores[label]}
            for window in self.windows
            for label in list(self.labels)[:PLOTTED]
        ]
        return pd.DataFrame(rows)

    def table(self) -> pd.DataFrame:
        """
        Scores over time, for the table.

        Returns:
            `pd.DataFrame`: one row per window, with its time and a column for each label.
        """
        rows = [
            {
                "seconds": f"{window.start_seconds:.2f} - {window.end_seconds:.2f}",
                **{label: f"{window.scores[label]:.4f}" for label in self.labels},
            }
            for window in self.windows
        ]
        return pd.DataFrame(rows)

    def gallery(self) -> list[tuple[Image.Image, str]]:
        """
        The frames as pictures: the plain frame, and beside it the places that matter.

        Returns:
            `list[tuple[Image.Image, str]]`: each picture with its caption.
        """
        highest = max((float(frame.blocks.max()) for frame in self.frames), default=0.0)
        return [
            (
                Image.fromarray(frame_and_heat(frame.picture, frame.blocks, highest)),
                f"{frame.seconds:.2f} s: {100 * frame.share:.0f} %",
            )
            for frame in self.frames
        ]


def load_classifier(model: str, device: str | None = None) -> Any:
    """
    Load a model's pipeline for files of unknown origin.

    Args:
        model (`str`):
            Folder or Hub id of a video classifier of this package.
        device (`str`, *optional*):
            For example `"cuda:0"`. Defaults to an accelerator if there is one.

    Returns:
        [`~pipeline.ClipClassificationPipeline`]: decodes in a separate process.

    Raises:
        ValueError: the model is not a video classifier of this package.
    """
    classifier: Any = pipeline(TASK, model=model, device=device)
    if not isinstance(classifier.video_processor, ClipVideoProcessor):
        raise ValueError(
            f"`model` must be a video classifier of this package, got {model!r} with a "
            f"{type(classifier.video_processor).__name__}."
        )
    classifier.video_processor.isolate_decoding = True
    return classifier


def analyse(
    classifier: Any,
    video: str,
    *,
    top_k: int = 5,
    num_windows: int = 8,
    num_frames: int = 8,
    progress: Progress = lambda share, stage: None,
) -> Analysis:
    """
    Classify a clip, as a whole and in parts.

    Args:
        classifier ([`~pipeline.ClipClassificationPipeline`]):
            See [`load_classifier`].
        video (`str`):
            Path of the clip.
        top_k (`int`, *optional*, defaults to 5):
            Number of labels.
        num_windows (`int`, *optional*, defaults to 8):
            See [`~timeline.scores_over_time`].
        num_frames (`int`, *optional*, defaults to 8):
            Largest number of important frames; see [`~explaining.explain_video`].
        progress (`Callable[[float, str], Any]`, *optional*):
            Called with the share of the work that is done and the name of the next stage.

    Returns:
        [`Analysis`]

    Raises:
        VideoDecodingError: the clip cannot be read.
    """
    labels: dict[str, float] = {}
    progress(0.0, "Classifying")
    for answer in classifier(video, top_k=top_k):
        labels.setdefault(answer["label"], answer["score"])
    progress(0.2, "Scores over time")
    windows = scores_over_time(classifier, video, num_windows=num_windows)
    progress(0.5, "Important frames")
    frames = explain_video(classifier, video, next(iter(labels))).frames()
    return Analysis(labels, windows, sorted(frames, key=lambda frame: -frame.share)[:num_frames])


def build_demo(
    model: str,
    *,
    title: str | None = None,
    device: str | None = None,
    top_k: int = 5,
    detector: Any = None,
    examples: Sequence[str | Path] = (),
) -> gr.Blocks:
    """
    Build the page of a model.

    Args:
        model (`str`):
            Folder or Hub id of a video classifier or an action detector of this package.
        title (`str`, *optional*):
            Headline. Defaults to the model's name.
        device (`str`, *optional*):
            For example `"cuda:0"`. Defaults to an accelerator if there is one.
        top_k (`int`, *optional*, defaults to 5):
            Number of labels.
        detector (*optional*):
            For an action detector: finds people in clips without boxes; see [`~inference.people.person_detector`].
        examples (`Sequence[str]`, *optional*, defaults to `()`):
            Video files that visitors can choose.

    Returns:
        `gradio.Blocks`: serve it with [`serve_demo`].

    Raises:
        ValueError: the model is not of this package, `detector` is given for a classifier, or an example is no file.
    """
    architecture = (AutoConfig.from_pretrained(model).architectures or [""])[0]
    if architecture.endswith("ForActionDetection"):
        return build_action_page(model, title=title, device=device, top_k=top_k, detector=detector, examples=examples)
    if detector is not None:
        raise ValueError(f"`detector` is for action detectors only, but {model!r} is none.")
    if architecture in LOCALIZERS:
        return build_localization_page(model, title=title, device=device, examples=examples)
    return _classifier_page(load_classifier(model, device), model, title or Path(model).name, top_k, examples)


def _classifier_page(classifier: Any, model: str, title: str, top_k: int, examples: Sequence[str | Path]) -> gr.Blocks:
    def answer(
        video: str | None, progress: gr.Progress = PROGRESS
    ) -> tuple[dict[str, float], pd.DataFrame, pd.DataFrame, list[Any]]:
        if not video:
            raise page_error(NO_VIDEO)
        try:
            _warn_if_short(classifier, video)
            found = analyse(classifier, video, top_k=top_k, progress=progress)
        except (VideoDecodingError, OSError) as error:
            raise page_error(_reason(error, video)) from error
        return found.labels, found.timeline(), found.table(), found.gallery()

    with gr.Blocks(title=title, analytics_enabled=False) as page:
        gr.Markdown(page_head(model, title, classifier.model.config, DOES))
        with gr.Row():
            with gr.Column():
                # a mirrored recording would swap left and right
                camera = gr.WebcamOptions(mirror=False)
                video = gr.Video(label="Clip", sources=["upload", "webcam"], webcam_options=camera)
                button = gr.Button("Classify", variant="primary", elem_id="classify")
                show_examples(examples, video)
            labels = gr.Label(label="Labels", num_top_classes=top_k, elem_id="labels")
        with gr.Column(visible=False) as results:
            outputs = [labels, *_result_parts()]
        done = button.click(answer, video, outputs, api_name="classify", concurrency_limit=1, show_progress_on=labels)
        done.success(**reveal(results))
    return page


def _result_parts() -> list[Any]:
    """Plot, table and gallery, each under its heading."""
    gr.Markdown(f"### Scores over time\n{ABOUT_TIME}")
    plot = gr.LinePlot(
        x="seconds",
        y="score",
        color="label",
        x_title="time in seconds",
        y_lim=[0, 1],
        show_label=False,
        elem_id="plot",
    )
    table = gr.Dataframe(show_label=False, interactive=False, elem_id="timeline")
    gr.Markdown(f"### Important frames\n{ABOUT_FRAMES}")
    frames = gr.Gallery(show_label=False, columns=4, object_fit="contain", interactive=False, elem_id="frames")
    return [plot, table, frames]


def serve_demo(
    page: gr.Blocks,
    *,
    host: str | None = None,
    port: int | None = None,
    open_browser: bool = False,
    wait: bool = True,
) -> str:
    """
    Serve a page, by default on this machine only. Nothing is shared or reported.

    Args:
        page (`gradio.Blocks`):
            See [`build_demo`].
        host (`str`, *optional*):
            Address to listen on. Defaults to `GRADIO_SERVER_NAME`, which a Space sets, or `127.0.0.1`.
        port (`int`, *optional*):
            Defaults to the first free port from 7860 on.
        open_browser (`bool`, *optional*, defaults to `False`):
            Whether to open the page in the default browser.
        wait (`bool`, *optional*, defaults to `True`):
            Whether to return only when the server is stopped.

    Returns:
        `str`: the address of the page.
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
        css=CSS,
    )
    return address


def _warn_if_short(classifier: Any, video: str) -> None:
    processor = classifier.video_processor
    wanted = processor.num_frames or processor.published_num_frames or classifier.model.config.num_frames
    there = probe_video(video, isolate=True).num_frames
    if there < wanted:
        gr.Warning(f"The clip has {there} frames, but the model uses {wanted}; some frames are repeated.")


def _reason(error: Exception, video: str) -> str:
    """Reason of a decoding error, without the folder of uploads."""
    return str(error).replace(video, Path(video).name)


__all__ = ["Analysis", "analyse", "build_demo", "load_classifier", "serve_demo"]
