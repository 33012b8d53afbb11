"""Models of this package as encoders of the MTEB benchmark, for its tasks on videos (MVEB)."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import AutoModel, AutoVideoProcessor

from .features import get_video_features


class VideoEncoder(AbsEncoder):
    """
    An encoder for `mteb.evaluate`. Clips, crops and pooling are the checkpoint's own.

    Args:
        model_name (`str`):
            Folder or Hub id of a model of this package.
        revision (`str`, *optional*):
            Branch or commit on the Hub.
        device (`str`, *optional*):
            Device, such as `"cuda:0"`. Defaults to an accelerator if there is one.
        pooling (`str`, *optional*, defaults to `"default"`):
            `"default"`, `"mean"` or `"first"`, see [`get_video_features`].
        kwargs (`Any`):
            Arguments of `AutoModel.from_pretrained`, such as `dtype`.

    Example:

    ```python
    >>> import mteb
    >>> from hf_videovit.inference.mteb_encoder import VideoEncoder

    >>> results = mteb.evaluate(VideoEncoder("path/to/model"), mteb.get_tasks(tasks=["HMDB51Classification"]))
    ```"""

    def __init__(
        self,
        model_name: str,
        revision: str | None = None,
        device: str | None = None,
        pooling: str = "default",
        **kwargs: Any,
    ):
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        self.pooling = pooling
        self.processor = AutoVideoProcessor.from_pretrained(model_name, revision=revision)
        self.model = AutoModel.from_pretrained(model_name, revision=revision, **kwargs)
        self.model.eval().to(device or str(accelerator or "cpu"))
        parts = Path(model_name).resolve().parts if Path(model_name).is_dir() else model_name.split("/")
        facts = {"name": "/".join(parts[-2:]), "revision": revision or "main", "modalities": ["video"]}
        facts |= {"n_parameters": self.model.num_parameters(), "embed_dim": self.model.config.hidden_size}
        self.mteb_model_meta = ModelMeta.create_empty(overwrites=facts)

    def encode(
        self,
        inputs: DataLoader,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        show_progress_bar: bool = True,
        **kwargs: Any,
    ) -> np.ndarray:
        """
        Features of the videos of a task.

        Args:
            inputs (`DataLoader`):
                Batches with a column `video`.
            task_metadata (`mteb.TaskMetadata`):
                The task.
            hf_split (`str`):
                Its split.
            hf_subset (`str`):
                Its subset.
            prompt_type (`mteb.types.PromptType`, *optional*):
                Queries or documents; videos are encoded alike.
            show_progress_bar (`bool`, *optional*, defaults to `True`):
                Whether to show progress.
            kwargs (`Any`):
                Other arguments of encoders, which make no difference here.

        Returns:
            `np.ndarray` of shape `(num_videos, hidden_size)`.

        Raises:
            ValueError: the task has inputs other than videos.
        """
        inputs.collate_fn = _columns
        features = []
        for batch in tqdm(inputs, desc="Encoding", disable=not show_progress_bar):
            if set(batch) & {"text", "image", "audio"} or "video" not in batch:
                raise ValueError(f"`inputs` of {task_metadata.name} must be videos only, got {', '.join(batch)}.")
            found = get_video_features(self.model, self.processor, batch["video"], pooling=self.pooling)
            assert isinstance(found, torch.Tensor)
            features.append(found.numpy())
        return np.concatenate(features)


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Videos as they are: the checkpoint's processor decodes them."""
    return {name: [row[name] for row in rows] for name in rows[0]}


__all__ = ["VideoEncoder"]
