"""The command line: tables for people, JSON for machines, one line and an exit code for what goes wrong."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from typer.testing import CliRunner

from hf_videovit import VideoMAEV2ForPreTraining, get_video_features, list_published
from hf_videovit.cli import app
from hf_videovit.cli.models import only_guesses
from hf_videovit.training.evaluation.evaluation import EvaluationResult
from hf_videovit.training.recipe_files import read_recipe
from tests.clips import moving_square_clip, write_clip
from tests.saved_model import LABELS, save_tiny_classifier, tiny_classifier, tiny_config, tiny_processor


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_tiny_classifier(tmp_path_factory.mktemp("model") / "classifier"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for index, name in enumerate(("right", "up")):
        write_clip(folder / name / f"{name}.mp4", moving_square_clip(name, seed=index))
    return folder


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    path = tmp_path_factory.mktemp("damaged") / "bad [1].mp4"
    path.write_bytes(b"nothing" * 100)
    return str(path)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def run_json(*arguments):
    result = run(*arguments, "--json")
    return result.exit_code, json.loads(result.stdout)


def test_classify_prints_a_table(model, folder):
    result = run("classify", folder, "--model", model, "--top-k", 2)
    assert result.exit_code == 0
    assert sum(label in result.stdout for label in LABELS) >= 2
    assert "right.mp4" in result.stdout


def test_classify_json_is_what_the_pipeline_says(model, folder):
    from transformers import pipeline

    code, rows = run_json("classify", folder, "--model", model, "--top-k", 6, "--device", "cpu")
    assert code == 0
    assert [row["file"].rsplit("/")[-1] for row in rows] == ["right.mp4", "up.mp4"]
    classifier = pipeline("video-classification", model=model, device="cpu")
    assert [row["predictions"] for row in rows] == classifier([row["file"] for row in rows], top_k=None)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_classify_goes_on_after_an_unreadable_file(model, folder, damaged, batch_size):
    files = [damaged, folder / "up" / "up.mp4", folder / "missing.mp4"]
    code, rows = run_json("classify", *files, "--model", model, "--batch-size", batch_size)
    assert code == 1
    assert ["error" in row for row in rows] == [True, False, True]
    result = run("classify", *files, "--model", model)
    assert result.exit_code == 1
    assert "not read" in result.stdout
    assert "2 file(s) could not be read" in result.stderr


def test_classify_with_other_views(model, tmp_path):
    """The answer is that of the views which were asked for, not of those in the model's folder."""
    wide = write_clip(tmp_path / "wide.mp4", moving_square_clip(width=96))
    views = {"num_clips": 2, "num_crops": 3}
    options = ("--num-clips", 2, "--num-crops", 3, "--top-k", 6, "--device", "cpu")
    _, [row] = run_json("classify", wide, "--model", model, *options)
    pixel_values = tiny_processor(**views)(wide, return_tensors="pt")["pixel_values"]
    assert pixel_values.shape[:2] == (1, 6)
    with torch.no_grad():
        expected = tiny_classifier()(pixel_values=pixel_values).logits[0].softmax(-1).tolist()
    scores = {one["label"]: one["score"] for one in row["predictions"]}
    assert [scores[label] for label in LABELS] == pytest.approx(expected, abs=1e-6)


def test_classify_refuses_a_model_without_a_classifier(folder, tmp_path):
    VideoMAEV2ForPreTraining(tiny_config()).save_pretrained(tmp_path)
    result = run("classify", folder, "--model", tmp_path)
    assert result.exit_code == 2
    assert "VideoMAEV2ForPreTraining, which has no classifier of videos" in result.stderr


def test_embed(model, folder, tmp_path):
    output = tmp_path / "features.safetensors"
    code, rows = run_json("embed", folder, "--model", model, "--output", output, "--batch-size", 2)
    assert code == 0
    assert [row["shape"] for row in rows] == [[32], [32]]
    files = [row["file"] for row in rows]
    expected = get_video_features(tiny_classifier(), tiny_processor(), files, batch_size=2)
    with safe_open(output, "np") as saved:
        assert saved.metadata()["pooling"] == "default"
        for file, feature in zip(files, expected, strict=True):
            np.testing.assert_allclose(saved.get_tensor(file), feature.numpy(), atol=1e-5)


