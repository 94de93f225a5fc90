from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from diffusion_policy.util.output_dir import OutputLock
from diffusion_policy.workspace.run_config import hydra_override, resume_override, write_run_config

COMMAND = """
from pathlib import Path
import hydra
from hydra.core.hydra_config import HydraConfig
from diffusion_policy.util.errors import reports_user_errors
from diffusion_policy.util.output_dir import OutputLock
from diffusion_policy.workspace.run_config import write_run_config

def run(cfg):
    output_dir = Path(HydraConfig.get().runtime.output_dir)
    with OutputLock(output_dir):
        write_run_config(output_dir, cfg)

reports_user_errors(hydra.main(version_base="1.3", config_path="pkg://diffusion_policy.config")(run))()
"""


def run_command(output_dir: Path, *overrides: str) -> int:
    """Exit code of a Hydra command that does no more than hold its output directory."""
    arguments = ["--config-name=train_dot_pusht", f"hydra.run.dir={output_dir}", *overrides]
    environment = {**os.environ, "HYDRA_FULL_ERROR": "1"}
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments], env=environment, check=False
    ).returncode


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.slow
def test_only_the_holder_of_the_directory_writes_there(tmp_path):
    assert run_command(tmp_path, "training.seed=3") == 0
    assert contents(tmp_path).keys() == {".lock", ".hydra/config.yaml", ".hydra/overrides.yaml"}
    assert OmegaConf.load(tmp_path / ".hydra" / "overrides.yaml") == ["training.seed=3"]
    assert OmegaConf.load(tmp_path / ".hydra" / "config.yaml").training.seed == 3
    with OutputLock(tmp_path):
        before = contents(tmp_path)
        assert run_command(tmp_path, "training.seed=4") == 1
        assert contents(tmp_path) == before


def test_the_written_config_is_resolved(tmp_path):
    write_run_config(tmp_path, OmegaConf.create({"name": "a", "wandb": {"name": "${name}"}}))
    assert (tmp_path / ".hydra" / "config.yaml").read_text() == "name: a\nwandb:\n  name: a\n"
    assert OmegaConf.load(tmp_path / ".hydra" / "overrides.yaml") == []


@pytest.mark.parametrize(
    "name",
    [
        *(
            "plain",
            "lr=1e-3",
            "a b",
            "seed=1,lr=2",
            "x[1]",
            "a:b",
            "\u00fcbung",
            "it's",
            "(x)",
            "{a}",
        ),
        *("back\\slash", "end\\", "q\\'x", "a\\\\'", "${HOME}", "$a", '"d"', "~", "#", "%", "a;b"),
    ],
)
def test_the_override_to_go_on_can_be_pasted(tmp_path, name):
    (pasted,) = shlex.split(resume_override(tmp_path / name))
    assert pasted == hydra_override("hydra.run.dir", tmp_path / name)
    (override,) = OverridesParser.create().parse_overrides([pasted])
    read = OmegaConf.create({"dir": override.value()})
    assert (override.key_or_group, read.dir) == ("hydra.run.dir", str(tmp_path / name))
