"""Hugging Face's own common tests on the UniFormerV2 classes."""

import unittest

from hf_videovit import (
    UniFormerV2Config,
    UniFormerV2ForActionDetection,
    UniFormerV2ForVideoClassification,
    UniFormerV2Model,
    UniFormerV2VideoProcessor,
)
from tests.hf_common.mixins import register_for_common_tests
from tests.hf_common.video import ConfigTest, VideoModelTest, VideoModelTester, VideoProcessorTest


register_for_common_tests(
    UniFormerV2Config, base=UniFormerV2Model, video_classification=UniFormerV2ForVideoClassification
)


class UniFormerV2ModelTest(VideoModelTest, unittest.TestCase):
    model_tester_class = VideoModelTester
    family_name = "uniformer_v2"
    all_model_classes = (UniFormerV2Model, UniFormerV2ForActionDetection, UniFormerV2ForVideoClassification)


class UniFormerV2ConfigTest(ConfigTest, unittest.TestCase):
    config_class = UniFormerV2Config


class UniFormerV2VideoProcessorTest(VideoProcessorTest, unittest.TestCase):
    fast_video_processing_class = UniFormerV2VideoProcessor
