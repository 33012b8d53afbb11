"""Commands for the Hub: publish, demo, reproduce."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from .common import (
    AsJson,
    BatchSize,
    Cpu,
    Device,
    check_shown,
    choose_device,
    given,
    make_table,
    print_json,
    screen,
)


commands = typer.Typer()


@commands.command()
def publish(
    model: Annotated[str, typer.Argument(help="Folder of a model; with --space alone, a model on the Hub.")],
    repo_id: Annotated[
        str | None, typer.Option(help="Repo on the Hub, as owner/name; created if it does not exist.")
    ] = None,
    space: Annotated[str | None, typer.Option(help="Space for a demo page of the model, as owner/name.")] = None,
    private: Annotated[bool, typer.Option(help="Make a new repo private.")] = False,
    branch: Annotated[str, typer.Option(help="Branch; created if it does not exist.")] = "main",
    pull_request: Annotated[bool, typer.Option(help="Open a pull request instead of committing.")] = False,
    with_code: Annotated[bool, typer.Option(help="Upload the model's code too, for trust_remote_code.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Only list the files that would be uploaded.")] = False,
    overwrite_card: Annotated[bool, typer.Option(help="Replace a card that was edited on the Hub.")] = False,
    max_shard_size: Annotated[str, typer.Option(help="Upload larger weights in shards of this size.")] = "5GB",
    package: Annotated[
        str | None, typer.Option(help="Requirement with which the Space installs this package.")
    ] = None,
    message: Annotated[str, typer.Option(help="Message of the commit.")] = "Publish with hf_videovit",
    as_json: AsJson = False,
) -> None:
    """Upload a model with its processor, card and results to the Hub, in one commit. Run again if interrupted."""
    from ..hub.publishing import publish as send
    from ..hub.space import publish_space

    if repo_id is None and space is None:
        raise ValueError("Pass --repo-id or --space.")
    if repo_id is None and Path(model).is_dir():
        raise ValueError(f"--repo-id is needed: a Space shows a model on the Hub, but {model} is a folder.")
    if space is not None and (branch != "main" or pull_request):
        raise ValueError("--space shows the model's main branch; omit --branch and --pull-request.")
    common: dict[str, Any] = given(private=private, dry_run=dry_run, overwrite_card=overwrite_card, message=message)
    done = []
    if repo_id is not None:
        options: dict[str, Any] = {"with_code": with_code, "max_shard_size": max_shard_size}
        done.append(send(model, repo_id, revision=branch, create_pr=pull_request, **options, **common))
    if space is not None:
        shown = done[0].repo_id if done else model
        done.append(publish_space(shown, space, **given(package=package), **common))
    if as_json:
        facts = [_publication_facts(one) for one in done]
        print_json(facts[0] | ({"space": facts[1]} if len(facts) > 1 else {}))
        return
    for one in done:
        _show_publication(one)


def _publication_facts(done: Any) -> dict[str, Any]:
    files = [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in done.files]
    return {"repo_id": done.repo_id, "url": done.url, "files": files, "deleted": list(done.deleted)}


def _show_publication(done: Any) -> None:
    table = make_table("file", "bytes", "sha256")
    for file in done.files:
        table.add_row(file.path, f"{file.size:,}", file.sha256[:12])
    Console().print(table)
    for path in done.deleted:
        typer.echo(f"removed from the repo: {path}")
    where = f"-> {done.url}" if done.url else f"would be uploaded to {done.repo_id} ({done.revision})"
    typer.echo(f"{len(done.files)} files, {done.size / 1e6:.1f} MB {where}")


@commands.command()
def demo(
    model: Annotated[str, typer.Argument(help="Folder or Hub id of a classifier, an action detector or a localiser.")],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 allows other machines.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(min=1, help="Port. Default: the first free one from 7860 on.")] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    top_k: Annotated[int, typer.Option(min=1, help="Labels to show.")] = 5,
    detector: Annotated[
        str | None, typer.Option(help="For action detection: object detector that finds people without boxes.")
    ] = None,
    examples: Annotated[
        list[str] | None, typer.Option("--example", help="Clip that visitors can choose; can be repeated.")
    ] = None,
    device: Device = None,
) -> None:
    """Serve a demo page: labels of a clip, a film with people's actions, or the timeline of a long film."""
    check_shown(model)
    try:
        from ..inference.demo import build_demo, serve_demo
    except ModuleNotFoundError as error:
        if error.name not in ("gradio", "pandas"):
            raise
        raise ImportError(f"The page needs {error.name}: pip install 'hf_videovit[space]'") from error

    page = build_demo(model, device=choose_device(device), top_k=top_k, detector=detector, examples=examples or ())
    address = serve_demo(page, host=host, port=port, open_browser=open_browser, wait=False)
    typer.echo(f"{model} is shown at {address} (Ctrl+C to stop)")
    page.block_thread()


@commands.command()
def reproduce(
    folder: Annotated[Path, typer.Argument(help="Folder of a model with results.json.")],
    data: Annotated[
        str | None,
        typer.Option(help="The videos; detectors, localisers: the annotations. Default: those in results.json."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split. Default: that in results.json.")] = None,
    videos: Annotated[
        str | None, typer.Option(help="Detectors, localisers: folder of the videos. Default: that in results.json.")
    ] = None,
    features: Annotated[
        str | None, typer.Option(help="Localisers: features of the videos. Default: those in results.json.")
    ] = None,
    boxes: Annotated[
        str | None, typer.Option(help="action-detection: file of detected people. Default: that in results.json.")
    ] = None,
    excluded: Annotated[
        str | None, typer.Option(help="action-detection: csv of key-frames left out. Default: that in results.json.")
    ] = None,
    batch_size: BatchSize = 1,
    num_workers: Annotated[int, typer.Option(min=0, help="Decoding processes.")] = 0,
    device: Device = None,
    cpu: Cpu = False,
    tolerance: Annotated[float, typer.Option(min=0, help="Allowed difference in percentage points.")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Repeat the evaluation that a model's card reports. Exit code 1 if a result differs."""
    from ..training.evaluation.receipts import reproduce as run_again

    check_shown(str(folder))
    done = run_again(
        folder,
        data=data,
        split=split,
        videos=videos,
        features=features,
        boxes=boxes,
        excluded=excluded,
        batch_size=batch_size,
        num_workers=num_workers,
        device=choose_device(device, cpu),
        tolerance=tolerance / 100 + 1e-9,
        progress=screen.is_terminal,
    )
    if as_json:
        facts = {"confirmed": done.confirmed, "same_videos": done.same_videos, "claimed": dict(done.claimed)}
        changes = {name: list(values) for name, values in done.changed_protocol.items()}
        print_json({**facts, "measured": dict(done.measured), "changed_protocol": changes})
    else:
        table = make_table("metric", "claimed", "measured", "difference")
        for name, difference in done.differences.items():
            measured = done.measured.get(name, float("nan"))
            table.add_row(
                name, f"{100 * done.claimed[name]:.2f} %", f"{100 * measured:.2f} %", f"{100 * difference:+.2f}"
            )
        Console().print(table)
        if done.clips.trained_on:
            typer.echo(done.clips.told())
        if done.same_videos is False:
            what = "key-frames, labels or boxes" if hasattr(done.result, "boxes") else "videos or their labels"
            typer.echo(f"The {what} differ from those of results.json.")
        for name, (claimed, present) in done.changed_protocol.items():
            typer.echo(f"{name}: {claimed} then, {present} now")
        typer.echo("confirmed" if done.confirmed else "not confirmed")
    if not done.confirmed:
        raise typer.Exit(1)
