"""
Training methods. A method is a module whose `forward(batch)` returns `{"loss": ..., parts}`; whatever it needs besides
the model (heads, teachers, queues) lives inside it, and the loop in `engine.py` knows none by name.
"""

from .base import Task
from .classification import ClassificationTask
from .contrastive import ContrastiveTask
from .distillation import DistillationTask
from .joint_classification import JointClassificationTask
from .masked_modeling import MaskedModelingTask
from .token_labels import TokenLabelTask


TASKS: dict[str, type[Task]] = {
    "classification": ClassificationTask,
    "contrastive": ContrastiveTask,
    "distillation": DistillationTask,
    "joint_classification": JointClassificationTask,
    "masked_modeling": MaskedModelingTask,
    "token_labels": TokenLabelTask,
}

__all__ = [
    "TASKS",
    "ClassificationTask",
    "ContrastiveTask",
    "DistillationTask",
    "JointClassificationTask",
    "MaskedModelingTask",
    "Task",
    "TokenLabelTask",
]
