"""
Publishing of a trained or converted model to a repo on the Hub, in one commit.

The commit holds only the files that load the model and its results. Large files are uploaded first. If the connection
breaks, the repo is unchanged, and running the same command again uploads the missing files.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import (
    CommitOperation,
    CommitOperationAdd,
    CommitOperationDelete,
    EvalResultEntry,
    HfApi,
    ModelCard,
    eval_result_entries_to_yaml,
    save_torch_state_dict,
)
from huggingface_hub.errors import EntryNotFoundError
from safetensors.torch import load_file

from ..files import read_json
from ..folders import file_hash
from .asking import asking, check_id
from .card_results import without_folders
from .card_rows import hub_id
from .cards import is_rendered, seal_card, write_model_card
from .remote_code import write_remote_code


CARD, RESULTS, WEIGHTS = "README.md", "results.json", "model.safetensors"
EVAL_RESULTS = ".eval_results/hf_videovit.yaml"
NEEDED = ("config.json",)
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # of PEFT
SENT = (
    "config.json",
    ADAPTER_CONFIG,
    "video_preprocessor_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    CARD,
    RESULTS,
    "results_confusion.png",
)
# Files that a commit replaces as a whole, so that no weights in other shards are left.
OWN_FILES = re.compile(r"(adapter_)?model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json")
MAX_SHARD_SIZE = "5GB"


@dataclass(frozen=True)
class StagedFile:
    """
    A file of a publication.

    Args:
        path (`str`):
            Path in the repo.
        source (`Path`):
            Local file.
        size (`int`):
            In bytes.
        sha256 (`str`):
            SHA-256 of the content, in hexadecimal.
    """

    path: str
    source: Path
    size: int
    sha256: str


@dataclass(frozen=True)
class Publication:
    """
    Result of a publication, or its preview in a dry run.

    Args:
        repo_id (`str`):
            The repo.
        files (`Sequence[StagedFile]`):
            Its files.
        deleted (`Sequence[str]`, *optional*, defaults to `()`):
            Files that the commit removes from the repo: weights in other shards.
        revision (`str`, *optional*, defaults to `"main"`):
            Branch.
        url (`str`, *optional*):
            Address of the commit or of the pull request; `None` for a dry run.
        commit (`str`, *optional*):
            Hash of the commit; `None` for a dry run.
    """

    repo_id: str
    files: Sequence[StagedFile]
    deleted: Sequence[str] = ()
    revision: str = "main"
    url: str | None = None
    commit: str | None = None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def publish(
    folder: str | os.PathLike,
    repo_id: str,
    *,
    private: bool = False,
    revision: str = "main",
    create_pr: bool = False,
    with_code: bool = False,
    dry_run: bool = False,
    overwrite_card: bool = False,
    max_shard_size: str = MAX_SHARD_SIZE,
    message: str = "Publish with hf_videovit",
    token: str | bool | None = None,
) -> Publication:
    """
    Upload a model with its processor, card and results to the Hub, in one commit.

    Args:
        folder (`str` or `os.PathLike`):
            Folder with a saved model. If it has no `README.md`, a card is rendered from its files.
        repo_id (`str`):
            `"name"` or `"owner/name"`; the repo is created if it does not exist.
        private (`bool`, *optional*, defaults to `False`):
            Whether a new repo is private. An existing repo keeps its visibility.
        revision (`str`, *optional*, defaults to `"main"`):
            Branch; it is created if it does not exist.
        create_pr (`bool`, *optional*, defaults to `False`):
            Open a pull request instead of committing to the branch.
        with_code (`bool`, *optional*, defaults to `False`):
            Upload the model's code too, so that it loads without this package with `trust_remote_code=True`.
        dry_run (`bool`, *optional*, defaults to `False`):
            Only list the files. No request is sent to the Hub.
        overwrite_card (`bool`, *optional*, defaults to `False`):
            Replace the repo's card even if it was edited on the Hub.
        max_shard_size (`str`, *optional*, defaults to `"5GB"`):
            Larger weights are uploaded in shards.
        message (`str`, *optional*, defaults to `"Publish with hf_videovit"`):
            Message of the commit.
        token (`str` or `bool`, *optional*):
            Defaults to the token of `hf auth login` or of the environment.

    Returns:
        [`Publication`]

    Raises:
        ValueError: the folder has no complete model, or the repo's card was edited on the Hub.
        PublishingError: the Hub rejected a request or could not be reached.
    """
    check_id(repo_id)
    with tempfile.TemporaryDirectory(prefix="publish-") as name:
        staged = stage(folder, name, repo_id, with_code=with_code, max_shard_size=max_shard_size)
        if dry_run:
            return Publication(repo_id, staged, revision=revision)
        return send_files(
            staged,
            repo_id,
            private=private,
            revision=revision,
            create_pr=create_pr,
            overwrite_card=overwrite_card,
            message=message,
            token=token,
        )


def send_files(
    staged: Sequence[StagedFile],
    repo_id: str,
    *,
    repo_type: str = "model",
    private: bool = False,
    revision: str = "main",
    create_pr: bool = False,
    overwrite_card: bool = False,
    check: Callable[[HfApi, str], None] | None = None,
    message: str,
    token: str | bool | None = None,
) -> Publication:
    """
    Commit staged files to a repo, which is created if it does not exist.

    Args:
        staged (`Sequence[StagedFile]`):
            The files, see [`list_staged`].
        repo_id (`str`):
            `"name"` or `"owner/name"`.
        repo_type (`str`, *optional*, defaults to `"model"`):
            `"model"`, or `"space"` for a Space with gradio.
        private (`bool`, *optional*, defaults to `False`):
            Whether a new repo is private. An existing repo keeps its visibility.
        revision (`str`, *optional*, defaults to `"main"`):
            Branch; it is created if it does not exist.
        create_pr (`bool`, *optional*, defaults to `False`):
            Open a pull request instead of committing to the branch.
        overwrite_card (`bool`, *optional*, defaults to `False`):
            Replace the repo's card even if it was edited on the Hub.
        check (`Callable[[HfApi, str], None]`, *optional*):
            Called with the client and the repo's id before anything is sent; raises an error to refuse.
        message (`str`):
            Message of the commit.
        token (`str` or `bool`, *optional*):
            Defaults to the token of `hf auth login` or of the environment.

    Returns:
        [`Publication`]

    Raises:
        ValueError: the repo's card was edited on the Hub.
        PublishingError: the Hub rejected a request or could not be reached.
    """
    api = HfApi(token=token)
    sdk = "gradio" if repo_type == "space" else None
    kind: dict[str, Any] = {"repo_type": repo_type}
    made = asking(repo_id, lambda: api.create_repo(repo_id, private=private, exist_ok=True, space_sdk=sdk, **kind))
    full_id = made.repo_id
    if revision != "main":
        asking(full_id, lambda: api.create_branch(full_id, branch=revision, exist_ok=True, **kind))
    head: Any = asking(full_id, lambda: api.repo_info(full_id, revision=revision, **kind))
    if not overwrite_card:
        _check_card(api, full_id, revision, repo_type)
    if check is not None:
        check(api, full_id)
    sent = {file.path for file in staged}
    there = [sibling.rfilename for sibling in head.siblings or []]
    deleted = sorted(path for path in there if OWN_FILES.fullmatch(path) and path not in sent)
    operations: list[CommitOperation] = [CommitOperationDelete(path_in_repo=path) for path in deleted]
    operations += [CommitOperationAdd(path_in_repo=file.path, path_or_fileobj=file.source) for file in staged]
    commit = asking(
        full_id,
        lambda: api.create_commit(
            full_id,
            operations,
            commit_message=message,
            revision=revision,
            create_pr=create_pr,
            parent_commit=head.sha,
            **kind,
        ),
    )
    url = commit.pr_url if create_pr else commit.commit_url
    return Publication(full_id, staged, deleted, revision, url, commit.oid)


def check_access(repo_id: str, token: str | bool | None = None) -> None:
    """
    Check before a long run that the Hub can be reached and accepts the token.

    Args:
        repo_id (`str`):
            The repo that will be published to.
        token (`str` or `bool`, *optional*):
            Defaults to the token of `hf auth login` or of the environment.

    Raises:
        ValueError: `repo_id` is not a Hub id.
        PublishingError: there is no token, the Hub rejects it, or there is no connection.
    """
    check_id(repo_id)
    asking(repo_id, HfApi(token=token).whoami)


def finish_run(folder: str | os.PathLike, run: Any, facts: Mapping[str, Any]) -> Publication | None:
    """
    Write the card of a finished run and publish it if its settings ask for it.

    Args:
        folder (`str` or `os.PathLike`):
            Folder that the run saved.
        run ([`~training.arguments.RunArguments`]):
            `push_to_hub`, `hub_private` and `hub_with_code` are read.
        facts (`Mapping[str, Any]`):
            Counts of the run, see [`~cards.write_model_card`].

    Returns:
        [`Publication`], or `None` if `push_to_hub` is not set.
    """
    write_model_card(folder, facts=facts, model_id=run.push_to_hub)
    adapter = Path(folder) / "adapter"
    if is_adapter(adapter):
        results = Path(folder) / RESULTS
        write_model_card(adapter, facts=facts, results=read_json(results, "`folder`:") if results.is_file() else None)
    if run.push_to_hub is None:
        return None
    return publish(folder, run.push_to_hub, private=run.hub_private, with_code=run.hub_with_code)


def stage(
    folder: str | os.PathLike,
    target: str | os.PathLike,
    repo_id: str,
    *,
    with_code: bool = False,
    max_shard_size: str = MAX_SHARD_SIZE,
) -> list[StagedFile]:
    """
    Collect the files of a repo in a folder.

    Args:
        folder (`str` or `os.PathLike`):
            The model.
        target (`str` or `os.PathLike`):
            An empty folder. Large files are linked, not copied.
        repo_id (`str`):
            Id of the repo, for the usage example of its card.
        with_code (`bool`, *optional*, defaults to `False`):
            Add the model's code.
        max_shard_size (`str`, *optional*):
            Larger weights are divided into shards.

    Returns:
        `list[StagedFile]`: the files, by path.

    Raises:
        ValueError: the folder has no complete model.
    """
    folder, target = Path(folder), Path(target)
    target.mkdir(parents=True, exist_ok=True)
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"`folder` {str(folder)!r} has no {', '.join(missing)}; it is not a saved model")
    if is_adapter(folder):
        _check_base(folder)
    _stage_weights(folder, target, max_shard_size)
    for name in SENT:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, target / name)
    if (target / RESULTS).is_file():
        _stage_results(target)
    _stage_card(folder, target, repo_id)
    if with_code:
        write_remote_code(target)
    return list_staged(target)


def is_adapter(folder: str | os.PathLike) -> bool:
    """
    Whether a folder has an adapter of PEFT instead of a whole model.

    Args:
        folder (`str` or `os.PathLike`):
            The folder.

    Returns:
        `bool`
    """
    return all((Path(folder) / name).is_file() for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS))


def _check_base(folder: Path) -> None:
    """Refuse an adapter whose model is a local folder, which nobody else has."""
    base = read_json(folder / ADAPTER_CONFIG, "`folder`:").get("base_model_name_or_path")
    if hub_id(base) is None:
        raise ValueError(
            f"`folder` {str(folder)!r} is an adapter of {base!r}, which is not a Hub id: publish that model and "
            f"write its id into `base_model_name_or_path` of {ADAPTER_CONFIG}; or publish the merged model"
        )


def list_staged(folder: Path) -> list[StagedFile]:
    """
    Every file in a folder.

    Args:
        folder (`Path`):
            A folder that [`stage`] filled.

    Returns:
        `list[StagedFile]`: the files, by path.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [
        StagedFile(path.relative_to(folder).as_posix(), path, path.stat().st_size, file_hash(path)) for path in paths
    ]


