"""
The table of the published checkpoints: what each costs is counted on the model itself, and the page for the
documentation is rendered.

`python -m hf_videovit.hub.model_table --output docs/models.md` counts checkpoints that were not counted yet and
renders the page; `--recount` counts all.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..published import COUNTS, KEYPOINTS, OBJECTS, SEMANTICS, PublishedCheckpoint, list_published, published_entry
from ..published.selection import FILE_LEGEND, data_of, file_word, main_result, weights_licence


TITLES = {
    "videomae_v2": "VideoMAE V2",
    "uniformer_v2": "UniFormerV2",
    "uniformer": "UniFormer",
    "bevt": "BEVT and Video Swin",
    "lstcl": "LSTCL and TimeSformer",
    "tubevit": "TubeViT",
    "actionformer": "ActionFormer and TriDet",
    "video_temporal_localizer": "Encoder and localiser in one",
}
DENSE_SIZES = {OBJECTS: (800, 1280), SEMANTICS: (512, 2048)}  # of the authors' counts, in pixels
INTRODUCTION = """# Models

Every published checkpoint that this package knows. `hf-videovit models` prints the same table, and
`hf-videovit models NAME` all that is known of one, with the two lines that get and convert it:

```bash
hf-videovit models --family videomae_v2 --data k710    # also --task, --size, --licence
hf-videovit models videomae-v2-base-k710-distilled
hf-videovit models videomae-v2-base-k710-distilled --download    # checked by size and hash; run again to continue
```

`hf_videovit.list_published(...)` takes the same choices, and `hf_videovit.published_entry(name)` has the file,
licence, labels, protocol and results of one.

## Which one?

- For your own clips, start from a model that was trained on many videos: `videomae-v2-small-k710-distilled` or
  `-base-`, or `uniformer-small-k400-16x4-mmaction2` where a fast model is wanted. If the motion matters more than what
  is in the picture, take one of Something-Something (`--data ssv2`).
- For a given memory, ask before you download anything. The second line names the memory and the time of a training
  step on this machine:

```bash
hf-videovit models --family videomae_v2 --size base
hf-videovit train --model_type videomae_v2 --size base --data clips --batch_size 4 --plan
```

- For a model that has to answer quickly, compare the GMACs of a view times the number of views (clips x crops). See
  [deployment](deploy.md).
- Without a pretrained model, hundreds of clips of each class are needed.

## All of them

Scores are in percent, as their sources report them, with views of frames x clips x crops: top-1 accuracy, mean
average precision (of boxes for COCO), or mean intersection over union (ADE20K). Parameters and multiply-accumulates
(GMACs) of one view are counted on the models of this package; of action detectors and pretraining models the latter
are those of the encoder, of localisers those of the longest sequence of features, of detectors of objects those of
800 x 1280 pixels with 1,000 proposals and 100 masks, of segmenters those of 512 x 2048 pixels. A licence is that of
the weights. What the words under "file" mean: {legend}.
"""


def count_checkpoint(name: str) -> dict[str, int | float]:
    """
    Count the parameters and the multiply-accumulates of a published checkpoint, without its weights.

    Args:
        name (`str`):
            One of [`~published.list_published`].

    Returns:
        `dict[str, int | float]`: `parameters` and, where the input has a fixed size, `gmacs` of one view.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from ..published import published_config
    from .cards import AUTO_CLASSES

    entry, config = published_entry(name), published_config(name)
    with torch.device("meta"):
        model: Any = AUTO_CLASSES[entry.task].from_config(config)
    model = model.to("meta").eval().requires_grad_(False)  # tables of positions are made on the CPU
    counted: dict[str, int | float] = {"parameters": sum(one.numel() for one in model.parameters())}
    shape = _input_shape(entry, config)
    if shape is None:
        return counted
    if entry.task in ("action-detection", "pretraining"):
        model = getattr(model, model.base_model_prefix)
    run = _run_detector if entry.task == OBJECTS else model.__class__.__call__
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run(model, torch.empty(1, *shape, device="meta"))
    return counted | {"gmacs": round(counter.get_total_flops() / 2e9, 2)}


