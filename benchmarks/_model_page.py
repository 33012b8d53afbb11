"""The page of measured speed, `docs/speed.md`, written from the results."""

from collections.abc import Mapping, Sequence


HEAD = """# Speed and memory of the models

Written by `python -m benchmarks.models` from [its results](../benchmarks/results/models.csv). The first row of each
table is ours. *Official structure* is the published implementation's operations in their order, written plainly in
`benchmarks/reference`, with our weights and equal answers (TubeViT and the divided Swin, which have no official code,
after their description). *Not in parts* is our model with its MLPs and short attentions over all tokens at once;
without gradients on a CPU it takes some hundred at a time. The other libraries' models have weights of their own.

- **time**: seconds of a call, best of alternating rounds in one run. **ratio**: theirs divided by ours, above 1 where
  ours is faster.
- **rate**: multiply-accumulates a second as a share of those of bare matrix products in the same rounds. The work is
  that of the official structure, also where ours does less; a training step counts as three forward passes.
- **memory**: most that a call needs above weights, gradients and the optimiser's state. **ratio**: ours divided by
  theirs.

{setting}
"""
COLUMNS = "| | time | ratio | rate | memory | ratio |\n|---|---|---|---|---|---|\n"
CHOICES = """
## Other ways to compute the same

Written from [results](../benchmarks/results/alternatives.csv) of `python -m benchmarks.alternatives`. The models do
what comes first in each line. A way that makes a whole step less than 1.15 times as fast is not worth its lines:
embedding only the patches that pretraining sees saves 29 ms of its step above. `flex_attention` has no backward pass
on CPUs.

| | | ours | other | ratio |
|---|---|---|---|---|
"""
FOOT = """
Files in `benchmarks` and `tests` are part of the source distribution, not of an installed package.
"""


def page(rows: Sequence[Mapping[str, str]], choices: Sequence[Mapping[str, str]]) -> str:
    """
    The page.

    Args:
        rows (`Sequence[Mapping[str, str]]`):
            Rows of `benchmarks/results/models.csv`.
        choices (`Sequence[Mapping[str, str]]`):
            Rows of `benchmarks/results/alternatives.csv`: ours, then the other, for each choice and phase.
    """
    parts = [HEAD.format(setting=_setting(rows[0]))]
    for task in dict.fromkeys(row["task"] for row in rows):
        parts.append(f"\n## {task}\n")
        of_task = [row for row in rows if row["task"] == task]
        for phase in dict.fromkeys(row["phase"] for row in of_task):
            of_phase = [row for row in of_task if row["phase"] == phase]
            gmacs = float(of_phase[1]["gmacs"])
            parts.append(f"\n{phase.capitalize()}, {gmacs:,.1f} GMACs\n\n{COLUMNS}")
            parts += [_line(row, ours=row is of_phase[0]) for row in of_phase]
    parts.append(CHOICES)
    parts += [_choice(ours, other) for ours, other in zip(choices[::2], choices[1::2], strict=True)]
    return "".join([*parts, FOOT])


def _choice(ours: Mapping[str, str], other: Mapping[str, str]) -> str:
    sides = [f"{side['side']}, {float(side['milliseconds']):,.1f} ms" for side in (ours, other)]
    return f"| {ours['choice']} | {ours['phase']} | {' | '.join(sides)} | {float(other['speed_of_ours']):.2f} |\n"


def _setting(row: Mapping[str, str]) -> str:
    threads = "thread" if row["threads"] == "1" else "threads"
    clock = "processor time" if row["clock"] == "processor" else "wall time"
    return (
        f"Batch of {row['batch_size']}, {row['dtype']}, {row['attention']}, {row['threads']} {threads}, "
        f"{clock}, on {row['machine'].split(', Linux')[0]}."
    )


def _line(row: Mapping[str, str], ours: bool) -> str:
    ratios = ["", ""] if ours else [f"{float(row[name]):.2f}" for name in ("speed_of_ours", "memory_of_ours")]
    cells = [
        row["side"],
        f"{float(row['seconds']):.2f} s",
        ratios[0],
        f"{float(row['share_of_matrix_product_rate']):.2f}",
        f"{float(row['peak_megabytes']):,.0f} MB",
        ratios[1],
    ]
    return f"| {' | '.join(cells)} |\n".replace("  ", " ")
