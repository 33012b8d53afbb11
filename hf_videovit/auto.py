"""Auto classes for tasks that transformers has none for."""

from collections import OrderedDict

from transformers.models.auto.auto_factory import _BaseAutoModelClass, _LazyAutoMapping
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES


class AutoModelForActionDetection(_BaseAutoModelClass):
    """
    The model for action detection of a family: `from_pretrained` and `from_config` choose the class by the
    configuration, as transformers' auto classes do.

    Example:

    ```python
    >>> from hf_videovit import AutoModelForActionDetection, VideoMAEV2Config

    >>> model = AutoModelForActionDetection.from_config(VideoMAEV2Config.from_size("small", num_labels=80))
    >>> type(model).__name__
    'VideoMAEV2ForActionDetection'
    ```"""

    _model_mapping = _LazyAutoMapping(CONFIG_MAPPING_NAMES, OrderedDict())


class AutoModelForTemporalActionLocalization(_BaseAutoModelClass):
    """
    The model for temporal action localisation of a configuration, as [`AutoModelForActionDetection`] for its task.

    Example:

    ```python
    >>> from hf_videovit import ActionFormerConfig, AutoModelForTemporalActionLocalization

    >>> model = AutoModelForTemporalActionLocalization.from_config(ActionFormerConfig(num_labels=20))
    >>> type(model).__name__
    'ActionFormerForTemporalActionLocalization'
    ```"""

    _model_mapping = _LazyAutoMapping(CONFIG_MAPPING_NAMES, OrderedDict())


class AutoModelForJointClassification(_BaseAutoModelClass):
    """
    The model of a configuration with one classifier for each of several data sets, as [`AutoModelForActionDetection`]
    for its task.

    Example:

    ```python
    >>> from hf_videovit import AutoModelForJointClassification, TubeViTConfig

    >>> datasets = {"kinetics-600": {"num_labels": 600}, "imagenet-1k": {"num_labels": 1000}}
    >>> model = AutoModelForJointClassification.from_config(TubeViTConfig.from_size("tiny", datasets=datasets))
    >>> type(model).__name__
    'TubeViTForJointClassification'
    ```"""

    _model_mapping = _LazyAutoMapping(CONFIG_MAPPING_NAMES, OrderedDict())


__all__ = [
    "AutoModelForActionDetection",
    "AutoModelForJointClassification",
    "AutoModelForTemporalActionLocalization",
]
