"""
A web page that shows an action detector: the clip with a box and the actions of each person, and tables of them.

`demo.py` shows it for a detector's folder. Visitors give boxes; only whoever serves the page chooses the detector of
people, because a name is a model that the server loads.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd
from transformers import pipeline

from ..modeling.video_decoding import VideoDecodingError
from ..pictures.films import write_labelled_film
from .page_parts import PROGRESS, page_error, page_head, reveal, show_examples
from .people import parse_boxes_by_time, person_detector, person_timelines


TASK = "action-detection"
NO_VIDEO = "No clip: upload one or record one with the camera."
NO_PEOPLE = 'No boxes: write them as {"1.0": [[x1, y1, x2, y2]]}, by second, in pixels of the clip.'
DOES = "finds what each person in a clip does"
ABOUT_BOXES = "By second: a list of x1, y1, x2, y2 in pixels for each person."
ABOUT_TIMELINES = "When each person starts and stops an action. Scores are averaged over three key-frames."
NOBODY = "nobody"


@dataclass(frozen=True)
class FoundActions:
    """
    Results that the page shows for a clip.

    Args:
        answers (`Sequence[dict]`):
            Of `pipeline("action-detection")`.
        timelines (`Sequence[dict]`):
            Of [`~inference.people.person_timelines`].
        film (`Path`):
            The clip with boxes and labels.
    """

    answers: Sequence[dict[str, Any]]
    timelines: Sequence[dict[str, Any]]
    film: Path

    def table(self) -> pd.DataFrame:
        """
        Actions at each key-frame.

        Returns:
            `pd.DataFrame`: a row for each person and action, one for a person without any and for an empty key-frame.
        """
        rows = []
        for answer in self.answers:
            seconds = f"{answer['time']:.2f}"
            for person in answer["people"]:
                box = ", ".join(f"{value:.0f}" for value in person["box"].values())
                for action in person["actions"] or [{"label": "", "score": None}]:
                    score = "" if action["score"] is None else f"{action['score']:.4f}"
                    rows.append((seconds, str(person["person_id"]), box, action["label"], score))
            if not answer["people"]:
                rows.append((seconds, NOBODY, "", "", ""))
        return pd.DataFrame(rows, columns=["seconds", "person", "box", "action", "score"])

    def intervals(self) -> pd.DataFrame:
        """
        Actions over time.

        Returns:
            `pd.DataFrame`: a row for each interval.
        """
        rows = [
            (str(one["person"]), one["label"], f"{one['start']:.2f} - {one['end']:.2f}", f"{one['score']:.4f}")
            for one in self.timelines
        ]
        return pd.DataFrame(rows, columns=["person", "action", "seconds", "score"])


def detect_in_clip(
    detect: Any,
    video: str,
    film: str | Path,
    *,
    boxes: Mapping[float, Any] | None = None,
    detector: Any = None,
    every: float = 1.0,
    threshold: float = 0.5,
    top_k: int = 5,
) -> FoundActions:
    """
    Find the actions in a clip, and write its film.

    Args:
        detect ([`~inference.action_detection.ActionDetectionPipeline`]):
            The pipeline.
        video (`str`):
            Path of the clip.
        film (`str` or `Path`):
            Path of the new film; .mp4.
        boxes (`Mapping[float, Any]`, *optional*):
            Boxes of people by second.
        detector (*optional*):
            Detector of people, if there are no boxes.
        every (`float`, *optional*, defaults to 1.0):
            Seconds between key-frames, if there are no boxes.
        threshold (`float`, *optional*, defaults to 0.5):
            Lowest score of an action that is shown.
        top_k (`int`, *optional*, defaults to 5):
            Largest number of actions for a person.

    Returns:
        [`FoundActions`]

    Raises:
        ValueError: the boxes or key-frames do not fit the clip.
        VideoDecodingError: the clip cannot be read.
    """
    people = {"boxes": boxes} if boxes else {"person_detector": detector, "every": every}
    complete = detect(video, threshold=0.0, **people)
    answers = [
        {
            **answer,
            "people": [
                {**person, "actions": [one for one in person["actions"] if one["score"] >= threshold][:top_k]}
                for person in answer["people"]
            ],
        }
        for answer in complete
    ]
    path = write_labelled_film(video, answers, film, isolate=detect.video_processor.isolate_decoding)
    return FoundActions(answers, person_timelines(complete, threshold), path)


def build_action_page(
    model: str,
    *,
    title: str | None = None,
    device: str | None = None,
    top_k: int = 5,
    detector: Any = None,
    examples: Sequence[str | Path] = (),
) -> gr.Blocks:
    """
    Build the page of an action detector.

    Args:
        model (`str`):
            Folder or Hub id of an action detector of this package.
        title (`str`, *optional*):
            Headline. Defaults to the model's name.
        device (`str`, *optional*):
            For example `"cuda:0"`. Defaults to an accelerator if there is one.
        top_k (`int`, *optional*, defaults to 5):
            Largest number of actions for a person.
        detector (*optional*):
            Detector of people for clips without boxes; see [`~inference.people.person_detector`].
        examples (`Sequence[str]`, *optional*, defaults to `()`):
            Video files that visitors can choose.

    Returns:
        `gradio.Blocks`

    Raises:
        ValueError: the model is not an action detector of this package.
    """
    detect: Any = pipeline(TASK, model=model, device=device)
    detect.video_processor.isolate_decoding = True  # files may come from strangers
    found_people = None if detector is None else person_detector(detector, detect.device)
    title = title or Path(model).name
    films = tempfile.TemporaryDirectory(prefix="films-")

    def answer(
        video: str | None,
        boxes: str | None,
        every: float,
        threshold: float,
        progress: gr.Progress = PROGRESS,
    ) -> tuple[str, pd.DataFrame, pd.DataFrame]:
        if not video:
            raise page_error(NO_VIDEO)
        text = (boxes or "").strip()
        if not text and found_people is None:
            raise page_error(NO_PEOPLE)
        progress(0.0, "Detecting actions")
        with tempfile.NamedTemporaryFile(suffix=".mp4", dir=films.name, delete=False) as file:
            film = Path(file.name)
        try:
            given = parse_boxes_by_time(json.loads(text)) if text else None
            found = detect_in_clip(
                detect,
                video,
                film,
                boxes=given,
                detector=found_people,
                every=every,
                threshold=threshold,
                top_k=top_k,
            )
        except (VideoDecodingError, OSError, ValueError) as error:
            film.unlink()
            raise page_error(str(error).replace(video, Path(video).name)) from error
        return str(found.film), found.table(), found.intervals()

    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown(page_head(model, title, detect.model.config, DOES))
        with gr.Row():
            with gr.Column():
                camera = gr.WebcamOptions(mirror=False)  # a mirrored recording would swap left and right
                video = gr.Video(label="Clip", sources=["upload", "webcam"], webcam_options=camera)
                hint = ABOUT_BOXES if detector is None else f"{ABOUT_BOXES} Without them, people are detected."
                boxes = gr.Textbox(
                    label="Boxes", info=hint, placeholder='{"1.0": [[20, 30, 120, 220]]}', lines=3, elem_id="boxes"
                )
                every = gr.Number(1.0, label="Seconds between key-frames", visible=detector is not None)
                threshold = gr.Slider(0, 1, 0.5, label="Lowest score of an action")
                button = gr.Button("Detect actions", variant="primary", elem_id="detect")
                show_examples(examples, video)
            film = gr.Video(label="Actions", interactive=False, elem_id="film")
        with gr.Column(visible=False) as results:
            gr.Markdown("### Actions at each key-frame")
            table = gr.Dataframe(show_label=False, interactive=False, elem_id="actions")
            gr.Markdown(f"### Over time\n{ABOUT_TIMELINES}")
            intervals = gr.Dataframe(show_label=False, interactive=False, elem_id="intervals")
        inputs, outputs = [video, boxes, every, threshold], [film, table, intervals]
        done = button.click(answer, inputs, outputs, api_name="detect", concurrency_limit=1, show_progress_on=film)
        done.success(**reveal(results))
    return page


__all__ = ["FoundActions", "build_action_page", "detect_in_clip"]
