"""AOTInductor as a runtime of transformers' exporters: a library of machine code, compiled ahead of time."""

import dataclasses
import shutil
import tempfile
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import _inductor
from transformers import PreTrainedModel
from transformers.exporters import DynamoConfig, DynamoExporter, ExportFormat, ModelRunner, register_backend
from transformers.exporters.metadata import load_treespec
from transformers.utils import logging


logger = logging.get_logger(__name__)


@dataclass
class AotiConfig(DynamoConfig):
    """
    As [`~transformers.exporters.DynamoConfig`].

    Args:
        export_format (`str`, *optional*, defaults to `"aoti"`):
            Name in the manifest.
    """

    export_format: ExportFormat | str = "aoti"


class AotiExporter(DynamoExporter):
    """
    Export to a package of AOTInductor (`.pt2`), which needs a C++ compiler here and none where it runs. It runs on the
    kind of processor that it was compiled on.
    """

    export_format = "aoti"
    config_class = AotiConfig

    def export_program(
        self, model: PreTrainedModel, sample_inputs: MutableMapping[str, Any], config: Any
    ) -> tuple["AotiProgram", Any]:
        """
        Trace and compile.

        Args:
            model (`PreTrainedModel`):
                The model.
            sample_inputs (`MutableMapping[str, Any]`):
                Inputs of one forward pass.
            config ([`AotiConfig`]):
                Options.

        Returns:
            `tuple`: the [`AotiProgram`] and what the exporter recorded.
        """
        # quantisers of the traced graph ask for a format they know
        traced = dataclasses.replace(config, export_format=ExportFormat.DYNAMO)
        program, metadata = super().export_program(model, sample_inputs, traced)
        compiled = AotiProgram()
        try:
            _compile(program, compiled.path, freezing=True)
        except TypeError:  # torchao 0.18: its fusion of 8-bit products fails where an open axis reaches `expand`
            if config.quantizer is None:
                raise
            logger.warning("torchao cannot fuse this graph's 8-bit products with open axes; closed ones are faster.")
            _compile(program, compiled.path, freezing=False)
        return compiled, metadata

    @classmethod
    def save_program(cls, program: "AotiProgram", path: str | Path) -> None:
        """
        Copy the package.

        Args:
            program ([`AotiProgram`]):
                The package.
            path (`str` or `Path`):
                New file.
        """
        shutil.copyfile(program.path, path)

    @classmethod
    def load_program(cls, path: str | Path) -> "AotiProgram":
        """
        Name a package.

        Args:
            path (`str` or `Path`):
                Its file.

        Returns:
            [`AotiProgram`]
        """
        return AotiProgram(Path(path))


def _compile(program: torch.export.ExportedProgram, path: Path, freezing: bool) -> None:
    """Threads are those of the running process. TorchInductor freezes weights only where no gradient is wanted."""
    options = {"freezing": freezing, "cpp.dynamic_threads": True}
    with torch.no_grad():
        _inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=options)


class AotiProgram:
    """
    The file of a compiled package.

    Args:
        path (`Path`, *optional*):
            The file. By default it lies in a folder that goes when this object does.
    """

    def __init__(self, path: Path | None = None):
        self._folder = None if path else tempfile.TemporaryDirectory()
        self.path = path or Path(self._folder.name, "model.pt2")  # type: ignore[union-attr]


class AotiRunner(ModelRunner):
    """
    Runs a package.

    Args:
        package (`AOTICompiledModel`):
            The loaded package.
        metadata (`ExportMetadata`):
            What the exporter recorded.
    """

    def __init__(self, package: Any, metadata: Any):
        super().__init__(metadata)
        self.package = package
        self.traced_kwarg_order = load_treespec(metadata.in_spec).children_specs[1].context

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return torch.device("cpu")

    @classmethod
    def from_program(cls, program: AotiProgram, metadata: Any, device: Any = None) -> "AotiRunner":
        """
        Load the machine code of a package.

        Args:
            program ([`AotiProgram`]):
                The package.
            metadata (`ExportMetadata`):
                What the exporter recorded.
            device (*optional*):
                Not used: a package runs where it was compiled for.

        Returns:
            [`AotiRunner`]
        """
        return cls(_inductor.aoti_load_package(str(program.path)), metadata)

    def __call__(self, share_inputs: bool = True, share_outputs: bool = False, **kwargs: Any) -> Any:
        """
        Run it.

        Args:
            share_inputs (`bool`, *optional*):
                Not used: nothing is copied.
            share_outputs (`bool`, *optional*):
                Not used: nothing is copied.
            kwargs:
                Inputs of the model.

        Returns:
            What the model returns.
        """
        with torch.no_grad():
            return self.package(**{name: kwargs[name] for name in self.traced_kwarg_order})


register_backend(AotiExporter, AotiRunner)

__all__ = ["AotiConfig", "AotiExporter", "AotiProgram", "AotiRunner"]
