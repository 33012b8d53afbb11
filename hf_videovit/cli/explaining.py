"""The command that shows what a model looks at."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ..folders import refuse_existing, refuse_foreign
from .common import AsJson, Device, Model, load_classifier, load_encoder, make_table, print_json


commands = typer.Typer()

METHOD = "integrated gradients"
HIDDEN = 0.1  # share of the blocks that the check hides


@commands.command()
def explain(
    model: Model,
    video: Annotated[
        str | None,
        typer.Argument(help="Video file or URL. Left out: draw the tubes of a TubeViT.", show_default=False),
    ] = None,
    label: Annotated[str | None, typer.Option(help="Label to explain. Default: the best one.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for pictures, film and JSON.")] = Path(
        "explained"
    ),
    top_k: Annotated[int, typer.Option(min=1, help="Frames to print.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Points of the integral; more are slower and more exact.")] = 32,
    places: Annotated[int, typer.Option(min=1, help="Blocks along each side of a frame.")] = 8,
    batch_size: Annotated[int, typer.Option(min=1, help="Points per forward pass.")] = 4,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """
    Show which frames and places of a video a classifier's score rests on.

    Writes explanation.png, explanation.mp4 and explanation.json. As a check, the most important tenth of the blocks is
    hidden, and then a random tenth: the first must lower the score more.
    """
    if video is None:
        if label is not None:
            raise ValueError("--label needs a video to explain.")
        _draw_tubes(model, output, as_json)
        return
    from ..inference.explaining import check_by_deletion, explain_video

    files = {kind: output / f"explanation.{kind}" for kind in ("png", "mp4", "json")}
    refuse_foreign(files["json"], "--output", METHOD)
    if not files["json"].exists():
        refuse_existing(files.values(), "--output")
    classifier = load_classifier(model, device)
    explanation = explain_video(classifier, video, label, steps=steps, places=places, batch_size=batch_size)
    frames = explanation.frames()
    report = {
        "video": video,
        "model": model,
        "label": explanation.label,
        "score": explanation.score,
        "method": METHOD,
        "hidden": {"share": HIDDEN, **vars(check_by_deletion(classifier, explanation, share=HIDDEN))},
        "frames": [
            {
                "index": frame.index,
                "seconds": round(frame.seconds, 4),
                "share": round(frame.share, 4),
                "blocks": frame.blocks.round(5).tolist(),
            }
            for frame in frames
        ],
    }
    _write(frames, report, files)
    if as_json:
        print_json(report)
        return
    _print(report, top_k)
    typer.echo(f"-> {', '.join(map(str, files.values()))}")


def _write(frames: list[Any], report: dict[str, Any], files: dict[str, Path]) -> None:
    from ..pictures.importance import draw_importance, write_importance_film

    pictures, blocks = [frame.picture for frame in frames], [frame.blocks for frame in frames]
    files["json"].parent.mkdir(parents=True, exist_ok=True)
    files["json"].write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    captions = [f"{frame.seconds:.2f} s: {100 * frame.share:.0f} %" for frame in frames]
    draw_importance(pictures, blocks, captions, files["png"])
    write_importance_film(pictures, blocks, [frame.seconds for frame in frames], files["mp4"])


def _print(report: dict[str, Any], top_k: int) -> None:
    hidden = report["hidden"]
    typer.echo(f"{report['label']}: score {report['score']:.3f}")
    table = make_table("Time", "Share of the importance")
    for frame in sorted(report["frames"], key=lambda frame: -frame["share"])[:top_k]:
        table.add_row(f"{frame['seconds']:.2f} s", f"{100 * frame['share']:.0f} %")
    Console().print(table)
    typer.echo(
        f"check: with the most important {100 * HIDDEN:.0f} % of the blocks hidden the score is "
        f"{hidden['important']:.3f}, with random ones {hidden['random']:.3f}"
    )
    if hidden["important"] >= hidden["random"]:
        typer.echo("The check failed: do not trust this explanation.", err=True)


def _draw_tubes(model: str, output: Path, as_json: bool) -> None:
    from ..modeling.modeling_tubevit import TubeViTModel
    from ..pictures.tubes import draw_kernels, draw_token_map

    encoder, _ = load_encoder(model, "cpu")
    if not isinstance(encoder.base_model, TubeViTModel):
        raise ValueError(f"VIDEO is needed: --model {model} is no TubeViT, whose tubes are drawn without one.")
    drawn = {
        "kernels": str(draw_kernels(encoder, output / "kernels.png")),
        "tokens": str(draw_token_map(encoder.config, output / "tokens.png")),
    }
    if as_json:
        print_json(drawn)
        return
    for path in drawn.values():
        typer.echo(f"-> {path}")
