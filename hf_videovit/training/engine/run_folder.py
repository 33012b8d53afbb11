"""
The folder of a run. What a run writes is known by its record in `logs/run.json`: the records of the run in
`checkpoints` and `logs` by their names, and the saved model and its card by their hashes. Nothing else is replaced or
removed.
"""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from transformers.utils import logging

from ...folders import file_hash, held_folder, remove_folder, shorten, write_text
from ..arguments import RunArguments, RunConfig
from .checkpointing import is_own_folder, list_checkpoints, remove_leftovers


logger = logging.get_logger(__name__)

RECORD = "logs/run.json"
# Files of the saved model, relative to the folder of the run.
RESULTS = re.compile(
    r"((images|joint|adapter)/)?(config\.json|model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json"
    r"|(video_)?(pre)?processor_config\.json)"
    r"|adapter/(adapter_config\.json|adapter_model\.safetensors)"
    r"|(adapter/)?(run\.yaml|README\.md)|results\.json|results_confusion\.png|reconstructions\.png|words\.png"
)
# Files of `logs`, relative to it.
RECORDS = re.compile(
    r"run\.json|run_id\.txt|metrics\.(jsonl|draft)|(nonfinite|bad_videos)(\.\w+)*\.jsonl|(curves|hardest_clips)\.png"
    r"|training_clips\.json|(reconstructions|words)/step_\d+\.png"
    r"|([^/]+/)*(events\.out\.tfevents\.[^/]+|hparams\.yml)"
)
MODELS = ("images", "joint", "adapter")  # folders of further saved models
ROOMS = ("checkpoints", "logs", *MODELS)
BEST = ("best.safetensors", ".best.safetensors.draft")
INPUTS = ("checkpoint", "image_model", "teacher", "tokenizer")


