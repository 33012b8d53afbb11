"""
Mask R-CNN on UniFormer-S beside torchvision's Mask R-CNN on ResNet-50 (`maskrcnn_resnet50_fpn_v2`), both in one run:

    python -m benchmarks.detector --threads 1 --clock processor

One image of 800 x 1280 pixels, 80 classes, fresh weights, a forward pass in evaluation mode without gradients. The
work of both sides must be comparable, and fresh weights find nothing above the usual threshold. So each side's
threshold is the score of its 1,000th best pair of region and class on this image: 1,000 proposals, 1,000 candidates,
100 objects with masks on both sides. The numbers of proposals and objects are in the file. Rounds alternate between
the sides, and the best of each counts. Multiply-accumulates are those that PyTorch counts in the same call.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torchvision.models.detection import maskrcnn_resnet50_fpn_v2

from benchmarks._comparison import best_of, macs, make_parser
from benchmarks._machine import write_csv
from hf_videovit import UniFormerDetectorConfig, UniFormerForObjectDetection


HEIGHT, WIDTH, CLASSES, CANDIDATES = 800, 1280, 80, 1000
BAR = 0.8  # ours may take the time per multiply-accumulate of torchvision's, divided by this
OURS, THEIRS = "UniFormer-S, hybrid attention with windows of 14", "torchvision maskrcnn_resnet50_fpn_v2"
Forward = Callable[[], dict[str, torch.Tensor]]


def our_side() -> tuple[Forward, dict[str, int]]:
    """Our detector, and how many regions its heads see."""
    model = UniFormerForObjectDetection(UniFormerDetectorConfig.from_size("small", num_labels=CLASSES)).eval()
    pixels = torch.rand(1, 3, HEIGHT, WIDTH)
    boxes = torch.zeros(0)

    @torch.no_grad()
    def forward() -> dict[str, torch.Tensor]:
        return {"scores": model(pixels).scores[0]}

    def seen(module: Any, inputs: Any, outputs: Any) -> None:
        nonlocal boxes
        boxes = outputs[0].float().softmax(-1)[:, :-1]

    hook = model.heads.box_heads[0].register_forward_hook(seen)
    forward()
    hook.remove()
    model.config.score_threshold = usual_threshold(boxes)
    return forward, {"proposals": len(boxes), "objects": int((forward()["scores"] > 0).sum())}


def their_side() -> tuple[Forward, dict[str, int]]:
    """Torchvision's detector, and how many regions its heads see."""
    model = maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=CLASSES + 1).eval()
    pixels = [torch.rand(3, HEIGHT, WIDTH)]  # its own resizing, to 800 and at most 1333, changes nothing
    boxes = torch.zeros(0)

    @torch.no_grad()
    def forward() -> dict[str, torch.Tensor]:
        return model(pixels)[0]

    def seen(module: Any, inputs: Any, outputs: Any) -> None:
        nonlocal boxes
        boxes = outputs[0].softmax(-1)[:, 1:]  # the background comes first

    hook = model.roi_heads.box_predictor.register_forward_hook(seen)
    forward()
    hook.remove()
    model.roi_heads.score_thresh = usual_threshold(boxes)
    return forward, {"proposals": len(boxes), "objects": len(forward()["scores"])}


def usual_threshold(scores: torch.Tensor) -> float:
    """The score of the last candidate, from scores `(regions, classes)`."""
    return float(scores.flatten().topk(CANDIDATES).values[-1])


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of both sides, ours first."""
    sides = {OURS: our_side(), THEIRS: their_side()}
    times = best_of({name: forward for name, (forward, _) in sides.items()}, arguments)
    work = {name: macs(forward) / 1e9 for name, (forward, _) in sides.items()}
    cost = {name: times[name] / work[name] for name in sides}
    return [
        {
            "side": name,
            "seconds": round(times[name], 3),
            "gmacs": round(work[name], 2),
            "milliseconds_per_gmac": round(1000 * cost[name], 2),
            "speed_per_gmac_of_ours": round(cost[name] / cost[OURS], 3),
            **counts,
            **{field: getattr(arguments, field) for field in ("threads", "clock", "rounds")},
        }
        for name, (_, counts) in sides.items()
    ]


def main(names: Sequence[str] | None = None) -> None:
    """Measure both sides and write the file."""
    arguments = make_parser(__doc__, __file__, rounds=3).parse_args(names)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    rows = measure(arguments)
    for row in rows:
        print(*(f"{column}={value}" for column, value in row.items()), flush=True)
    if rows[1]["speed_per_gmac_of_ours"] < BAR:
        print(f"slower than {BAR} of torchvision's speed per multiply-accumulate")
    write_csv(arguments.output, rows)


if __name__ == "__main__":
    main()
