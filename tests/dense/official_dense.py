"""
The heads of the official detectors and segmenters, restated plainly for one image: loops instead of libraries, on a
state dict in their own layout. What the package computes is compared with it. Facts from MMDetection 2's and
MMSegmentation's public code; the words are ours.
"""

import math

import torch
from torch.nn import functional as F


State = dict[str, torch.Tensor]
STRIDES = (4, 8, 16, 32, 64)


def detector_heads(
    channels: list[int], *, labels: int, width: int = 16, hidden: int = 24, stages: int = 1, masks: int = 2
) -> dict[str, tuple[int, ...]]:
    """Official names and shapes: Mask R-CNN with one stage, Cascade Mask R-CNN with convolutions for more."""
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *weight: int, bias: int | None = None) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = weight, (bias or weight[0],)

    for index, size in enumerate(channels):
        layer(f"neck.lateral_convs.{index}.conv", width, size, 1, 1)
        layer(f"neck.fpn_convs.{index}.conv", width, width, 3, 3)
    layer("rpn_head.rpn_conv", width, width, 3, 3)
    layer("rpn_head.rpn_cls", 3, width, 1, 1)
    layer("rpn_head.rpn_reg", 12, width, 1, 1)
    for stage in range(stages):
        place = f".{stage}" if stages > 1 else ""
        box, mask = f"roi_head.bbox_head{place}", f"roi_head.mask_head{place}"
        if stages > 1:
            for index in range(2):
                shapes[f"{box}.shared_convs.{index}.conv.weight"] = (width, width, 3, 3)
                shapes |= norm_shapes(f"{box}.shared_convs.{index}.bn", width)
        layer(f"{box}.shared_fcs.0", hidden, width * 49)
        if stages == 1:
            layer(f"{box}.shared_fcs.1", hidden, hidden)
        layer(f"{box}.fc_cls", labels + 1, hidden)
        layer(f"{box}.fc_reg", 4 * labels, hidden)
        for index in range(masks):
            layer(f"{mask}.convs.{index}.conv", width, width, 3, 3)
        layer(f"{mask}.upsample", width, width, 2, 2)
        layer(f"{mask}.conv_logits", labels, width, 1, 1)
    return shapes


def norm_shapes(name: str, size: int) -> dict[str, tuple[int, ...]]:
    kinds = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{kind}": (size,) for kind in kinds}, f"{name}.num_batches_tracked": ()}


def upernet_heads(
    channels: list[int], *, labels: int, width: int = 16, auxiliary: int = 8
) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}

    def unit(name: str, *weight: int) -> None:
        shapes[f"{name}.conv.weight"] = weight
        shapes.update(norm_shapes(f"{name}.bn", weight[0]))

    for index in range(4):
        unit(f"decode_head.psp_modules.{index}.1", width, channels[-1], 1, 1)
    unit("decode_head.bottleneck", width, channels[-1] + 4 * width, 3, 3)
    for index, size in enumerate(channels[:-1]):
        unit(f"decode_head.lateral_convs.{index}", width, size, 1, 1)
        unit(f"decode_head.fpn_convs.{index}", width, width, 3, 3)
    unit("decode_head.fpn_bottleneck", width, 4 * width, 3, 3)
    unit("auxiliary_head.convs.0", auxiliary, channels[2], 3, 3)
    for name, size in (("decode_head", width), ("auxiliary_head", auxiliary)):
        shapes |= {f"{name}.conv_seg.weight": (labels, size, 1, 1), f"{name}.conv_seg.bias": (labels,)}
    return shapes


def fpn_heads(channels: list[int], *, labels: int, pyramid: int = 12, width: int = 16) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for index, size in enumerate(channels):
        for name, weight in (("lateral_convs", (pyramid, size, 1, 1)), ("fpn_convs", (pyramid, pyramid, 3, 3))):
            shapes |= {f"neck.{name}.{index}.conv.weight": weight, f"neck.{name}.{index}.conv.bias": (pyramid,)}
        for step in range(max(1, index)):
            name = f"decode_head.scale_heads.{index}.{2 * step}"
            shapes[f"{name}.conv.weight"] = (width, width if step else pyramid, 3, 3)
            shapes |= norm_shapes(f"{name}.bn", width)
    return shapes | {"decode_head.conv_seg.weight": (labels, width, 1, 1), "decode_head.conv_seg.bias": (labels,)}


