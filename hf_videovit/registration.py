"""
Registration of the families with transformers and PEFT by name.

Nothing is loaded here. A module of transformers or PEFT that is imported later is completed when it is. The tables
of the auto classes and of the pipelines then know the names of the families. A class is loaded when it is looked up.
"""

import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


PACKAGE = __package__

# One row a family: its configuration, then its classes by auto class. All of them are names of the package.
FAMILIES: dict[str, tuple[str, dict[str, str]]] = {
    "actionformer": (
        "ActionFormerConfig",
        {
            "AutoModel": "ActionFormerModel",
            "AutoModelForTemporalActionLocalization": "ActionFormerForTemporalActionLocalization",
            "AutoFeatureExtractor": "TemporalLocalizationProcessor",
        },
    ),
    "bevt": (
        "BevtConfig",
        {
            "AutoModel": "BevtModel",
            "AutoModelForActionDetection": "BevtForActionDetection",
            "AutoModelForPreTraining": "BevtForPreTraining",
            "AutoModelForVideoClassification": "BevtForVideoClassification",
            "AutoImageProcessor": "BevtImageProcessor",
            "AutoVideoProcessor": "BevtVideoProcessor",
        },
    ),
    "bevt_image_codebook": (
        "BevtImageCodebookConfig",
        {
            "AutoModel": "BevtImageCodebook",
            "AutoModelForPreTraining": "BevtImageCodebook",
            "AutoVideoProcessor": "BevtVideoProcessor",
        },
    ),
    "lstcl": (
        "LstclConfig",
        {
            "AutoModel": "LstclModel",
            "AutoModelForActionDetection": "LstclForActionDetection",
            "AutoModelForPreTraining": "LstclForPreTraining",
            "AutoModelForVideoClassification": "LstclForVideoClassification",
            "AutoVideoProcessor": "LstclVideoProcessor",
        },
    ),
    "tubevit": (
        "TubeViTConfig",
        {
            "AutoModel": "TubeViTModel",
            "AutoModelForActionDetection": "TubeViTForActionDetection",
            "AutoModelForJointClassification": "TubeViTForJointClassification",
            "AutoModelForImageClassification": "TubeViTForImageClassification",
            "AutoModelForVideoClassification": "TubeViTForVideoClassification",
            "AutoImageProcessor": "TubeViTImageProcessor",
            "AutoVideoProcessor": "TubeViTVideoProcessor",
        },
    ),
    "uniformer": (
        "UniFormerConfig",
        {
            "AutoBackbone": "UniFormerBackbone",
            "AutoModel": "UniFormerModel",
            "AutoModelForActionDetection": "UniFormerForActionDetection",
            "AutoModelForImageClassification": "UniFormerForImageClassification",
            "AutoModelForKeypointDetection": "UniFormerForPoseEstimation",
            "AutoModelForVideoClassification": "UniFormerForVideoClassification",
            "AutoImageProcessor": "UniFormerImageProcessor",
            "AutoVideoProcessor": "UniFormerVideoProcessor",
        },
    ),
    "uniformer_detector": (
        "UniFormerDetectorConfig",
        {
            "AutoModelForImageSegmentation": "UniFormerForObjectDetection",
            "AutoModelForInstanceSegmentation": "UniFormerForObjectDetection",
            "AutoModelForObjectDetection": "UniFormerForObjectDetection",
            "AutoImageProcessor": "UniFormerDetectorImageProcessor",
        },
    ),
    "uniformer_segmenter": (
        "UniFormerSegmenterConfig",
        {
            "AutoModelForSemanticSegmentation": "UniFormerForSemanticSegmentation",
            "AutoImageProcessor": "UniFormerSegmenterImageProcessor",
        },
    ),
    "uniformer_v2": (
        "UniFormerV2Config",
        {
            "AutoModel": "UniFormerV2Model",
            "AutoModelForActionDetection": "UniFormerV2ForActionDetection",
            "AutoModelForVideoClassification": "UniFormerV2ForVideoClassification",
            "AutoVideoProcessor": "UniFormerV2VideoProcessor",
        },
    ),
    "video_temporal_localizer": (
        "VideoTemporalLocalizerConfig",
        {
            "AutoModel": "VideoTemporalLocalizer",
            "AutoModelForTemporalActionLocalization": "VideoTemporalLocalizer",
            "AutoFeatureExtractor": "TemporalLocalizationProcessor",
        },
    ),
    "videomae_v2": (
        "VideoMAEV2Config",
        {
            "AutoModel": "VideoMAEV2Model",
            "AutoModelForActionDetection": "VideoMAEV2ForActionDetection",
            "AutoModelForPreTraining": "VideoMAEV2ForPreTraining",
            "AutoModelForVideoClassification": "VideoMAEV2ForVideoClassification",
            "AutoVideoProcessor": "VideoMAEV2VideoProcessor",
        },
    ),
}

