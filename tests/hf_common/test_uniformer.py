"""Hugging Face's own common tests on the UniFormer classes."""

import unittest

from hf_videovit import (
    UniFormerBackbone,
    UniFormerConfig,
    UniFormerForImageClassification,
    UniFormerForPoseEstimation,
    UniFormerForVideoClassification,
    UniFormerImageProcessor,
    UniFormerModel,
    UniFormerVideoProcessor,
)
from tests.hf_common.mixins import common_tests, register_for_common_tests
from tests.hf_common.video import ConfigTest, StagedModelTester, VideoModelTest, VideoProcessorTest


backbone_common = common_tests("test_backbone_common")
image_processing_common = common_tests("test_image_processing_common")

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
    all_model_classes = (UniFormerModel, UniFormerForVideoClassification)


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


class ImageProcessorTester(image_processing_common.ImageProcessingTester):
    """Short side 20, crop 18 x 18."""

    def __init__(self, parent, **kwargs):
        kwargs.setdefault("size", {"shortest_edge": 20})
        kwargs.setdefault("crop_size", {"height": 18, "width": 18})
        super().__init__(parent, **kwargs)

    def _get_image_processing_classes(self):
        """The mixin's own looks for a file among transformers' models."""
        return {"torchvision": UniFormerImageProcessor}


class UniFormerImageProcessorTest(image_processing_common.ImageProcessingTestMixin, unittest.TestCase):
    image_processor_tester_class = ImageProcessorTester
    test_cast_dtype = True