def test_embed_windows_into_a_folder(model, folder, damaged, tmp_path):
    result = run("embed", folder, damaged, "--model", model, "--output", tmp_path / "npy", "--stride", 4)
    assert result.exit_code == 1
    assert "2 of 3 videos" in result.stdout
    assert np.load(tmp_path / "npy" / "up.npy").shape == (6, 32)
    result = run("embed", folder, "--model", model, "--output", tmp_path / "long", "--window", 400)
    assert result.exit_code == 0
    assert "2 videos are shorter than a window and have no features: right, up" in result.stderr


@pytest.mark.parametrize("output", ["x.safetensors", "x.npy", "folder/up.npy"])
def test_embed_replaces_no_file(model, folder, tmp_path, output):
    path = tmp_path / output
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    result = run("embed", folder, "--model", model, "--output", path.parent if "/" in output else path)
    assert result.exit_code == 2
    assert f"`output` must not exist, got {path}" in result.stderr
    assert path.read_text() == "mine"


def test_embed_of_a_pretraining_checkpoint(folder, tmp_path):
    VideoMAEV2ForPreTraining(tiny_config()).save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    result = run("embed", folder, "--model", tmp_path, "--output", tmp_path / "x.npy")
    assert result.exit_code == 2
    assert "choose 'mean', 'first' or 'tokens'" in result.stderr
    assert (
        run("embed", folder, "--model", tmp_path, "--output", tmp_path / "x.npy", "--pooling", "mean").exit_code == 0
    )


def test_evaluate(tmp_path, folder):
    names = {"id2label": {0: "right", 1: "up"}, "label2id": {"right": 0, "up": 1}}
    model = save_tiny_classifier(tmp_path / "two", config=names)
    output, predictions = tmp_path / "results.json", tmp_path / "predictions.jsonl"
    code, result = run_json(
        "evaluate", "--model", model, "--data", folder, "--output", output, "--predictions", predictions
    )
    assert code == 0
    assert result["num_videos"] == 2
    assert 0 <= result["metrics"]["top1"] <= 1
    assert json.loads(output.read_text())["metrics"] == result["metrics"]
    assert len(predictions.read_text().splitlines()) == 2
    assert (tmp_path / "results_confusion.png").is_file()
    said = run("evaluate", "--model", model, "--data", folder)
    assert "top1: " in said.stdout and "most often confused with" in said.stdout
    guesses = result["metrics"]["top1"] <= 0.5  # of two clips of two classes
    assert guesses == ("not better than guessing" in said.stdout) == ("hf-videovit train" in said.stderr)


@pytest.mark.parametrize(
    ("answers", "labels", "guesses"),
    [
        ("abab", "abab", False),
        ("aaaa", "abab", True),
        ("aaab", "abab", False),
        ("abaa", "aaab", True),
        ("c", "a", True),
    ],
)
def test_what_only_guesses(answers, labels, guesses):
    """No better than chance, or than always the most frequent class."""
    logits = np.eye(3)[["abc".index(one) for one in answers]]
    numbers = np.array(["abc".index(one) for one in labels])
    result = EvaluationResult([*map(str, range(len(labels)))], numbers, logits, [], [*"abc"])
    result.metrics = {"top1": float((logits.argmax(1) == numbers).mean())}
    assert only_guesses(result) == guesses


def test_evaluate_takes_a_list_and_the_folder_of_its_videos(tmp_path, folder):
    names = {"id2label": {0: "right", 1: "up"}, "label2id": {"right": 0, "up": 1}}
    model = save_tiny_classifier(tmp_path / "two", config=names)
    rows = [f"{path.relative_to(folder)},{path.parent.name}" for path in sorted(folder.rglob("*.mp4"))]
    (tmp_path / "val.csv").write_text("\n".join(["path,label", *rows]))
    said = run("evaluate", "--model", model, "--data", tmp_path / "val.csv")
    assert said.exit_code == 2 and "of an evaluation: `--videos`" in said.stderr
    code, of_list = run_json("evaluate", "--model", model, "--data", tmp_path / "val.csv", "--videos", folder)
    _, of_folder = run_json("evaluate", "--model", model, "--data", folder)
    assert code == 0 and of_list["metrics"] == of_folder["metrics"]


