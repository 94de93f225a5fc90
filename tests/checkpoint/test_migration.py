from __future__ import annotations

import hydra
import pytest
from omegaconf import OmegaConf

from diffusion_policy.checkpoint.migration import migrate_config
from diffusion_policy.dataset.stores.pusht_store import PushTStore
from diffusion_policy.dataset.window_dataset import WindowDataset
from diffusion_policy.spec.window import Window
from tests.configs import compose_config
from tests.demos import make_demos


def early_dataset(reader: str | None) -> dict:
    """``task.dataset`` as the first versions wrote it."""
    dataset = {
        "_target_": "diffusion_policy.dataset.replay_dataset.ReplayDataset",
        "path": "demos.zarr",
        "val_ratio": 0.02,
    }
    if reader is not None:
        target = f"diffusion_policy.dataset.{reader}"
        dataset["reader"] = {"_target_": target, "cache_dir": "elsewhere"}
    return dataset


def test_a_reader_becomes_a_store_and_its_cache(tmp_path):
    cfg = compose_config("train_dot_pusht")
    early = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
    early.task.dataset = early_dataset("pusht_reader.PushTReader")
    new = migrate_config(early).task.dataset
    assert new.store == cfg.task.dataset.store
    assert new.cache_dir == "elsewhere"
    assert "reader" in early.task.dataset, "the given config was changed"
    new.path = str(make_demos(tmp_path / "demos.zarr", 2, length=5))
    built = hydra.utils.instantiate(
        new, shape_meta=cfg.task.shape_meta, window=Window((0,), (0,)), _convert_="object"
    )
    assert isinstance(built, WindowDataset)
    assert isinstance(built.store, PushTStore)


@pytest.mark.parametrize("reader", [None, "readers.ArrayReader"])
def test_without_a_reader_of_its_own_the_content_tells(reader):
    cfg = OmegaConf.create({"task": {"dataset": early_dataset(reader)}})
    new = migrate_config(cfg).task.dataset
    assert "store" not in new
    assert "reader" not in new
    assert ("cache_dir" in new) == (reader is not None)
