"""
Hugging Face's common test mixins, ready for models that live outside transformers.

```python
from tests.hf_common.mixins import common_tests, register_for_common_tests

ModelTesterMixin = common_tests("test_modeling_common").ModelTesterMixin
```
"""

import importlib
import os
import sys
from types import ModuleType

import pytest
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto

from tests.hf_common import config_kwargs, export
from tests.hf_common.fetch import COMMAND, PACKAGE, tree


REQUIRED = "REQUIRE_HF_COMMON_TESTS"  # set where a missing suite is an error, not a skip


class GenerationTesterMixin:
    """Only asked whether a test class derives from it; video models do not generate."""


def common_tests(name: str) -> ModuleType:
    """
    Import `tests/<name>.py` of the installed transformers. A test module that asks for it before it was fetched is
    skipped, or fails where the environment variable `REQUIRE_HF_COMMON_TESTS` is set.
    """
    folder = tree()
    if not (folder / PACKAGE).is_dir():
        reason = f"transformers' common tests are not here; fetch them with: {COMMAND}"
        if os.environ.get(REQUIRED):
            raise RuntimeError(reason)
        pytest.skip(reason, allow_module_level=True)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
        supply_missing_modules()
    return importlib.import_module(f"{PACKAGE}.{name}")


def supply_missing_modules() -> None:
    """Stand-ins for what the mixins import and the source distribution lacks."""
    contents = {
        f"{PACKAGE}.exporters": {},
        f"{PACKAGE}.exporters.test_export": {"ExportTesterMixin": export.ExportTesterMixin},
        f"{PACKAGE}.generation": {},
        f"{PACKAGE}.generation.test_utils": {"GenerationTesterMixin": GenerationTesterMixin},
        f"{PACKAGE}.utils": {},
        f"{PACKAGE}.utils.test_configuration_utils": {"config_common_kwargs": config_kwargs.COMMON_KWARGS},
        "fetch_hub_objects_for_ci": {"url_to_local_path": lambda url, **_: url},
    }
    for name, attributes in contents.items():
        module = ModuleType(name)
        vars(module).update(attributes)
        sys.modules[name] = module


def register_for_common_tests(
    config_class: type[PreTrainedConfig],
    base: type[PreTrainedModel] | None = None,
    pretraining: type[PreTrainedModel] | None = None,
    video_classification: type[PreTrainedModel] | None = None,
    image_classification: type[PreTrainedModel] | None = None,
    backbone: type[PreTrainedModel] | None = None,
    keypoint_detection: type[PreTrainedModel] | None = None,
    semantic_segmentation: type[PreTrainedModel] | None = None,
) -> None:
    """
    Tell the mixins which class does what. They look class NAMES up in dictionaries that `AutoModel.register` does not
    fill; without this the training tests fail and several others skip without a word. For the test process only.
    """
    for names, model_class in (
        (modeling_auto.MODEL_MAPPING_NAMES, base),
        (modeling_auto.MODEL_FOR_PRETRAINING_MAPPING_NAMES, pretraining),
        (modeling_auto.MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES, video_classification),
        (modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES, image_classification),
        (modeling_auto.MODEL_FOR_BACKBONE_MAPPING_NAMES, backbone),
        (modeling_auto.MODEL_FOR_KEYPOINT_DETECTION_MAPPING_NAMES, keypoint_detection),
        (modeling_auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES, semantic_segmentation),
    ):
        if model_class is not None:
            names[config_class.model_type] = model_class.__name__