def weight_files(folder: str | os.PathLike) -> list[Path]:
    """
    The weights of a saved model: one file, or an index and its shards.

    Args:
        folder (`str` or `os.PathLike`):
            The model.

    Returns:
        `list[Path]`: the files, the index first.

    Raises:
        ValueError: there are no weights, or shards are missing.
    """
    folder = Path(folder)
    if is_adapter(folder):
        return [folder / ADAPTER_WEIGHTS]
    index = folder / f"{WEIGHTS}.index.json"
    if not index.is_file():
        if (folder / WEIGHTS).is_file():
            return [folder / WEIGHTS]
        raise ValueError(f"`folder` {str(folder)!r} has no {WEIGHTS}; it is not a saved model")
    shards = sorted(set(read_json(index, "`folder`:")["weight_map"].values()))
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        raise ValueError(f"`folder` {str(folder)!r} lacks the shards {', '.join(missing)} of its weights")
    return [index, *(folder / shard for shard in shards)]


def _stage_weights(folder: Path, target: Path, max_shard_size: str) -> None:
    files = weight_files(folder)
    if len(files) > 1 or files[0].stat().st_size <= _bytes(max_shard_size):
        for file in files:
            (target / file.name).symlink_to(file.resolve())
        return
    metadata = {"format": "pt"}
    save_torch_state_dict(load_file(files[0]), target, max_shard_size=max_shard_size, metadata=metadata)


