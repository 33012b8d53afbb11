"""
Losses as modules. The `forward(batch)` of a task returns `{"loss": ..., parts}`. Everything that the loss needs
besides the model (heads, teachers, queues) lives inside the task. The loop in `engine/loop.py` knows no task by name.
"""

from .action_detection import ActionDetectionTask
from .base import Task
from .classification import ClassificationTask
from .contrastive import ContrastiveTask
from .distillation import DistillationTask
from .image_tokenizer import ImageTokenizerTask
from .joint_classification import JointClassificationTask
from .masked_modeling import MaskedModelingTask
from .masked_words import MaskedWordsTask
from .object_detection import ObjectDetectionTask
from .pose import PoseTask
from .semantic_segmentation import SemanticSegmentationTask
from .temporal_localization import TemporalLocalizationTask
from .token_labels import TokenLabelTask


__all__ = [
    "ActionDetectionTask",
    "ClassificationTask",
    "ContrastiveTask",
    "DistillationTask",
    "ImageTokenizerTask",
    "JointClassificationTask",
    "MaskedModelingTask",
    "MaskedWordsTask",
    "ObjectDetectionTask",
    "PoseTask",
    "SemanticSegmentationTask",
    "Task",
    "TemporalLocalizationTask",
    "TokenLabelTask",
]
