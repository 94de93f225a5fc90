"""When a run is saved, how it goes on, and how it stops."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_policy.checkpoint.topk import TopKCheckpoints
from diffusion_policy.util import distributed
from diffusion_policy.util.config_file import read_config
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.output_dir import OutputLock
from diffusion_policy.util.stop_signal import Stopped, StopSignal
from diffusion_policy.workspace.base_workspace import checkpoint_path, require_same_settings
from diffusion_policy.workspace.launches import Launches, complete_launches
from diffusion_policy.workspace.loggers import sync_log
from diffusion_policy.workspace.run_config import RUN_CONFIG, resume_override, write_run_config

if TYPE_CHECKING:
    from diffusion_policy.workspace.train_workspace import TrainWorkspace


def finish_last_save(output_dir: Path, state: Mapping[str, Any]) -> None:
    """Do what a crash within the very last save of a finished run left undone.

    Args:
        state: in the latest checkpoint.

    Raises:
        UserError: it is damaged, another process holds the directory, or it cannot be written.
    """
    latest = checkpoint_path(output_dir)
    name = state["topk_name"] if state["epoch_step"] == 0 else None
    try:
        topk = TopKCheckpoints(latest.parent, state["topk"].get("monitor_key", "test_mean_score"))
        topk.load_state_dict(state["topk"])
        is_torn = topk.is_torn(latest, name)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"{latest} is damaged (topk: {error!r}); use another checkpoint of the run"
        ) from None
    if is_torn:
        with OutputLock(output_dir):
            topk.repair(latest, name)
            complete_launches(output_dir, state["global_step"])


class Saver:
    """Writes the checkpoints of a run: the latest, the best, and one before it stops.

    All processes call its methods together; the main one writes.

    Args:
        run: the output directory must be held by its main process.

    Attributes:
        launches: the record of launches; the main process alone has it.
    """

    def __init__(self, run: TrainWorkspace) -> None:
        self.run = run
        self._saved_at = time.monotonic()
        self._resume()
        if distributed.is_main():
            write_run_config(run.output_dir, run.cfg)
            self.launches = Launches(run.output_dir, run.global_step)

    def _resume(self) -> None:
        """Load the latest checkpoint if there is one."""
        run = self.run
        latest = run.get_checkpoint_path()
        started = run.output_dir / RUN_CONFIG
        if not latest.is_file() and started.is_file():
            # It did not get far, but others take its log and config for what it was started as.
            require_same_settings(started, read_config(started), run.cfg)
        if latest.is_file():
            if not run.training.resume:
                raise UserError(
                    f"training.resume is false but {latest} exists; choose another output "
                    "directory, or delete it"
                )
            run.load_checkpoint(latest)
            if distributed.is_main():
                run.topk.repair(latest, run.topk_name if run.epoch_step == 0 else None)
                print(f"resuming from {latest}: epoch {run.epoch}, step {run.global_step}")

    def save(self) -> None:
        """Save the present state.

        Raises:
            UserError: the weights are lost: a loss or gradient was not finite. Nothing is written.
        """
        run = self.run
        run.look()
        state = run.state_dict()
        if distributed.is_main():
            sync_log(run.output_dir)  # before the checkpoint that counts its records
            latest = run.save_checkpoint(state=state)
            if run.topk_name is not None and run.epoch_step == 0:
                run.topk.keep(latest, run.topk_name)
            self.launches.save(run.global_step)
        self._saved_at = time.monotonic()

    def stop_or_save(self, stop: StopSignal, *, looked: bool) -> None:
        """Save if a process was told to stop, or finds that ``checkpoint_minutes`` have passed.

        Args:
            looked: the losses have just been looked at. Several processes ask each other only
                then, since asking waits for the device, too.

        Raises:
            Stopped: a process was told to stop.
        """
        if distributed.is_launched() and not looked:
            return
        stopping, due = distributed.total([stop.received is not None, self._is_due()])
        if stopping or due:
            self.save()
        if stopping:
            raise self._stopped(stop)

    def _is_due(self) -> bool:
        minutes = self.run.training.checkpoint_minutes
        return minutes is not None and time.monotonic() - self._saved_at > 60 * minutes

    def _stopped(self, stop: StopSignal) -> Stopped:
        run = self.run
        # Another process may have been told, and this one not.
        number = stop.received or signal.SIGTERM
        if distributed.is_main():
            print(
                f"\nstopped by {number.name} at step {run.global_step} of {run.total_steps}; "
                f"state saved in {run.get_checkpoint_path()}. To go on, run the same command with "
                f"{resume_override(run.output_dir)}"
            )
        return Stopped(128 + number)
