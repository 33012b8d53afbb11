"""Hugging Face's mixins filled in for video models of the table in `tests/families.py`."""

import copy
import unittest
from contextlib import nullcontext
from unittest import mock

import torch

from tests.families import FAMILIES, Case
from tests.hf_common.mixins import common_tests


modeling_common = common_tests("test_modeling_common")
configuration_common = common_tests("test_configuration_common")
video_processing_common = common_tests("test_video_processing_common")


def config_with_tiny_initial_values(config):
    """
    The mixins' own helper sets every field whose name holds `_std` to a tiny number; `image_std` is a list that says
    how pixels were normalised.
    """
    config = copy.deepcopy(config)
    for name, value in config.to_dict().items():
        if (
            any(part in name for part in ("_range", "_std", "layer_scale"))
            and isinstance(value, float | int)
            and value is not False
        ):
            setattr(config, name, 1e-10)
    return config


modeling_common._config_zero_init = config_with_tiny_initial_values


class VideoModelTester:
    """What `ModelTesterMixin` asks about a model: the family's tiny configuration and its inputs."""

    # The mixin fills smaller batches up to 7 with random values, which would break masks of equal counts.
    batch_size = 7
    is_training = True

    def __init__(self, name: str):
        self.family = next(family for family in FAMILIES if family.name == name)
        config = self.family.config()
        self.image_size = config.image_size
        self.num_channels = config.num_channels
        self.num_hidden_layers = config.num_hidden_layers
        self.hidden_size = config.hidden_size
        self.num_attention_heads = config.num_attention_heads

    def get_config(self):
        return self.family.config()

    def prepare_config_and_inputs_for_common(self):
        config = self.get_config()
        return config, {"pixel_values": torch.randn(self.batch_size, config.num_frames, 3, *2 * [self.image_size])}


class StagedModelTester(VideoModelTester):
    """For a model whose stages differ in width and heads, and that the mixins hold to be as deep as one of them."""

    def __init__(self, name: str):
        self.family = next(family for family in FAMILIES if family.name == name)
        config = self.get_config()
        self.image_size, self.num_channels = config.image_size, config.num_channels
        self.num_hidden_layers = max(config.depths)


class VideoModelTest(modeling_common.ModelTesterMixin):
    """A test class names its family and its `all_model_classes`; inputs beyond the pixels come from the table."""

    family_name: str
    model_tester_class = VideoModelTester
    test_resize_embeddings = False
    # Without this the test that every weight is initialised runs only for files with a recent copyright line.
    test_can_init_all_missing_weights_before_2023 = True

    def setUp(self):
        self.model_tester = self.model_tester_class(self.family_name)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels=return_labels)
        head = next(head for head in self.model_tester.family.heads if head.model_class is model_class)
        known = Case(self.model_tester.family, head).inputs(batch_size=len(inputs["pixel_values"]))
        if not return_labels:
            known.pop("labels", None)
        return {**known, **inputs}

    @unittest.skip("video models embed pixels: there are no token embeddings")
    def test_inputs_embeds(self):
        pass

    def test_bc_torch_dtype(self):
        """Without a report of its own for each of thousands of parameters."""
        with mock.patch.object(self, "subTest", return_value=nullcontext()):
            super().test_bc_torch_dtype()

    def test_model_get_set_embeddings(self):
        config, _ = self.model_tester.prepare_config_and_inputs_for_common()
        for model_class in self.all_model_classes:
            model = model_class(config)
            assert isinstance(model.get_input_embeddings(), torch.nn.Module)
            assert model.get_output_embeddings() is None

    def test_attention_outputs(self):
        """The mixin's own test counts text tokens."""
        for model_class in self.all_model_classes:
            config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
            config._attn_implementation = "eager"
            inputs = self._prepare_for_class(inputs, model_class)
            with torch.no_grad():
                asked = model_class(config).eval()(**inputs, output_attentions=True, output_hidden_states=True)
                config.output_attentions = True
                by_config = model_class(config).eval()(**inputs).attentions
            tokens = asked.hidden_states[0].shape[1]
            expected = self.model_tester.family.expected_shapes(config, self.model_tester.batch_size, tokens)[1]
            for attentions in (asked.attentions, by_config):
                assert [tuple(one.shape) for one in attentions] == expected

    def test_hidden_states_output(self):
        """The mixin's own test counts text tokens."""
        for model_class in self.all_model_classes:
            config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
            inputs = self._prepare_for_class(inputs, model_class)
            with torch.no_grad():
                by_argument = model_class(config).eval()(**inputs, output_hidden_states=True).hidden_states
                config.output_hidden_states = True
                by_config = model_class(config).eval()(**inputs).hidden_states
            tokens = by_argument[0].shape[1]
            expected = self.model_tester.family.expected_shapes(config, self.model_tester.batch_size, tokens)[0]
            for hidden_states in (by_argument, by_config):
                assert [tuple(one.shape) for one in hidden_states] == expected


class ConfigTest:
    """`fields` are set in the configurations tried, and are those that every configuration must have."""

    config_class: type
    fields: dict = {"hidden_size": 48}

    def test_config(self):
        common = None if "hidden_size" in self.fields else list(self.fields)
        tester = configuration_common.ConfigTester(
            self, config_class=self.config_class, has_text_modality=False, common_properties=common, **self.fields
        )
        tester.run_common_tests()


class VideoProcessorTester:
    """Random videos and the processor that the mixin's fixed expectations belong to: short side 20, crop 18 x 18."""

    def __init__(self, batch_size=5, num_frames=8, num_channels=3, min_resolution=30, max_resolution=80):
        self.batch_size, self.num_frames, self.num_channels = batch_size, num_frames, num_channels
        self.min_resolution, self.max_resolution = min_resolution, max_resolution

    def prepare_video_processor_dict(self):
        return {
            "do_resize": True,
            "size": {"shortest_edge": 20},
            "do_center_crop": True,
            "crop_size": {"height": 18, "width": 18},
            "do_normalize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "do_convert_rgb": True,
        }

    def expected_output_video_shape(self, videos):
        return self.num_frames, self.num_channels, 18, 18

    def prepare_video_inputs(self, equal_resolution=False, return_tensors="pil"):
        return video_processing_common.prepare_video_inputs(
            batch_size=self.batch_size,
            num_frames=self.num_frames,
            num_channels=self.num_channels,
            min_resolution=self.min_resolution,
            max_resolution=self.max_resolution,
            equal_resolution=equal_resolution,
            return_tensors=return_tensors,
        )


class VideoProcessorTest(video_processing_common.VideoProcessingTestMixin):
    input_name = "pixel_values"
    test_cast_dtype = True

    def setUp(self):
        super().setUp()
        self.video_processor_tester = VideoProcessorTester()

    @property
    def video_processor_dict(self):
        return self.video_processor_tester.prepare_video_processor_dict()
