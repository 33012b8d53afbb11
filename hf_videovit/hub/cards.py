"""
Model cards, rendered from facts: a published checkpoint's entry, or what training left in a folder. Nothing is typed
twice.

`python -m hf_videovit.hub.cards --output model_cards` renders the card of every published checkpoint.
"""

import argparse
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForKeypointDetection,
    AutoModelForPreTraining,
    AutoModelForVideoClassification,
    AutoVideoProcessor,
    PreTrainedConfig,
)
from transformers.image_utils import PILImageResampling
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING

from ..published import (
    CLASSIFICATION_TASKS,
    IMAGE_TASKS,
    NEVER_RELEASED,
    PublishedCheckpoint,
    PublishedResult,
    list_published,
    published_config,
    published_entry,
    published_labels,
    published_processor_kwargs,
)


TEMPLATE = Path(__file__).with_name("card_template.md")
CLASSIFICATION, PRETRAINING, FEATURES = "video-classification", "pretraining", "feature-extraction"
IMAGE_CLASSIFICATION, BACKBONE, KEYPOINTS = "image-classification", "backbone", "keypoint-detection"
ON_IMAGES = (*IMAGE_TASKS, KEYPOINTS)
NAMED_OUTPUTS = (*CLASSIFICATION_TASKS, KEYPOINTS)
MULTI_LABEL = "multi_label_classification"
AUTO_CLASSES: dict[str, Any] = {
    CLASSIFICATION: AutoModelForVideoClassification,
    PRETRAINING: AutoModelForPreTraining,
    FEATURES: AutoModel,
    IMAGE_CLASSIFICATION: AutoModelForImageClassification,
    BACKBONE: AutoBackbone,
    KEYPOINTS: AutoModelForKeypointDetection,
}
SEAL = re.compile(r"\s*<!-- rendered by hf_videovit, sha256 ([0-9a-f]{64}) -->\s*\Z")
# The Hub's name of what a model is for, where it is not ours.
PIPELINE_TAGS = {PRETRAINING: FEATURES, BACKBONE: "image-feature-extraction"}
METRICS = {
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "mean_class_accuracy": "mean class accuracy",
    "mean_average_precision": "mean average precision",
    "box_average_precision": "average precision of boxes",
    "mask_average_precision": "average precision of masks",
    "keypoint_average_precision": "average precision of key points",
    "mean_iou": "mean intersection over union",
    "mAP": "mean average precision",
    "mAP_weighted": "mean average precision, weighted by videos",
}
CITATIONS = {
    "bevt": """@inproceedings{wang2022bevt,
  title     = {BEVT: BERT Pretraining of Video Transformers},
  author    = {Wang, Rui and Chen, Dongdong and Wu, Zuxuan and Chen, Yinpeng and Dai, Xiyang and Liu, Mengchen and
               Jiang, Yu-Gang and Zhou, Luowei and Yuan, Lu},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  pages     = {14733--14743},
  year      = {2022}
}""",
    "lstcl": """@inproceedings{wang2022long,
  title     = {Long-Short Temporal Contrastive Learning of Video Transformers},
  author    = {Wang, Jue and Bertasius, Gedas and Tran, Du and Torresani, Lorenzo},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year      = {2022}
}

@inproceedings{bertasius2021spacetime,
  title     = {Is Space-Time Attention All You Need for Video Understanding?},
  author    = {Bertasius, Gedas and Wang, Heng and Torresani, Lorenzo},
  booktitle = {Proceedings of the International Conference on Machine Learning (ICML)},
  year      = {2021}
}""",
    "tubevit": """@inproceedings{piergiovanni2023tubevit,
  title     = {Rethinking Video ViTs: Sparse Video Tubes for Joint Image and Video Learning},
  author    = {Piergiovanni, AJ and Kuo, Weicheng and Angelova, Anelia},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year      = {2023}
}""",
    "uniformer": """@article{li2023uniformer,
  title     = {UniFormer: Unifying Convolution and Self-attention for Visual Recognition},
  author    = {Li, Kunchang and Wang, Yali and Zhang, Junhao and Gao, Peng and Song, Guanglu and Liu, Yu and
               Li, Hongsheng and Qiao, Yu},
  journal   = {IEEE Transactions on Pattern Analysis and Machine Intelligence},
  year      = {2023}
}
@inproceedings{li2022uniformer,
  title     = {UniFormer: Unified Transformer for Efficient Spatiotemporal Representation Learning},
  author    = {Li, Kunchang and Wang, Yali and Gao, Peng and Song, Guanglu and Liu, Yu and Li, Hongsheng and
               Qiao, Yu},
  booktitle = {International Conference on Learning Representations (ICLR)},
  year      = {2022}
}""",
    "videomae_v2": """@inproceedings{wang2023videomaev2,
  title     = {VideoMAE V2: Scaling Video Masked Autoencoders with Dual Masking},
  author    = {Wang, Limin and Huang, Bingkun and Zhao, Zhiyu and Tong, Zhan and He, Yinan and Wang, Yi and
               Wang, Yali and Qiao, Yu},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  pages     = {14549--14560},
  year      = {2023}
}""",
    "uniformer_v2": """@inproceedings{li2023uniformerv2,
  title     = {UniFormerV2: Unlocking the Potential of Image ViTs for Video Understanding},
  author    = {Li, Kunchang and Wang, Yali and He, Yinan and Li, Yizhuo and Wang, Yi and Wang, Limin and Qiao, Yu},
  booktitle = {Proceedings of the IEEE/CVF International Conference on Computer Vision (ICCV)},
  year      = {2023}
}""",
}
# The Hub's name of a metric, where it is not accuracy.
METRIC_TYPES = dict.fromkeys(("mean_average_precision", "mAP", "mAP_weighted"), "mean_average_precision")
SOURCE_URLS = {
    "BEVT README": "https://github.com/xyzforever/BEVT",
    "BEVT paper": "https://arxiv.org/abs/2112.01529",
    "Video Swin README": "https://github.com/SwinTransformer/Video-Swin-Transformer",
    "TimeSformer model zoo": "https://github.com/facebookresearch/TimeSformer",
    "VideoMAEv2 model zoo": "https://github.com/OpenGVLab/VideoMAEv2",
    "VideoMAE V2 paper": "https://arxiv.org/abs/2303.16727",
    "TubeViT paper": "https://arxiv.org/abs/2212.03229",
    "UniFormer model zoo": "https://github.com/Sense-X/UniFormer",
    "Sense-X on the Hub": "https://huggingface.co/Sense-X/uniformer_video",
    "UniFormerV2 model zoo": "https://github.com/OpenGVLab/UniFormerV2",
    "UniFormerV2 paper": "https://arxiv.org/abs/2211.09552",
    "mmaction2": "https://github.com/open-mmlab/mmaction2",
}
# Which saved fields of a run its card shows, in this order: group, field, words.
RUN_FACTS = (
    ("data", "data", "data"),
    ("data", "eval_data", "evaluation data"),
    ("model", "checkpoint", "started from"),
    ("model", "size", "size"),
    ("optimization", "epochs", "epochs"),
    ("optimization", "max_steps", "steps"),
    ("optimization", "batch_size", "batch size of a process"),
    ("optimization", "accumulation", "forward passes a step"),
    ("optimization", "learning_rate", "learning rate"),
    ("optimization", "weight_decay", "weight decay"),
    ("optimization", "layer_decay", "layer-wise learning-rate decay"),
    ("run", "mixed_precision", "mixed precision"),
    ("run", "seed", "seed"),
)
# Likewise of what a finished run counted.
COUNTED_FACTS = (
    ("num_train_videos", "training videos"),
    ("num_bad_train_videos", "of which unreadable"),
    ("steps", "optimiser steps done"),
    ("effective_batch", "videos a step"),
    ("hardware", "hardware"),
    ("seconds", "seconds"),
)


