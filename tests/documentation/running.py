"""Runs the blocks of a page, in their order, in one process and one folder of stand-ins."""

import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

from accelerate.commands.launch import launch_command_parser
from accelerate.state import AcceleratorState
from typer.testing import CliRunner

import hf_videovit
from hf_videovit.cli import app
from tests.documentation.command_lines import RUNS, SCRIPTS_OF_RUNS
from tests.documentation.pages import ROOT, Block, Command, commands, notes_of, replaced
from tests.documentation.stand_ins import make


# Added to every training: it is to end soon.
SHORT = ("--max_steps", "1", "--batch_size", "2", "--num_workers", "0", "--no_progress", "--no_curves")
NOT_SHORT = ("--plan", "--prepare")


class PageRun:
    """
    What the blocks of a page leave behind for the following ones: files, and the names of Python.

    Args:
        page (`str`):
            Path of the page.
        folder (`Path`):
            Empty folder, which is the working directory.
    """

    def __init__(self, page: str, folder: Path) -> None:
        self.notes = notes_of(page)
        self.folder = folder
        own = self.notes.runs_as  # before the names of the page, which it replaces
        self.names = own | {name: value for name, value in self.notes.names.items() if name not in own}
        self.variables: dict[str, Any] = {"hf_videovit": hf_videovit}
        for path, wanted in self.notes.stand_ins.items():
            make(folder / path, wanted)

    def run(self, block: Block) -> None:
        """Run a block; its failure is an exception."""
        if block.language == "python":
            if self.notes.reason(block.code) is None:
                self.prepare_values(block.code)
                code = replaced(block.code, self.names)
                exec(compile("\n" * block.line + code, block.page, "exec"), self.variables)
        elif block.language == "bash":
            for command in commands(block, self.names):
                if self.notes.reason(command.source) is None:
                    self.run_command(command)

    def prepare_values(self, code: str) -> None:
        """Set the names that the page takes for granted, once one is used."""
        for name, expression in self.notes.values.items():
            if name in code and name not in self.variables:
                self.variables[name] = eval(expression, {"page": self.variables} | self.variables)

    def run_command(self, command: Command) -> None:
        """Run a command in this process, or in a shell if it is none of this project."""
        program, *words = command.words or ("bash",)
        words += [
            word for part, more in self.notes.append.items() if part in command.source for word in shlex.split(more)
        ]
        AcceleratorState._reset_state(True)
        if program == "hf-videovit":
            self.run_cli(command, words)
        elif program == "accelerate":
            given = launch_command_parser().parse_args(words[1:])
            started = ["-m", given.training_script] if given.module else [given.training_script]
            self.run_python(command, [*started, *given.training_script_args])
        elif program == "python":
            self.run_python(command, words)
        else:
            subprocess.run(
                ["bash", "-euc", replaced(command.text, self.names)], check=True, cwd=self.folder, timeout=60
            )

    def run_cli(self, command: Command, words: list[str]) -> None:
        if words[0] in RUNS and words[0] != "preview":
            words = shortened(words)
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, f"{command.place}: {' '.join(words)}\n{done.output}\n{done.exception}"

    def run_python(self, command: Command, words: list[str]) -> None:
        first, *rest = words
        if first in ("-", "-c"):
            exec(compile(command.stdin or rest[0], command.place, "exec"), {"__name__": "__main__"})
        elif first == "-m":
            if rest[0] == "hf_videovit":
                self.run_cli(command, rest[1:])
                return
            with patch.object(sys, "argv", rest):
                runpy.run_module(rest[0], run_name="__main__")
        else:
            script = ROOT / first
            rest = shortened(rest) if script.name in SCRIPTS_OF_RUNS else rest
            with patch.object(sys, "argv", [str(script), *rest]):
                try:
                    runpy.run_path(str(script), run_name="__main__")
                except SystemExit as end:
                    if end.code:
                        raise AssertionError(f"{command.place}: {end.code}") from end


def shortened(words: list[str]) -> list[str]:
    """The words of a training that ends soon; a number of steps that is given stays."""
    if set(NOT_SHORT) & set(words):
        return words
    return [*words, *SHORT] if "--max_steps" not in words else [*words, *SHORT[2:]]
