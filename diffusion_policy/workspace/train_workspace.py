"""The one training loop: demonstrations in; checkpoints, logs, curves and videos out."""

from __future__ import annotations

import copy
import math
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import hydra
import torch
from diffusers.optimization import get_scheduler
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from tqdm import tqdm

from diffusion_policy.agent.local import LocalAgent
from diffusion_policy.checkpoint.checkpoint_file import load_checkpoint
from diffusion_policy.checkpoint.topk import TopKCheckpoints
from diffusion_policy.dataset.base_dataset import BaseDataset
from diffusion_policy.dataset.batch_order import BatchOrder, BatchPart, as_is
from diffusion_policy.model.common.batch_random import batch_randomness
from diffusion_policy.model.common.inference import undisturbed
from diffusion_policy.model.diffusion.ema_model import (
    averaged_state,
    copy_to_average,
    merged_state,
)
from diffusion_policy.policy.base_policy import BasePolicy, Batch
from diffusion_policy.spec.task_spec import TaskSpec
from diffusion_policy.util import distributed
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.output_dir import OutputLock
from diffusion_policy.util.pytorch_util import (
    AUTOCAST_DTYPES,
    count_parameters,
    dict_apply,
    resolve_precision,
)
from diffusion_policy.util.seeding import seed_everything, seed_step
from diffusion_policy.util.stop_signal import Stopped, StopSignal
from diffusion_policy.workspace.base_runner import BaseRunner
from diffusion_policy.workspace.base_workspace import (
    BaseWorkspace,
    checkpoint_path,
    require_same_settings,
)
from diffusion_policy.workspace.config_check import check_known_keys
from diffusion_policy.workspace.curves import plot_curves
from diffusion_policy.workspace.launches import Launches
from diffusion_policy.workspace.loggers import RunLogger
from diffusion_policy.workspace.result import final_score, last_value
from diffusion_policy.workspace.run_config import RUN_CONFIG, resume_override, write_run_config
from diffusion_policy.workspace.sharding import (
    divided_module_state,
    divided_optimizer_state,
    shard,
    whole,
)
from diffusion_policy.workspace.training_config import TrainingConfig, apply_debug

