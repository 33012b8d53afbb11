"""The examples for clusters: their syntax, and that every flag of their commands exists."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from accelerate.commands.launch import launch_command_parser
from torch.distributed.run import get_args_parser

from hf_videovit.training.arguments import parse_arguments


CLUSTER = Path(__file__).parents[1] / "examples" / "cluster"
SCRIPTS = sorted(CLUSTER.glob("*.sh"))


def command_of(path):
    """The words of the command that a file starts, with its variables filled in."""
    if path.suffix == ".yaml":
        service, job = yaml.safe_load_all(path.read_text())
        (container,) = job["spec"]["template"]["spec"]["containers"]
        return [word.replace("$(JOB_COMPLETION_INDEX)", "0") for word in container["command"]]
    (command,) = re.findall(r"^srun .* bash -c 'exec (.*?)'", path.read_text(), re.DOTALL | re.MULTILINE)
    command = re.sub(r"\$\(\(.*?\)\)|\$\{[^}]*\}", "4", command.replace("\\\n", " "))
    return shlex.split(re.sub(r"\$SLURM_\w+", "4", command).replace("$", ""))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_valid(path):
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_tasks_have_the_cores_of_the_job(path, tmp_path):
    """`srun` of newer versions gives a task one core unless it is told: all decoding processes would share it."""
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    for name, line in (("scontrol", "echo node1"), ("srun", 'printf "%s\\n" "$@"')):
        (tmp_path / name).write_text(f"#!/bin/bash\n{line}\n")
        (tmp_path / name).chmod(0o755)
    variables = {"RECIPE": "r", "DATA": "d", "OUT": "o", "SLURM_JOB_NODELIST": "node1", "SLURM_CPUS_PER_TASK": "64"}
    environment = {**os.environ, **variables, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", str(path)], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines()[:4] == ["--cpus-per-task", "64", "bash", "-c"]


@pytest.mark.parametrize("path", [*SCRIPTS, CLUSTER / "kubernetes.yaml"], ids=lambda path: path.name)
def test_commands_have_flags_that_exist(path, tmp_path, monkeypatch):
    words = command_of(path)
    if words[0] == "torchrun":
        launched = get_args_parser().parse_args(words[1:])
        assert launched.rdzv_backend == "c10d" and launched.max_restarts == 3
        script, rest = launched.training_script, launched.training_script_args
    else:
        assert words[:2] == ["accelerate", "launch"]
        launched = launch_command_parser().parse_args(words[2:])
        assert (CLUSTER.parents[1] / launched.config_file).is_file()
        assert launched.rdzv_backend == "c10d" and launched.max_restarts == 3
        script, rest = launched.training_script, launched.training_script_args
    assert (CLUSTER.parents[1] / script).is_file()
    (tmp_path / "recipe.yaml").write_text("optimization:\n  batch_size: 4\n")
    place = rest.index("--recipe") + 1
    config = parse_arguments([*rest[:place], str(tmp_path / "recipe.yaml"), *rest[place + 1 :]])
    assert config.run.resume and config.run.save_steps == 500


def test_pods_meet_at_the_first_through_the_service():
    service, job = yaml.safe_load_all((CLUSTER / "kubernetes.yaml").read_text())
    spec, words = job["spec"], command_of(CLUSTER / "kubernetes.yaml")
    name, port = service["metadata"]["name"], service["spec"]["ports"][0]["port"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert spec["template"]["spec"]["subdomain"] == name
    assert words[words.index("--rdzv-endpoint") + 1] == f"{job['metadata']['name']}-0.{name}:{port}"
    assert int(words[words.index("--nnodes") + 1]) == spec["completions"] == spec["parallelism"]
