"""What starts is small: nothing is imported before it is used, and nothing is missing once it is."""

import ast
import inspect
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.pipelines import PIPELINE_REGISTRY

import hf_videovit
from hf_videovit import BevtConfig, BevtModel, VideoMAEV2Config, auto, registration
from hf_videovit.registration import FAMILIES, TASKS, LazyTable, family_classes


ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "torchvision", "huggingface_hub", "numpy", "scipy", "av", "datasets")
ROWS = [(name, auto_class) for name, (_, classes) in FAMILIES.items() for auto_class in classes]


def run_code(code):
    outcome = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120
    )
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout


def test_the_package_help_and_completion_import_nothing_heavy():
    shown = run_code(
        f"""
        import os, sys

        import hf_videovit

        loaded = {{name for name in sys.modules if name.startswith("hf_videovit")}}
        assert loaded == {{"hf_videovit", "hf_videovit.registration"}}, loaded

        from hf_videovit.cli import app

        def ends(words, **environment):
            os.environ.update(environment)
            try:
                app(words, prog_name="hf-videovit")
            except SystemExit as end:
                assert end.code in (0, None), end
            assert not sys.modules.keys() & set({HEAVY!r})

        ends(["--help"])
        ends(["train", "--help"])
        ends([], _HF_VIDEOVIT_COMPLETE="complete_bash", COMP_WORDS="hf-videovit cla", COMP_CWORD="1")
        ends([], COMP_WORDS="hf-videovit classify --num-c", COMP_CWORD="2")
        """
    )
    assert shown.splitlines()[-3:] == ["classify", "--num-clips", "--num-crops"]


def test_a_family_is_loaded_when_it_is_looked_up():
    run_code(
        """
        import sys

        import hf_videovit
        from transformers import AutoConfig, AutoModelForVideoClassification

        def loaded():
            return {name.rpartition(".")[2] for name in sys.modules if name.startswith("hf_videovit.modeling.")}

        assert not loaded()
        config = AutoConfig.for_model("videomae_v2")
        assert not {name for name in loaded() if name.startswith(("modeling_", "video_processing_"))}
        assert config.model_type == "videomae_v2" and type(config) is hf_videovit.VideoMAEV2Config
        assert type(config) in AutoModelForVideoClassification._model_mapping
        assert "modeling_videomae_v2" in loaded()
        assert not loaded() & {"modeling_bevt", "modeling_tubevit", "modeling_uniformer", "configuration_uniformer"}
        """
    )


@pytest.mark.slow
def test_auto_classes_that_were_imported_first_know_the_families():
    run_code(
        """
        import transformers
        from transformers import AutoBackbone, AutoImageProcessor, AutoModel, AutoVideoProcessor, pipeline
        from transformers.pipelines import PIPELINE_REGISTRY

        import hf_videovit

        assert type(transformers.AutoConfig.for_model("bevt")) in AutoModel._model_mapping
        assert hf_videovit.UniFormerConfig in AutoBackbone._model_mapping
        assert hf_videovit.LstclConfig in transformers.VIDEO_PROCESSOR_MAPPING
        assert "action-detection" in PIPELINE_REGISTRY.get_supported_tasks()
        """
    )


def table_of(auto_class):
    where = auto if hasattr(auto, auto_class) else transformers
    if auto_class in registration.PROCESSOR_TABLES:
        return getattr(where, registration.PROCESSOR_TABLES[auto_class])
    return getattr(where, auto_class)._model_mapping


@pytest.mark.parametrize(("name", "auto_class"), ROWS, ids=map(str, ROWS))
def test_auto_classes_know_every_family(name, auto_class):
    config_class, classes = family_classes(name)
    table = table_of(auto_class)
    assert CONFIG_MAPPING[name] is config_class
    assert config_class in table and config_class in list(table)
    found = table[config_class]
    assert classes[auto_class] in (found.values() if isinstance(found, dict) else [found])


def test_names_of_models_and_tasks_are_listed():
    assert FAMILIES.keys() <= set(CONFIG_MAPPING.keys())
    assert TASKS.keys() <= set(PIPELINE_REGISTRY.get_supported_tasks())
    for task in TASKS:
        assert PIPELINE_REGISTRY.check_task(task)[1]["impl"].__module__.startswith("hf_videovit.")


def test_code_of_the_hub_is_not_taken_for_the_package():
    """A copy from a model's repo has a class of the same name."""
    copy = type("BevtConfig", (transformers.PreTrainedConfig,), {"__module__": "transformers_modules.bevt"})
    assert BevtConfig in transformers.MODEL_MAPPING and transformers.MODEL_MAPPING[BevtConfig] is BevtModel
    assert copy not in transformers.MODEL_MAPPING


def test_a_table_loads_what_is_looked_up():
    calls = []

    def register(name):
        calls.append(name)
        table[name] = name.upper()

    table = LazyTable({"known": 1}, {name: lambda name=name: register(name) for name in ("a", "b", "c")})
    assert "known" in table and table.get("other") is None and not calls
    assert "a" in table and table["b"] == "B" and calls == ["a", "b"]
    assert dict(table) == {"known": 1, "a": "A", "b": "B", "c": "C"}
    assert len(table) == 4 and calls == ["a", "b", "c"]


def test_what_could_not_be_loaded_is_tried_again():
    attempts = []

    def register():
        attempts.append(1)
        if len(attempts) == 1:
            raise ImportError("broken")
        table["a"] = 1

    table = LazyTable({}, {"a": register})
    with pytest.raises(ImportError, match="broken"):
        table["a"]
    assert table["a"] == 1


def test_registering_twice_changes_nothing():
    finders, content = list(sys.meta_path), CONFIG_MAPPING._extra_content
    registration.register_families()
    assert sys.meta_path == finders and CONFIG_MAPPING._extra_content is content


def test_public_names_are_stated_once_for_people_and_once_for_type_checkers():
    """`MODULES`, the imports for type checkers and `__all__` name the same things."""
    tree = ast.parse(inspect.getsource(hf_videovit))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    checked = {node.module: {alias.name for alias in node.names} for node in block.body}
    assert checked == {module: set(names) for module, names in hf_videovit.MODULES.items()}
    assert sorted(hf_videovit.MODULE_OF) == hf_videovit.__all__
    assert set(hf_videovit.__all__) <= set(dir(hf_videovit))
    for name in hf_videovit.__all__:
        assert getattr(hf_videovit, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'BevtModle'"):
        hf_videovit.BevtModle  # noqa: B018


@pytest.mark.slow
def test_the_message_without_the_import_is_the_one_that_the_docs_explain(tmp_path):
    """transformers may learn to load what other packages register; then the docs are to say so."""
    VideoMAEV2Config.from_size("small").save_pretrained(tmp_path)
    shown = run_code(
        f"""
        from transformers import AutoConfig

        try:
            AutoConfig.from_pretrained({str(tmp_path)!r})
        except ValueError as error:
            print(error)

        import hf_videovit

        print(AutoConfig.from_pretrained({str(tmp_path)!r}).model_type)
        """
    )
    message = "Transformers does not recognize this architecture"
    assert message in shown and message in (ROOT / "docs" / "quickstart.md").read_text()
    assert shown.splitlines()[-1] == "videomae_v2"
