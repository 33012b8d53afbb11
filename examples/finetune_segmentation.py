r"""
Train UperNet on a UniFormer backbone for semantic segmentation, with a plain Accelerate loop. This is the official
recipe for ADE20K (docs/uniformer.md) without colour augmentation.

    hf-videovit convert --model-type uniformer --task backbone --set head_dim=64 --output BACKBONE \
        --checkpoint uniformer_small_in1k.pth
    accelerate launch examples/finetune_segmentation.py --data ADE --eval_data ADE_VAL --num_labels 150 \
        --backbone BACKBONE --output_dir OUT

A data folder holds `images/NAME.jpg` and `masks/NAME.png`. A mask has one class index per pixel, and 255 for
unlabelled pixels. Load OUT with `UperNetForSemanticSegmentation.from_pretrained`.
"""

import json
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader
from transformers import (
    HfArgumentParser,
    UperNetConfig,
    UperNetForSemanticSegmentation,
    get_polynomial_decay_schedule_with_warmup,
)

from hf_videovit import UniFormerBackbone, UniFormerImageProcessor
from hf_videovit.dense.segmentation import SegmentationFolder, mean_iou


@dataclass
class Arguments:
    data: str
    backbone: str
    output_dir: str
    num_labels: int
    eval_data: str | None = None
    steps: int = 160_000
    warmup_steps: int = 1500
    batch_size: int = 2  # per process; officially 16 in total
    learning_rate: float = 6e-5
    weight_decay: float = 0.01
    drop_path_rate: float = 0.25
    attention_type: str = "hybrid"
    crop_size: int = 512
    num_workers: int = 2
    seed: int = 0


def build_model(arguments: Arguments) -> UperNetForSemanticSegmentation:
    fields = {"attention_type": arguments.attention_type, "drop_path_rate": arguments.drop_path_rate}
    backbone = UniFormerBackbone.from_pretrained(arguments.backbone, out_indices=[1, 2, 3, 4], **fields)
    model = UperNetForSemanticSegmentation(
        UperNetConfig(backbone_config=backbone.config, num_labels=arguments.num_labels)
    )
    model.backbone.load_state_dict(backbone.state_dict())
    return model


def main() -> None:
    (arguments,) = HfArgumentParser(Arguments).parse_args_into_dataclasses()
    accelerator = Accelerator()
    set_seed(arguments.seed)
    model, processor = build_model(arguments), UniFormerImageProcessor(do_resize=False, do_center_crop=False)
    set_seed(arguments.seed, device_specific=True)
    folder = SegmentationFolder(arguments.data, processor, arguments.num_labels, crop_size=arguments.crop_size)
    loader = DataLoader(
        folder, arguments.batch_size, shuffle=True, num_workers=arguments.num_workers, drop_last=len(folder) > 1
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.learning_rate, weight_decay=arguments.weight_decay)
    # Accelerate moves the schedule on once a process
    scale = accelerator.num_processes
    schedule = get_polynomial_decay_schedule_with_warmup(
        optimizer, scale * arguments.warmup_steps, scale * arguments.steps, lr_end=0.0
    )
    model, optimizer, loader, schedule = accelerator.prepare(model.train(), optimizer, loader, schedule)
    batches = (batch for _ in count() for batch in loader)
    for step, batch in zip(range(1, arguments.steps + 1), batches):
        loss = model(**batch).loss
        accelerator.backward(loss)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 50 == 0 or step == arguments.steps:
            accelerator.print(f"step {step}: loss {loss.item():.4f}")
    trained = accelerator.unwrap_model(model)
    trained.save_pretrained(arguments.output_dir, is_main_process=accelerator.is_main_process)
    if accelerator.is_main_process:
        processor.save_pretrained(arguments.output_dir)
    if arguments.eval_data is not None:
        data = SegmentationFolder(arguments.eval_data, processor, arguments.num_labels)
        results = {"mean_iou": mean_iou(trained, data, accelerator)}
        accelerator.print(f"mean IoU: {results['mean_iou']:.4f}")
        if accelerator.is_main_process:
            Path(arguments.output_dir, "results.json").write_text(json.dumps(results) + "\n", encoding="utf-8")
    accelerator.end_training()


if __name__ == "__main__":
    main()
