"""
Probes measure how well the features of a frozen model separate classes. Any model of the package can be probed,
whatever its head: its encoder is used, in evaluation mode. The model and the state of random number generators are
left unchanged.

- `knn`: the labels of the nearest training clips by cosine, each vote weighted by `exp(similarity / temperature)`.
  This is the usual protocol of self-supervised learning, by Wu et al., 2018 ("Unsupervised feature learning via
  non-parametric instance discrimination").
- `linear`: multinomial logistic regression on the standardised features. Of a few weight penalties it takes the one
  that is best on every fifth training clip, which is held out for that. The final fit uses all training clips.
- `attentive`: one learned query that attends to all tokens, followed by a linear layer.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.utils import logging

from ...modes import evaluation_mode
from ..arguments import DataArguments, ProbeArguments, RunConfig
from ..data.bad_videos import BadVideo
from ..data.opening import load_sources
from ..data.processors import ClipProcessor
from ..data.sources import VideoSource
from ..data.streaming import ClipStream
from ..engine.loop import Observer
from ..schedules import cosine_with_warmup
from .evaluation import EvaluationClipLoader
from .metrics import compute_metric


logger = logging.get_logger(__name__)

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
HELD_OUT = 5  # every fifth training clip is held out to choose the penalty
LINEAR_STEPS = 60
ATTENTIVE_BATCH = 64
ATTENTIVE_LEARNING_RATE = 1e-3  # peak of the schedule
HEAD_DIM = 64


@dataclass
class FrozenFeatures:
    """
    Features of labelled clips from a frozen model.

    Args:
        ids (`list[str]`):
            Ids of the clips that could be read, in the data's order.
        labels (`torch.Tensor` of shape `(num_clips,)`):
            Class indices.
        pooled (`torch.Tensor` of shape `(num_clips, hidden_size)`):
            One feature vector per clip, float32.
        tokens (`torch.Tensor` of shape `(num_clips, num_tokens, hidden_size)`, or `None`):
            Tokens for the attentive probe, float16.
        failed (`list[str]`):
            Ids of the clips that could not be read.
        label_names (`list[str]`):
            Names of the classes.
    """

    ids: list[str]
    labels: torch.Tensor
    pooled: torch.Tensor
    tokens: torch.Tensor | None
    failed: list[str]
    label_names: list[str]


@dataclass
class ProbeResult:
    """
    The result of probes.

    Args:
        metrics (`dict[str, float]`):
            `knn`, `linear`, `attentive`: accuracy on the evaluation clips; `majority`: accuracy of always predicting
            the most frequent training label.
        num_train (`int`):
            Number of training clips.
        num_eval (`int`):
            Number of evaluation clips.
        failed (`list[str]`, *optional*, defaults to `[]`):
            Ids of the clips of either set that could not be read.
        label_names (`list[str]`, *optional*, defaults to `[]`):
            Names of the classes.
    """

    metrics: dict[str, float]
    num_train: int
    num_eval: int
    failed: list[str] = field(default_factory=list)
    label_names: list[str] = field(default_factory=list)


def extract_features(
    model: PreTrainedModel,
    processor: ClipProcessor,
    source: VideoSource,
    *,
    batch_size: int = 8,
    num_workers: int = 0,
    accelerator: Accelerator | None = None,
    max_tokens: int = 0,
    timeout: float = 300.0,
) -> FrozenFeatures:
    """
    Extract features of every labelled clip of a source, from one view each. With several processes, each extracts
    those of its share, and all get the complete result.

    Args:
        model (`PreTrainedModel`):
            Any model of the package, on the device to use. The features are the pooled output of its encoder, or the
            mean of its tokens if it has none.
        processor ([`ClipProcessor`]):
            Processor of the model.
        source ([`VideoSource`]):
            The clips.
        batch_size (`int`, *optional*, defaults to 8):
            Clips in a forward pass.
        num_workers (`int`, *optional*, defaults to 0):
            Number of decoding processes.
        accelerator (`Accelerator`, *optional*):
            The processes that share the clips. Defaults to this process alone.
        max_tokens (`int`, *optional*, defaults to 0):
            Largest number of tokens kept of each clip; 0 keeps none. Longer sequences are average-pooled.
        timeout (`float`, *optional*, defaults to 300.0):
            Seconds after which workers that do not answer are considered hung.

    Returns:
        [`FrozenFeatures`]

    Raises:
        ValueError: a clip has no label or several labels, or no clip can be read.
    """
    rank, world = (0, 1) if accelerator is None else (accelerator.process_index, accelerator.num_processes)
    bad: list[BadVideo] = []
    loader = EvaluationClipLoader(processor, "validation")
    stream = ClipStream(
        source,
        loader,
        batch_size,
        seed=None,
        rank=rank,
        world=world,
        num_workers=num_workers,
        timeout=timeout,
        on_bad_video=bad.append,
    )
    rows: list[tuple[int, str, int, np.ndarray, np.ndarray | None]] = []
    with evaluation_mode(model):
        for batch in stream.epoch(0):
            labels = batch.rows["labels"]
            if labels.ndim != 1 or bool((labels < 0).any()):
                raise ValueError(
                    f"Probes need one label per clip, but one of the clips {', '.join(batch.ids)} has none or several"
                )
            pooled, tokens = _encode(model.base_model, batch.rows["pixel_values"], max_tokens)
            for index, (position, name) in enumerate(zip(batch.positions, batch.ids)):
                own = None if tokens is None else tokens[index]
                rows.append((position * world + rank, name, int(labels[index]), pooled[index], own))
    failed = [(video.position * world + rank, video.id) for video in bad]
    if world > 1:
        rows, failed = gather_object(rows), gather_object(failed)
    rows.sort(key=lambda row: row[0])
    if not rows:
        raise ValueError("No clip for the probes can be read")
    return FrozenFeatures(
        ids=[row[1] for row in rows],
        labels=torch.tensor([row[2] for row in rows]),
        pooled=torch.from_numpy(np.stack([row[3] for row in rows])),
        tokens=torch.from_numpy(np.stack([row[4] for row in rows if row[4] is not None])) if max_tokens else None,
        failed=[name for _, name in sorted(failed)],
        label_names=list(source.label_names),
    )


def knn_scores(
    train: torch.Tensor,
    labels: torch.Tensor,
    queries: torch.Tensor,
    num_labels: int,
    neighbours: int = 20,
    temperature: float = 0.07,
) -> torch.Tensor:
    """
    Scores of a weighted vote of the nearest training clips.

    ```
    for query in queries:
        for clip, label in nearest(train, query, neighbours):            # by cosine
            scores[query, label] += exp(cosine(query, clip) / temperature)
    ```

    Args:
        train (`torch.Tensor` of shape `(num_train, hidden_size)`):
            Features of the training clips.
        labels (`torch.Tensor` of shape `(num_train,)`):
            Classes of the training clips.
        queries (`torch.Tensor` of shape `(num_queries, hidden_size)`):
            Features to classify.
        num_labels (`int`):
            Number of classes.
        neighbours (`int`, *optional*, defaults to 20):
            Number of clips that vote; all if there are fewer.
        temperature (`float`, *optional*, defaults to 0.07):
            A smaller temperature gives the nearest clips more weight.

    Returns:
        `torch.Tensor` of shape `(num_queries, num_labels)`.
    """
    train, queries = F.normalize(train.float(), dim=-1), F.normalize(queries.float(), dim=-1)
    scores = torch.zeros(len(queries), num_labels, device=train.device)
    neighbours = min(neighbours, len(train))
    for start in range(0, len(queries), 256):
        similarity, nearest = (queries[start : start + 256] @ train.T).topk(neighbours, dim=1)
        votes = ((similarity - 1) / temperature).exp()  # minus 1, the largest cosine, against overflow
        scores[start : start + 256].scatter_add_(1, labels[nearest], votes)
    return scores


def linear_scores(train: torch.Tensor, labels: torch.Tensor, queries: torch.Tensor, num_labels: int) -> torch.Tensor:
    """
    Logits of a logistic regression on frozen features.

    Args:
        train (`torch.Tensor` of shape `(num_train, hidden_size)`):
            Features of the training clips.
        labels (`torch.Tensor` of shape `(num_train,)`):
            Classes of the training clips.
        queries (`torch.Tensor` of shape `(num_queries, hidden_size)`):
            Features to classify.
        num_labels (`int`):
            Number of classes.

    Returns:
        `torch.Tensor` of shape `(num_queries, num_labels)`.
    """
    mean, deviation = train.mean(dim=0), train.std(dim=0, unbiased=False) + 1e-6
    train, queries = (train - mean) / deviation, (queries - mean) / deviation
    judges = torch.arange(len(train), device=train.device) % HELD_OUT == HELD_OUT - 1
    best = PENALTIES[len(PENALTIES) // 2]
    if judges.any():
        known, asked = (train[~judges], labels[~judges]), (train[judges], labels[judges])
        scores = [
            _accuracy(_logits(_fit_linear(*known, num_labels, penalty), asked[0]), asked[1]) for penalty in PENALTIES
        ]
        best = max(zip(scores, PENALTIES))[1]  # of equal scores the one with the larger penalty
    return _logits(_fit_linear(train, labels, num_labels, best), queries)


class AttentiveHead(nn.Module):
    """
    A classifier on frozen tokens: one learned query attends to all tokens, and a linear layer classifies the result.

    Args:
        hidden_size (`int`):
            Size of a token.
        num_labels (`int`):
            Number of classes.
    """

    def __init__(self, hidden_size: int, num_labels: int):
        super().__init__()
        num_heads = next(count for count in range(max(1, hidden_size // HEAD_DIM), 0, -1) if hidden_size % count == 0)
        self.norm = nn.LayerNorm(hidden_size)
        self.query = nn.Parameter(torch.randn(1, 1, hidden_size) * 0.02)
        self.attention = nn.MultiheadAttention(hidden_size, num_heads, batch_first=True)
        self.pooled_norm = nn.LayerNorm(hidden_size)
        self.classifier = nn.Linear(hidden_size, num_labels)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """
        Classify clips.

        Args:
            tokens (`torch.Tensor` of shape `(batch_size, num_tokens, hidden_size)`):
                Tokens of the clips.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_labels)`: logits.
        """
        tokens = self.norm(tokens)
        query = self.query.expand(len(tokens), -1, -1)
        collected, _ = self.attention(query, tokens, tokens, need_weights=False)  # (batch, 1, hidden)
        return self.classifier(self.pooled_norm((query + collected)[:, 0]))


def attentive_scores(
    train: torch.Tensor,
    labels: torch.Tensor,
    queries: torch.Tensor,
    num_labels: int,
    epochs: int = 20,
    learning_rate: float = 1e-3,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """
    Logits of an [`AttentiveHead`] trained on frozen tokens. The initial weights are always the same.

    Args:
        train (`torch.Tensor` of shape `(num_train, num_tokens, hidden_size)`):
            Tokens of the training clips.
        labels (`torch.Tensor` of shape `(num_train,)`):
            Classes of the training clips.
        queries (`torch.Tensor` of shape `(num_queries, num_tokens, hidden_size)`):
            Tokens of the clips to classify.
        num_labels (`int`):
            Number of classes.
        epochs (`int`, *optional*, defaults to 20):
            Number of passes over the tokens.
        learning_rate (`float`, *optional*, defaults to 1e-3):
            Peak learning rate of AdamW in a cosine schedule.
        device (`torch.device` or `str`, *optional*, defaults to `"cpu"`):
            Device for the computation. The tokens are moved there one batch at a time.

    Returns:
        `torch.Tensor` of shape `(num_queries, num_labels)`, on the CPU.
    """
    generator = torch.Generator().manual_seed(0)
    with _own_random_numbers(torch.device(device)):
        head = AttentiveHead(train.shape[-1], num_labels).to(device)
    optimizer = torch.optim.AdamW(head.parameters(), lr=learning_rate, weight_decay=0.05)
    total = epochs * math.ceil(len(train) / ATTENTIVE_BATCH)
    step = 0
    for _ in range(epochs):
        for chosen in torch.randperm(len(train), generator=generator).split(ATTENTIVE_BATCH):
            for group in optimizer.param_groups:
                group["lr"] = cosine_with_warmup(step, total, total // 10, learning_rate, 0.0)
            loss = F.cross_entropy(head(train[chosen].to(device).float()), labels[chosen].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    head.eval()
    with torch.no_grad():
        return torch.cat([head(part.to(device).float()).cpu() for part in queries.split(ATTENTIVE_BATCH)])


def probe_features(
    train: FrozenFeatures, held_out: FrozenFeatures, arguments: ProbeArguments, device: torch.device | str = "cpu"
) -> dict[str, float]:
    """
    Run probes on frozen features.

    Args:
        train ([`FrozenFeatures`]):
            Features of the training clips.
        held_out ([`FrozenFeatures`]):
            Features of the evaluation clips.
        arguments ([`ProbeArguments`]):
            The probes and their settings.
        device (`torch.device` or `str`, *optional*, defaults to `"cpu"`):
            Device for the computation.

    Returns:
        `dict[str, float]`: accuracy by probe, and `majority`.
    """
    names = train.label_names or [str(label) for label in range(int(train.labels.max()) + 1)]
    pooled = [part.pooled.to(device) for part in (train, held_out)]
    labels = train.labels.to(device)
    metrics: dict[str, float] = {}
    for probe in arguments.probe:
        if probe == "knn":
            options = (arguments.probe_neighbours, arguments.probe_temperature)
            scores = knn_scores(pooled[0], labels, pooled[1], len(names), *options)
        elif probe == "linear":
            scores = linear_scores(pooled[0], labels, pooled[1], len(names))
        else:
            assert train.tokens is not None and held_out.tokens is not None
            tokens = (train.tokens, train.labels, held_out.tokens)
            options = (arguments.probe_epochs, ATTENTIVE_LEARNING_RATE)
            scores = attentive_scores(*tokens, len(names), *options, device=device)
        metrics[probe] = _reported_accuracy(scores, held_out.labels)
    votes = train.labels.bincount(minlength=len(names))
    return metrics | {"majority": _reported_accuracy(votes.expand(len(held_out.labels), -1), held_out.labels)}


def probe_model(
    model: PreTrainedModel,
    processor: ClipProcessor,
    train_source: VideoSource,
    eval_source: VideoSource,
    arguments: ProbeArguments | None = None,
    *,
    batch_size: int = 8,
    num_workers: int = 0,
    accelerator: Accelerator | None = None,
    timeout: float = 300.0,
) -> ProbeResult:
    """
    Probe the frozen features of any model of the package.

    Args:
        model (`PreTrainedModel`):
            The model, on the device to use. It is not changed.
        processor ([`ClipProcessor`]):
            Processor of the model.
        train_source ([`VideoSource`]):
            Labelled training clips.
        eval_source ([`VideoSource`]):
            Evaluation clips with the same labels.
        arguments ([`ProbeArguments`], *optional*):
            The probes and their settings. Defaults to nearest neighbours and the linear probe.
        batch_size (`int`, *optional*, defaults to 8):
            Clips in a forward pass.
        num_workers (`int`, *optional*, defaults to 0):
            Number of decoding processes.
        accelerator (`Accelerator`, *optional*):
            The processes that share the clips. The first one fits the probes, and all get the result.
        timeout (`float`, *optional*, defaults to 300.0):
            Seconds after which workers that do not answer are considered hung.

    Returns:
        [`ProbeResult`]

    Raises:
        ValueError: the sources do not have the same labels, at least two, with one per clip, or no clip can be read.

    Example:

    ```python
    >>> source, held_out = load_sources(DataArguments(data="clips"), seed=0)
    >>> probe_model(model, processor, source, held_out).metrics
    {'knn': 0.71, 'linear': 0.78, 'majority': 0.25}
    ```
    """
    arguments = arguments or ProbeArguments(probe=["knn", "linear"])
    _check_labels(train_source, eval_source)
    with _own_random_numbers(model.device):
        train, held_out = (
            extract_features(
                model,
                processor,
                source,
                batch_size=batch_size,
                num_workers=num_workers,
                accelerator=accelerator,
                max_tokens=arguments.probe_max_tokens if "attentive" in arguments.probe else 0,
                timeout=timeout,
            )
            for source in (train_source, eval_source)
        )
        found: list[dict[str, float]] = [{}]
        if accelerator is None or accelerator.is_main_process:
            found = [probe_features(train, held_out, arguments, model.device)]
    if accelerator is not None and accelerator.num_processes > 1:
        broadcast_object_list(found)
    failed = train.failed + held_out.failed
    return ProbeResult(found[0], len(train.ids), len(held_out.ids), failed, train.label_names)


def online_probe(
    config: RunConfig,
    processor: ClipProcessor,
    accelerator: Accelerator,
    train_source: VideoSource,
    eval_source: VideoSource | None,
) -> Observer | None:
    """
    The probes of a run as an observer for the training loop.

    Args:
        config ([`RunConfig`]):
            The run. Its group `probe` names the probes and their data.
        processor ([`ClipProcessor`]):
            Processor of the model.
        accelerator (`Accelerator`):
            Processes of the run, which call the observer together.
        train_source ([`VideoSource`]):
            Training clips of the run, used without `probe_data`.
        eval_source ([`VideoSource`] or `None`):
            Evaluation clips of the run, used without `probe_data`.

    Returns:
        [`~engine.Observer`], or `None` if the run has no probes.

    Raises:
        ValueError: the training clips have fewer than two labels, or there are no evaluation clips.
    """
    arguments = config.probe
    if not arguments.probe:
        return None
    if arguments.probe_data is not None:
        limit = arguments.probe_max_samples
        data = DataArguments(data=arguments.probe_data, max_train_samples=limit, holdout=config.data.holdout)
        train_source, eval_source = load_sources(data, config.run.seed)
    elif arguments.probe_max_samples is not None:
        data = replace(config.data, max_train_samples=arguments.probe_max_samples)
        train_source, eval_source = load_sources(data, config.run.seed)
    if eval_source is None or len(train_source.label_names) < 2:
        raise ValueError(
            "`probe` needs labelled training and evaluation clips: give `probe_data`, a folder of classes or a list "
            "with labels"
        )
    sources = (train_source, eval_source)
    batch_size = config.eval_batch_size

    def look(model: PreTrainedModel, step: int) -> dict[str, float]:
        result = probe_model(
            model,
            processor,
            *sources,
            arguments,
            batch_size=batch_size,
            num_workers=config.data.num_workers,
            accelerator=accelerator,
            timeout=config.data.worker_timeout,
        )
        if result.failed:
            logger.warning(f"{len(result.failed)} clips for the probes cannot be read and are skipped")
        return result.metrics

    return Observer("probe", look, arguments.probe_every, arguments.probe_steps, at_start=True)


def _check_labels(train: VideoSource, held_out: VideoSource) -> None:
    if len(train.label_names) < 2 or train.label_names != held_out.label_names:
        raise ValueError(
            f"Probes need training and evaluation clips with the same labels, at least two labels, got "
            f"{list(train.label_names)[:5]} and {list(held_out.label_names)[:5]}"
        )


@torch.no_grad()
def _encode(encoder: Any, pixel_values: torch.Tensor, max_tokens: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Pooled features of a batch of single views, and at most `max_tokens` tokens each in half precision."""
    outputs = encoder(pixel_values=pixel_values.to(encoder.device))
    tokens = outputs.last_hidden_state  # (batch, tokens, hidden)
    pooled = tokens.mean(dim=1) if outputs.pooler_output is None else outputs.pooler_output
    if not max_tokens:
        return pooled.float().cpu().numpy(), None
    if tokens.shape[1] > max_tokens:
        tokens = F.adaptive_avg_pool1d(tokens.float().transpose(1, 2), max_tokens).transpose(1, 2)
    return pooled.float().cpu().numpy(), tokens.half().cpu().numpy()


def _fit_linear(features: torch.Tensor, labels: torch.Tensor, num_labels: int, penalty: float) -> torch.Tensor:
    """Weights and, in the last row, biases `(hidden_size + 1, num_labels)`. They start at 0, without randomness."""
    weights = torch.zeros(features.shape[1] + 1, num_labels, device=features.device, requires_grad=True)
    solver = torch.optim.LBFGS([weights], max_iter=LINEAR_STEPS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(_logits(weights, features), labels) + penalty / 2 * weights[:-1].square().sum()
        loss.backward()
        return loss

    solver.step(closure)
    return weights.detach()


def _logits(weights: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    return features @ weights[:-1] + weights[-1]


def _reported_accuracy(scores: torch.Tensor, labels: torch.Tensor) -> float:
    """Top-1 accuracy. Scores that are not finite, as from a model that has diverged, count as 0."""
    finite = scores.float().nan_to_num(posinf=0.0, neginf=0.0)
    return compute_metric("top_k_accuracy", finite.cpu().numpy(), labels.numpy(), k=1)


def _accuracy(scores: torch.Tensor, labels: torch.Tensor) -> float:
    return float((scores.argmax(dim=1) == labels).float().mean())


@contextmanager
def _own_random_numbers(device: torch.device) -> Iterator[None]:
    """A block with its own seed that leaves the state of random number generators unchanged."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        yield


__all__ = [
    "AttentiveHead",
    "FrozenFeatures",
    "ProbeResult",
    "attentive_scores",
    "extract_features",
    "knn_scores",
    "linear_scores",
    "online_probe",
    "probe_features",
    "probe_model",
]