def test_a_recipe_is_printed_whole():
    said = run("recipes", "uniformer/digit_motion", "--yaml").stdout
    assert yaml.safe_load(said) == read_recipe("uniformer/digit_motion")
    assert run("recipes", "uniformer", "--yaml").exit_code == 2


def test_evaluate_refuses_other_labels(model, folder, tmp_path):
    write_clip(tmp_path / "sideways" / "a.mp4", moving_square_clip())
    result = run("evaluate", "--model", model, "--data", tmp_path)
    assert result.exit_code == 2
    assert "sideways" in result.stderr


def test_prepare(folder, damaged, tmp_path):
    raw = tmp_path / "raw"
    for path in [*folder.rglob("*.mp4"), Path(damaged)]:
        (raw / "any").mkdir(parents=True, exist_ok=True)
        (raw / "any" / path.name).write_bytes(path.read_bytes())
    rows = ["file,label", "any/right.mp4,right+moving", "any/up.mp4,up", "any/bad [1].mp4,up"]
    (raw / "clips.csv").write_text("\n".join(rows))
    words = ["prepare", raw / "clips.csv", tmp_path / "out", "--label-separator", "+", "--short-side", 32]
    code, result = run_json(*words)
    assert code == 1  # one is damaged
    assert (result["videos"], result["num_labels"], len(result["failures"])) == ({"train": 2}, 3, 1)
    again = run(*words)
    assert "2 train; 3 labels -> " in again.stdout
    assert "train/any/bad [1].mp4: " in again.stderr
    assert run(*words, "--crf", 30).exit_code == 2
    assert run("prepare", raw / "clips.csv", tmp_path / "ssv2", "--labels", "ssv2").exit_code == 2


def test_prepare_for_training(folder, tmp_path):
    recipe = "videomae_v2/four_actions"
    code, result = run_json("prepare", folder, tmp_path / "out", "--for-training", recipe, "--crf", 30)
    assert code == 0 and sum(result["videos"].values()) > 0
    encoding = json.loads((tmp_path / "out" / "prepared.json").read_text())["encoding"]
    expected = {"short_side": 64, "crf": 30, "keyframe_every": 48, "reencode": True, "references_every": 4}
    assert encoding == expected
    assert len(result["psnr"]) == sum(result["videos"].values())
    worst = min(result["psnr"], key=result["psnr"].get)
    told = run("prepare", folder, tmp_path / "out", "--for-training", recipe, "--crf", 30).stdout
    assert f"lowest {result['psnr'][worst]:.1f} dB ({worst})" in " ".join(told.split())
    for words, message in (
        (["--for-training", "no/recipe"], "neither a file nor the name of a recipe"),
        (["--for-training", "actionformer/thumos14_i3d"], "its method is temporal_localization"),
        (["--for-training", recipe, "--layout", "ava"], "--layout ava leaves videos as they are"),
        (["--crf", 20, "--layout", "slowfast"], "--crf is for clips that are written"),
        (["--engine", "ray", "--layout", "people", "--detector", "any"], "--engine ray is for clips"),
        (["--address", "auto", "--layout", "ava"], "--address is for clips"),
    ):
        refused = run("prepare", folder, tmp_path / "other", *words)
        assert refused.exit_code == 2 and message in " ".join(refused.stderr.split())


@pytest.fixture(scope="module")
def official():
    return Path(__file__).parent / "fixtures" / "videomae_v2" / "finetune"


def official_flags(official):
    """What an official file's shapes do not show, from the fixture's own description."""
    config = json.loads((official / "config.json").read_text())
    fields = {
        "image_size": config["img_size"],
        "num_frames": config["all_frames"],
        "num_attention_heads": config["num_heads"],
    }
    return [word for name, value in fields.items() for word in ("--set", f"{name}={value}")]


