"""Hugging Face's own common tests on the TubeViT classes."""

import unittest

from hf_videovit import (
    TubeViTConfig,
    TubeViTForActionDetection,
    TubeViTForImageClassification,
    TubeViTForVideoClassification,
    TubeViTImageProcessor,
    TubeViTModel,
    TubeViTVideoProcessor,
)
from tests.hf_common.image import ImageProcessorTest
from tests.hf_common.mixins import register_for_common_tests
from tests.hf_common.video import ConfigTest, VideoModelTest, VideoModelTester, VideoProcessorTest


register_for_common_tests(
    TubeViTConfig,
    base=TubeViTModel,
    video_classification=TubeViTForVideoClassification,
    image_classification=TubeViTForImageClassification,
)


class ImageModelTester(VideoModelTester):
    """Images, and tubes of one frame: no others have a part in them."""

    def get_config(self):
        return self.family.config(tubes=[self.family.tiny["tubes"][-1]])

    def prepare_config_and_inputs_for_common(self):
        config, inputs = super().prepare_config_and_inputs_for_common()
        return config, {"pixel_values": inputs["pixel_values"][:, 0].contiguous()}


class TubeViTModelTest(VideoModelTest, unittest.TestCase):
    model_tester_class = VideoModelTester
    family_name = "tubevit"
    all_model_classes = (TubeViTModel, TubeViTForActionDetection, TubeViTForVideoClassification)


class TubeViTImageModelTest(VideoModelTest, unittest.TestCase):
    model_tester_class = ImageModelTester
    family_name = "tubevit"
    all_model_classes = (TubeViTForImageClassification,)


class TubeViTConfigTest(ConfigTest, unittest.TestCase):
    config_class = TubeViTConfig


class TubeViTVideoProcessorTest(VideoProcessorTest, unittest.TestCase):
    fast_video_processing_class = TubeViTVideoProcessor


class TubeViTImageProcessorTest(ImageProcessorTest, unittest.TestCase):
    processor_class = TubeViTImageProcessor
