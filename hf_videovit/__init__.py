"""
Video transformers as native citizens of the Hugging Face ecosystem.

`import hf_videovit` registers the families with the auto classes; from then on `pipeline("video-classification")` and
`AutoModelForVideoClassification.from_pretrained` just work. Each module is loaded when one of its names is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .registration import register_families


if TYPE_CHECKING:
    from .adapters import lora_targets
    from .auto import (
        AutoModelForActionDetection,
        AutoModelForJointClassification,
        AutoModelForTemporalActionLocalization,
    )
    from .convert import convert_checkpoint
    from .convert.scaling_tubevit import (
        resize_tubes,
        scale_up,
    )
    from .inference.features import get_video_features
    from .modeling.configuration_action_detection import ActionDetectionConfig
    from .modeling.configuration_actionformer import ActionFormerConfig
    from .modeling.configuration_bevt import BevtConfig
    from .modeling.configuration_bevt_image_codebook import BevtImageCodebookConfig
    from .modeling.configuration_lstcl import LstclConfig
    from .modeling.configuration_tubevit import TubeViTConfig
    from .modeling.configuration_uniformer import UniFormerConfig
    from .modeling.configuration_uniformer_dense import (
        UniFormerDetectorConfig,
        UniFormerSegmenterConfig,
    )
    from .modeling.configuration_uniformer_v2 import UniFormerV2Config
    from .modeling.configuration_video_temporal_localizer import VideoTemporalLocalizerConfig
    from .modeling.configuration_videomae_v2 import VideoMAEV2Config
    from .modeling.feature_processing_temporal_localization import TemporalLocalizationProcessor
    from .modeling.image_processing_bevt import BevtImageProcessor
    from .modeling.image_processing_tubevit import TubeViTImageProcessor
    from .modeling.image_processing_uniformer import UniFormerImageProcessor
    from .modeling.image_processing_uniformer_dense import (
        UniFormerDetectorImageProcessor,
        UniFormerSegmenterImageProcessor,
    )
    from .modeling.modeling_actionformer import (
        ActionFormerForTemporalActionLocalization,
        ActionFormerModel,
    )
    from .modeling.modeling_bevt import (
        BevtForActionDetection,
        BevtForPreTraining,
        BevtForVideoClassification,
        BevtModel,
    )
    from .modeling.modeling_bevt_image_codebook import BevtImageCodebook
    from .modeling.modeling_lstcl import (
        LstclForActionDetection,
        LstclForPreTraining,
        LstclForVideoClassification,
        LstclModel,
    )
    from .modeling.modeling_tubevit import (
        TubeViTForActionDetection,
        TubeViTForImageClassification,
        TubeViTForJointClassification,
        TubeViTForVideoClassification,
        TubeViTModel,
    )
    from .modeling.modeling_uniformer import (
        UniFormerBackbone,
        UniFormerForImageClassification,
        UniFormerForVideoClassification,
        UniFormerModel,
    )
    from .modeling.modeling_uniformer_detection import UniFormerForActionDetection
    from .modeling.modeling_uniformer_detector import UniFormerForObjectDetection
    from .modeling.modeling_uniformer_pose import UniFormerForPoseEstimation
    from .modeling.modeling_uniformer_segmenter import UniFormerForSemanticSegmentation
    from .modeling.modeling_uniformer_v2 import (
        UniFormerV2ForActionDetection,
        UniFormerV2ForVideoClassification,
        UniFormerV2Model,
    )
    from .modeling.modeling_video_temporal_localizer import VideoTemporalLocalizer
    from .modeling.modeling_videomae_v2 import (
        VideoMAEV2ForActionDetection,
        VideoMAEV2ForPreTraining,
        VideoMAEV2ForVideoClassification,
        VideoMAEV2Model,
    )
    from .modeling.semantic_protocol import label_probabilities
    from .modeling.video_decoding import VideoDecodingError
    from .modeling.video_processing_bevt import BevtVideoProcessor
    from .modeling.video_processing_lstcl import LstclVideoProcessor
    from .modeling.video_processing_tubevit import TubeViTVideoProcessor
    from .modeling.video_processing_uniformer import UniFormerVideoProcessor
    from .modeling.video_processing_uniformer_v2 import UniFormerV2VideoProcessor
    from .modeling.video_processing_videomae_v2 import VideoMAEV2VideoProcessor
    from .published import (
        list_published,
        published_config,
        published_entry,
        published_labels,
    )

__version__ = "0.1.0"

# Modules of the public names, as they are imported above.
MODULES: dict[str, tuple[str, ...]] = {
    "adapters": ("lora_targets",),
    "auto": (
        "AutoModelForActionDetection",
        "AutoModelForJointClassification",
        "AutoModelForTemporalActionLocalization",
    ),
    "convert": ("convert_checkpoint",),
    "convert.scaling_tubevit": ("resize_tubes", "scale_up"),
    "inference.features": ("get_video_features",),
    "modeling.configuration_action_detection": ("ActionDetectionConfig",),
    "modeling.configuration_actionformer": ("ActionFormerConfig",),
    "modeling.configuration_bevt": ("BevtConfig",),
    "modeling.configuration_bevt_image_codebook": ("BevtImageCodebookConfig",),
    "modeling.configuration_lstcl": ("LstclConfig",),
    "modeling.configuration_tubevit": ("TubeViTConfig",),
    "modeling.configuration_uniformer": ("UniFormerConfig",),
    "modeling.configuration_uniformer_dense": ("UniFormerDetectorConfig", "UniFormerSegmenterConfig"),
    "modeling.configuration_uniformer_v2": ("UniFormerV2Config",),
    "modeling.configuration_video_temporal_localizer": ("VideoTemporalLocalizerConfig",),
    "modeling.configuration_videomae_v2": ("VideoMAEV2Config",),
    "modeling.feature_processing_temporal_localization": ("TemporalLocalizationProcessor",),
    "modeling.image_processing_bevt": ("BevtImageProcessor",),
    "modeling.image_processing_tubevit": ("TubeViTImageProcessor",),
    "modeling.image_processing_uniformer": ("UniFormerImageProcessor",),
    "modeling.image_processing_uniformer_dense": (
        "UniFormerDetectorImageProcessor",
        "UniFormerSegmenterImageProcessor",
    ),
    "modeling.modeling_actionformer": ("ActionFormerForTemporalActionLocalization", "ActionFormerModel"),
    "modeling.modeling_bevt": (
        "BevtForActionDetection",
        "BevtForPreTraining",
        "BevtForVideoClassification",
        "BevtModel",
    ),
    "modeling.modeling_bevt_image_codebook": ("BevtImageCodebook",),
    "modeling.modeling_lstcl": (
        "LstclForActionDetection",
        "LstclForPreTraining",
        "LstclForVideoClassification",
        "LstclModel",
    ),
    "modeling.modeling_tubevit": (
        "TubeViTForActionDetection",
        "TubeViTForImageClassification",
        "TubeViTForJointClassification",
        "TubeViTForVideoClassification",
        "TubeViTModel",
    ),
    "modeling.modeling_uniformer": (
        "UniFormerBackbone",
        "UniFormerForImageClassification",
        "UniFormerForVideoClassification",
        "UniFormerModel",
    ),
    "modeling.modeling_uniformer_detection": ("UniFormerForActionDetection",),
    "modeling.modeling_uniformer_detector": ("UniFormerForObjectDetection",),
    "modeling.modeling_uniformer_pose": ("UniFormerForPoseEstimation",),
    "modeling.modeling_uniformer_segmenter": ("UniFormerForSemanticSegmentation",),
    "modeling.modeling_uniformer_v2": (
        "UniFormerV2ForActionDetection",
        "UniFormerV2ForVideoClassification",
        "UniFormerV2Model",
    ),
    "modeling.modeling_video_temporal_localizer": ("VideoTemporalLocalizer",),
    "modeling.modeling_videomae_v2": (
        "VideoMAEV2ForActionDetection",
        "VideoMAEV2ForPreTraining",
        "VideoMAEV2ForVideoClassification",
        "VideoMAEV2Model",
    ),
    "modeling.semantic_protocol": ("label_probabilities",),
    "modeling.video_decoding": ("VideoDecodingError",),
    "modeling.video_processing_bevt": ("BevtVideoProcessor",),
    "modeling.video_processing_lstcl": ("LstclVideoProcessor",),
    "modeling.video_processing_tubevit": ("TubeViTVideoProcessor",),
    "modeling.video_processing_uniformer": ("UniFormerVideoProcessor",),
    "modeling.video_processing_uniformer_v2": ("UniFormerV2VideoProcessor",),
    "modeling.video_processing_videomae_v2": ("VideoMAEV2VideoProcessor",),
    "published": ("list_published", "published_config", "published_entry", "published_labels"),
}
MODULE_OF = {name: module for module, names in MODULES.items() for name in names}
PACKAGES = ("adapters", "auto", "inference", "modeling")


def __getattr__(name: str) -> Any:
    if name in MODULE_OF:
        value = getattr(import_module(f".{MODULE_OF[name]}", __name__), name)
    elif name in PACKAGES:
        value = import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *MODULE_OF, *PACKAGES})


register_families()

__all__ = [
    "ActionDetectionConfig",
    "ActionFormerConfig",
    "ActionFormerForTemporalActionLocalization",
    "ActionFormerModel",
    "AutoModelForActionDetection",
    "AutoModelForJointClassification",
    "AutoModelForTemporalActionLocalization",
    "BevtConfig",
    "BevtForActionDetection",
    "BevtForPreTraining",
    "BevtForVideoClassification",
    "BevtImageCodebook",
    "BevtImageCodebookConfig",
    "BevtImageProcessor",
    "BevtModel",
    "BevtVideoProcessor",
    "LstclConfig",
    "LstclForActionDetection",
    "LstclForPreTraining",
    "LstclForVideoClassification",
    "LstclModel",
    "LstclVideoProcessor",
    "TemporalLocalizationProcessor",
    "TubeViTConfig",
    "TubeViTForActionDetection",
    "TubeViTForImageClassification",
    "TubeViTForJointClassification",
    "TubeViTForVideoClassification",
    "TubeViTImageProcessor",
    "TubeViTModel",
    "TubeViTVideoProcessor",
    "UniFormerBackbone",
    "UniFormerConfig",
    "UniFormerDetectorConfig",
    "UniFormerDetectorImageProcessor",
    "UniFormerForActionDetection",
    "UniFormerForImageClassification",
    "UniFormerForObjectDetection",
    "UniFormerForPoseEstimation",
    "UniFormerForSemanticSegmentation",
    "UniFormerForVideoClassification",
    "UniFormerImageProcessor",
    "UniFormerModel",
    "UniFormerSegmenterConfig",
    "UniFormerSegmenterImageProcessor",
    "UniFormerV2Config",
    "UniFormerV2ForActionDetection",
    "UniFormerV2ForVideoClassification",
    "UniFormerV2Model",
    "UniFormerV2VideoProcessor",
    "UniFormerVideoProcessor",
    "VideoDecodingError",
    "VideoMAEV2Config",
    "VideoMAEV2ForActionDetection",
    "VideoMAEV2ForPreTraining",
    "VideoMAEV2ForVideoClassification",
    "VideoMAEV2Model",
    "VideoMAEV2VideoProcessor",
    "VideoTemporalLocalizer",
    "VideoTemporalLocalizerConfig",
    "convert_checkpoint",
    "get_video_features",
    "label_probabilities",
    "list_published",
    "lora_targets",
    "published_config",
    "published_entry",
    "published_labels",
    "resize_tubes",
    "scale_up",
]