def _run_detector(model: Any, pixels: Any) -> None:
    """All parts of a detector. What is detected needs values, so the heads get as many boxes as they may."""
    import torch

    width, boxes, objects = model.config.pyramid_size, model.config.num_proposals, model.config.max_detections
    maps = model.pyramid(model.backbone(pixels).feature_maps)
    model.proposals(maps)
    for box_head, mask_head in zip(model.heads.box_heads, model.heads.mask_heads):
        box_head(torch.empty(boxes, width, 7, 7, device="meta"))
        mask_head(torch.empty(objects, width, 14, 14, device="meta"))


def _input_shape(entry: PublishedCheckpoint, config: Any) -> tuple[int, ...] | None:
    """Shape of one view; `None` for models whose input has no fixed size."""
    if hasattr(config, "encoder_config"):
        return None
    if entry.task in DENSE_SIZES:
        return 3, *DENSE_SIZES[entry.task]
    if entry.task == "temporal-action-localization":
        return config.max_sequence_length, sum(config.feature_sizes)
    if entry.task == KEYPOINTS:
        return 3, *config.image_size
    side = entry.protocol.image_size
    if entry.task == "image-classification" or config.to_dict().get("modality") == "image":
        return 3, side, side
    return config.num_frames, 3, side, side


def write_counts(names: Iterable[str]) -> None:
    """
    Count checkpoints and write them to the file of the package, from which entries have them.

    Args:
        names (`Iterable[str]`):
            The checkpoints to count; what the file has of others stays.
    """
    known = json.loads(COUNTS.read_text(encoding="utf-8")) if COUNTS.exists() else {}
    known |= {name: count_checkpoint(name) for name in names}
    lines = [f'  "{name}": {json.dumps(known[name])}' for name in list_published()]
    COUNTS.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def render_table() -> str:
    """
    The page of the documentation.

    Returns:
        `str`: its markdown: a table for each family.
    """
    parts = [INTRODUCTION.format(legend=FILE_LEGEND.removeprefix("file: "))]
    for family, title in TITLES.items():
        entries = [published_entry(name) for name in list_published(family)]
        parts.append(f"\n## {title}\n")
        parts.append("| name | task | score | parameters | GMACs | licence | file |\n|---|---|---|---|---|---|---|")
        parts += [_row(entry) for entry in entries]
    return "\n".join(parts) + "\n"


def _row(entry: PublishedCheckpoint) -> str:
    best = main_result(entry)
    score = f"{best.value:.1f}, {best.data}" if best else ", ".join(data_of(entry)) or "-"
    if best and best.views:
        score += f", {best.views}"
    if best and best.kind == "recalled-unverified":
        score += ", not verified"
    cells = (
        f"`{entry.name}`",
        entry.task,
        score,
        millions(entry.parameters),
        gigas(entry.gmacs),
        weights_licence(entry),
        file_word(entry),
    )
    return f"| {' | '.join(cells)} |"


def millions(parameters: int | None) -> str:
    """
    A number of parameters in words.

    Args:
        parameters (`int` or `None`):
            The number.

    Returns:
        `str`: such as `86.5M`, `1012M`, or `-` for none.
    """
    if parameters is None:
        return "-"
    return f"{parameters / 1e6:.1f}M" if parameters < 1e8 else f"{parameters / 1e6:.0f}M"


def gigas(gmacs: float | None) -> str:
    """
    A number of multiply-accumulates in words.

    Args:
        gmacs (`float` or `None`):
            In 10^9.

    Returns:
        `str`: such as `3.6`, `180`, or `-` for none.
    """
    if gmacs is None:
        return "-"
    return f"{gmacs:.1f}" if gmacs < 100 else f"{gmacs:.0f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Entry point of `python -m hf_videovit.hub.model_table`.

    Args:
        arguments (`Sequence[str]`, *optional*):
            Arguments of the command line. Defaults to those of the process.
    """
    parser = argparse.ArgumentParser(description="Render the table of the published checkpoints.")
    parser.add_argument("--output", default="docs/models.md", help="The page.")
    parser.add_argument("--recount", action="store_true", help="Count every checkpoint again.")
    given = parser.parse_args(arguments)
    uncounted = [name for name in list_published() if given.recount or published_entry(name).parameters is None]
    write_counts(uncounted)
    if uncounted:
        _reload()
    Path(given.output).write_text(render_table(), encoding="utf-8")


def _reload() -> None:
    from ..published import _entries

    _entries.cache_clear()


if __name__ == "__main__":
    main()
