"""Parts that the demo pages share: their head, their errors, and their look on a phone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from transformers import PreTrainedConfig


HUB = "https://huggingface.co"
NAMED_LABELS = 8  # in the description
PROGRESS = gr.Progress()  # as a default value it asks gradio for the progress of the call
# Gradio keeps the columns of a gallery on a narrow screen, where captions are then cut off.
CSS = """
@media (max-width: 640px) {
  #frames .grid-container { grid-template-columns: repeat(2, minmax(0, 1fr)) !important; }
}
"""


def page_head(model: str, title: str, config: PreTrainedConfig, does: str) -> str:
    """
    Headline and description of a page.

    Args:
        model (`str`):
            Folder or Hub id of the model. Of one on the Hub, the card is linked.
        title (`str`):
            Headline.
        config (`PreTrainedConfig`):
            Configuration of the model.
        does (`str`):
            What the model does, such as "classifies clips".

    Returns:
        `str`: Markdown.
    """
    names = [str(config.id2label[index]) for index in sorted(config.id2label)]
    listed = ", ".join(names[:NAMED_LABELS]) + (f" and {len(names) - NAMED_LABELS} more" * (len(names) > NAMED_LABELS))
    architecture = (config.architectures or [type(config).__name__])[0]
    card = "" if Path(model).exists() else f" [Model card]({HUB}/{model})"
    return f"# {title}\n{architecture} {does}. It knows {len(names)} labels: {listed}.{card}"


def page_error(message: str) -> gr.Error:
    """
    An error that stays on the page until it is dismissed.

    Args:
        message (`str`):
            What is wrong, and what to do.

    Returns:
        `gradio.Error`: to be raised.
    """
    return gr.Error(message, duration=None, print_exception=False)


def show_examples(clips: Sequence[str | Path], video: Any) -> None:
    """
    Add clips to choose from to the page that is being built. Without clips nothing is added.

    Args:
        clips (`Sequence[str]`):
            Video files.
        video (`gradio.Video`):
            The component that receives the chosen one.

    Raises:
        ValueError: a file does not exist.
    """
    for clip in clips:
        if not Path(clip).is_file():
            raise ValueError(f"`examples` must be video files, {str(clip)!r} is none.")
    if clips:
        gr.Examples([[str(clip)] for clip in clips], [video], label="Example clips", api_visibility="private")


def reveal(results: Any) -> dict[str, Any]:
    """
    Arguments of an event that shows a hidden part of a page.

    Args:
        results (`gradio.Column`):
            The part.

    Returns:
        `dict[str, Any]`: `fn`, `outputs` and that the event is not part of the API.
    """
    return {"fn": lambda: gr.Column(visible=True), "outputs": results, "api_visibility": "private"}


__all__ = ["CSS", "PROGRESS", "page_error", "page_head", "reveal", "show_examples"]
