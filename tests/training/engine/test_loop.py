"""The loop on a toy problem: numbers instead of videos."""

import json

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import nn

from hf_videovit.modeling.video_decoding import VideoDecodingError
from hf_videovit.training.arguments import OptimizationArguments, RunConfig
from hf_videovit.training.data.bad_videos import BadVideoLedger
from hf_videovit.training.data.sources import VideoList, VideoSource
from hf_videovit.training.data.streaming import ClipStream
from hf_videovit.training.engine import loop as engine
from hf_videovit.training.engine.checkpointing import list_checkpoints
from hf_videovit.training.engine.loop import Observer, fit
from hf_videovit.training.schedules import schedule_steps
from hf_videovit.training.tasks import Task


class NumberLoader:
    def __call__(self, record):
        if record.sample.id.startswith("bad"):
            raise VideoDecodingError(record.sample.id, "pyav", "broken", "undecodable")
        number = float(record.sample.id.split("_")[1])
        return {"inputs": torch.tensor([number / 10, 1.0]), "targets": torch.tensor(number / 5)}


class Regression(Task):
    """Has dropout, so that the random state matters; `poison` makes the loss NaN in the given calls."""

    def __init__(self, poison=()):
        super().__init__(nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.2), nn.Linear(8, 1)))
        self.poison, self.calls, self.seen = set(poison), 0, []

    def forward(self, batch):
        self.calls += 1
        self.seen += [round(value * 10) for value in batch["inputs"][:, 0].tolist()]
        loss = (self.model(batch["inputs"])[:, 0] - batch["targets"]).square().mean()
        return {"loss": loss * float("nan") if self.calls in self.poison else loss, "error": loss.sqrt()}


def to_device(rows, device):
    return {name: value.to(device) for name, value in rows.items()}


def run(tmp_path, good=22, bad=0, poison=(), num_workers=0, validate=None, observers=(), **fields):
    torch.manual_seed(0)
    fields = {
        "batch_size": 4,
        "epochs": 3,
        "learning_rate": 0.01,
        "log_every": 1,
        "progress": False,
        "curves": False,
        "cpu": True,
    } | fields
    config = RunConfig.from_fields(output_dir=str(tmp_path), **fields)
    names = [f"good_{index}" for index in range(good)] + [f"bad_{index}" for index in range(bad)]
    ledger = BadVideoLedger(
        tmp_path / "logs" / "bad.jsonl", config.data.bad_video_limit, config.data.bad_video_minimum
    )
    stream = ClipStream(
        VideoList(names, names, [0] * len(names), ["only"]),
        NumberLoader(),
        config.optimization.batch_size,
        config.run.seed,
        num_workers=num_workers,
        drop_last=config.optimization.drop_last,
        on_bad_video=ledger.add,
    )
    task = Regression(poison)
    result = fit(
        task,
        stream,
        config,
        accelerator=Accelerator(cpu=True),
        prepare_batch=to_device,
        ledger=ledger,
        validate=validate,
        observers=observers,
    )
    return result, task


def losses(result):
    return [
        (line["step"], line["loss"], line["grad_norm"], line["error"]) for line in result.history if "loss" in line
    ]


def test_every_sample_once_an_epoch_and_the_schedule_ends(tmp_path):
    result, task = run(tmp_path)
    assert (result.steps, result.epochs) == (18, 3)
    for epoch in range(3):
        assert sorted(task.seen[22 * epoch : 22 * epoch + 22]) == list(range(22))
    assert result.history[-1]["step"] == 18
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    written = [json.loads(line) for line in (tmp_path / "logs" / "metrics.jsonl").read_text().splitlines()]
    assert written == result.history


@pytest.mark.parametrize(
    "options", [{}, {"num_workers": 2}, {"accumulation": 2, "ema_decay": 0.9, "bad": 1}, {"log_every": 3}]
)
@pytest.mark.parametrize("killed_at", [3, 8, 11])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path, monkeypatch, options, killed_at):
    options = {"save_steps": 2, "bad_video_limit": 0.2, "epochs": 4, **options}
    whole, _ = run(tmp_path / "whole", **options)
    after_step = engine._Run._after_step

    def kill(self, *arguments):
        after_step(self, *arguments)
        if self.progress.step == killed_at:
            raise KeyboardInterrupt

    monkeypatch.setattr(engine._Run, "_after_step", kill)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", **options)
    monkeypatch.setattr(engine._Run, "_after_step", after_step)
    resumed, _ = run(tmp_path / "killed", resume=True, **options)
    assert losses(resumed) == losses(whole)
    for first, second in zip(whole.model.parameters(), resumed.model.parameters()):
        assert torch.equal(first, second)
    for name in ("bad.jsonl",) if "bad" in options else ():
        assert (tmp_path / "killed" / "logs" / name).read_text() == (tmp_path / "whole" / "logs" / name).read_text()


