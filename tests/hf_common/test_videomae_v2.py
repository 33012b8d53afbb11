"""Hugging Face's own common tests on the VideoMAE V2 classes."""

import unittest

from hf_videovit import (
    VideoMAEV2Config,
    VideoMAEV2ForActionDetection,
    VideoMAEV2ForPreTraining,
    VideoMAEV2ForVideoClassification,
    VideoMAEV2Model,
    VideoMAEV2VideoProcessor,
)
from tests.hf_common.mixins import register_for_common_tests
from tests.hf_common.video import ConfigTest, VideoModelTest, VideoModelTester, VideoProcessorTest


register_for_common_tests(
    VideoMAEV2Config,
    base=VideoMAEV2Model,
    pretraining=VideoMAEV2ForPreTraining,
    video_classification=VideoMAEV2ForVideoClassification,
)


class VideoMAEV2ModelTest(VideoModelTest, unittest.TestCase):
    model_tester_class = VideoModelTester
    family_name = "videomae_v2"
    all_model_classes = (
        VideoMAEV2Model,
        VideoMAEV2ForPreTraining,
        VideoMAEV2ForActionDetection,
        VideoMAEV2ForVideoClassification,
    )
    additional_model_inputs = ["encoder_mask", "decoder_mask"]


class VideoMAEV2ConfigTest(ConfigTest, unittest.TestCase):
    config_class = VideoMAEV2Config


class VideoMAEV2VideoProcessorTest(VideoProcessorTest, unittest.TestCase):
    fast_video_processing_class = VideoMAEV2VideoProcessor
