"""Commands around the Hub: publish, reproduce."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .common import AsJson, BatchSize, Device, check_classifier, choose_device, make_table, print_json, screen


commands = typer.Typer()


@commands.command()
def publish(
    folder: Annotated[Path, typer.Argument(help="Folder of a trained or converted model.")],
    repo_id: Annotated[str, typer.Option(help="Repo on the Hub, as owner/name; made if it is not there.")],
    private: Annotated[bool, typer.Option(help="Make a new repo private.")] = False,
    branch: Annotated[str, typer.Option(help="Branch, made if it is not there.")] = "main",
    pull_request: Annotated[bool, typer.Option(help="Open a pull request instead of committing.")] = False,
    with_code: Annotated[bool, typer.Option(help="Send the code too, for trust_remote_code.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Only show what would be sent.")] = False,
    overwrite_card: Annotated[bool, typer.Option(help="Replace a card that a person edited.")] = False,
    max_shard_size: Annotated[str, typer.Option(help="Divide larger weights.")] = "5GB",
    message: Annotated[str, typer.Option(help="Of the commit.")] = "Publish with hf_videovit",
    as_json: AsJson = False,
) -> None:
    """Send a model with its processor, card and results to the Hub, in one commit. Go on after an interruption."""
    from ..hub.publishing import publish as send

    done = send(
        folder,
        repo_id,
        private=private,
        revision=branch,
        create_pr=pull_request,
        with_code=with_code,
        dry_run=dry_run,
        overwrite_card=overwrite_card,
        max_shard_size=max_shard_size,
        message=message,
    )
    if as_json:
        files = [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in done.files]
        print_json({"repo_id": done.repo_id, "url": done.url, "files": files, "deleted": list(done.deleted)})
        return
    table = make_table("file", "bytes", "sha256")
    for file in done.files:
        table.add_row(file.path, f"{file.size:,}", file.sha256[:12])
    Console().print(table)
    for path in done.deleted:
        typer.echo(f"removed from the repo: {path}")
    where = f"would go to {done.repo_id} ({done.revision})" if dry_run else f"-> {done.url}"
    typer.echo(f"{len(done.files)} files, {done.size / 1e6:.1f} MB {where}")


@commands.command()
def reproduce(
    folder: Annotated[Path, typer.Argument(help="Folder of a model with results.json.")],
    data: Annotated[str | None, typer.Option(help="Where the videos are; by default as results.json says.")] = None,
    split: Annotated[str | None, typer.Option(help="Split; by default that of results.json.")] = None,
    batch_size: BatchSize = 1,
    num_workers: Annotated[int, typer.Option(min=0, help="Decoding processes.")] = 0,
    device: Device = None,
    tolerance: Annotated[float, typer.Option(min=0, help="Difference in points that counts as the same.")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Run the evaluation again that a model's card claims. Exit code 1 if it does not come out."""
    from ..training.receipts import reproduce as run_again

    check_classifier(str(folder))
    done = run_again(
        folder,
        data=data,
        split=split,
        batch_size=batch_size,
        num_workers=num_workers,
        device=choose_device(device),
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
        if done.same_videos is False:
            typer.echo("The videos or their labels are not those of the claim.")
        for name, (claimed, present) in done.changed_protocol.items():
            typer.echo(f"{name}: {claimed} then, {present} now")
        typer.echo("confirmed" if done.confirmed else "not confirmed")
    if not done.confirmed:
        raise typer.Exit(1)