_PACE_STEPS = 50  # after so many steps the pace is known


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
        loss_sum: of the steps of the current epoch.
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
    )
    include_keys = ("global_step", "epoch", "epoch_step", "loss_sum", "n_logged", "topk_name")

    def __init__(self, cfg: DictConfig, output_dir: str | Path | None = None) -> None:
        self.training = _checked(cfg)
        self.device = distributed.join(self.training.device)
        super().__init__(cfg, output_dir)
        if self.training.num_threads is not None:
            torch.set_num_threads(self.training.num_threads)
        self.precision = resolve_precision(self.training.precision, self.device)
        seed_everything(self.training.seed)

        with distributed.main_first():  # it downloads weights and fills caches, if need be
            self.model: BasePolicy = hydra.utils.instantiate(cfg.policy)
            self.dataset: BaseDataset = hydra.utils.instantiate(
                cfg.task.dataset,
                shape_meta=TaskSpec.parse(
                    self.model.shape_meta, cfg.task.get("fps"), cfg.task.get("embodiment")
                ),
                window=self.model.window,
                _convert_="object",  # or dataclasses would arrive as configs
            )
        self.val_dataset = self.dataset.get_validation_dataset()
        self.model.set_normalizer(self.dataset.get_normalizer(self.model.normalization))
        self.model.fit(self.dataset)
        if not self.training.fsdp:
            self.model.to(self.device)
        self.ema_model = copy_to_average(self.model) if self.training.use_ema else None
        self.ema = (
            hydra.utils.instantiate(cfg.ema, model=self.ema_model) if self.ema_model else None
        )

        if self.training.compile:
            for network in self.model.children():
                network.compile()

        self.learner = self._distribute()

        processes = {"rank": distributed.rank(), "n_processes": distributed.n_processes()}
        self.order = BatchOrder(
            len(self.dataset),
            cfg.dataloader.batch_size,
            self.training.seed,
            max_batches=self._cap(),
            draw=self.dataset.draw_epoch,
            **processes,
        )
        self.loader = self._loader(self.dataset, self.order, cfg.dataloader)
        self.val_order = BatchOrder(
            len(self.val_dataset),
            cfg.val_dataloader.batch_size,
            self.training.seed,
            shuffle=False,
            max_batches=self.training.max_val_steps,
            **processes,
        )
        self.val_loader = self._loader(self.val_dataset, self.val_order, cfg.val_dataloader)
        self.steps_per_epoch = -(-self.order.n_batches // self.training.gradient_accumulate_every)
        self.total_steps = self.steps_per_epoch * self.training.num_epochs

        self.optimizer = self.model.get_optimizer(cfg.optimizer)
        self.lr_scheduler = get_scheduler(
            self.training.lr_scheduler,
            self.optimizer,
            num_warmup_steps=self.training.lr_warmup_steps,
            num_training_steps=self.total_steps,
        )
        # Small gradients vanish in fp16 unless the loss is scaled up.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self.topk = TopKCheckpoints(self.output_dir / "checkpoints", **cfg.checkpoint.topk)
        self.global_step = self.epoch = self.epoch_step = self.n_logged = 0
        self.loss_sum = 0.0
        self.topk_name: str | None = None

    @classmethod
    def launch(cls, cfg: DictConfig) -> float | None:
        """Run; a run that has finished is left alone, quickly: a sweep that goes on has many."""
        if distributed.is_launched() and HydraConfig.get().mode == RunMode.MULTIRUN:
            raise UserError(
                "torchrun started a sweep (-m), in which a job that fails would leave the other "
                "processes waiting; start a torchrun for each job, or a sweep without torchrun"
            )
        output_dir = Path(HydraConfig.get().runtime.output_dir)
        if _is_finished(cfg, output_dir):
            if distributed.is_main():
                print(f"{final_score(output_dir)}; finished before, see {output_dir}")
            return last_value(output_dir, cfg.checkpoint.topk.monitor_key)
        return super().launch(cfg)

    def _distribute(self) -> nn.Module:
        """What computes the loss of a batch and, in backward, the gradients of all processes."""
        if not distributed.is_launched():
            if self.training.fsdp:
                raise UserError(
                    "training.fsdp is true but this is a single process; start it by torchrun "
                    "--nproc_per_node=N train.py ..., or set it to false"
                )
            return self.model
        if any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in self.model.modules()):
            raise UserError(
                "the policy has BatchNorm layers, whose statistics each process would take from "
                "its own rows; use policy.obs_encoder.group_norm=true, or a single process"
            )
        if not self.training.fsdp:
            return DistributedDataParallel(self.model)
        if self.precision == "fp16":
            raise UserError("training.precision is fp16 with training.fsdp=true; use bf16 or fp32")
        self._undivided = copy.deepcopy(self.model)  # on the CPU
        for model in filter(None, (self.model, self.ema_model)):
            shard(model, self.device)
        return self.model

    def _cap(self) -> int | None:
        """Batches an epoch at most."""
        if self.training.max_train_steps is None:
            return None
        return self.training.max_train_steps * self.training.gradient_accumulate_every

    def _loader(self, dataset: BaseDataset, order: BatchOrder, cfg: DictConfig) -> DataLoader:
        options = {key: value for key, value in cfg.items() if key != "batch_size"}
        return DataLoader(
            dataset,
            batch_sampler=order,
            collate_fn=as_is,
            # Each pass draws a seed; from the global generator that would tell a resumed epoch
            # from an uninterrupted one.
            generator=torch.Generator().manual_seed(self.training.seed),
            **{"pin_memory": self.device.type == "cuda", **options},
        )

    # ------------------------------------------------------------------ the loop

    def run(self) -> float | None:
        """Train until ``num_epochs``, from the latest checkpoint if there is one.

        Returns:
            The monitored metric of ``checkpoint.topk`` as last logged, which sweepers optimise.
        """
        main = distributed.is_main()
        stop = StopSignal(patient=distributed.is_launched())
        with OutputLock(self.output_dir) if main else nullcontext(), stop:
            self._resume()
            if main:
                write_run_config(self.output_dir, self.cfg)
                self._launches = Launches(self.output_dir, self.global_step)
                self._describe()
            runner: BaseRunner = hydra.utils.instantiate(
                self.cfg.task.env_runner, output_dir=self.output_dir
            )
            logger = RunLogger(self.output_dir, self.cfg, keep=self.n_logged) if main else None
            first_step = self.global_step
            with runner, logger or nullcontext(), self._progress() as bar:
                while self.epoch < self.training.num_epochs:
                    for batches in self._rest_of_epoch():
                        loss = self.train_step(batches)
                        bar.set_postfix(epoch=self.epoch, loss=f"{loss:.4f}", refresh=False)
                        bar.update()
                        if main and self.global_step == first_step + _PACE_STEPS:
                            self._tell_pace(bar)
                        if self.epoch_step < self.steps_per_epoch:
                            self._log(logger, self._record(loss))
                        self._stop_or_save(stop)
                    self._end_epoch(runner, logger)
                    self._stop_or_save(stop)
            if main:
                print(f"{final_score(self.output_dir)}; look at {self.output_dir}")
            return last_value(self.output_dir, self.topk.monitor_key)

    def train_step(self, batches: list[tuple[BatchPart, Batch]]) -> float:
        """One optimiser step on the mean loss of ``batches``; returns that loss.

        Args:
            batches: this process's part of each, and its rows.

        Raises:
            UserError: the loss or a gradient is not finite. Weights and optimiser are left as
                they were.
        """
        self.model.train()
        losses = []
        for number, (part, batch) in enumerate(batches, start=1):
            seed_step(part.own_seed, self.device)
            with self._gradients_are_shared(number == len(batches)):
                loss = self._loss(part, batch)
                losses.append(distributed.total([loss.item() * part.share])[0])
                self._require_finite("loss", losses[-1])
                # Gradients of processes are averaged, so that their losses' shares have to be
                # counted in processes.
                scale = part.share * distributed.n_processes() / len(batches)
                self.scaler.scale(loss * scale).backward()
        self.scaler.unscale_(self.optimizer)
        limit = math.inf if self.training.max_grad_norm is None else self.training.max_grad_norm
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        if not self.scaler.is_enabled():  # a scaler leaves such a step out and scales down
            self._require_finite("norm of the gradient", whole(norm).item())
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.is_enabled() and self.scaler.get_scale() < 1:
            raise UserError(
                f"the gradient is not finite in fp16 however the loss is scaled, at step "
                f"{self.global_step}; use training.precision=bf16 or fp32"
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.lr_scheduler.step()
        self.model.after_update()
        if self.ema is not None:
            self.ema.step(self.model)
        self.global_step += 1
        self.epoch_step += 1
        loss = sum(losses) / len(losses)
        self.loss_sum += loss
        return loss

    def _loss(self, part: BatchPart, batch: Batch) -> Tensor:
        dtype = AUTOCAST_DTYPES[self.precision]
        with (
            batch_randomness(part.start, part.stop, part.total, part.seed),
            torch.autocast(self.device.type, dtype, enabled=dtype is not None),
        ):
            return self.learner(self._to_device(batch))[0]

    def _gradients_are_shared(self, last: bool) -> AbstractContextManager[None]:
        """In the block, gradients go round the processes, unless more are to be added first."""
        if isinstance(self.learner, DistributedDataParallel):
            return nullcontext() if last else self.learner.no_sync()
        if isinstance(self.learner, FSDPModule):
            self.learner.set_requires_gradient_sync(last)
        return nullcontext()

    def _require_finite(self, name: str, value: float) -> None:
        if not math.isfinite(value):
            raise UserError(
                f"the {name} is {value} at step {self.global_step} (step {self.epoch_step} of "
                f"epoch {self.epoch}); nothing was updated. Lower optimizer.lr, set "
                "training.max_grad_norm, or look at the data of that step"
            )

    def _rest_of_epoch(self) -> Iterator[list[tuple[BatchPart, Batch]]]:
        """The batches of each step that the current epoch still has to do."""
        per_step = self.training.gradient_accumulate_every
        first = self.epoch_step * per_step
        self.order.seek(self.epoch, first)
        batches = ((self.order.part(i), batch) for i, batch in enumerate(self.loader, first))
        while group := list(islice(batches, per_step)):
            yield group

    def _end_epoch(self, runner: BaseRunner, logger: RunLogger | None) -> None:
        """Evaluate, log the epoch's record and save."""
        training = self.training
        record = self._record(self.loss_sum / max(1, self.epoch_step))
        policy = self._whole_policy()
        if self._is_due(training.val_every) and len(self.val_dataset):
            record["val_loss"] = self._validate(policy)
        if self._is_due(training.sample_every):
            record["train_action_mse_error"] = self._sample(policy)
        rolled_out = self._is_due(training.rollout_every)
        if rolled_out:
            self._save()  # a rollout can take longer than a scheduler waits before it kills
            record.update(runner.run(LocalAgent(policy), label=f"epoch={self.epoch:04d}"))
        self._log(logger, record)
        if rolled_out and logger is not None:
            plot_curves(logger.path, self.output_dir / "curves.png")
        save = self._is_due(training.checkpoint_every) or rolled_out
        self.topk_name = self.topk.consider(record) if save else None
        every = (training.val_every, training.sample_every, training.rollout_every)
        complete = all(self._is_due(n) for n in every)
        if self.training.fsdp:
            policy.cpu()
        self.epoch += 1
        self.epoch_step, self.loss_sum = 0, 0.0
        if save:
            self._save()
        if complete:  # after saving, so that the run can go on from here with another key
            self.topk.require_monitored(record)

    # ------------------------------------------------------------------ its parts

    @property
    def policy(self) -> BasePolicy:
        """The policy to evaluate: the averaged one if there is one."""
        return self.model if self.ema_model is None else self.ema_model

    def _whole_policy(self) -> BasePolicy:
        """:attr:`policy`, or a copy with all its weights where processes have parts of them."""
        if not self.training.fsdp:
            return self.policy
        self._undivided.load_state_dict(whole(self.policy.state_dict()))
        return self._undivided.to(self.device)

    def _is_due(self, every: int) -> bool:
        return (self.epoch + 1) % every == 0 or self.epoch + 1 == self.training.num_epochs

    def _to_device(self, batch: Batch) -> Batch:
        return dict_apply(batch, lambda x: x.to(self.device, non_blocking=True))

    def _validate(self, policy: BasePolicy) -> float:
        """Mean loss over the held-out episodes, with the same random draws every time."""
        losses = n_rows = 0.0
        with undisturbed(policy, self.device, self.training.seed):
            for i, batch in enumerate(self.val_loader):
                part = self.val_order.part(i)
                with batch_randomness(part.start, part.stop, part.total, part.seed):
                    loss = policy.compute_loss(self._to_device(batch))[0].item()
                losses += loss * part.share * part.total
                n_rows += part.share * part.total
        losses, n_rows = distributed.total([losses, n_rows])
        return losses / n_rows

    def _sample(self, policy: BasePolicy) -> float:
        """Mean squared error, raw units squared, of actions predicted for a training batch."""
        self.order.seek(epoch=0)
        batch = self._to_device(self.dataset.__getitems__(next(iter(self.order))))
        part = self.order.part(0)
        ids = range(part.start, part.stop)  # each draws by its number in the whole batch
        acting_for, policy.embodiment = policy.embodiment, batch["embodiment"]
        with undisturbed(policy, self.device, self.training.seed):
            policy.reset()
            predicted = policy.predict_action(batch["obs"], env_ids=ids)["action_pred"]
            policy.reset()
        policy.embodiment = acting_for
        rows = [policy.window.action_offsets.index(t) for t in policy.action_pred_offsets]
        error = (predicted - batch["action"][:, rows]).square().mean(-1)
        error = error[~batch["action_is_pad"][:, rows]]
        counts = part.share > 0
        error_sum, n_steps = distributed.total([counts * error.sum().item(), counts * len(error)])
        return error_sum / n_steps

    def _record(self, loss: float) -> dict[str, Any]:
        return {
            "train_loss": loss,
            "global_step": self.global_step - 1,
            "epoch": self.epoch,
            "lr": self.lr_scheduler.get_last_lr()[0],
        }

    def _log(self, logger: RunLogger | None, record: dict[str, Any]) -> None:
        if logger is not None:
            logger.log(record)
        self.n_logged += 1

    # ------------------------------------------------------------------ stop and go on

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        if self.ema_model is not None:
            state["ema_model"] = averaged_state(self.ema_model, self.model)
        return whole(state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        # An optimiser keeps the tensors that it is given, and these are those of a file.
        state = {**state, "optimizer": copy.deepcopy(state["optimizer"])}
        if self.ema_model is not None and state["ema_model"] is not None:
            model = self.model.state_dict() if state["model"] is None else state["model"]
            state["ema_model"] = merged_state(model, state["ema_model"])
        if self.training.fsdp:
            state["optimizer"] = divided_optimizer_state(self.optimizer, state["optimizer"])
            for name, module in (("model", self.model), ("ema_model", self.ema_model)):
                if module is not None:
                    state[name] = divided_module_state(module, state[name])
        super().load_state_dict(state)

    def _stop_or_save(self, stop: StopSignal) -> None:
        """What all processes do when one of them was told to stop, or finds that time has come."""
        stopping, due = distributed.total([stop.received is not None, self._save_is_due()])
        if stopping:
            self._save()
            raise self._stopped(stop)
        if due:
            self._save()

    def _save(self) -> None:
        state = self.state_dict()
        if distributed.is_main():
            latest = self.save_checkpoint(state=state)
            if self.topk_name is not None and self.epoch_step == 0:
                self.topk.keep(latest, self.topk_name)
            self._launches.save(self.global_step)
        self._saved_at = time.monotonic()

    def _save_is_due(self) -> bool:
        minutes = self.training.checkpoint_minutes
        return minutes is not None and time.monotonic() - self._saved_at > 60 * minutes

    def _resume(self) -> None:
        self._saved_at = time.monotonic()
        latest = self.get_checkpoint_path()
        started = self.output_dir / RUN_CONFIG
        if not latest.is_file() and started.is_file():
            # It did not get far, but others take its log and config for what it was started as.
            require_same_settings(started, OmegaConf.load(started), self.cfg)
        if latest.is_file():
            if not self.training.resume:
                raise UserError(
                    f"training.resume is false but {latest} exists; choose another output "
                    "directory, or delete it"
                )
            self.load_checkpoint(latest)
            if distributed.is_main():
                self.topk.repair(latest, self.topk_name if self.epoch_step == 0 else None)
                print(f"resuming from {latest}: epoch {self.epoch}, step {self.global_step}")

    def _stopped(self, stop: StopSignal) -> Stopped:
        # Another process may have been told, and this one not.
        number = stop.received or signal.SIGTERM
        if distributed.is_main():
            print(
                f"\nstopped by {number.name} at step {self.global_step} of {self.total_steps}; "
                f"state saved in {self.get_checkpoint_path()}. To go on, run the same command with "
                f"{resume_override(self.output_dir)}"
            )
        return Stopped(128 + number)

    # ------------------------------------------------------------------ what a person sees

    def _describe(self) -> None:
        """Say what will happen, before it does."""
        trainable, total = count_parameters(self.model)
        n_processes = distributed.n_processes()
        processes = f"{n_processes} processes, each " if n_processes > 1 else ""
        policy = self.cfg.policy._target_.rpartition(".")[2]
        batch = self.cfg.dataloader.batch_size * self.training.gradient_accumulate_every
        shapes = ", ".join(f"{k} {list(f.shape)}" for k, f in self.model.shape_meta.obs.items())
        print(
            f"device    {processes}{self.device}, {torch.get_num_threads()} CPU threads, "
            f"{self.precision}\n"
            f"data      {self.dataset.source}: {self.dataset.n_episodes} training episodes "
            f"({len(self.dataset):,} samples), {self.val_dataset.n_episodes} for validation\n"
            f"inputs    {shapes} at steps {list(self.model.obs_offsets)}\n"
            f"policy    {policy}, {trainable:,} of {total:,} parameters train\n"
            f"schedule  {self.training.num_epochs} epochs x {self.steps_per_epoch} steps of "
            f"{batch} samples = {self.total_steps:,} steps, {self.global_step:,} done\n"
            f"output    {self.output_dir}",
            flush=True,
        )

    def _tell_pace(self, bar: tqdm) -> None:
        """Say how long the rest will take, without rollouts."""
        minutes = (bar.total - bar.n) * bar.format_dict["elapsed"] / _PACE_STEPS / 60
        bar.write(f"expected  about {minutes:.0f} minutes of training, plus rollouts", sys.stdout)

    def _progress(self) -> tqdm:
        return tqdm(
            disable=not distributed.is_main(),
            total=self.total_steps,
            initial=self.global_step,
            desc="Training",
            unit="step",
            mininterval=self.training.tqdm_interval_sec,
            smoothing=0.05,
            file=sys.stderr,
        )


def _is_finished(cfg: DictConfig, output_dir: Path) -> bool:
    """Whether the run in ``output_dir`` has done all that ``cfg`` asks for.

    Raises:
        UserError: it was started with other settings.
    """
    training = _checked(cfg)
    latest = checkpoint_path(output_dir)
    if not training.resume or not latest.is_file():
        return False
    payload = load_checkpoint(latest)
    require_same_settings(latest, OmegaConf.create(payload["config"]), cfg)
    return payload["state"]["epoch"] >= training.num_epochs


def _checked(cfg: DictConfig) -> TrainingConfig:
    """The ``training`` section, once the whole config is known to be sound."""
    check_known_keys(cfg)
    training = TrainingConfig.parse(cfg.training)
    if training.debug:
        apply_debug(cfg)
        training = TrainingConfig.parse(cfg.training)
    return training
