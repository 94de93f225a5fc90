"""Settings of a saved config that are changed when the policy is used. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from diffusion_policy.util.config_file import require_plain
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.meant import meant_or


def change_settings(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Change settings of the policy or the runner in place.

    Args:
        overrides: ``key=value`` for a setting that the config has, ``+key=value`` for a setting
            that it may leave at the default.

    Raises:
        UserError: there is no such setting, or its value cannot be read.
    """
    remedy = "give key=value as in policy.noise_scheduler.num_inference_steps=10"
    for override in overrides:
        key, equals, value = override.lstrip("+").partition("=")
        where, _, name = key.rpartition(".")
        section = OmegaConf.select(cfg, where or "?")
        exists = OmegaConf.is_dict(section) and name in section
        adds = OmegaConf.is_dict(section) and override.startswith("+")
        if not equals or not (exists or adds):
            known = list(section) if OmegaConf.is_dict(section) and not exists else []
            others = f"{remedy}, or +key=value for one that its config leaves at the default"
            raise UserError(
                f"override {override!r} names no setting of the checkpoint; "
                f"{meant_or(others, name, known, where)}"
            )
        if not key.startswith(("policy.", "task.env_runner.")):
            raise UserError(f"override {override!r} changes nothing here; {remedy}")
        try:
            (parsed,) = OverridesParser.create().parse_overrides([f"{key}={value}"])
        except HydraException as error:
            raise UserError(
                f"override {override!r} cannot be read ({str(error).splitlines()[0]}); {remedy}"
            ) from None
        new = parsed.value()
        require_plain(new, f"override {override!r}", key)
        if exists and OmegaConf.is_dict(OmegaConf.select(cfg, key)) != isinstance(new, dict):
            raise UserError(f"override {override!r} gives a value to a section; {remedy}")
        OmegaConf.update(cfg, key, new, force_add=True)
