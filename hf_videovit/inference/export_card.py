"""The card of an exported model."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from transformers import PreTrainedConfig


TEMPLATE = Path(__file__).with_name("export_card_template.md")


def render_export_card(report: dict[str, Any], config: PreTrainedConfig) -> str:
    """
    Render the card of an export.

    Args:
        report (`dict[str, Any]`):
            The comparison of [`export_model`].
        config (`PreTrainedConfig`):
            Configuration of the model.

    Returns:
        `str`: Markdown.
    """
    local = "/" not in report["model"] or Path(report["model"]).exists()
    data = ModelCardData(
        library_name=report["format"] if report["format"] in ("onnx", "openvino", "executorch") else "pytorch",
        pipeline_tag="video-classification" if report["input_shape"][2:3] == [3] else None,
        tags=[config.model_type, "export"],
        base_model=None if local else report["model"],
    )
    shape = " x ".join("any" if size is None else str(size) for size in report["input_shape"])
    card = ModelCard.from_template(
        data,
        template_str=TEMPLATE.read_text(encoding="utf-8"),
        report=report,
        name=Path(report["model"]).name,
        shape=shape,
        steps=", ".join(f"{axis} in steps of {step}" for axis, step in report["dynamic"].items() if step > 1),
    )
    return str(card)


__all__ = ["render_export_card"]