@dataclass(frozen=True)
class Result:
    """
    One number.

    Args:
        data (`str`):
            Data set, and split where known.
        metric (`str`):
            Name of the metric, such as `"top1"`.
        value (`float`):
            In percent.
        how (`str`):
            Protocol: frames, clips, crops, decoder.
        source (`str`, *optional*):
            Who reports it; `None` for what was measured with this package.
        source_url (`str`, *optional*):
            Where it is reported.
        in_metadata (`bool`, *optional*, defaults to `True`):
            Whether the Hub may show it as the model's result. Not for baselines and for what nobody has checked.
    """

    data: str
    metric: str
    value: float
    how: str = ""
    source: str | None = None
    source_url: str | None = None
    in_metadata: bool = True


@dataclass(frozen=True)
class CardFacts:
    """All that a card says; [`render_card`] adds no fact of its own."""

    title: str
    model_id: str
    task: str
    summary: str
    config: PreTrainedConfig
    processor: Any
    results: Sequence[Result] = ()
    obtain: str = ""
    training: Sequence[str] = ()
    labels: Sequence[str] = ()
    limits: Sequence[str] = ()
    licence: str | None = None
    licences: Sequence[str] = ()
    citation: str = ""
    base_model: str | None = None
    datasets: Sequence[str] = ()
    tags: Sequence[str] = field(default_factory=tuple)