def _stage_results(target: Path) -> None:
    """Write the results without local folders, and in the format of the Hub's benchmarks."""
    results = read_json(target / RESULTS, "`folder`:")
    public = public_results(results)
    (target / RESULTS).write_text(json.dumps(public, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    entries = eval_entries(public)
    if entries:
        path = target / EVAL_RESULTS
        path.parent.mkdir()
        path.write_text(yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False), encoding="utf-8")


def public_results(results: Mapping[str, Any]) -> dict[str, Any]:
    """
    Shorten the paths in `results.json` to their last part.

    Args:
        results (`Mapping[str, Any]`):
            The content of `results.json`.

    Returns:
        `dict[str, Any]`: the same without local folders.
    """

    def clean(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {clean(key): clean(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [clean(inner) for inner in value]
        return without_folders(value) if isinstance(value, str) else value

    return clean(results)


def eval_entries(results: Mapping[str, Any]) -> list[EvalResultEntry]:
    """
    Results in the format of the Hub's `.eval_results`. The Hub shows them on benchmarks that are data sets of the Hub,
    so there are none for other data.

    Args:
        results (`Mapping[str, Any]`):
            The content of `results.json`.

    Returns:
        `list[EvalResultEntry]`: one for each metric, or none.
    """
    found = re.fullmatch(
        r"(?:hf://datasets/)?([\w.-]+/[\w.-]+?)(?:@([0-9a-f]{40}|[\w.-]+))?", str(results.get("data"))
    )
    if found is None or "num_videos" not in results:
        return []  # key-frames are files, not data sets of the Hub
    protocol = results.get("protocol", {})
    views = f"{protocol.get('num_clips', 1)} clips x {protocol.get('num_crops', 1)} crops"
    notes = f"{results['num_videos']} videos of {results.get('split') or 'the data'}, {views}"
    revision = found[2] if re.fullmatch(r"[0-9a-f]{40}", found[2] or "") else None
    return [
        EvalResultEntry(
            dataset_id=found[1], task_id=name, value=round(100 * value, 4), dataset_revision=revision, notes=notes
        )
        for name, value in results["metrics"].items()
    ]


def _stage_card(folder: Path, target: Path, repo_id: str) -> None:
    """Copy the folder's card with a usage example that loads the repo."""
    path = target / CARD
    if not path.is_file():
        write_model_card(target, model_id=repo_id, title=repo_id.rpartition("/")[2])
        return
    text = path.read_text(encoding="utf-8")
    rendered = is_rendered(text)
    for name in {folder.name, folder.resolve().name, str(folder)}:
        text = text.replace(f'model="{name}"', f'model="{repo_id}"')
        text = text.replace(f'from_pretrained("{name}")', f'from_pretrained("{repo_id}")')
    path.write_text(seal_card(text) if rendered else text, encoding="utf-8")


def _check_card(api: HfApi, repo_id: str, revision: str, repo_type: str) -> None:
    """Raise a ValueError if the repo's card was edited."""
    try:
        path = asking(
            repo_id,
            lambda: api.hf_hub_download(repo_id, CARD, revision=revision, repo_type=repo_type),
            EntryNotFoundError,
        )
    except EntryNotFoundError:
        return
    text = Path(path).read_text(encoding="utf-8")
    if ModelCard(text, ignore_metadata_errors=True).text.strip() and not is_rendered(text):
        raise ValueError(
            f"The card of {repo_id} ({revision}) was edited on the Hub. Copy the edits to the folder's README.md, or "
            "replace the card with `overwrite_card` (--overwrite-card)."
        )


def _bytes(size: str) -> int:
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kKMGT]?)B?\s*", size)
    if found is None:
        raise ValueError(f"`max_shard_size` must be a number with a unit such as '5GB' or '200MB', got {size!r}")
    return int(float(found[1]) * 1000 ** "_KMGT".index(found[2].upper() or "_"))
