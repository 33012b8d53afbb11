"""
Video transformers as native citizens of the Hugging Face ecosystem.

`import hf_videovit` registers the families with the auto classes; from then on `pipeline("video-classification")` and
`AutoModelForVideoClassification.from_pretrained` just work.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForKeypointDetection,
    AutoModelForPreTraining,
    AutoModelForVideoClassification,
    AutoVideoProcessor,
)

from .adapters import lora_targets, register_lora_targets
from .auto import (
    AutoModelForActionDetection,
    AutoModelForJointClassification,
    AutoModelForTemporalActionLocalization,
)
from .inference.action_detection import register_action_detection
from .inference.pipeline import register_pipeline
from .inference.temporal_localization import register_temporal_localization
from .modeling.configuration_action_detection import ActionDetectionConfig
from .modeling.configuration_actionformer import ActionFormerConfig
from .modeling.configuration_bevt import BevtConfig
from .modeling.configuration_lstcl import LstclConfig
from .modeling.configuration_tubevit import TubeViTConfig
from .modeling.configuration_uniformer import UniFormerConfig
from .modeling.configuration_uniformer_v2 import UniFormerV2Config
from .modeling.configuration_video_temporal_localizer import VideoTemporalLocalizerConfig
from .modeling.configuration_videomae_v2 import VideoMAEV2Config
from .modeling.feature_processing_temporal_localization import TemporalLocalizationProcessor
from .modeling.image_processing_bevt import BevtImageProcessor
from .modeling.image_processing_tubevit import TubeViTImageProcessor
from .modeling.image_processing_uniformer import UniFormerImageProcessor
from .modeling.modeling_actionformer import ActionFormerForTemporalActionLocalization, ActionFormerModel
from .modeling.modeling_bevt import (
    BevtForActionDetection,
    BevtForPreTraining,
    BevtForVideoClassification,
    BevtModel,
)
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
from .modeling.modeling_uniformer_pose import UniFormerForPoseEstimation
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
from .modeling.video_decoding import VideoDecodingError
from .modeling.video_processing_bevt import BevtVideoProcessor
from .modeling.video_processing_lstcl import LstclVideoProcessor
from .modeling.video_processing_tubevit import TubeViTVideoProcessor
from .modeling.video_processing_uniformer import UniFormerVideoProcessor
from .modeling.video_processing_uniformer_v2 import UniFormerV2VideoProcessor
from .modeling.video_processing_videomae_v2 import VideoMAEV2VideoProcessor


if TYPE_CHECKING:
    from .convert import convert_checkpoint
    from .convert.scaling_tubevit import resize_tubes, scale_up
    from .inference.features import get_video_features
    from .published import list_published, published_config, published_labels

__version__ = "0.1.0"

# One row a family: configuration, then its classes by auto class.
FAMILIES: tuple[tuple[Any, dict[Any, type]], ...] = (
    (
        ActionFormerConfig,
        {
            AutoModel: ActionFormerModel,
            AutoModelForTemporalActionLocalization: ActionFormerForTemporalActionLocalization,
            AutoFeatureExtractor: TemporalLocalizationProcessor,
        },
    ),
    (
        BevtConfig,
        {
            AutoModel: BevtModel,
            AutoModelForActionDetection: BevtForActionDetection,
            AutoModelForPreTraining: BevtForPreTraining,
            AutoModelForVideoClassification: BevtForVideoClassification,
            AutoImageProcessor: BevtImageProcessor,
            AutoVideoProcessor: BevtVideoProcessor,
        },
    ),
    (
        LstclConfig,
        {
            AutoModel: LstclModel,
            AutoModelForActionDetection: LstclForActionDetection,
            AutoModelForPreTraining: LstclForPreTraining,
            AutoModelForVideoClassification: LstclForVideoClassification,
            AutoVideoProcessor: LstclVideoProcessor,
        },
    ),
    (
        TubeViTConfig,
        {
            AutoModel: TubeViTModel,
            AutoModelForActionDetection: TubeViTForActionDetection,
            AutoModelForJointClassification: TubeViTForJointClassification,
            AutoModelForImageClassification: TubeViTForImageClassification,
            AutoModelForVideoClassification: TubeViTForVideoClassification,
            AutoImageProcessor: TubeViTImageProcessor,
            AutoVideoProcessor: TubeViTVideoProcessor,
        },
    ),
    (
        UniFormerConfig,
        {
            AutoBackbone: UniFormerBackbone,
            AutoModel: UniFormerModel,
            AutoModelForActionDetection: UniFormerForActionDetection,
            AutoModelForImageClassification: UniFormerForImageClassification,
            AutoModelForKeypointDetection: UniFormerForPoseEstimation,
            AutoModelForVideoClassification: UniFormerForVideoClassification,
            AutoImageProcessor: UniFormerImageProcessor,
            AutoVideoProcessor: UniFormerVideoProcessor,
        },
    ),
    (
        UniFormerV2Config,
        {
            AutoModel: UniFormerV2Model,
            AutoModelForActionDetection: UniFormerV2ForActionDetection,
            AutoModelForVideoClassification: UniFormerV2ForVideoClassification,
            AutoVideoProcessor: UniFormerV2VideoProcessor,
        },
    ),
    (
        VideoTemporalLocalizerConfig,
        {
            AutoModel: VideoTemporalLocalizer,
            AutoModelForTemporalActionLocalization: VideoTemporalLocalizer,
            AutoFeatureExtractor: TemporalLocalizationProcessor,
        },
    ),
    (
        VideoMAEV2Config,
        {
            AutoModel: VideoMAEV2Model,
            AutoModelForActionDetection: VideoMAEV2ForActionDetection,
            AutoModelForPreTraining: VideoMAEV2ForPreTraining,
            AutoModelForVideoClassification: VideoMAEV2ForVideoClassification,
            AutoVideoProcessor: VideoMAEV2VideoProcessor,
        },
    ),
)

# Read on first use: these need more than torch and transformers.
LAZY: dict[str, str] = {
    "convert_checkpoint": "convert",
    "get_video_features": "inference.features",
    "list_published": "published",
    "published_config": "published",
    "published_labels": "published",
    "resize_tubes": "convert.scaling_tubevit",
    "scale_up": "convert.scaling_tubevit",
}


def register_families() -> None:
    """Make the auto classes know every family. Doing it twice changes nothing."""
    for config_class, classes in FAMILIES:
        AutoConfig.register(config_class.model_type, config_class)
        for auto_class, model_class in classes.items():
            if auto_class is AutoImageProcessor:
                auto_class.register(config_class, image_processor_classes={"torchvision": model_class}, exist_ok=True)
            else:
                auto_class.register(config_class, model_class)


def __getattr__(name: str) -> Any:
    if name in LAZY:
        return getattr(import_module(f".{LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


register_families()
register_pipeline()
register_action_detection()
register_temporal_localization()
register_lora_targets()

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
    "UniFormerForActionDetection",
    "UniFormerForImageClassification",
    "UniFormerForPoseEstimation",
    "UniFormerForVideoClassification",
    "UniFormerImageProcessor",
    "UniFormerModel",
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
    "list_published",
    "lora_targets",
    "published_config",
    "published_labels",
    "resize_tubes",
    "scale_up",
]
