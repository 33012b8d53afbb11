"""`pipeline("video-classification")` on our models, and on everybody else's as before."""

import copy
import functools
import io
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, IterableDataset, Video
from PIL import Image
from transformers import (
    VideoClassificationPipeline,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    VideoMAEImageProcessor,
    VideoMAEVideoProcessor,
    pipeline,
)
from transformers.pipelines.pt_utils import KeyDataset

import hf_videovit  # noqa: F401  registers the pipeline
from hf_videovit.inference.pipeline import ClipClassificationPipeline
from hf_videovit.modeling.video_decoding import VideoDecodingError
from hf_videovit.training.evaluation.evaluation import evaluate_model
from tests.clips import moving_square_clip, write_clip
from tests.saved_model import LABELS, save_tiny_classifier, tiny_classifier, tiny_processor


TASK = "video-classification"


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return save_tiny_classifier(tmp_path_factory.mktemp("model"), num_clips=2, num_crops=3)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    lengths = {"right": 24, "left": 30, "down": 3}  # the last is shorter than a clip
    return [
        write_clip(folder / f"{name}.mp4", moving_square_clip(name, num_frames=length, width=96, seed=index))
        for index, (name, length) in enumerate(lengths.items())
    ]


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    path = tmp_path_factory.mktemp("damaged") / "damaged.mp4"
    path.write_bytes(b"no video at all" * 100)
    return path


@pytest.fixture(scope="module")
def classifier(model_folder):
    return pipeline(TASK, model=str(model_folder), device="cpu")


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        """Nothing on standard error."""


def by_label(result):
    return {entry["label"]: entry["score"] for entry in result}


def same_scores(left, right):
    left, right = by_label(left), by_label(right)
    return left.keys() == right.keys() and all(abs(left[label] - right[label]) < 1e-5 for label in left)


def test_our_models_get_our_pipeline(classifier):
    assert type(classifier) is ClipClassificationPipeline
    assert isinstance(classifier, VideoClassificationPipeline)


@pytest.mark.parametrize("merging", ["softmax_mean", "logits_mean"])
@pytest.mark.parametrize("views", [{}, {"num_clips": 2, "num_crops": 3}])
def test_scores_are_those_of_model_and_processor_bit_for_bit(clips, merging, views):
    model, processor = tiny_classifier(view_merging=merging), tiny_processor(**views)
    classifier = pipeline(TASK, model=model, video_processor=processor, device="cpu")
    for clip in clips:
        pixel_values = processor(str(clip), return_tensors="pt")["pixel_values"]
        assert pixel_values.ndim == (6 if views else 5)
        with torch.no_grad():
            expected = model(pixel_values=pixel_values).logits[0].softmax(-1).tolist()
        scores = by_label(classifier(str(clip), top_k=None))
        assert [scores[label] for label in LABELS] == expected


def test_scores_are_those_of_the_evaluation_bit_for_bit(classifier, clips):
    samples = [(clip.name, str(clip), None) for clip in clips]
    evaluated = evaluate_model(classifier.model, classifier.video_processor, samples)
    for clip, logits in zip(clips, evaluated.logits, strict=True):
        scores = by_label(classifier(str(clip), top_k=None))
        assert [scores[label] for label in LABELS] == torch.from_numpy(logits).softmax(-1).tolist()


def test_probabilities_of_the_views_are_averaged(clips):
    model = tiny_classifier()
    one_by_one = tiny_processor(num_clips=2, num_crops=3)(str(clips[0]), return_tensors="pt")["pixel_values"][0]
    with torch.no_grad():
        expected = model(pixel_values=one_by_one).logits.softmax(-1).mean(dim=0)
    classifier = pipeline(TASK, model=model, video_processor=tiny_processor(num_clips=2, num_crops=3), device="cpu")
    scores = by_label(classifier(str(clips[0]), top_k=None))
    assert [scores[label] for label in LABELS] == pytest.approx(expected.tolist(), abs=1e-6)


