"""Hugging Face's own common tests on the BEVT classes."""

import unittest

from hf_videovit import (
    BevtConfig,
    BevtForActionDetection,
    BevtForPreTraining,
    BevtForVideoClassification,
    BevtImageProcessor,
    BevtModel,
    BevtVideoProcessor,
)
from tests.families import masked_words_inputs
from tests.hf_common.image import ImageProcessorTest
from tests.hf_common.mixins import register_for_common_tests
from tests.hf_common.video import ConfigTest, StagedModelTester, VideoModelTest, VideoProcessorTest


register_for_common_tests(
    BevtConfig, base=BevtModel, pretraining=BevtForPreTraining, video_classification=BevtForVideoClassification
)


class BevtModelTest(VideoModelTest, unittest.TestCase):
    model_tester_class = StagedModelTester
    family_name = "bevt"
    all_model_classes = (BevtModel, BevtForPreTraining, BevtForActionDetection, BevtForVideoClassification)
    additional_model_inputs = ["mask", "image_pixel_values", "image_mask"]

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        """Words are the labels of pre-training, of both streams."""
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        if model_class is BevtForPreTraining:
            words = masked_words_inputs(self.model_tester.get_config(), len(inputs["pixel_values"]))
            for name in ("labels", "image_labels"):
                inputs.pop(name, None)
                inputs |= {name: words[name]} if return_labels else {}
        return inputs


class BevtConfigTest(ConfigTest, unittest.TestCase):
    config_class = BevtConfig
    fields = {"hidden_sizes": [48, 96], "depths": [1, 1], "num_attention_heads": [2, 4]}


class BevtVideoProcessorTest(VideoProcessorTest, unittest.TestCase):
    fast_video_processing_class = BevtVideoProcessor


class BevtImageProcessorTest(ImageProcessorTest, unittest.TestCase):
    processor_class = BevtImageProcessor
