"""Train a policy: ``python train.py --config-name=train_dot_pusht [key=value ...]``."""

from __future__ import annotations

import os
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import DictConfig

from diffusion_policy.util.errors import UserError, fail, reports_user_errors, user_message
from diffusion_policy.util.train_command import usage, with_own_configs, with_setting_added

# Threads that wait for each other sleep instead of spinning, which slows a busy machine
# down. It must be set before torch is imported. Results stay the same.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Let Hydra's errors reach reports_user_errors, which prints them as one line.
os.environ["HYDRA_FULL_ERROR"] = "1"


@hydra.main(version_base="1.3", config_path="pkg://diffusion_policy.config", config_name="train")
def run(cfg: DictConfig) -> float | None:
    launch = {"_target_": f"{cfg.workspace._target_}.launch"}
    try:
        return hydra.utils.instantiate(launch, cfg, _recursive_=False)
    except Exception as error:
        # An error from another process arrives without its causes, so extract the message here.
        if not (message := user_message(error)):
            raise
        if HydraConfig.get().mode == RunMode.RUN:
            fail(message)  # here, because Hydra puts a line of its own above an exception
        raise UserError(message) from error


@reports_user_errors
def main() -> None:
    if sys.argv[1:] in ([], ["-h"], ["--help"]):
        print(usage())
        sys.exit(0 if sys.argv[1:] else 2)  # as argparse ends without what it requires
    sys.argv[1:] = with_own_configs(sys.argv[1:])
    while True:
        try:
            return run()
        except ConfigCompositionException as error:
            arguments = with_setting_added(sys.argv[1:], error)
            if arguments is None:
                raise
            sys.argv[1:] = arguments


if __name__ == "__main__":
    main()
