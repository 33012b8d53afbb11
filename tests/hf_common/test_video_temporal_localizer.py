"""Hugging Face's own common tests on an encoder and a localiser in one model."""

import unittest

import torch

from hf_videovit import ActionFormerConfig, VideoMAEV2Config, VideoTemporalLocalizer, VideoTemporalLocalizerConfig
from tests.hf_common import video  # noqa: F401  # fills in a helper of the mixins
from tests.hf_common.mixins import common_tests, register_for_common_tests


modeling_common = common_tests("test_modeling_common")

register_for_common_tests(VideoTemporalLocalizerConfig, base=VideoTemporalLocalizer)


def tiny_config(**fields) -> VideoTemporalLocalizerConfig:
    encoder = VideoMAEV2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        patch_size=8,
        image_size=16,
        num_frames=4,
    )
    localizer = ActionFormerConfig(
        feature_size=16,
        hidden_size=16,
        num_embedding_layers=1,
        num_stem_layers=1,
        num_branch_layers=1,
        num_attention_heads=2,
        attention_window=[-1, 5],
        head_hidden_size=8,
        num_head_layers=2,
        drop_path_rate=0.0,
        num_labels=3,
    )
    fields = {"feature_stride": 2, "encoder_training": "full", **fields}
    return VideoTemporalLocalizerConfig(encoder_config=encoder, localizer_config=localizer, **fields)


class LocalizerTester:
    """What `ModelTesterMixin` asks about a model. The last video of a batch is shorter than the others."""

    batch_size = 7
    is_training = True
    steps = 12
    num_hidden_layers = 2

    def get_config(self):
        return tiny_config()

    def prepare_config_and_inputs_for_common(self):
        mask = torch.ones(self.batch_size, self.steps, dtype=torch.long)
        mask[-1, -5:] = 0
        frames = 2 * (self.steps - 1) + 4
        return self.get_config(), {
            "pixel_values": torch.randn(self.batch_size, frames, 3, 16, 16),
            "attention_mask": mask,
        }


class VideoTemporalLocalizerTest(modeling_common.ModelTesterMixin, unittest.TestCase):
    all_model_classes = (VideoTemporalLocalizer,)
    test_resize_embeddings = False
    test_can_init_all_missing_weights_before_2023 = True

    def setUp(self):
        self.model_tester = LocalizerTester()

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels=return_labels)
        if return_labels:
            one = {"segments": torch.tensor([[2.0, 4.0], [5.5, 7.0]]), "class_labels": torch.tensor([0, 2])}
            inputs["labels"] = [one] * len(inputs["pixel_values"])
        return inputs

    @unittest.skip("the model embeds pixels: there are no token embeddings")
    def test_inputs_embeds(self):
        pass

    def test_model_get_set_embeddings(self):
        model = VideoTemporalLocalizer(self.model_tester.get_config())
        assert isinstance(model.get_input_embeddings(), torch.nn.Module)
        assert model.get_output_embeddings() is None

    def test_attention_outputs(self):
        """The mixin's own test counts text tokens. Attentions are the localiser's."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        model = VideoTemporalLocalizer(config).eval()
        model.set_attn_implementation("eager")
        with torch.no_grad():
            attentions = model(**inputs, output_attentions=True).attentions
        assert [tuple(one.shape) for one in attentions] == [(7, 2, 12, 12), (7, 2, 6, 5)]

    def test_hidden_states_output(self):
        """The mixin's own test counts text tokens. Hidden states are the localiser's."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        config.output_hidden_states = True
        with torch.no_grad():
            hidden_states = VideoTemporalLocalizer(config).eval()(**inputs).hidden_states
        assert [tuple(one.shape) for one in hidden_states] == [(7, 12, 16), (7, 12, 16), (7, 6, 16)]
