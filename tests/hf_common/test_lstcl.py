"""Hugging Face's own common tests on the LSTCL classes."""

import unittest

from hf_videovit import (
    LstclConfig,
    LstclForActionDetection,
    LstclForPreTraining,
    LstclForVideoClassification,
    LstclModel,
    LstclVideoProcessor,
)
from tests.hf_common.mixins import register_for_common_tests
from tests.hf_common.video import ConfigTest, VideoModelTest, VideoModelTester, VideoProcessorTest


register_for_common_tests(
    LstclConfig,
    base=LstclModel,
    pretraining=LstclForPreTraining,
    video_classification=LstclForVideoClassification,
)


class LstclModelTest(VideoModelTest, unittest.TestCase):
    model_tester_class = VideoModelTester
    family_name = "lstcl"
    all_model_classes = (LstclModel, LstclForPreTraining, LstclForActionDetection, LstclForVideoClassification)
    additional_model_inputs = ["long_pixel_values"]


class LstclConfigTest(ConfigTest, unittest.TestCase):
    config_class = LstclConfig


class LstclVideoProcessorTest(VideoProcessorTest, unittest.TestCase):
    fast_video_processing_class = LstclVideoProcessor
