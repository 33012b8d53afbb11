"""Hugging Face's own common tests on the tokenizer of visual words."""

import unittest

import torch

from hf_videovit import BevtImageCodebook, BevtImageCodebookConfig
from tests.hf_common import video  # noqa: F401  # fills in a helper of the mixins
from tests.hf_common.mixins import common_tests, register_for_common_tests
from tests.hf_common.video import ConfigTest


modeling_common = common_tests("test_modeling_common")

register_for_common_tests(BevtImageCodebookConfig, base=BevtImageCodebook, pretraining=BevtImageCodebook)


class BevtImageCodebookTester:
    """What `ModelTesterMixin` asks about a model."""

    batch_size = 3
    is_training = True
    num_hidden_layers = 1

    def get_config(self):
        sizes = {"hidden_size": 8, "num_hidden_layers": 1, "code_size": 4, "image_size": 32}
        return BevtImageCodebookConfig(vocab_size=12, patch_size=4, **sizes)

    def prepare_config_and_inputs_for_common(self):
        return self.get_config(), {"pixel_values": 0.1 + 0.8 * torch.rand(self.batch_size, 3, 16, 16)}


class BevtImageCodebookTest(modeling_common.ModelTesterMixin, unittest.TestCase):
    all_model_classes = (BevtImageCodebook,)
    test_resize_embeddings = False
    has_attentions = False
    test_can_init_all_missing_weights_before_2023 = True

    def setUp(self):
        self.model_tester = BevtImageCodebookTester()

    @unittest.skip("the model sees pixels: there are no token embeddings")
    def test_inputs_embeds(self):
        pass

    @unittest.skip("the model sees pixels: there are no token embeddings")
    def test_model_get_set_embeddings(self):
        pass

    @unittest.skip("the vectors of the words are buffers that start at random, as weights do")
    def test_init_weights_can_init_buffers(self):
        pass

    @unittest.skip("the model returns words and images, no hidden states")
    def test_hidden_states_output(self):
        pass

    @unittest.skip("the model returns words and images, no hidden states")
    def test_retain_grad_hidden_states_attentions(self):
        pass


class BevtImageCodebookConfigTest(ConfigTest, unittest.TestCase):
    config_class = BevtImageCodebookConfig
    fields = {"vocab_size": 12, "code_size": 4, "num_hidden_layers": 1}