# Module and function that register the pipeline of a task.
TASKS: dict[str, tuple[str, str]] = {
    "action-detection": ("inference.action_detection", "register_action_detection"),
    "temporal-action-localization": ("inference.temporal_localization", "register_temporal_localization"),
    "video-classification": ("inference.pipeline", "register_pipeline"),
}

# The table with the names of the classes of an auto class that a pipeline of transformers takes.
NAME_TABLES = {
    "AutoModelForImageClassification": "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
    "AutoModelForImageSegmentation": "MODEL_FOR_IMAGE_SEGMENTATION_MAPPING_NAMES",
    "AutoModelForObjectDetection": "MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES",
    "AutoModelForSemanticSegmentation": "MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES",
}

# The table of an auto class that does not hold it itself.
PROCESSOR_TABLES = {
    "AutoFeatureExtractor": "FEATURE_EXTRACTOR_MAPPING",
    "AutoImageProcessor": "IMAGE_PROCESSOR_MAPPING",
    "AutoVideoProcessor": "VIDEO_PROCESSOR_MAPPING",
}


def family_classes(model_type: str) -> tuple[type, dict[str, type]]:
    """
    Load the classes of a family.

    Args:
        model_type (`str`):
            A key of `FAMILIES`.

    Returns:
        `tuple[type, dict[str, type]]`: its configuration, and its classes by the name of their auto class.
    """
    config, classes = FAMILIES[model_type]
    return _named(config), {auto: _named(name) for auto, name in classes.items()}


def _named(name: str) -> type:
    return getattr(import_module(PACKAGE), name)


class LazyTable(dict):
    """
    A table of registered things, some of which are registered when they are looked up.

    The lazy tables of transformers know only its own modules. They look here for what others have registered.

    Args:
        known (`Mapping[Any, Any]`):
            What is registered already.
        pending (`Mapping[str, Callable]`):
            What registers a thing, by its key or, where keys are classes of this package, by the name of the class.
    """

    def __init__(self, known: Mapping[Any, Any], pending: Mapping[str, Callable[[], None]]):
        super().__init__(known)
        self._pending = dict(pending)
        self._lock = threading.RLock()

    def _load(self, key: Any) -> None:
        if isinstance(key, type):
            # code from the Hub has classes of the same names
            key = key.__name__ if key.__module__.startswith(f"{PACKAGE}.") else None
        with self._lock:
            register = self._pending.pop(key, None)
            if register is None:
                return
            try:
                register()
            except BaseException:
                self._pending[key] = register
                raise

    def _load_all(self) -> None:
        for key in list(self._pending):
            self._load(key)

    def __contains__(self, key: object) -> bool:
        self._load(key)
        return super().__contains__(key)

    def __getitem__(self, key: Any) -> Any:
        self._load(key)
        return super().__getitem__(key)

    def get(self, key: Any, default: Any = None) -> Any:
        """See [`dict.get`]."""
        self._load(key)
        return super().get(key, default)

    def __iter__(self) -> Iterator[Any]:
        self._load_all()
        return super().__iter__()

    def __len__(self) -> int:
        self._load_all()
        return super().__len__()

    def keys(self) -> Any:
        """See [`dict.keys`]."""
        self._load_all()
        return super().keys()

    def values(self) -> Any:
        """See [`dict.values`]."""
        self._load_all()
        return super().values()

    def items(self) -> Any:
        """See [`dict.items`]."""
        self._load_all()
        return super().items()


