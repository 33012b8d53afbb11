"""Hugging Face's mixin of image processors filled in for ours."""

from transformers.image_processing_backends import TorchvisionBackend

from tests.hf_common.mixins import common_tests


image_processing_common = common_tests("test_image_processing_common")


class ImageProcessorTester(image_processing_common.ImageProcessingTester):
    """Short side 20, crop 18 x 18."""

    def __init__(self, parent, **kwargs):
        kwargs.setdefault("size", {"shortest_edge": 20})
        kwargs.setdefault("crop_size", {"height": 18, "width": 18})
        super().__init__(parent, **kwargs)

    def _get_image_processing_classes(self):
        """The mixin's own looks for a file among transformers' models."""
        return {"torchvision": self.parent.processor_class}


class ImageProcessorTest(image_processing_common.ImageProcessingTestMixin):
    """Set `processor_class` in a class that is a `unittest.TestCase`, too."""

    image_processor_tester_class = ImageProcessorTester
    processor_class: type[TorchvisionBackend]
    test_cast_dtype = True