def render_card(facts: CardFacts) -> ModelCard:
    """The card of a model, metadata included."""
    auto_class = AUTO_CLASSES[facts.task]
    architecture = _architecture_rows(facts.config, auto_class)
    return ModelCard.from_template(
        _metadata(facts),
        template_str=TEMPLATE.read_text(encoding="utf-8"),
        title=facts.title,
        summary=facts.summary,
        obtain=facts.obtain,
        model_id=facts.model_id,
        task=facts.task,
        auto_class=auto_class.__name__,
        pooling_argument=', pooling="mean"' if facts.task == PRETRAINING else "",
        protocol=protocol_rows(facts.config, facts.processor),
        architecture=architecture,
        model_class=dict(architecture)["class"],
        measured=[_result_row(result) for result in facts.results if result.source is None],
        reported=[_result_row(result) for result in facts.results if result.source is not None],
        training=facts.training,
        labels=facts.labels,
        limits=facts.limits,
        licences=facts.licences,
        citation=facts.citation,
    )


def write_model_card(
    folder: str | os.PathLike,
    *,
    results: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
    model_id: str | None = None,
    title: str | None = None,
    summary: str | None = None,
    licence: str | None = None,
    datasets: Sequence[str] = (),
    base_model: str | None = None,
    citation: str = "",
) -> Path:
    """
    Write `README.md` for a trained model from what its folder holds: configuration, processor, `results.json`,
    `run.yaml`.

    Args:
        folder (`str` or `os.PathLike`):
            A folder with a saved model and its processor.
        results (`Mapping[str, Any]`, *optional*):
            The evaluation, in the form of `results.json`, which is read if this is left out. `metrics` are shares of
            one; `baselines` (name to share), `data` (name of the data) and `protocol` are shown where present.
        facts (`Mapping[str, Any]`, *optional*):
            What a run counted: `num_train_videos`, `steps`, `effective_batch`, `hardware`, `seconds`; `outcomes`, more
            rows of words and values ([`~training.finetuning.FinetuneResult`] and
            [`~training.pretraining.PretrainResult`] have them).
        model_id (`str`, *optional*):
            What the usage lines load. Defaults to the folder's name.
        title (`str`, *optional*):
            Headline. Defaults to the folder's name.
        summary (`str`, *optional*):
            A sentence or two on what the model is for. Defaults to what the configuration says.
        licence (`str`, *optional*):
            Licence id of the weights, such as `"apache-2.0"`. Without it the card says that none is stated.
        datasets (`Sequence[str]`, *optional*):
            Hub ids of the training data.
        base_model (`str`, *optional*):
            Hub id of the checkpoint that training started from. Defaults to the run's, if that is a Hub id.
        citation (`str`, *optional*):
            BibTeX.

    Returns:
        `Path`: the card.
    """
    folder = Path(folder)
    config = AutoConfig.from_pretrained(folder)
    task = task_of(config)
    processor = (AutoImageProcessor if task in ON_IMAGES else AutoVideoProcessor).from_pretrained(folder)
    if results is None:
        results = _read_json(folder / "results.json")
    run = _read_yaml(folder / "run.yaml")
    name = title or folder.resolve().name
    card = CardFacts(
        title=name,
        model_id=model_id or folder.resolve().name,
        task=task,
        summary=summary or _trained_summary(config, task),
        config=config,
        processor=processor,
        results=_trained_results(results, run),
        training=_run_lines(run, facts or {}),
        labels=[config.id2label[index] for index in range(config.num_labels)] if task in NAMED_OUTPUTS else (),
        limits=_trained_limits(config, task),
        licence=licence,
        licences=[
            f"Weights: {licence}."
            if licence
            else "Not stated here. It depends on the data and on the weights that this started from."
        ],
        citation=citation,
        base_model=base_model or _hub_id(run.get("model", {}).get("checkpoint")),
        datasets=datasets,
    )
    return _write_sealed(folder / "README.md", render_card(card))