def random_state(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> State:
    """Weights as large as their layers need; variances positive, counters integers."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(3)
        elif name.endswith("running_var"):
            state[name] = torch.rand(shape, generator=generator) + 0.5
        else:
            fan = math.prod(shape[1:]) if len(shape) > 1 else 10
            state[name] = torch.randn(shape, generator=generator) / math.sqrt(fan)
    return state


def convolve(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state.get(f"{name}.bias"), padding=weight.shape[-1] // 2)


def unit(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    """Convolution, BatchNorm with its running statistics, ReLU."""
    statistics = [state[f"{name}.bn.{kind}"] for kind in ("running_mean", "running_var", "weight", "bias")]
    return F.relu(F.batch_norm(convolve(state, f"{name}.conv", x), *statistics))


def enlarge(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def pyramid(state: State, maps: list[torch.Tensor]) -> list[torch.Tensor]:
    lateral = [convolve(state, f"neck.lateral_convs.{index}.conv", one) for index, one in enumerate(maps)]
    for index in range(len(lateral) - 1, 0, -1):
        lateral[index - 1] = lateral[index - 1] + F.interpolate(lateral[index], size=lateral[index - 1].shape[-2:])
    return [convolve(state, f"neck.fpn_convs.{index}.conv", one) for index, one in enumerate(lateral)]


def upernet(state: State, maps: list[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
    last, head = maps[-1], "decode_head"
    pooled = [last]
    for index, scale in enumerate((1, 2, 3, 6)):
        pooled.append(
            enlarge(unit(state, f"{head}.psp_modules.{index}.1", F.adaptive_avg_pool2d(last, scale)), last.shape[-2:])
        )
    levels = [unit(state, f"{head}.lateral_convs.{index}", one) for index, one in enumerate(maps[:-1])]
    levels.append(unit(state, f"{head}.bottleneck", torch.cat(pooled, 1)))
    for index in (3, 2, 1):
        levels[index - 1] = levels[index - 1] + enlarge(levels[index], levels[index - 1].shape[-2:])
    outputs = [unit(state, f"{head}.fpn_convs.{index}", levels[index]) for index in range(3)] + [levels[3]]
    joined = torch.cat([enlarge(one, outputs[0].shape[-2:]) for one in outputs], 1)
    return enlarge(convolve(state, f"{head}.conv_seg", unit(state, f"{head}.fpn_bottleneck", joined)), size)


def semantic_fpn(state: State, maps: list[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
    total = None
    for level, one in enumerate(pyramid(state, maps)):
        for step in range(max(1, level)):
            one = unit(state, f"decode_head.scale_heads.{level}.{2 * step}", one)
            if level:
                one = enlarge(one, (2 * one.shape[-2], 2 * one.shape[-1]))
        total = one if total is None else total + enlarge(one, total.shape[-2:])
    return enlarge(convolve(state, "decode_head.conv_seg", total), size)


def moved(box: list[float], change: list[float], deviations: tuple[float, ...]) -> list[float]:
    """A box whose centre and sides are changed."""
    width, height = box[2] - box[0], box[3] - box[1]
    dx, dy, dw, dh = (one * deviation for one, deviation in zip(change, deviations))
    most = math.log(1000 / 16)
    x, y = box[0] + width / 2 + dx * width, box[1] + height / 2 + dy * height
    width, height = width * math.exp(min(dw, most)), height * math.exp(min(dh, most))
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def clipped(box: list[float], size: tuple[int, int]) -> list[float]:
    return [min(max(one, 0.0), float(size[1 - index % 2])) for index, one in enumerate(box)]


def overlap(one: list[float], other: list[float]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    both = max(width, 0.0) * max(height, 0.0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return both / (sum(areas) - both) if sum(areas) > both else 0.0


def suppressed(found: list[tuple], threshold: float) -> list[tuple]:
    """Of `(score, group, box, ...)` the best first, without those that a better one of their group overlaps."""
    kept: list[tuple] = []
    for one in sorted(found, key=lambda entry: -entry[0]):
        if all(one[1] != other[1] or overlap(one[2], other[2]) <= threshold for other in kept):
            kept.append(one)
    return kept


def proposals(
    state: State, levels: list[torch.Tensor], size: tuple[int, int], before: int, most: int
) -> list[list[float]]:
    found = []
    for level, one in enumerate(levels):
        hidden = F.relu(convolve(state, "rpn_head.rpn_conv", one))
        scores = convolve(state, "rpn_head.rpn_cls", hidden)[0].sigmoid()
        changes = convolve(state, "rpn_head.rpn_reg", hidden)[0]
        of_level = []
        for row in range(one.shape[-2]):
            for column in range(one.shape[-1]):
                for index, ratio in enumerate((0.5, 1.0, 2.0)):
                    height, width = (8 * STRIDES[level] * ratio**power for power in (0.5, -0.5))
                    x, y = column * STRIDES[level], row * STRIDES[level]
                    anchor = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
                    change = changes[4 * index : 4 * index + 4, row, column].tolist()
                    of_level.append((scores[index, row, column].item(), level, anchor, change))
        for score, group, anchor, change in sorted(of_level, key=lambda entry: -entry[0])[:before]:
            box = clipped(moved(anchor, change, (1.0,) * 4), size)
            if box[2] > box[0] and box[3] > box[1]:
                found.append((score, group, box))
    return [box for _, _, box in suppressed(found, 0.7)[:most]]


def samples(low: float, high: float, cells: int, length: int) -> torch.Tensor:
    """Weights `(cells, length)` of the places of an axis in each cell: the mean of evenly spaced linear samples."""
    weights = torch.zeros(cells, length)
    count = math.ceil((high - low) / cells)
    for cell in range(cells):
        for index in range(count):
            place = low + (high - low) / cells * (cell + (index + 0.5) / count)
            if -1 <= place <= length:
                place = min(max(place, 0.0), length - 1.0)
                left = min(int(place), length - 1)
                right = min(left + 1, length - 1)
                weights[cell, left] += (1 - (place - left)) / count
                weights[cell, right] += (place - left) / count
    return weights


def region(levels: list[torch.Tensor], box: list[float], side: int) -> torch.Tensor:
    """Features `(channels, side, side)` of a box, from the level that fits its size."""
    scale = math.sqrt((box[2] - box[0]) * (box[3] - box[1]))
    level = min(max(math.floor(math.log2(scale / 56 + 1e-6)), 0), 3)
    one = levels[level][0]
    left, top, right, bottom = (edge / STRIDES[level] - 0.5 for edge in box)
    rows, columns = samples(top, bottom, side, one.shape[1]), samples(left, right, side, one.shape[2])
    return torch.einsum("rh,chw,sw->crs", rows, one, columns)


def box_head(state: State, name: str, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    index = 0
    while f"{name}.shared_convs.{index}.conv.weight" in state:
        features, index = unit(state, f"{name}.shared_convs.{index}", features[None])[0], index + 1
    hidden, index = features.flatten(), 0
    while f"{name}.shared_fcs.{index}.weight" in state:
        hidden = F.relu(F.linear(hidden, *(state[f"{name}.shared_fcs.{index}.{kind}"] for kind in ("weight", "bias"))))
        index += 1
    logits, changes = (
        F.linear(hidden, *(state[f"{name}.{layer}.{kind}"] for kind in ("weight", "bias")))
        for layer in ("fc_cls", "fc_reg")
    )
    return logits.softmax(0), changes.view(-1, 4)


def mask_head(state: State, name: str, features: torch.Tensor, label: int) -> torch.Tensor:
    hidden, index = features[None], 0
    while f"{name}.convs.{index}.conv.weight" in state:
        hidden, index = F.relu(convolve(state, f"{name}.convs.{index}.conv", hidden)), index + 1
    upsampled = F.conv_transpose2d(
        hidden, *(state[f"{name}.upsample.{kind}"] for kind in ("weight", "bias")), stride=2
    )
    return convolve(state, f"{name}.conv_logits", F.relu(upsampled))[0, label].sigmoid()


def detect(
    state: State,
    maps: list[torch.Tensor],
    size: tuple[int, int],
    *,
    stages: int = 1,
    before: int = 1000,
    most: int = 1000,
    threshold: float = 0.05,
    nms: float = 0.5,
    limit: int = 100,
) -> list[tuple[float, int, list[float], torch.Tensor]]:
    """Score, label, box in pixels and mask of 28 x 28 of each object of an image of `size`, the best first."""
    deviations = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))
    levels = pyramid(state, maps)
    levels.append(levels[-1][:, :, ::2, ::2])
    boxes = [f"roi_head.bbox_head.{stage}" if stages > 1 else "roi_head.bbox_head" for stage in range(stages)]
    found = []
    for proposal in proposals(state, levels, size, before, most):
        box, scores = proposal, []
        for stage, name in enumerate(boxes):
            score, changes = box_head(state, name, region(levels, box, 7))
            scores.append(score)
            if stage + 1 < stages:
                label = int(score[:-1].argmax())
                box = clipped(moved(box, changes[label].tolist(), deviations[stage]), size)
        for label, score in enumerate((sum(scores) / stages)[:-1].tolist()):
            if score > threshold:
                final = clipped(moved(box, changes[label].tolist(), deviations[stages - 1]), size)
                found.append((score, label, final))
    results = []
    for score, label, box in suppressed(found, nms)[:limit]:
        heads = [name.replace("bbox_head", "mask_head") for name in boxes]
        masks = [mask_head(state, name, region(levels, box, 14), label) for name in heads]
        results.append((score, label, box, sum(masks) / stages))
    return results


def pasted(mask: torch.Tensor, box: list[float], size: tuple[int, int]) -> torch.Tensor:
    """A mask over a box as one over an image, pixel by pixel, between the centres of its cells."""
    side, image = len(mask), torch.zeros(size)
    for row in range(size[0]):
        for column in range(size[1]):
            y = (row + 0.5 - box[1]) / (box[3] - box[1]) * side - 0.5
            x = (column + 0.5 - box[0]) / (box[2] - box[0]) * side - 0.5
            for near_row in (math.floor(y), math.floor(y) + 1):
                for near_column in (math.floor(x), math.floor(x) + 1):
                    if 0 <= near_row < side and 0 <= near_column < side:
                        share = (1 - abs(y - near_row)) * (1 - abs(x - near_column))
                        image[row, column] += share * mask[near_row, near_column]
    return image