def test_every_form_of_a_video_gives_the_same_scores(classifier, clips, model_folder):
    path = clips[0]
    expected = classifier(str(path))
    with path.open("rb") as file:
        forms = [path, path.read_bytes(), file, io.BytesIO(path.read_bytes()), {"path": str(path), "bytes": None}]
        for form in forms:
            assert classifier(form) == expected
    whole = moving_square_clip("right", num_frames=24, width=96)
    as_array, as_tensor = classifier(whole), classifier(torch.from_numpy(whole))
    assert same_scores(as_array, as_tensor)
    assert same_scores(as_array, classifier([Image.fromarray(frame) for frame in whole]))


def test_urls(classifier, clips, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    handler = functools.partial(QuietHandler, directory=str(clips[0].parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert classifier(f"{address}/{clips[0].name}") == classifier(str(clips[0]))
        with pytest.raises(VideoDecodingError, match="nothing"):
            classifier(f"{address}/nothing.mp4")
        server.shutdown()


def test_collections(classifier, clips):
    paths = [str(clip) for clip in clips]
    expected = classifier(paths)
    assert len(expected) == len(paths)
    assert classifier(tuple(paths)) == expected
    assert list(classifier(path for path in paths)) == expected
    assert list(classifier(iter(paths))) == expected
    rows = Dataset.from_dict({"video": paths, "label": [0, 1, 2]})
    assert list(classifier(rows)) == expected
    assert list(classifier(KeyDataset(rows, "video"))) == expected
    streamed = IterableDataset.from_generator(lambda: ({"video": path} for path in paths))
    assert list(classifier(streamed)) == expected
    assert classifier([]) == []


def test_data_sets_of_videos_are_decoded_here(classifier, clips):
    pytest.importorskip("torchcodec", reason="datasets writes videos with it", exc_type=(ImportError, RuntimeError))
    columns = {"video": [{"path": clip.name, "bytes": clip.read_bytes()} for clip in clips]}
    rows = Dataset.from_dict(columns, features=Features({"video": Video(decode=False)})).cast_column("video", Video())
    expected = classifier([str(clip) for clip in clips])
    assert list(classifier(rows)) == expected
    assert list(classifier(rows.to_iterable_dataset())) == expected


@pytest.mark.parametrize("batch_size", [2, 3, 8])
def test_batches(classifier, clips, batch_size):
    paths = [str(clip) for clip in clips]
    one_by_one = classifier(paths, top_k=None)
    for many in (
        classifier(paths, top_k=None, batch_size=batch_size),
        list(classifier(iter(paths), top_k=None, batch_size=batch_size)),
    ):
        assert all(same_scores(left, right) for left, right in zip(one_by_one, many, strict=True))


def test_batch_of_arrays(classifier):
    videos = np.stack([moving_square_clip(name, width=96) for name in ("right", "up")])
    together = classifier(videos, batch_size=2)
    assert [len(result) for result in together] == [5, 5]
    assert same_scores(together[1], classifier(videos[1]))


def test_workers(classifier, clips):
    paths = [str(clip) for clip in clips]
    assert classifier(paths, num_workers=2) == classifier(paths)


@pytest.mark.parametrize(("top_k", "count"), [(1, 1), (3, 3), (6, 6), (100, 6), (None, 6)])
def test_top_k(classifier, clips, top_k, count):
    result = classifier(str(clips[0]), top_k=top_k)
    scores = [entry["score"] for entry in result]
    assert len(result) == count
    assert scores == sorted(scores, reverse=True)


def test_arguments_at_construction_hold_until_a_call_says_otherwise(model_folder, clips):
    classifier = pipeline(TASK, model=str(model_folder), device="cpu", top_k=2)
    assert len(classifier(str(clips[0]))) == 2
    assert len(classifier(str(clips[0]), top_k=None)) == 6
    assert len(classifier(str(clips[0]))) == 2


def test_function_to_apply(classifier, clips):
    raw = by_label(classifier(str(clips[0]), top_k=None, function_to_apply="none"))
    logits = torch.tensor([raw[label] for label in LABELS])
    for name, function in (("softmax", lambda logits: logits.softmax(-1)), ("sigmoid", torch.sigmoid)):
        scores = by_label(classifier(str(clips[0]), top_k=None, function_to_apply=name))
        assert [scores[label] for label in LABELS] == pytest.approx(function(logits).tolist())


def test_multi_label_models_get_sigmoids(clips):
    model = tiny_classifier(problem_type="multi_label_classification")
    processor = tiny_processor(num_clips=2)
    with torch.no_grad():
        views = model(pixel_values=processor(str(clips[0]), return_tensors="pt")["pixel_values"][0]).logits
    classifier = pipeline(TASK, model=model, video_processor=processor, device="cpu")
    scores = by_label(classifier(str(clips[0]), top_k=None))
    assert [scores[label] for label in LABELS] == pytest.approx(views.sigmoid().mean(dim=0).tolist(), abs=1e-6)


def test_sampling_arguments_reach_the_processor(classifier, clips):
    video = str(clips[1])
    model = classifier.model
    for given, fields in (
        ({"num_frames": 8}, {"num_frames": 8}),
        ({"frame_sampling_rate": 5}, {"frame_stride": 5}),
        ({"num_clips": 1, "num_crops": 1}, {"num_clips": 1, "num_crops": 1}),
    ):
        processor = tiny_processor(**{"num_clips": 2, "num_crops": 3, **fields})
        with torch.no_grad():
            expected = model(**processor(video, return_tensors="pt")).logits[0].softmax(-1).max().item()
        assert classifier(video, top_k=1, **given)[0]["score"] == expected
        assert classifier(video, top_k=1)[0]["score"] != expected


def test_num_frames_follows_the_protocol_of_a_processor_that_leaves_it_open(clips):
    open_processor, model = tiny_processor(num_frames=None), tiny_classifier()
    classifier = pipeline(TASK, model=model, video_processor=open_processor, device="cpu")
    told = pipeline(TASK, model=model, video_processor=tiny_processor(num_frames=8), device="cpu")
    assert classifier(str(clips[0]), num_frames=8) == told(str(clips[0]))
    assert open_processor.num_frames is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_k": 0}, "`top_k` must be a positive int, got 0"),
        ({"top_k": True}, "`top_k` must be a positive int, got True"),
        ({"num_frames": -1}, "`num_frames` must be a positive int, got -1"),
        ({"num_clips": 1.5}, "`num_clips` must be a positive int"),
        ({"function_to_apply": "tanh"}, "`function_to_apply` must be one of 'softmax', 'sigmoid', 'none', got 'tanh'"),
        ({"on_error": "skip"}, "`on_error` must be one of 'raise', 'report', got 'skip'"),
    ],
)
def test_bad_arguments_are_named(classifier, clips, arguments, message):
    with pytest.raises(ValueError, match=message):
        classifier(str(clips[0]), **arguments)


def test_no_argument_is_ignored(classifier, clips, model_folder):
    with pytest.raises(
        ValueError, match="`top_n` must be one of the arguments top_k, .*batch_size. Did you mean `top_k`"
    ):
        classifier(str(clips[0]), top_n=3)
    with pytest.raises(ValueError, match="`frame_rate` must be one of the arguments top_k, "):
        pipeline(TASK, model=str(model_folder), device="cpu", frame_rate=2)
    segments = pipeline(
        TASK, model=tiny_classifier(), video_processor=tiny_processor(frame_sampling="segment"), device="cpu"
    )
    with pytest.raises(ValueError, match="only applies to dense sampling.*'segment'"):
        segments(str(clips[0]), frame_sampling_rate=2)
    with pytest.raises(ValueError, match="got None"):
        classifier(None)
    with pytest.raises(ValueError, match="needs a `video` column, got columns \\['clip'\\]"):
        classifier([{"clip": str(clips[0])}])


def test_unreadable_files(classifier, clips, damaged):
    for bad in (damaged, damaged.with_name("missing.mp4")):
        with pytest.raises(VideoDecodingError, match=bad.name):
            classifier(str(bad))
    files = [str(damaged), str(clips[0]), str(damaged), str(clips[1])]
    expected = [None, classifier(files[1]), None, classifier(files[3])]
    for batch_size in (1, 2, 3, 4):
        results = classifier(files, batch_size=batch_size, on_error="report")
        for result, good in zip(results, expected, strict=True):
            if good is None:
                assert "damaged.mp4" in result["error"]
            else:
                assert same_scores(result, good)
    assert "damaged.mp4" in classifier(str(damaged), on_error="report")["error"]


def test_videos_of_several_sizes_in_a_batch(clips, tmp_path):
    processor = tiny_processor(do_center_crop=False)
    tall = write_clip(tmp_path / "tall.mp4", moving_square_clip(height=96, width=64))
    classifier = pipeline(TASK, model=tiny_classifier(), video_processor=processor, device="cpu")
    paths = [str(clips[0]), str(tall), str(clips[1])]
    for one, many in zip([classifier(path) for path in paths], classifier(paths, batch_size=3), strict=True):
        assert same_scores(one, many)


def test_half_precision_weights(clips):
    """The clip is given to the model in its own type, and the scores are those of full precision but for rounding."""
    for clip in clips:
        half, full = (
            by_label(
                pipeline(TASK, model=tiny_classifier().to(dtype), video_processor=tiny_processor(), device="cpu")(
                    str(clip), top_k=None
                )
            )
            for dtype in (torch.bfloat16, torch.float32)
        )
        assert [half[label] for label in LABELS] == pytest.approx([full[label] for label in LABELS], abs=0.02)
        assert max(half, key=half.get) == max(full, key=full.get)
        assert half != full


def test_saving_keeps_the_processor(classifier, tmp_path, clips):
    classifier.save_pretrained(tmp_path)
    again = pipeline(TASK, model=str(tmp_path), device="cpu")
    assert again.video_processor.num_clips == 2
    assert again(str(clips[0])) == classifier(str(clips[0]))


def stock_model():
    torch.manual_seed(0)
    config = VideoMAEConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
        num_frames=4,
        num_labels=3,
    )
    return VideoMAEForVideoClassification(config).eval()


