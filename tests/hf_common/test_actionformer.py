"""Hugging Face's own common tests on the ActionFormer classes."""

import unittest

import torch

from hf_videovit import ActionFormerConfig, ActionFormerForTemporalActionLocalization, ActionFormerModel
from tests.hf_common.mixins import common_tests, register_for_common_tests
from tests.hf_common.video import ConfigTest


modeling_common = common_tests("test_modeling_common")

register_for_common_tests(ActionFormerConfig, base=ActionFormerModel)


class ActionFormerTester:
    """What `ModelTesterMixin` asks about a model. The last video of a batch is shorter than the others."""

    batch_size = 7
    is_training = True
    steps = 24
    hidden_size = 16
    num_attention_heads = 2
    num_hidden_layers = 2

    def get_config(self):
        return ActionFormerConfig(
            feature_size=12,
            hidden_size=self.hidden_size,
            num_embedding_layers=1,
            num_stem_layers=1,
            num_branch_layers=1,
            num_attention_heads=self.num_attention_heads,
            attention_window=[-1, 5],
            use_absolute_positions=True,
            max_sequence_length=32,
            head_hidden_size=8,
            num_head_layers=2,
            drop_path_rate=0.0,
            num_labels=3,
        )

    def prepare_config_and_inputs_for_common(self):
        mask = torch.ones(self.batch_size, self.steps, dtype=torch.long)
        mask[-1, -9:] = 0
        return self.get_config(), {
            "features": torch.randn(self.batch_size, self.steps, 12),
            "attention_mask": mask,
        }


class ActionFormerModelTest(modeling_common.ModelTesterMixin, unittest.TestCase):
    all_model_classes = (ActionFormerModel, ActionFormerForTemporalActionLocalization)
    test_resize_embeddings = False
    test_can_init_all_missing_weights_before_2023 = True

    def setUp(self):
        self.model_tester = ActionFormerTester()

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels=return_labels)
        if return_labels and model_class is ActionFormerForTemporalActionLocalization:
            one = {"segments": torch.tensor([[2.0, 7.0], [9.5, 12.0]]), "class_labels": torch.tensor([0, 2])}
            inputs["labels"] = [one] * len(inputs["features"])
        return inputs

    @unittest.skip("the model embeds features: there are no token embeddings")
    def test_inputs_embeds(self):
        pass

    def test_model_get_set_embeddings(self):
        for model_class in self.all_model_classes:
            model = model_class(self.model_tester.get_config())
            assert isinstance(model.get_input_embeddings(), torch.nn.Module)
            assert model.get_output_embeddings() is None

    def test_attention_outputs(self):
        """The mixin's own test counts text tokens."""
        for model_class in self.all_model_classes:
            config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
            config._attn_implementation = "eager"
            with torch.no_grad():
                attentions = model_class(config).eval()(**inputs, output_attentions=True).attentions
            assert [tuple(one.shape) for one in attentions] == [(7, 2, 24, 24), (7, 2, 12, 5)]
            for one in attentions:
                torch.testing.assert_close(one.sum(-1), torch.ones_like(one.sum(-1)))

    def test_hidden_states_output(self):
        """The mixin's own test counts text tokens."""
        for model_class in self.all_model_classes:
            config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
            config.output_hidden_states = True
            with torch.no_grad():
                hidden_states = model_class(config).eval()(**inputs).hidden_states
            assert [tuple(one.shape) for one in hidden_states] == [(7, 24, 16), (7, 24, 16), (7, 12, 16)]


class ActionFormerConfigTest(ConfigTest, unittest.TestCase):
    config_class = ActionFormerConfig
    fields = {"hidden_size": 48, "num_attention_heads": 4}