def write_converted_card(folder: str | os.PathLike, checkpoint_name: str, *, published: str | None = None) -> Path:
    """
    Write `README.md` for a converted checkpoint.

    Args:
        folder (`str` or `os.PathLike`):
            The converted model.
        checkpoint_name (`str`):
            Name of the file it was made of.
        published (`str`, *optional*):
            Name of the published checkpoint, where it was converted as it is: its card is written. Otherwise the card
            claims nothing but what the folder shows.
    """
    folder = Path(folder)
    name = folder.resolve().name
    if published is None:
        return write_model_card(folder, summary=f"Converted from `{checkpoint_name}` with hf_videovit.")
    return _write_sealed(folder / "README.md", render_published_card(published, model_id=name))


def render_published_card(name: str, *, model_id: str | None = None) -> ModelCard:
    """
    The card of an official checkpoint after conversion.

    Args:
        name (`str`):
            One of [`~published.list_published`].
        model_id (`str`, *optional*):
            What the usage lines load. Defaults to a folder called like the checkpoint.
    """
    entry = published_entry(name)
    config = published_config(name)
    processor = _processor_class(config, entry.task)(**published_processor_kwargs(name))
    facts = CardFacts(
        title=name,
        model_id=model_id or name,
        task=entry.task,
        summary=entry.summary,
        config=config,
        processor=processor,
        results=[_published_result(result, entry.task) for result in entry.results],
        obtain=_how_to_obtain(entry),
        labels=published_labels(entry.labels) if entry.labels else (),
        limits=[*entry.notes, *_published_limits(entry)],
        licence=_common_licence(entry),
        licences=[f"{one.covers}: {one.licence} ({one.source})" for one in entry.licences]
        or [
            "No weights, no licence."
            if entry.file.availability == NEVER_RELEASED
            else "Not stated where the file was listed."
        ],
        citation=CITATIONS.get(entry.model_type, ""),
    )
    return render_card(facts)


def write_published_cards(folder: str | os.PathLike) -> list[Path]:
    """
    Render the card of every published checkpoint; cards of checkpoints that are gone are removed.

    Args:
        folder (`str` or `os.PathLike`):
            Receives `NAME.md` for each.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.md" for name in list_published()]
    for gone in set(folder.glob("*.md")) - set(paths):
        gone.unlink()
    for path in paths:
        path.write_text(str(render_published_card(path.stem)), encoding="utf-8")
    return paths


def seal_card(text: str) -> str:
    """
    A card with its own hash in a comment at the end, by which [`is_rendered`] knows later that nobody has edited it.

    Args:
        text (`str`):
            The card, sealed or not.
    """
    body = SEAL.sub("", text).rstrip() + "\n"
    return f"{body}\n<!-- rendered by hf_videovit, sha256 {_hash(body)} -->\n"


def is_rendered(text: str) -> bool:
    """Whether a card is as [`seal_card`] left it."""
    seal = SEAL.search(text)
    return seal is not None and seal[1] == _hash(text[: seal.start()].rstrip() + "\n")


def task_of(config: PreTrainedConfig) -> str:
    """The task of a saved configuration, by the class that was saved."""
    architecture = (config.architectures or [""])[0]
    if architecture.endswith("ForImageClassification"):
        return IMAGE_CLASSIFICATION
    if architecture.endswith("Backbone"):
        return BACKBONE
    if architecture.endswith("ForPoseEstimation"):
        return KEYPOINTS
    if architecture.endswith("Classification"):
        return CLASSIFICATION
    return PRETRAINING if architecture.endswith("ForPreTraining") else FEATURES


def protocol_rows(config: PreTrainedConfig, processor: Any) -> list[tuple[str, str]]:
    """What happens to a video or image between the file and the model's answer, as rows of a table."""
    rows = _clip_rows(config, processor) if hasattr(processor, "num_clips") else []
    if processor.do_resize:
        rows.append(("resize", f"{_size_words(processor.size)}, {_resampling_words(processor)}"))
    if processor.do_center_crop:
        rows.append(("crop", _size_words(processor.crop_size)))
    if processor.do_normalize:
        rows.append(("normalisation", f"mean {_numbers(processor.image_mean)}, std {_numbers(processor.image_std)}"))
    return rows