def test_accumulation_gives_the_gradient_of_the_whole_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(nn.Dropout, "forward", lambda self, inputs: inputs)
    whole, _ = run(tmp_path / "whole", batch_size=8)
    parts, _ = run(tmp_path / "parts", batch_size=2, accumulation=4)
    assert whole.steps == parts.steps
    for first, second in zip(losses(whole), losses(parts)):
        assert first[:2] == pytest.approx(second[:2], rel=1e-5)


def test_bad_videos_are_skipped_and_written_down(tmp_path):
    result, task = run(tmp_path, good=20, bad=2, bad_video_limit=0.1)
    assert sorted(task.seen[:20]) == list(range(20))
    lines = [json.loads(line) for line in (tmp_path / "logs" / "bad.jsonl").read_text().splitlines()]
    assert sorted((line["epoch"], line["id"]) for line in lines) == sorted(
        (epoch, name) for epoch in range(3) for name in ("bad_0", "bad_1")
    )
    assert result.bad_videos == 6


def test_too_many_bad_videos_stop_the_run(tmp_path):
    with pytest.raises(RuntimeError, match="cannot be read, more than `bad_video_limit`"):
        run(tmp_path, good=20, bad=10)
    with pytest.raises(RuntimeError, match="No training video can be read"):
        run(tmp_path / "none", good=0, bad=3)


def test_a_step_that_is_not_finite_is_left_out_and_many_stop_the_run(tmp_path):
    result, _ = run(tmp_path / "one", poison={3})
    assert all(torch.isfinite(parameter).all() for parameter in result.model.parameters())
    record = json.loads((tmp_path / "one" / "logs" / "nonfinite.rank0.jsonl").read_text())
    assert record["step"] == 3
    assert len(record["ids"]) == 4
    with pytest.raises(
        FloatingPointError,
        match="not finite in 3 consecutive steps, the last of which was step 6 with the clips good_",
    ):
        run(tmp_path / "many", poison={4, 5, 6})


def test_best_weights_are_kept(tmp_path):
    scores = iter([0.1, 0.9, 0.5])
    weights = []

    def validate(model):
        weights.append([parameter.detach().clone() for parameter in model.parameters()])
        return {"top1": next(scores)}

    result, _ = run(tmp_path, validate=validate, keep_best=True)
    assert all(torch.equal(first, second) for first, second in zip(result.model.parameters(), weights[1]))
    assert [line["validation"]["top1"] for line in result.history if "validation" in line] == [0.1, 0.9, 0.5]


def test_a_resumed_run_still_knows_its_best_weights(tmp_path):
    """Scored 0.1, 0.9 and, after a pause, 0.5: those of 0.9 are kept."""
    scores, weights = iter([0.1, 0.9, 0.5]), []

    def validate(model):
        weights.append([parameter.detach().clone() for parameter in model.parameters()])
        return {"top1": next(scores)}

    run(tmp_path, epochs=2, validate=validate, keep_best=True)
    resumed, _ = run(tmp_path, epochs=3, validate=validate, keep_best=True, resume=True)
    assert len(weights) == 3
    assert all(torch.equal(first, second) for first, second in zip(resumed.model.parameters(), weights[1]))


def test_last_checkpoints_are_kept_and_not_overwritten_unasked(tmp_path):
    run(tmp_path, keep_checkpoints=2)
    assert [path.name for path in list_checkpoints(tmp_path / "checkpoints")] == ["step_00000012", "step_00000018"]
    with pytest.raises(ValueError, match="give `resume` to continue it, `overwrite` to start again"):
        run(tmp_path)
    result, _ = run(tmp_path, overwrite=True, epochs=1)
    assert result.steps == 6
    longer, _ = run(tmp_path, resume=True, epochs=2)
    assert [line["step"] for line in longer.history] == list(range(1, 13))


def test_length_of_a_run(tmp_path):
    result, _ = run(tmp_path, max_steps=7)
    assert (result.steps, result.epochs) == (7, 2)
    result, task = run(tmp_path, drop_last=True, epochs=1, overwrite=True)
    assert (result.steps, len(task.seen)) == (5, 20)


@pytest.mark.parametrize("change", [{"good": 24}, {"good": 20}, {"good": 21, "bad": 1}])
def test_a_run_is_not_resumed_on_other_data(tmp_path, change):
    options = {"bad_video_limit": 0.2}
    run(tmp_path, epochs=1, **options)
    count = change["good"] + change.get("bad", 0)
    message = rf"changed since: it was 22 samples \(sha256 \w{{16}}\), is {count} samples \(sha256 \w{{16}}\)"
    with pytest.raises(ValueError, match=message):
        run(tmp_path, epochs=2, resume=True, **options, **change)
    result, _ = run(tmp_path, epochs=2, resume=True, **options)
    assert result.steps == 12


@pytest.mark.parametrize("damage", ["edited", "truncated", "other"])
def test_a_damaged_checkpoint_is_named(tmp_path, damage):
    run(tmp_path, epochs=1)
    path = list_checkpoints(tmp_path / "checkpoints")[-1]
    if damage == "edited":
        state = json.loads((path / "state.json").read_text())
        (path / "state.json").write_text(json.dumps(state | {"step": -5}))
    elif damage == "truncated":
        (path / "optimizer.safetensors").write_bytes((path / "optimizer.safetensors").read_bytes()[:-4])
    else:
        save_file({"a": torch.zeros(1)}, path / "task.safetensors")
    with pytest.raises(ValueError, match=str(path)):
        run(tmp_path, epochs=2, resume=True)


