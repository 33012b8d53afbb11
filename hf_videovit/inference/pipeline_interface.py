"""`gradio.Interface` of a video pipeline. `gradio.Interface.from_pipeline` knows no pipeline of videos."""

from typing import Any

import gradio as gr

from ..modeling.video_decoding import VideoDecodingError
from .pipeline import ClipClassificationPipeline


def interface_from_pipeline(classifier: ClipClassificationPipeline, **options: Any) -> gr.Interface:
    """
    A page of a video classifier, as `gradio.Interface.from_pipeline` makes them of other pipelines. It can be a part
    of other gradio pages.

    Args:
        classifier ([`ClipClassificationPipeline`]):
            Of `pipeline("video-classification")`.
        options (`Any`):
            Arguments of `gradio.Interface`, such as `title` and `examples`.

    Returns:
        `gradio.Interface`: start it with `launch()`.

    Raises:
        ValueError: the pipeline is not of a model of this package.
    """
    if not isinstance(classifier, ClipClassificationPipeline):
        raise ValueError(f"`classifier` must be a ClipClassificationPipeline, got {type(classifier).__name__}.")

    def classify(video: str | None) -> dict[str, float]:
        if not video:
            raise gr.Error("Choose a clip first.", print_exception=False)
        try:
            return {one["label"]: one["score"] for one in classifier(video)}
        except VideoDecodingError as error:
            raise gr.Error(error.reason, print_exception=False) from error

    defaults = {"title": type(classifier.model).__name__, "flagging_mode": "never", "api_name": "classify"}
    return gr.Interface(classify, gr.Video(label="Clip"), gr.Label(label="Labels"), **{**defaults, **options})


__all__ = ["interface_from_pipeline"]
