"""The one training loop: demonstrations in; checkpoints, logs, curves and videos out."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from diffusion_policy.agent.local import LocalAgent, require_one_meaning
from diffusion_policy.checkpoint.checkpoint_file import peek_checkpoint
from diffusion_policy.checkpoint.migration import migrate_config
from diffusion_policy.checkpoint.topk import TopKCheckpoints, monitored
from diffusion_policy.dataset.base_dataset import BaseDataset
from diffusion_policy.dataset.batch_order import BatchPart
from diffusion_policy.model.diffusion.ema_model import (
    averaged_state,
    copy_to_average,
    merged_state,
)
from diffusion_policy.policy.base_policy import BasePolicy
from diffusion_policy.policy.build_policy import build_policy
from diffusion_policy.spec.batch import Batch
from diffusion_policy.transforms.pipeline import Pipeline
from diffusion_policy.util import distributed
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.output_dir import OutputLock, dispensable
from diffusion_policy.util.pytorch_util import resolve_precision
from diffusion_policy.util.seeding import seed_everything
from diffusion_policy.util.stop_signal import StopSignal
from diffusion_policy.workspace.base_runner import BaseRunner
from diffusion_policy.workspace.base_workspace import (
    DATA,
    BaseWorkspace,
    checkpoint_path,
    require_parts,
    require_same_run,
)
from diffusion_policy.workspace.changed_settings import changed_settings
from diffusion_policy.workspace.config_check import check_known_keys
from diffusion_policy.workspace.curves import plot_curves
from diffusion_policy.workspace.description import ProgressBar, description
from diffusion_policy.workspace.learner import LOSS, Learner, Position
from diffusion_policy.workspace.loader import LoaderConfig
from diffusion_policy.workspace.loggers import RunLogger
from diffusion_policy.workspace.lr_schedule import PlateauSchedule, build_schedule
from diffusion_policy.workspace.measures import action_error, validation_losses
from diffusion_policy.workspace.result import last_value, outcome
from diffusion_policy.workspace.running_means import RunningMeans
from diffusion_policy.workspace.saver import Saver, finish_last_save
from diffusion_policy.workspace.sharding import (
    distribute,
    divided_module_state,
    divided_optimizer_state,
    whole,
)
from diffusion_policy.workspace.training_config import ON_PLATEAU, TrainingConfig, apply_debug
from diffusion_policy.workspace.training_report import REPORT_FILE, write_report


class TrainWorkspace(BaseWorkspace):
    """Trains any policy on any task.

    Stopping at any moment and running the same command again ends, on the CPU, with the same
    weights and the same log as never stopping: the checkpoint holds every counter, and the order
    of data and all random numbers of a step follow from seed, epoch and position.

    Under torchrun each process works on its part of every batch and plays its part of the
    episodes; the main one writes. The loss of a step is that of the whole batch, so any number of
    processes trains alike.

    Attributes:
        global_step: optimiser steps done.
        epoch: epochs done.
        epoch_step: optimiser steps done in the current epoch.
        epoch_means, interval: means of the losses, over the current epoch and since the last
            record of the log.
        n_logged: records in logs.json.txt.
        topk_name: name under which the latest checkpoint is kept among the best, if it is.
    """

    stateful_keys = (
        "model",
        "ema_model",
        "ema",
        "optimizer",
        "lr_scheduler",
        "scaler",
        "topk",
        "epoch_means",
        "interval",
    )
    include_keys = ("global_step", "epoch", "epoch_step", "n_logged", "topk_name")

    def __init__(self, cfg: DictConfig, output_dir: str | Path | None = None) -> None:
        self.training = _checked(cfg)
        self.device = distributed.join(self.training.device)
        super().__init__(cfg, output_dir)
        if self.training.num_threads is not None:
            torch.set_num_threads(self.training.num_threads)
        self.precision = resolve_precision(self.training.precision, self.device)
        seed_everything(self.training.seed)
        self._build_policy_and_data()
        self._build_order()
        self._build_learner()
        self.topk = self._best_checkpoints()
        self.global_step = self.epoch = self.epoch_step = self.n_logged = 0
        self.epoch_means, self.interval = RunningMeans(), RunningMeans()
        self.topk_name: str | None = None

    @classmethod
    def launch(cls, cfg: DictConfig) -> float | None:
        """Run; a run that has finished is left alone, quickly: a sweep that goes on has many."""
        if distributed.is_launched() and HydraConfig.get().mode == RunMode.MULTIRUN:
            raise UserError(
                "torchrun started a sweep (-m), in which a job that fails would leave the other "
                "processes waiting; start a torchrun for each job, or a sweep without torchrun"
            )
        cfg = migrate_config(cfg)  # a task of the user's own may be of an earlier version
        output_dir = Path(HydraConfig.get().runtime.output_dir)
        if (state := _finished_state(cfg, output_dir)) is not None:
            if distributed.is_main():
                finish_last_save(output_dir, state)
                print(f"{outcome(output_dir)}; finished before, see {output_dir}")
            return last_value(output_dir, _monitored(cfg)[0])
        return super().launch(cfg)

    # ------------------------------------------------------------------ the loop

    def run(self) -> float | None:
        """Train to the end, from the latest checkpoint if there is one.

        Returns:
            The monitored metric of ``checkpoint.topk`` as last logged, which sweepers optimise.
        """
        main = distributed.is_main()
        stop = StopSignal(patient=distributed.is_launched())
        with OutputLock(self.output_dir) if main else nullcontext(), stop:
            saver = Saver(self)
            if main:
                print(description(self), flush=True)
            runner: BaseRunner | None = hydra.utils.instantiate(
                self.cfg.task.get("env_runner"), output_dir=self.output_dir
            )
            logger = RunLogger(self.output_dir, self.cfg, keep=self.n_logged) if main else None
            self.n_logged = self.n_logged if logger is None else logger.n_kept
            bar = ProgressBar(self.total_steps, self.global_step, self.training.tqdm_interval_sec)
            with runner or nullcontext(), logger or nullcontext(), bar:
                while not self.training.is_over(self.epoch, self.global_step, self.epoch_step):
                    for batches in self._rest_of_epoch():
                        loss = self.train_step(batches)
                        bar.step(self.epoch, loss)
                        if loss is not None and self.epoch_step < self._epoch_length:
                            self._log(logger, self._record(self.interval))
                        saver.stop_or_save(stop, looked=loss is not None)
                    self._end_epoch(runner, logger, saver)
                    saver.stop_or_save(stop, looked=True)
            if main:
                page = self.output_dir / (REPORT_FILE if runner is None else "")
                print(f"{outcome(self.output_dir)}; look at {page}")
            return last_value(self.output_dir, self.topk.monitor_key)

    def train_step(self, batches: list[tuple[BatchPart, Batch]]) -> float | None:
        """One optimiser step on the mean loss of ``batches``.

        Args:
            batches: this process's part of each, and its rows.

        Returns:
            The loss; None where it is not looked at: between every ``log_every`` steps.

        Raises:
            UserError: the loss or a gradient is not finite, see :class:`Learner`.
        """
        position = Position(self.global_step, self.epoch, self.epoch_step)
        done = self.epoch_step + 1
        look = done % self.training.log_every == 0 or done == self._epoch_length
        steps = self.learner.step(batches, position, look=look)
        self.global_step += 1
        self.epoch_step += 1
        self._count(steps)
        return steps[-1][LOSS] if steps else None

    def look(self) -> None:
        """Count the steps whose losses have not been looked at; see :meth:`Learner.look`."""
        self._count(self.learner.look())

    def _count(self, steps: list[dict[str, float]]) -> None:
        for values in steps:
            self.epoch_means.add(values)
            self.interval.add(values)

    @property
    def _epoch_length(self) -> int:
        """Steps of the current epoch; ``max_steps`` may cut the last one short."""
        if self.training.max_steps is None:
            return self.steps_per_epoch
        left = max(0, self.training.max_steps - self.global_step)
        return min(self.steps_per_epoch, self.epoch_step + left)

    def _rest_of_epoch(self) -> Iterator[list[tuple[BatchPart, Batch]]]:
        """The batches of each step that the current epoch still has to do."""
        per_step = self.training.gradient_accumulate_every
        first = self.epoch_step * per_step
        self.order.seek(self.epoch, first)
        batches = ((self.order.part(i), batch) for i, batch in enumerate(self.loader, first))
        for _ in range(self.epoch_step, self._epoch_length):
            yield list(islice(batches, per_step))

    def _end_epoch(self, runner: BaseRunner | None, logger: RunLogger | None, saver: Saver) -> None:
        """Evaluate, log the epoch's record and save."""
        training = self.training
        record = self._record(self.epoch_means)
        policy = self._whole_policy()
        if self._is_due(training.val_every) and len(self.val_dataset):
            record.update(self._validate(policy))
        if self._is_due(training.sample_every):
            record["train_action_mse_error"] = action_error(
                policy, self.dataset, self.order, self.device, training.seed
            )
        looks_closer = self._is_due(training.rollout_every)
        if looks_closer and runner is not None:
            saver.save()  # a rollout can take longer than a scheduler waits before it kills
            agent = LocalAgent(policy, self.pipeline)
            record.update(runner.run(agent, label=f"epoch={self.epoch:04d}"))
        self._log(logger, record)
        if looks_closer and logger is not None:
            with dispensable("curves"):
                plot_curves(logger.path, self.output_dir / "curves.png")
            if runner is None:
                with dispensable("report"):
                    self._write_report(policy, saver.launches.current)
        save = looks_closer or self._is_due(training.checkpoint_every)
        self.topk_name = self.topk.consider(record) if save else None
        complete = looks_closer and all(
            self._is_due(n) for n in (training.val_every, training.sample_every)
        )
        if self.training.fsdp:
            policy.cpu()
        # Not before the rollout: a run that stops there validates anew when it goes on.
        if isinstance(self.lr_scheduler, PlateauSchedule) and "val_loss" in record:
            self.lr_scheduler.validated(record["val_loss"])
        self.epoch += 1
        self.epoch_step = 0
        self.epoch_means.clear()
        if save:
            saver.save()
        if complete:  # after saving, so that the run can go on from here with another key
            self.topk.require_monitored(record)

    def _write_report(self, policy: BasePolicy, launch: Mapping[str, str]) -> None:
        write_report(
            self.output_dir,
            f"{self.cfg.name} on {self.cfg.task.name}",
            policy,
            (self.dataset, self.val_dataset),
            self.device,
            self.training.seed,
            launch,
        )

    def _is_due(self, every: int) -> bool:
        return (self.epoch + 1) % every == 0 or self.training.is_over(
            self.epoch + 1, self.global_step
        )

    def _validate(self, policy: BasePolicy) -> dict[str, float]:
        return validation_losses(
            policy, self.val_loader, self.val_order, self.device, self.training.seed
        )

    def _record(self, means: RunningMeans) -> dict[str, Any]:
        """A record of the log; it begins a new interval."""
        record = {
            **means.means(),
            "global_step": self.global_step - 1,
            "epoch": self.epoch,
            "lr": self.lr_scheduler.get_last_lr()[0],
        }
        self.interval.clear()
        return record

    def _log(self, logger: RunLogger | None, record: dict[str, Any]) -> None:
        if logger is not None:
            logger.log(record)
        self.n_logged += 1

    # ------------------------------------------------------------------ its parts

    def _build_policy_and_data(self) -> None:
        cfg = self.cfg
        self.pipeline = Pipeline.of_task(cfg.task)
        with distributed.main_first():  # it downloads weights and fills caches, if need be
            self.model = build_policy(cfg.policy, self.pipeline.spec)
            require_one_meaning(self.model, self.pipeline)
            self.dataset: BaseDataset = hydra.utils.instantiate(
                cfg.task.dataset,
                shape_meta=self.pipeline.raw_spec,
                window=self.model.window,
                # A dataset of the user's own need not know transforms.
                **({"transforms": cfg.task.transforms} if self.pipeline.transforms else {}),
                _convert_="object",  # or dataclasses would arrive as configs
            )
        if not len(self.dataset):
            raise UserError(
                f"{self.dataset.source or 'task.dataset'} gives no training sample: record longer "
                "episodes, choose a policy with a shorter window, or drop fewer steps"
            )
        self.val_dataset = self.dataset.get_validation_dataset()
        self.model.set_normalizer(self.dataset.get_normalizer(self.model.normalization))
        self.model.fit(self.dataset)
        if not self.training.fsdp:
            self.model.to(self.device)
        self.ema_model: BasePolicy | None = (
            copy_to_average(self.model) if self.training.use_ema else None
        )
        self.ema = (
            hydra.utils.instantiate(cfg.ema, model=self.ema_model) if self.ema_model else None
        )

    def _build_order(self) -> None:
        """The order of training and validation batches, and the length of training."""
        training, per_step = self.training, self.training.gradient_accumulate_every
        most = None if training.max_train_steps is None else training.max_train_steps * per_step
        self.order, self.loader = LoaderConfig.parse("dataloader", self.cfg.dataloader).batches(
            self.dataset, self.device, training.seed, shuffle=True, max_batches=most
        )
        val_config = LoaderConfig.parse("val_dataloader", self.cfg.val_dataloader)
        self.val_order, self.val_loader = val_config.batches(
            self.val_dataset,
            self.device,
            training.seed,
            shuffle=False,
            max_batches=training.max_val_steps,
        )
        self.steps_per_epoch = -(-self.order.n_batches // per_step)
        self.total_steps = training.max_steps or self.steps_per_epoch * training.num_epochs

    def _build_learner(self) -> None:
        if self.training.compile:
            for network in self.model.children():
                network.compile()
        if self.training.fsdp:
            self._undivided = copy.deepcopy(self.model)  # on the CPU
        model = distribute(
            self.model,
            self.ema_model,
            self.device,
            fsdp=self.training.fsdp,
            precision=self.precision,
        )
        self.optimizer = self.model.get_optimizer(self.cfg.optimizer)
        if self.training.lr_scheduler == ON_PLATEAU and not len(self.val_dataset):
            raise UserError(
                f"training.lr_scheduler is {ON_PLATEAU}, which follows the validation loss, and no "
                "episode is held out; use task.dataset.val_ratio=0.02, or another schedule"
            )
        self.lr_scheduler = build_schedule(self.optimizer, self.training, self.total_steps)
        # Small gradients vanish in fp16 unless the loss is scaled up.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self.learner = Learner(
            model,
            self.model,
            self.optimizer,
            self.lr_scheduler,
            self.scaler,
            self.ema,
            precision=self.precision,
            max_grad_norm=self.training.max_grad_norm,
            device=self.device,
        )

    def _best_checkpoints(self) -> TopKCheckpoints:
        settings = dict(self.cfg.checkpoint.topk)
        key, mode = _monitored(self.cfg)
        if settings.get("monitor_key") is None and key == "val_loss" and not len(self.val_dataset):
            settings["k"] = 0  # nothing tells which are best
        settings.update(monitor_key=key, mode=mode)
        return TopKCheckpoints(self.output_dir / "checkpoints", **settings)

    @property
    def policy(self) -> BasePolicy:
        """The policy to evaluate: the averaged one if there is one."""
        return self.model if self.ema_model is None else self.ema_model

    def _whole_policy(self) -> BasePolicy:
        """:attr:`policy`, or a copy with all its weights where processes have parts of them."""
        if not self.training.fsdp:
            return self.policy
        self._undivided.load_state_dict(whole(self.policy.state_dict()))
        self._undivided.to(self.device)
        return self._undivided

    # ------------------------------------------------------------------ stop and go on

    def state_dict(self) -> dict[str, Any]:
        state = {**super().state_dict(), DATA: self.dataset.fingerprint}
        if self.ema_model is not None:
            state["ema_model"] = averaged_state(self.ema_model, self.model)
        return whole(state, keep=distributed.is_main())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state.

        Raises:
            UserError: it was trained on other data.
        """
        trained_on, found = state.get(DATA), self.dataset.fingerprint
        if trained_on and trained_on != found:
            raise UserError(
                f"the data have changed: the run was trained on {trained_on}, and "
                f"{self.dataset.source} holds {found}; go on with the same data, or choose another "
                "output directory"
            )
        # An optimiser keeps the tensors that it is given, and these are those of a file.
        state = {**state, "optimizer": copy.deepcopy(state["optimizer"])}
        if self.ema_model is not None and state["ema_model"] is not None:
            model = self.model.state_dict() if state["model"] is None else state["model"]
            state["ema_model"] = merged_state(model, state["ema_model"])
        if self.training.fsdp:
            if state["optimizer"] is not None:
                state["optimizer"] = divided_optimizer_state(self.optimizer, state["optimizer"])
            for name, module in (("model", self.model), ("ema_model", self.ema_model)):
                if module is not None and state[name] is not None:
                    state[name] = divided_module_state(module, state[name])
        super().load_state_dict(state)


def _finished_state(cfg: DictConfig, output_dir: Path) -> dict[str, Any] | None:
    """State of the run in ``output_dir`` if it has done all that ``cfg`` asks for, else None.

    Raises:
        UserError: it was started with other settings, or its checkpoint is damaged.
    """
    training = _checked(cfg)
    latest = checkpoint_path(output_dir)
    if not training.resume or not latest.is_file():
        return None
    payload = peek_checkpoint(latest)
    require_same_run(latest, payload, cfg)
    state = payload["state"]
    require_parts(latest, state, (*TrainWorkspace.include_keys, "topk"))
    done = [state[key] for key in ("epoch", "global_step", "epoch_step")]
    if not all(isinstance(number, int) for number in done):
        raise UserError(
            f"{latest} is damaged (it counts {done}); use another checkpoint of the run"
        )
    if changed_settings(DictConfig(OmegaConf.create(payload["config"])), cfg):
        return None  # the data lie elsewhere: whether they are the same is seen on reading them
    return state if training.is_over(*done) else None


def _monitored(cfg: DictConfig) -> tuple[str, str]:
    """``monitor_key`` and ``mode`` of the best checkpoints."""
    topk = cfg.checkpoint.topk
    return monitored(
        topk.get("monitor_key"), topk.get("mode"), rolls_out=cfg.task.get("env_runner") is not None
    )


def _checked(cfg: DictConfig) -> TrainingConfig:
    """The ``training`` section, once the whole config is known to be sound."""
    check_known_keys(cfg)
    training = TrainingConfig.parse(cfg.training)
    if training.debug:
        apply_debug(cfg)
        training = TrainingConfig.parse(cfg.training)
    return training