class Uncounted(VideoSource):
    """A stream that does not say how long it is."""

    label_names, num_samples, reads_ahead = ["only"], None, True

    def __init__(self, samples):
        self.samples = samples

    def share(self, rank, world, seed, epoch, start=0):
        return self.samples.share(rank, world, seed, epoch, start)

    def share_size(self, rank, world):
        return None

    def with_label_names(self, label_names):
        return self


def test_an_uncounted_stream_needs_a_number_of_steps():
    names = [f"good_{index}" for index in range(5)]
    source = Uncounted(VideoList(names, names, [0] * 5, ["only"]))
    stream = ClipStream(source, NumberLoader(), 2, seed=0)
    with pytest.raises(ValueError, match="`max_steps` is needed"):
        schedule_steps(OptimizationArguments(), [stream.num_batches()])
    with pytest.raises(ValueError, match="`warmup_steps` is needed"):
        schedule_steps(OptimizationArguments(max_steps=9, warmup_epochs=1), [stream.num_batches()])
    assert schedule_steps(OptimizationArguments(max_steps=9, warmup_steps=2), [stream.num_batches()]).total_steps == 9
    assert [len(batch) for batch in stream.epoch(0)] == [2, 2, 1]


def test_a_run_that_gets_no_better_ends_early_and_stays_ended(tmp_path):
    scores = iter([0.5, 0.9, 0.9, 0.8, 1.0])
    result, _ = run(tmp_path, epochs=9, patience=2, validate=lambda model: {"top1": next(scores)})
    assert result.epochs == 4
    again, _ = run(tmp_path, epochs=9, patience=2, validate=lambda model: {"top1": next(scores)}, resume=True)
    assert again.steps == result.steps
    losses = iter([3.0, 2.0, 1.0, 1.5, 1.2])
    result, _ = run(
        tmp_path / "loss", epochs=9, patience=2, best_metric="loss", validate=lambda model: {"loss": next(losses)}
    )
    assert result.epochs == 5


def test_a_run_with_other_settings_is_no_continuation(tmp_path):
    run(tmp_path, epochs=1)
    with pytest.raises(ValueError, match="`batch_size` was 4, is 8; `learning_rate` was 0.01, is 0.02. Restore them"):
        run(tmp_path, epochs=1, resume=True, learning_rate=0.02, batch_size=8)
    with pytest.raises(ValueError, match="`seed` was 0, is 1"):
        run(tmp_path, resume=True, seed=1)
    run(tmp_path, epochs=2, resume=True, log_every=2, keep_checkpoints=1, worker_timeout=5)


def looks(tmp_path, observer, **options):
    """A run with an observer, and what it was shown."""
    seen = []

    def look(model, step):
        seen.append(step)
        torch.manual_seed(99)
        return {"width": model[0].weight.abs().sum().item()}

    result, _ = run(tmp_path, observers=[observer(look)], **options)
    return result, seen


def test_observers_look_when_they_are_due_and_disturb_nothing(tmp_path):
    alone, _ = run(tmp_path / "alone")
    by_epochs, seen = looks(tmp_path / "epochs", lambda look: Observer("probe", look, epochs=2, at_start=True))
    assert seen == [0, 12, 18]  # the last epoch is always looked at
    by_steps, seen = looks(tmp_path / "steps", lambda look: Observer("probe", look, epochs=1, steps=5))
    assert seen == [5, 6, 10, 12, 15, 18]
    assert losses(by_epochs) == losses(by_steps) == losses(alone)
    assert [line["step"] for line in by_steps.history if "probe" in line] == seen
    silent, _ = run(tmp_path / "silent", observers=[Observer("picture", lambda model, step: {})])
    assert not [line for line in silent.history if "picture" in line]


def test_a_killed_run_has_every_look_once(tmp_path, monkeypatch):
    def observer(look):
        return Observer("probe", look, steps=3, at_start=True)

    whole, _ = looks(tmp_path / "whole", observer, save_steps=2)
    after_step = engine._Run._after_step
    for killed_at in (7, 13):

        def kill(self, *arguments, last=killed_at):
            if self.progress.step == last:
                raise KeyboardInterrupt
            after_step(self, *arguments)

        monkeypatch.setattr(engine._Run, "_after_step", kill)
        with pytest.raises(KeyboardInterrupt):
            looks(tmp_path / "killed", observer, save_steps=2, resume=killed_at > 7)
    monkeypatch.setattr(engine._Run, "_after_step", after_step)
    resumed, _ = looks(tmp_path / "killed", observer, save_steps=2, resume=True)
    expected, found = ([line for line in result.history if "probe" in line] for result in (whole, resumed))
    assert found == expected
