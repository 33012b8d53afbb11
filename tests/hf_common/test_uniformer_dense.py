"""Hugging Face's own common tests on the detectors and segmenters around UniFormer."""

import functools
import unittest
from unittest import mock

import torch

from hf_videovit import (
    UniFormerConfig,
    UniFormerDetectorConfig,
    UniFormerForObjectDetection,
    UniFormerForSemanticSegmentation,
    UniFormerSegmenterConfig,
)
from tests.hf_common import video  # noqa: F401  # fills in a helper of the mixins
from tests.hf_common.mixins import common_tests, register_for_common_tests


modeling_common = common_tests("test_modeling_common")

register_for_common_tests(UniFormerSegmenterConfig, semantic_segmentation=UniFormerForSemanticSegmentation)


def backbone() -> UniFormerConfig:
    sizes = {"depths": [1, 1, 2, 1], "hidden_sizes": [8, 16, 24, 32], "head_dim": 8}
    return UniFormerConfig(modality="image", out_indices=[1, 2, 3, 4], image_size=64, **sizes)


class DenseTester:
    """What `ModelTesterMixin` asks about a model."""

    batch_size = 3
    is_training = True
    num_hidden_layers = 2  # of stage 3

    def __init__(self, config_class, **fields):
        self.config_class, self.fields = config_class, fields

    def get_config(self):
        return self.config_class(backbone_config=backbone(), num_labels=3, **self.fields)

    def prepare_config_and_inputs_for_common(self):
        return self.get_config(), {"pixel_values": torch.randn(self.batch_size, 3, 64, 64)}


class DenseModelTest(modeling_common.ModelTesterMixin):
    test_resize_embeddings = False
    test_can_init_all_missing_weights_before_2023 = True

    @unittest.skip("the model sees pixels: there are no token embeddings")
    def test_inputs_embeds(self):
        pass

    @unittest.skip("the model sees pixels: there are no token embeddings")
    def test_model_get_set_embeddings(self):
        pass

    @unittest.skip("the mixin counts text tokens; tests/dense compares with the official heads")
    def test_attention_outputs(self):
        pass

    @unittest.skip("the mixin counts text tokens; tests/dense compares with the official heads")
    def test_hidden_states_output(self):
        pass


class UniFormerForObjectDetectionTest(DenseModelTest, unittest.TestCase):
    all_model_classes = (UniFormerForObjectDetection,)

    def setUp(self):
        small = {"pyramid_size": 8, "box_hidden_size": 12, "mask_convolutions": 1, "num_proposals": 20}
        self.model_tester = DenseTester(UniFormerDetectorConfig, **small, score_threshold=0.0, max_detections=5)

    def test_model_outputs_equivalence(self):
        forward = UniFormerForObjectDetection.forward

        @functools.wraps(forward)
        def with_the_same_anchors(*args, **kwargs):
            torch.manual_seed(0)  # the losses draw anchors
            return forward(*args, **kwargs)

        with mock.patch.object(UniFormerForObjectDetection, "forward", with_the_same_anchors):
            super().test_model_outputs_equivalence()

    @unittest.skip("how many proposals there are depends on the image")
    def test_torch_export_dynamic(self):
        pass

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels=return_labels)
        if return_labels:
            one = {"boxes": torch.tensor([[0.5, 0.5, 0.5, 0.5]]), "class_labels": torch.tensor([1])}
            inputs["labels"] = [{**one, "masks": torch.ones(1, 64, 64)}] * len(inputs["pixel_values"])
        return inputs


class UniFormerForSemanticSegmentationTest(DenseModelTest, unittest.TestCase):
    all_model_classes = (UniFormerForSemanticSegmentation,)

    def setUp(self):
        small = {"hidden_size": 8, "pyramid_size": 8, "auxiliary_hidden_size": 8}
        self.model_tester = DenseTester(UniFormerSegmenterConfig, **small)