def test_convert(official, folder, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("".join(f"class {index}\n" for index in range(7)))
    command = [
        "convert",
        "--model-type",
        "videomae_v2",
        "--checkpoint",
        official / "checkpoint.pth",
        "--labels",
        names,
    ]
    output = tmp_path / "converted"
    task = ["--task", "video-classification", *official_flags(official)]
    code, report = run_json(*command, *task, "--output", output)
    assert code == 0
    assert report["folder"] == str(output)
    assert "Converted from `checkpoint.pth`" in (output / "README.md").read_text()
    code, rows = run_json("classify", folder, "--model", output, "--device", "cpu")
    assert code == 0
    assert rows[0]["predictions"][0]["label"].startswith("class ")
    again = run(*command, *task, "--output", output)
    assert again.exit_code == 2
    assert "not empty" in again.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--published NAME, or --model-type and --task"),
        (
            ["--published", "videomae-v2-base-k710-distilled", "--checkpoint", "missing.pth"],
            "missing.pth does not exist: `hf-videovit models videomae-v2-base-k710-distilled --download` gets it",
        ),
        (["--published", "nothing"], "`name` must be one of"),
        (["--model-type", "videomae_v2", "--task", "pretraining"], "pretraining"),
        (
            ["--model-type", "videomae_v2", "--task", "video-classification", "--set", "image_size"],
            "needs FIELD=VALUE",
        ),
        (
            ["--model-type", "videomae_v2", "--task", "video-classification", "--dtype", "int3"],
            "`dtype` must be one of",
        ),
    ],
)
def test_convert_says_what_is_wrong(official, tmp_path, flags, message):
    command = ["convert", "--checkpoint", official / "checkpoint.pth", "--output", tmp_path / "out"]
    result = run(*command, *official_flags(official), *flags)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_convert_lists_the_published_checkpoints():
    code, rows = run_json("convert", "--list")
    assert code == 0
    assert [row["name"] for row in rows] == list_published()
    table = run("convert", "--list").stdout
    assert all(row["name"] in table for row in rows)
    assert "Pass --output and either --checkpoint or --from-hub" in run("convert").stderr


def test_train(folder, tmp_path):
    base = save_tiny_classifier(tmp_path / "base")
    flags = ["--epochs", 1, "--batch_size", 2, "--num_workers", 0, "--eval_data", folder, "--cpu", "--no_progress"]
    output = tmp_path / "trained"
    result = run("train", "--checkpoint", base, "--data", folder, "--output_dir", output, *flags)
    assert result.exit_code == 0, result.output
    assert "top1: " in result.stdout
    assert f"Next: hf-videovit classify VIDEO --model {output}\n" in result.stderr
    assert "| training videos | 2 |" in (output / "README.md").read_text()
    lines = [json.loads(line) for line in (output / "logs" / "metrics.jsonl").read_text().splitlines()]
    validated = next(line["validation"] for line in lines if "validation" in line)
    assert list(validated)[0] == "top1" and 0 < validated["loss"] < float("inf")
    assert Image.open(output / "logs" / "hardest_clips.png").height > 100
    assert run("classify", folder, "--model", output, "--device", "cpu").exit_code == 0
    result = run("train", "--data", folder, "--learningrate", 1)
    assert result.exit_code == 2
    assert "did you mean `learning_rate`?" in result.stderr
    assert "--learning_rate" in run("train", "--fields").stdout


TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
    "image_size": 32,
    "num_frames": 4,
}