def _clip_rows(config: PreTrainedConfig, processor: Any) -> list[tuple[str, str]]:
    """Frames, clips and crops."""
    num_frames = processor.num_frames or processor.published_num_frames or config.num_frames
    rate = processor.to_dict().get("frame_rate")
    sampling = {
        "dense": f"{num_frames} frames, " + (f"{rate:g} a second" if rate else f"{processor.frame_stride} apart"),
        "dense_cyclic": f"{num_frames} frames, {processor.frame_stride} apart, from the start again past the end",
        "segment": f"{num_frames} frames, one from each of {num_frames} equal segments",
        "span": f"{num_frames} frames, spread over {num_frames * processor.frame_stride} neighbouring ones",
        "sparse": f"{num_frames} frames, one from each of {num_frames} equal segments",
        "sparse_middle": f"{num_frames} frames, from the middle of each of {num_frames} equal segments",
        "uniform": f"{num_frames} frames, spread over the whole video",
    }
    rows: list[tuple[str, str]] = [("a clip", sampling[processor.frame_sampling])]
    merging = {"softmax_mean": ", probabilities averaged", "logits_mean": ", logits averaged"}
    views = f"{processor.num_clips} clips x {processor.num_crops} crops"
    views += merging.get(config.to_dict().get("view_merging", ""), "")
    return [*rows, ("views of a video", views if processor.num_views > 1 else "one")]


def _resampling_words(processor: Any) -> str:
    if not hasattr(processor, "num_clips"):  # image processors antialias
        return PILImageResampling(processor.resample).name.lower()
    return f"bilinear, {'with' if processor.antialias else 'without'} antialiasing"


def _write_sealed(path: Path, card: ModelCard) -> Path:
    path.write_text(seal_card(str(card)), encoding="utf-8")
    return path


def _hash(text: str) -> str:
    return hashlib.sha256("\n".join(text.splitlines()).encode()).hexdigest()


def _metadata(facts: CardFacts) -> ModelCardData:
    results = [
        EvalResult(
            task_type=facts.task if facts.task in CLASSIFICATION_TASKS else CLASSIFICATION,
            dataset_type=re.sub(r"[^a-z0-9]+", "-", result.data.lower()).strip("-"),
            dataset_name=result.data,
            metric_type=METRIC_TYPES.get(result.metric, "accuracy"),
            metric_name=", ".join(part for part in (METRICS.get(result.metric, result.metric), result.how) if part),
            metric_value=round(result.value, 2),
            source_name=result.source,
            source_url=result.source_url,
        )
        for result in facts.results
        if result.in_metadata and (result.source is None or result.source_url)
    ]
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=PIPELINE_TAGS.get(facts.task, facts.task),
        license=facts.licence,
        tags=["image" if facts.task in ON_IMAGES else "video", "hf_videovit", facts.config.model_type, *facts.tags],
        base_model=facts.base_model,
        datasets=list(facts.datasets) or None,
        metrics=sorted({result.metric_type for result in results}) or None,
        model_name=facts.title if results else None,
        eval_results=results or None,
    )


def _result_row(result: Result) -> dict[str, str]:
    source = result.source or ""
    return {
        "data": result.data,
        "metric": METRICS.get(result.metric, result.metric),
        "value": f"{result.value:.1f} %",
        "how": result.how,
        "source": f"[{source}]({result.source_url})" if result.source_url else source,
    }


def _architecture_rows(config: PreTrainedConfig, auto_class: Any) -> list[tuple[str, str]]:
    with torch.device("meta"):
        model = auto_class.from_config(config)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    height, width = (config.image_size,) * 2 if isinstance(config.image_size, int) else config.image_size
    frames = "" if config.to_dict().get("modality") == "image" else f"{config.num_frames} frames of "
    return [
        ("class", type(model).__name__),
        ("parameters", f"{parameters:,}"),
        ("input", f"{frames}{width} x {height} pixels"),
        *_block_rows(config),
    ]


