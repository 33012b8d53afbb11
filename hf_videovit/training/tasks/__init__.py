"""
Training methods. A method is a module whose `forward(batch)` returns `{"loss": ..., parts}`; whatever it needs besides
the model (heads, teachers, queues) lives inside it, and the loop in `engine/loop.py` knows none by name.
"""

from .base import Task
from .classification import ClassificationTask
from .contrastive import ContrastiveTask
from .distillation import DistillationTask
from .joint_classification import JointClassificationTask
from .masked_modeling import MaskedModelingTask
from .masked_words import MaskedWordsTask
from .token_labels import TokenLabelTask


__all__ = [
    "ClassificationTask",
    "ContrastiveTask",
    "DistillationTask",
    "JointClassificationTask",
    "MaskedModelingTask",
    "MaskedWordsTask",
    "Task",
    "TokenLabelTask",
]
