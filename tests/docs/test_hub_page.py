"""The commands of docs/hub.md run, and so does the program of docs/convert_data.md."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import torch

from diffusion_policy.checkpoint.policy_folder import save_policy_folder
from diffusion_policy.dataset.stores.open_store import open_store
from diffusion_policy.dataset.verify import verify_dataset
from tests.dataset.stores.lerobot.golden import golden_copy
from tests.docs.test_own_data_pages import DOCS, commands, run


def test_the_commands_tell_what_they_would_send(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/policies").mkdir(parents=True)
    golden_copy("v30", tmp_path).rename(tmp_path / "data/clean")
    record = DOCS / "results/dot_pusht_human_seed42"
    shutil.copytree(record, tmp_path / "docs/results/my_arm")
    config = (record / "config.yaml").read_text()
    save_policy_folder(Path("data/policies/my_arm"), config, {"weight": torch.zeros(2)})
    told = []
    for words in commands("hub.md"):
        run(words)
        told.append(capsys.readouterr().out)
    data, policy = told
    assert "would send 8 files" in data
    assert "to the dataset owner/clean" in data
    assert "success_rate" in policy
    assert "to the model owner/my_arm" in policy


def test_the_program_records_a_data_set(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (program,) = re.findall(
        r"```python\n(.*?)```", (DOCS / "convert_data.md").read_text(), re.DOTALL
    )
    exec(program, {})
    assert capsys.readouterr().out.strip() == "3"
    verify_dataset("data/reach")
    assert open_store("data/reach").episode(2).task == "reach the target"
