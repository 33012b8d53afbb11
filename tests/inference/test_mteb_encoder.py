"""Our models in MTEB: one tiny task on videos of this machine."""

import numpy as np
import pytest
from datasets import Dataset, DatasetDict, Video
from torch.utils.data import DataLoader

from hf_videovit import get_video_features
from tests.clips import moving_square_clip, write_clip
from tests.saved_model import save_tiny_classifier, tiny_classifier, tiny_processor


mteb = pytest.importorskip("mteb", reason="hf_videovit[mteb] is not installed")
pytest.importorskip("torchcodec", reason="hf_videovit[mteb] is not installed")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_tiny_classifier(tmp_path_factory.mktemp("owner") / "squares", num_clips=2))


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two classes that differ in brightness."""
    root, rows = tmp_path_factory.mktemp("clips"), {}
    for split, count in (("train", 8), ("test", 4)):
        files = []
        for number in range(2 * count):
            frames = moving_square_clip(num_frames=12, seed=number) // 2 + 120 * (number % 2)
            files.append(str(write_clip(root / split / f"{number}.mp4", frames)))
        rows[split] = Dataset.from_dict({"video": files, "label": [0, 1] * count}).cast_column("video", Video())
    return DatasetDict(rows)


@pytest.fixture
def task(videos):
    from mteb.abstasks.classification import AbsTaskClassification
    from mteb.abstasks.task_metadata import TaskMetadata

    class Brightness(AbsTaskClassification):
        metadata = TaskMetadata(
            name="BrightnessOfClips",
            description="Bright or dark clips.",
            dataset={"path": "local/clips", "revision": "1"},
            type="VideoClassification",
            category="v2c",
            modalities=["video"],
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="accuracy",
        )
        input_column_name = "video"
        n_experiments = 2

        def load_data(self, **options):
            self.dataset, self.data_loaded = videos, True

    return Brightness()


def test_a_task_is_evaluated(model, task, videos):
    from hf_videovit.inference.mteb_encoder import VideoEncoder

    encoder = VideoEncoder(model, device="cpu")
    meta = encoder.mteb_model_meta
    assert meta.name.endswith("/squares") and meta.modalities == ["video"] and meta.embed_dim == 32
    (result,) = mteb.evaluate(encoder, task, cache=None, show_progress_bar=False).task_results
    assert result.task_name == "BrightnessOfClips"
    assert result.get_score() == 1


def test_features_are_those_of_the_protocol(model, task, videos):
    from hf_videovit.inference.mteb_encoder import VideoEncoder

    place = {"task_metadata": task.metadata, "hf_split": "test", "hf_subset": "default"}
    loader = DataLoader(videos["test"], batch_size=3)
    found = VideoEncoder(model, device="cpu", pooling="mean").encode(loader, **place, show_progress_bar=False)
    paths = [row["path"] for row in videos["test"].cast_column("video", Video(decode=False))["video"]]
    expected = get_video_features(tiny_classifier(), tiny_processor(num_clips=2), paths, pooling="mean")
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    texts = DataLoader([{"text": "a clip", "video": paths[0]}])
    with pytest.raises(ValueError, match="must be videos only, got text, video"):
        VideoEncoder(model, device="cpu").encode(texts, **place, show_progress_bar=False)
