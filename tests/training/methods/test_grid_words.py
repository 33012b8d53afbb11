"""A localiser learns spoken words in long videos in some seconds of one core."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import hf_videovit.training
from hf_videovit.training.arguments import RunConfig
from hf_videovit.training.methods.choosing import finetune


FIXTURE = Path(__file__).parents[2] / "fixtures" / "grid_words_features"
RECIPE = Path(hf_videovit.training.__file__).parent / "recipes" / "actionformer" / "grid_words.yaml"
RANDOM, LOGISTIC = 0.015, 0.041  # average mAP of 200 random segments a video, and of a logistic regression of windows


@pytest.mark.slow
def test_148_steps_find_words_and_not_words_played_backwards(tmp_path):
    """The official code reaches 0.317 after as many steps of a longer schedule."""
    stored = load_file(FIXTURE / "features.safetensors")
    scale = stored.pop("scale")
    description = {"encoder": "principal components", "feature_size": 64, "window": 4, "stride": 2}
    save_file(
        {name: value * scale for name, value in stored.items()},
        tmp_path / "features.safetensors",
        metadata={"description": json.dumps(description)},
    )
    fields = {
        "data": str(FIXTURE / "truth.json"),
        "features": str(tmp_path / "features.safetensors"),
        "output_dir": str(tmp_path / "out"),
        "max_steps": 148,
        "ema_decay": None,
        "eval_every": 0,
        "save_every": 0,
        "cpu": True,
        "progress": False,
        "curves": False,
    }
    result = finetune(RunConfig.from_yaml(RECIPE, fields))
    assert (result.facts["steps"], result.facts["num_parameters"]) == (148, 332_302)
    assert result.evaluation.num_truth == 414
    assert result.evaluation.metrics["mAP"] >= 0.15 > 3 * LOGISTIC > 3 * RANDOM