def test_other_models_behave_as_before(clips):
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    cases = [
        ({"image_processor": VideoMAEImageProcessor(**sizes)}, str(clips[0])),
        ({"video_processor": VideoMAEVideoProcessor(**sizes)}, moving_square_clip()),
    ]
    for processors, video in cases:
        model = stock_model()
        ours = pipeline(TASK, model=model, device="cpu", **processors)
        stock = VideoClassificationPipeline(model=model, task=TASK, device="cpu", **processors)
        assert type(ours) is VideoClassificationPipeline
        assert ours(video) == stock(video)
        assert ours([video, video]) == stock([video, video])
        assert ours(video, top_k=1, function_to_apply="sigmoid") == stock(video, top_k=1, function_to_apply="sigmoid")
    with pytest.raises(ValueError, match="requires either a video processor or an image processor"):
        pipeline(TASK, model=stock_model(), device="cpu")


def test_a_copied_pipeline_is_the_same_pipeline(tmp_path):
    """Workers that are not forked get a copy."""
    path = write_clip(tmp_path / "clip.mp4", moving_square_clip(num_frames=16))
    classifier = pipeline("video-classification", model=str(save_tiny_classifier(tmp_path / "model")))
    twin = copy.deepcopy(classifier)
    assert type(twin) is type(classifier)
    answer, expected = twin(str(path)), classifier(str(path))
    assert by_label(answer) == pytest.approx(by_label(expected), abs=1e-6)