def test_pretrain_probe_and_preview(folder, tmp_path):
    output = tmp_path / "pretrained"
    flags = [word for name, value in TINY.items() for word in (f"--config.{name}", value)]
    flags += ["--data", folder, "--eval_data", folder, "--output_dir", output, "--epochs", 1, "--batch_size", 2]
    flags += ["--num_workers", 0, "--cpu", "--no_progress", "--probe", "knn"]
    result = run("pretrain", *flags)
    assert result.exit_code == 0, result.output
    assert "validation: explained: " in result.stdout
    card = (output / "README.md").read_text()
    assert "| videos recognised from frozen features: majority | 50.0 % |" in card
    assert (output / "reconstructions.png").exists()
    assert (output / "logs" / "curves.png").exists()

    code, answer = run_json("probe", output, "--data", folder, "--eval-data", folder, "--device", "cpu")
    assert code == 0
    assert (set(answer["metrics"]), answer["num_eval"]) == ({"knn", "linear", "majority"}, 2)
    assert answer["metrics"]["knn"] == 1.0  # the very clips that vote
    assert "`probe` must be one of" in run("probe", output, "--data", folder, "--probe", "knm").stderr

    picture = tmp_path / "preview.png"
    result = run("preview", "--checkpoint", output, "--data", folder, "--clips", 2, "--mixup", 0.8, "-o", picture)
    assert result.exit_code == 0, result.output
    assert " right" in result.stdout
    assert picture.exists()
    result = run("preview", "--checkpoint", output, "--data", folder, "--method", "masked_pixels", "-o", picture)
    assert result.exit_code == 0, result.output


def test_pretraining_is_that_of_the_family(folder):
    result = run("pretrain", "--model_type", "bevt", "--size", "tiny", "--plan")
    assert "masked_words" in result.stdout
    small = ("--config.depths", "[1,1]", "--config.num_attention_heads", "[1,2]", "--config.hidden_sizes", "[32,64]")
    result = run("pretrain", "--model_type", "bevt", "--data", folder, "--cpu", *small)
    assert result.exit_code != 0
    assert "`tokenizer` is needed" in result.stderr


def test_doctor(folder, damaged, tmp_path):
    result = run("doctor")
    assert result.exit_code == 0
    for fact in ("torch", "decoder pyav", "FFmpeg", "cores"):
        assert fact in result.stdout
    code, report = run_json("doctor", folder, damaged, "--report", tmp_path / "report.csv")
    assert code == 1
    assert [video["status"] for video in report["videos"]].count("ok") == 2
    assert len((tmp_path / "report.csv").read_text().splitlines()) == 4
    result = run("doctor", folder, damaged)
    assert "2 of 3 videos are completely readable" in result.stdout
    assert "bad" in result.stdout
    assert run("doctor", "--report", "report.txt").exit_code == 2


def test_errors_are_one_line(folder, tmp_path):
    result = run("classify", folder, "--model", tmp_path / "nothing")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" not in result.output
    assert result.stdout == ""
    with pytest.raises(OSError):
        CliRunner().invoke(app, ["--debug", "classify", str(folder), "--model", "/no/where"], catch_exceptions=False)


def test_wrong_use_is_exit_code_2():
    assert run("classify").exit_code == 2
    assert run("classify", "a.mp4", "--model", "m", "--top-k", 0).exit_code == 2
    assert run("clasify").exit_code == 2


def test_help_names_every_command():
    result = run("--help")
    assert result.exit_code == 0
    commands = "convert classify embed evaluate train pretrain probe preview prepare generate doctor"
    for command in commands.split():
        assert command in result.stdout


@pytest.mark.slow
def test_a_process_of_its_own_prints_json_and_nothing_else(model, folder, damaged):
    command = [sys.executable, "-m", "hf_videovit.cli", "classify", folder, damaged, "--model", model, "--json"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert len(json.loads(result.stdout)) == 3


def test_a_plan_is_shown_and_nothing_runs(tmp_path):
    for label in ("left", "right"):
        write_clip(tmp_path / "clips" / label / "clip.mp4", np.zeros((4, 32, 32, 3), np.uint8))
    fields = {"size": "small", "data": tmp_path / "clips", "max_steps": 7, "output_dir": tmp_path / "out"}
    words = [word for name, value in fields.items() for word in (f"--{name}", str(value))]
    for command in ("train", "pretrain"):
        result = CliRunner().invoke(app, [command, "--plan", *words])
        assert result.exit_code == 0, result.output
        assert "parameters" in result.output
    assert not (tmp_path / "out").exists()