def _register_config(module: ModuleType, model_type: str) -> None:
    module.AutoConfig.register(model_type, _named(FAMILIES[model_type][0]))


def _register_class(module: ModuleType, auto: str, model_type: str) -> None:
    auto_class, (config, classes) = getattr(module, auto), FAMILIES[model_type]
    if auto == "AutoImageProcessor":
        named = {"torchvision": _named(classes[auto])}
        auto_class.register(_named(config), image_processor_classes=named, exist_ok=True)
    else:
        auto_class.register(_named(config), _named(classes[auto]))


def _complete_configurations(module: ModuleType) -> None:
    pending = {model_type: partial(_register_config, module, model_type) for model_type in FAMILIES}
    module.CONFIG_MAPPING._extra_content = LazyTable(module.CONFIG_MAPPING._extra_content, pending)


def _complete_models(module: ModuleType) -> None:
    _complete_auto_classes(module)
    _complete_names(module)


def _complete_auto_classes(module: ModuleType) -> None:
    named = {auto for _, classes in FAMILIES.values() for auto in classes}
    for auto in sorted(named & vars(module).keys()):
        pending = {
            config: partial(_register_class, module, auto, model_type)
            for model_type, (config, classes) in FAMILIES.items()
            if auto in classes
        }
        table = PROCESSOR_TABLES.get(auto)
        mapping = getattr(module, table) if table else getattr(module, auto)._model_mapping
        mapping._extra_content = LazyTable(mapping._extra_content, pending)


def _complete_names(module: ModuleType) -> None:
    """Names that transformers' own pipelines take for the models of their task; others they report as unsupported."""
    for model_type, (_, classes) in FAMILIES.items():
        for auto, table in NAME_TABLES.items():
            if auto in classes:
                getattr(module, table)[model_type] = classes[auto]


def _register_task(task: str) -> None:
    module, function = TASKS[task]
    getattr(import_module(f".{module}", PACKAGE), function)()


def _complete_pipelines(module: ModuleType) -> None:
    registry = module.PIPELINE_REGISTRY
    registry.supported_tasks = LazyTable(
        registry.supported_tasks, {task: partial(_register_task, task) for task in TASKS}
    )


def _complete_adapters(module: ModuleType) -> None:
    import_module(".adapters", PACKAGE).extend_defaults(module)


# Modules that know the families once they are imported.
COMPLETED: dict[str, Callable[[ModuleType], None]] = {
    "transformers.models.auto.configuration_auto": _complete_configurations,
    "transformers.models.auto.feature_extraction_auto": _complete_auto_classes,
    "transformers.models.auto.image_processing_auto": _complete_auto_classes,
    "transformers.models.auto.modeling_auto": _complete_models,
    "transformers.models.auto.video_processing_auto": _complete_auto_classes,
    f"{PACKAGE}.auto": _complete_auto_classes,
    "transformers.pipelines": _complete_pipelines,
    "peft.utils.constants": _complete_adapters,
}


class AfterImport:
    """
    A finder of `sys.meta_path` that calls functions with modules right after their import.

    Args:
        actions (`Mapping[str, Callable]`):
            A function of the module by its name.
    """

    def __init__(self, actions: Mapping[str, Callable[[ModuleType], None]]):
        self.actions = dict(actions)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """
        Find a module that has a function. All others are left to the other finders.

        Args:
            fullname (`str`):
                Name of the module.
            path (`Sequence[str]` or `None`):
                Path of its package.
            target (`ModuleType`, *optional*):
                The module, if it is loaded again.

        Returns:
            `ModuleSpec`, *optional*: how the module is loaded.
        """
        if fullname not in self.actions:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        loader: Any = spec.loader
        execute = loader.exec_module

        def execute_and_complete(module: ModuleType) -> None:
            execute(module)
            self.actions[fullname](module)

        loader.exec_module = execute_and_complete
        return spec


def register_families() -> None:
    """Make the auto classes, the pipelines and PEFT know every family. Doing it twice changes nothing."""
    if any(isinstance(finder, AfterImport) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, AfterImport(COMPLETED))
    for name, complete in COMPLETED.items():
        if name in sys.modules:
            complete(sys.modules[name])


__all__ = ["FAMILIES", "family_classes", "register_families"]