def _block_rows(config: PreTrainedConfig) -> list[tuple[str, str]]:
    fields = config.to_dict()
    if "hidden_sizes" in fields:
        return [
            ("blocks of each stage", _numbers(config.depths)),
            ("width of each stage", _numbers(config.hidden_sizes)),
            ("width of an attention head", str(config.head_dim)),
        ]
    if "depths" in fields and hasattr(config, "hidden_sizes"):
        return [
            ("blocks of each stage", _numbers(config.depths)),
            ("width of each stage", _numbers(config.hidden_sizes)),
            ("heads of each stage", _numbers(config.num_heads)),
            ("window", "{} frames of {} x {} tokens".format(*config.window_size)),
            _token_row(config, fields),
        ]
    widths = f"{config.num_hidden_layers}, {config.hidden_size}, {config.num_attention_heads}"
    return [("blocks, width, heads", widths), _token_row(config, fields)]


def _token_row(config: PreTrainedConfig, fields: Mapping[str, Any]) -> tuple[str, str]:
    if "tubes" in fields:
        kernels = ", ".join(" x ".join(map(str, tube["kernel"])) for tube in fields["tubes"])
        return "tubes", f"{kernels} (frames x height x width)"
    if "tubelet_size" in fields:
        return "tubelet", f"{config.tubelet_size} frames of {config.patch_size} x {config.patch_size} pixels"
    return "patch", f"{config.patch_size} x {config.patch_size} pixels of one frame"


def _processor_class(config: PreTrainedConfig, task: str) -> Any:
    registered: Any = (IMAGE_PROCESSOR_MAPPING if task in ON_IMAGES else VIDEO_PROCESSOR_MAPPING)[type(config)]
    return registered["torchvision"] if isinstance(registered, dict) else registered


def _published_result(result: PublishedResult, task: str) -> Result:
    views = f"{result.views} (frames x clips x crops)" if result.views else ""
    how = "; ".join(part for part in (views, (result.note or "").rstrip(".")) if part)
    checked = result.kind != "recalled-unverified"
    return Result(
        result.data,
        result.metric,
        result.value,
        how if checked else f"{how}; quoted from memory, not checked",
        result.source,
        result.url or SOURCE_URLS.get(result.source),
        in_metadata=checked and task != BACKBONE,  # a backbone alone has no such result
    )


def _how_to_obtain(entry: PublishedCheckpoint) -> str:
    file = entry.file
    if file.availability == NEVER_RELEASED:
        return (
            "No weights were ever released, so there is nothing to convert: this card describes what was published. "
            "A model of your own training is used like this:"
        )
    address = file.path or (file.url if file.availability == "listed" else None)
    checkpoint = Path(address).name if address else "FILE"
    command = (
        f"```bash\nhf-videovit convert --published {entry.name} --checkpoint {checkpoint} --output {entry.name}\n```"
    )
    if file.availability == "cloud drive":
        where = f"[a cloud drive]({file.url})" + (", in this folder" if "/folders/" in str(file.url) else "")
        return f"Its authors keep the file on {where}; a browser fetches it. Convert it once:\n\n{command}"
    if file.availability != "listed":
        state = {"not listed": "is not among the files that its authors list", "dead link": "is no longer online"}
        return f"The official file {state[file.availability]}. Who has it converts it once:\n\n{command}"
    size = file.size or (f"{file.bytes / 1e9:.2f} GB" if file.bytes else "size not stated")
    if file.repository is None:
        return f"The weights are [{checkpoint}]({file.url}) ({size}). Convert the file once:\n\n{command}"
    return (
        f"The weights are their authors': `{file.path}` ({size}) of "
        f"[{file.repository}](https://huggingface.co/{file.repository}). Convert the file once:\n\n{command}"
    )


def _published_limits(entry: PublishedCheckpoint) -> list[str]:
    if entry.task == BACKBONE:
        return ["It gives maps, not answers: train a head for dense prediction on them."]
    if entry.task not in CLASSIFICATION_TASKS:
        return ["It names nothing by itself: fine-tune it, or use its features."]
    unit = _unit(entry.task).split()[1]
    several = entry.config.get("problem_type") == MULTI_LABEL
    return [
        _several_labels(entry.num_labels) if several else _one_label(entry.num_labels, entry.task),
        f"Its training {unit}s come from the web and carry that source's gaps and biases in places, people and "
        "topics.",
    ]


