"""`torch.export` for every model class: the part of transformers' exporter tests that needs no further runtime."""

import copy

import torch
from torch.export import Dim


class ExportTesterMixin:
    """
    Mixed into `ModelTesterMixin`. `export_skips` of a test class maps a model class's name to the reason why it cannot
    be exported.
    """

    test_torch_exportable = True
    export_skips: dict[str, str] = {}

    def test_torch_export_dynamic(self):
        """One program serves every batch size."""
        for model_class in self.exportable_classes():
            with self.subTest(model_class.__name__):
                model, inputs = self.model_and_inputs(model_class)
                batch = {name: {0: Dim.DYNAMIC} for name in inputs}
                program = torch.export.export(model, (), copy.deepcopy(inputs), dynamic_shapes=batch)
                doubled = {name: torch.cat((value, value.flip(0))) for name, value in inputs.items()}
                for case in (inputs, doubled):
                    self.check_exported(program, model, case)

    def exportable_classes(self):
        if not self.test_torch_exportable:
            self.skipTest("`test_torch_exportable` is off for these models.")
        classes = [one for one in self.all_model_classes if one.__name__ not in self.export_skips]
        if not classes:
            self.skipTest("; ".join(f"{name}: {reason}" for name, reason in self.export_skips.items()))
        return classes

    def model_and_inputs(self, model_class):
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        model = model_class(config).eval()
        inputs = self._prepare_for_class(inputs, model_class)
        return model, {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)}

    def check_exported(self, program, model, inputs):
        with torch.no_grad():
            expected, actual = model(**inputs), program.module()(**inputs)
        assert list(expected.keys()) == list(actual.keys())
        for name, value in expected.items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(
                    actual[name], value, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
                )
