"""Hugging Face's own common tests on the UniFormer classes."""

import unittest

from hf_videovit import (
    UniFormerBackbone,
    UniFormerConfig,
    UniFormerForActionDetection,
    UniFormerForImageClassification,
    UniFormerForPoseEstimation,
    UniFormerForVideoClassification,
    UniFormerImageProcessor,
    UniFormerModel,
    UniFormerVideoProcessor,
)
from tests.hf_common.image import ImageProcessorTest
from tests.hf_common.mixins import common_tests, register_for_common_tests
from tests.hf_common.video import ConfigTest, StagedModelTester, VideoModelTest, VideoProcessorTest


backbone_common = common_tests("test_backbone_common")

register_for_common_tests(
    UniFormerConfig,
    base=UniFormerModel,
    video_classification=UniFormerForVideoClassification,
    image_classification=UniFormerForImageClassification,
    backbone=UniFormerBackbone,
    keypoint_detection=UniFormerForPoseEstimation,
)


class ImageModelTester(StagedModelTester):
    def get_config(self):
        return self.family.config(modality="image", out_indices=[1, 2, 3, 4], pose_hidden_sizes=[8, 8, 8])

    def prepare_config_and_inputs_for_common(self):
        config, inputs = super().prepare_config_and_inputs_for_common()
        return config, {"pixel_values": inputs["pixel_values"][:, 0].contiguous()}


class UniFormerModelTest(VideoModelTest, unittest.TestCase):
    model_tester_class = StagedModelTester
    family_name = "uniformer"
    all_model_classes = (UniFormerModel, UniFormerForActionDetection, UniFormerForVideoClassification)


class UniFormerImageModelTest(VideoModelTest, unittest.TestCase):
    model_tester_class = ImageModelTester
    family_name = "uniformer"
    all_model_classes = (UniFormerForImageClassification, UniFormerForPoseEstimation, UniFormerBackbone)


class UniFormerBackboneTest(backbone_common.BackboneTesterMixin, unittest.TestCase):
    all_model_classes = (UniFormerBackbone,)
    config_class = UniFormerConfig

    def setUp(self):
        self.model_tester = ImageModelTester("uniformer")


class UniFormerConfigTest(ConfigTest, unittest.TestCase):
    config_class = UniFormerConfig
    fields = {"depths": [1, 1, 2, 1], "hidden_sizes": [16, 32, 64, 64]}


class UniFormerVideoProcessorTest(VideoProcessorTest, unittest.TestCase):
    fast_video_processing_class = UniFormerVideoProcessor


class UniFormerImageProcessorTest(ImageProcessorTest, unittest.TestCase):
    processor_class = UniFormerImageProcessor