def _common_licence(entry: PublishedCheckpoint) -> str | None:
    """The id that all sources agree on for the weights; `other` where they do not."""
    stated = {one.licence.lower() for one in entry.licences if one.covers == "weights"}
    return stated.pop() if len(stated) == 1 else "other" if stated else None


def _trained_summary(config: PreTrainedConfig, task: str) -> str:
    unit = _unit(task)
    classes = f"names which of {config.num_labels} classes {unit} shows"
    if config.problem_type == MULTI_LABEL:
        classes = f"tells of each of {config.num_labels} labels whether it fits {unit}"
    kinds = {
        **dict.fromkeys(CLASSIFICATION_TASKS, classes),
        BACKBONE: "turns an image into maps for dense prediction",
        KEYPOINTS: f"finds {config.num_labels} keypoints of the person that an image was cropped to",
        PRETRAINING: "was pre-trained without labels; fine-tune it or take its features",
        FEATURES: "turns a video into features",
    }
    return f"A `{config.model_type}` model that {kinds[task]}. Trained with hf_videovit."


def _unit(task: str) -> str:
    return "an image" if task in ON_IMAGES else "a video"


def _trained_results(results: Mapping[str, Any], run: Mapping[str, Any]) -> list[Result]:
    data = run.get("data", {})
    name = _last_part(results.get("data") or data.get("eval_data") or data.get("data")) or "held-out videos"
    how = [f"{results['num_videos']} videos"] if "num_videos" in results else []
    if results.get("num_failed"):
        how.append(f"{results['num_failed']} unreadable ones not counted")
    protocol = results.get("protocol", {})
    if protocol.get("num_clips") and protocol.get("sampling_mode", "test") == "test":
        how.append(f"{protocol['num_clips']} x {protocol.get('num_crops', 1)} views")
    rows = [Result(name, metric, 100 * value, ", ".join(how)) for metric, value in results.get("metrics", {}).items()]
    baselines = results.get("baselines", {})
    return rows + [
        Result(name, "top1", 100 * value, f"for comparison: {who}", in_metadata=False)
        for who, value in baselines.items()
    ]


def _trained_limits(config: PreTrainedConfig, task: str) -> list[str]:
    limits = ["On footage unlike its training data expect less."]
    if task in CLASSIFICATION_TASKS and config.problem_type == MULTI_LABEL:
        limits.insert(0, _several_labels(config.num_labels))
    elif task in CLASSIFICATION_TASKS:
        limits.insert(0, _one_label(config.num_labels, task))
    return limits


def _several_labels(num_labels: int | None) -> str:
    return f"It gives any number of its {num_labels} labels, each with a probability of its own."


def _one_label(num_labels: int | None, task: str) -> str:
    return f"It answers one of its {num_labels} labels for any {_unit(task).split()[1]}, also for one that shows none."


def _run_lines(run: Mapping[str, Any], counted: Mapping[str, Any]) -> list[str]:
    rows = []
    for group, name, words in RUN_FACTS:
        value = run.get(group, {}).get(name)
        if value is not None:
            rows.append(f"| {words} | {_last_part(value) if name in ('data', 'eval_data', 'checkpoint') else value} |")
    rows += [f"| {words} | {counted[name]} |" for name, words in COUNTED_FACTS if counted.get(name)]
    rows += [f"| {words} | {value} |" for words, value in counted.get("outcomes", {}).items()]
    about = [f"{key}: {value}  " for key, value in run.get("about", {}).items()]
    return [*about, "", "| | |", "|---|---|", *rows] if rows else about


def _last_part(path: str | None) -> str | None:
    """A Hub id unchanged; of a path only the name, since folders of one machine mean nothing on another."""
    return path if path is None or _hub_id(path) else Path(path).name


def _hub_id(name: str | None) -> str | None:
    return name if name and re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not Path(name).exists() else None


def _size_words(size: Mapping[str, int]) -> str:
    if size.get("shortest_edge"):
        return f"short side to {size['shortest_edge']}"
    return f"{size['width']} x {size['height']}"


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _read_yaml(path: Path) -> dict[str, Any]:
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.is_file() else {}


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m hf_videovit.hub.cards`."""
    parser = argparse.ArgumentParser(description="Render the card of every published checkpoint.")
    parser.add_argument("--output", default="model_cards", help="folder that receives them")
    write_published_cards(parser.parse_args(arguments).output)


if __name__ == "__main__":
    main()