class RunFolder:
    """
    The folder of a run.

    Args:
        path (`Path`):
            The folder.
    """

    def __init__(self, path: Path):
        self.path = path

    def claim(self, config: RunConfig) -> None:
        """
        Prepare the folder for a run. What an earlier run wrote is removed if `overwrite` is set.

        Args:
            config ([`RunConfig`]):
                The run.

        Raises:
            ValueError: the folder has an earlier run that shall be neither continued nor replaced, files that no run
                wrote, or the model that the run starts from.
        """
        self._refuse_inputs(config)
        record = self._read_record()
        own, foreign = self._sort_files(record)
        if config.run.resume and self._can_resume(record, own):
            foreign = [path for path in foreign if RESULTS.fullmatch(path)]
            self._refuse_foreign(foreign)
            remove_leftovers(self.path / "checkpoints")
        else:
            self._refuse_foreign(foreign)
            self._refuse_earlier(own, config.run)
            self._remove(own)
        if not list_checkpoints(self.path / "checkpoints"):  # nothing to continue
            self._remove([path for path in own if path.startswith("logs/") and path != RECORD])
        self._write_record({"saving": False, "files": (record or {}).get("files", {})})

    def begin_saving(self) -> None:
        """Record that the model is about to be saved, so that a run that is killed meanwhile can be resumed."""
        self._write_record({"saving": True, "files": {}})

    def record_results(self) -> None:
        """Record the files of the saved model with their hashes."""
        files = {path: file_hash(self.path / path) for path in self._walk() if RESULTS.fullmatch(path)}
        self._write_record({"saving": False, "files": files})

    def _walk(self) -> Iterator[str]:
        """Files at the places where a run writes."""
        for path in sorted(self.path.iterdir()) if self.path.is_dir() else []:
            if path.is_dir() and path.name in ("logs", *MODELS):
                inner = (file for file in path.rglob("*") if file.is_symlink() or not file.is_dir())
                yield from (file.relative_to(self.path).as_posix() for file in sorted(inner))
            elif path.is_dir() and path.name == "checkpoints":
                yield from (f"checkpoints/{entry.name}" for entry in sorted(path.iterdir()))
            elif RESULTS.fullmatch(path.name) or path.name in ROOMS:
                yield path.name

    def _sort_files(self, record: dict[str, Any] | None) -> tuple[list[str], list[str]]:
        """Files at these places that an earlier run wrote, and the others."""
        own: list[str] = []
        foreign: list[str] = []
        for path in self._walk():
            (own if record is not None and self._is_own(path, record) else foreign).append(path)
        return own, foreign

    def _is_own(self, path: str, record: dict[str, Any]) -> bool:
        room, _, name = path.partition("/")
        if (self.path / path).is_symlink():
            return False
        if room == "logs":
            return RECORDS.fullmatch(name) is not None
        if room == "checkpoints":
            return name in BEST or is_own_folder(self.path / path)
        if record["saving"]:
            return RESULTS.fullmatch(path) is not None
        return path in record["files"] and file_hash(self.path / path) == record["files"][path]

    def _can_resume(self, record: dict[str, Any] | None, own: list[str]) -> bool:
        """Whether there is a run to continue: a checkpoint, or a run that ended before its first one."""
        if list_checkpoints(self.path / "checkpoints"):
            return True
        return record is not None and (record["saving"] or not any(map(RESULTS.fullmatch, own)))

    def _refuse_inputs(self, config: RunConfig) -> None:
        given = {**vars(config.model), **config.method}
        for name in INPUTS:
            value = given.get(name)
            if isinstance(value, str) and Path(value).exists() and self._would_replace(Path(value)):
                raise ValueError(
                    f"`output_dir` {str(self.path)!r} has the `{name}` of the run, which would be replaced: choose "
                    "another folder"
                )

    def _would_replace(self, path: Path) -> bool:
        path, own = path.resolve(), self.path.resolve()
        if not path.is_relative_to(own):
            return False
        inside = path.relative_to(own).as_posix()
        return inside in (".", *MODELS) or RESULTS.fullmatch(inside) is not None

    def _refuse_foreign(self, foreign: list[str]) -> None:
        if foreign:
            raise ValueError(
                f"`output_dir` {str(self.path)!r} has files where the run would write that no earlier run wrote, or "
                f"that were changed since: {shorten(foreign)}. Move them, or choose another folder"
            )

    def _refuse_earlier(self, own: list[str], arguments: RunArguments) -> None:
        if arguments.overwrite:
            return
        if any(path.startswith("checkpoints/") for path in own):
            raise ValueError(
                f"`output_dir` {str(self.path)!r} has checkpoints of an earlier run: give `resume` to continue it, "
                "`overwrite` to start again, or another folder"
            )
        if written := [path for path in own if path != RECORD]:
            raise ValueError(
                f"`output_dir` {str(self.path)!r} has the files of an earlier run without checkpoints: "
                f"{shorten(written)}. Give `overwrite` to start again, or another folder"
            )

    def _remove(self, own: list[str]) -> None:
        """Remove what an earlier run wrote, its record last, and folders that become empty."""
        for path in sorted(own, key=lambda path: path == RECORD):
            if (self.path / path).is_dir():
                remove_folder(self.path / path)
            else:
                (self.path / path).unlink(missing_ok=True)
        for room in ROOMS:
            folders = [path for path in (self.path / room).rglob("*") if path.is_dir() and not path.is_symlink()]
            for folder in [*sorted(folders, reverse=True), self.path / room]:
                if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
                    folder.rmdir()

    def _read_record(self) -> dict[str, Any] | None:
        path = self.path / RECORD
        if not path.is_file():
            return None
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            return None
        well = isinstance(record, dict) and record.get("written_by") == "hf_videovit"
        return record if well and isinstance(record.get("files"), dict) and "saving" in record else None

    def _write_record(self, record: dict[str, Any]) -> None:
        path = self.path / RECORD
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({"written_by": "hf_videovit"} | record, indent=2) + "\n")


@contextmanager
def open_run_folder(config: RunConfig, accelerator: Accelerator) -> Iterator[RunFolder]:
    """
    A block in which the folder of a run belongs to this run. All processes open it together; the first one holds it.

    Args:
        config ([`RunConfig`]):
            The run.
        accelerator (`Accelerator`):
            Processes of the run.

    Yields:
        [`RunFolder`]: the folder.

    Raises:
        ValueError: another process holds the folder, or it cannot be claimed; see [`~RunFolder.claim`]. Raised in all
            processes.
    """
    folder, problem = RunFolder(Path(config.run.output_dir)), None
    with ExitStack() as stack:
        if accelerator.is_main_process:
            try:
                stack.enter_context(held_folder(folder.path, "output_dir"))
                folder.claim(config)
            except (ValueError, OSError) as error:
                problem = str(error)
        if accelerator.num_processes > 1:
            problem = broadcast_object_list([problem])[0]
        if problem is not None:
            raise ValueError(problem)
        yield folder
