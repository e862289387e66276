"""The training loop."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from posedy.config import ClassifierConfig, Config
from posedy.data.loaders import Batch, SampleLoader
from posedy.files import write_bytes_atomically
from posedy.models.dynamic_conv import set_temperature
from posedy.models.network_file import Network, network_state, write_checkpoint
from posedy.system import default_num_workers, peak_memory_mb
from posedy.training.checkpoint import BEST, LAST, RunState, read_run_state
from posedy.training.distributed import DistributedContext
from posedy.training.entropy import ENTROPY, EntropyMeter
from posedy.training.interrupt import StopSignal, TrainingInterruptedError, catch_stop_signals
from posedy.training.loggers import RunLogger, ThroughputMeter, format_duration
from posedy.training.optim import ModelEMA, describe_learning_rates, learning_rate, make_optimizer, temperature
from posedy.training.pose_task import PoseTask
from posedy.training.task import Task


class NonFiniteLossError(ArithmeticError):
    """The loss or the weights became NaN or infinite; the message names the batch."""


class Trainer:
    """Trains the network of a configuration in a run folder, and resumes from its last checkpoint if there is one.

    The folder gets config.yaml, metrics.csv, curves.png, for dynamic networks attention.csv (the mean entropy of each
    layer's attention by epoch), TensorBoard files, batch visualizations, last.pt after every epoch (all that is needed
    to resume) and best.pt (the network with the best AP or top-1 so far).

    Args:
        config: the experiment.
        run: the run folder.
        progress: whether to show progress bars.
        accept_changes: resume although the configuration changes training results, which is rejected otherwise.
        context: the processes of the run; None creates it.
        make_task: creates what is trained from the configuration: `PoseTask`, or `ClassifierTask` for classifiers.

    Raises:
        OSError, ValueError: if data, weights or an existing run in the folder do not fit the configuration.
    """

    def __init__(
        self,
        config: Config | ClassifierConfig,
        run: Path,
        progress: bool = True,
        accept_changes: bool = False,
        context: DistributedContext | None = None,
        make_task: Callable[[Any, DistributedContext], Task] = PoseTask,
    ) -> None:
        self.context = context or DistributedContext(config.train)
        self.log = self.context.log
        if config.train.precision == "auto":
            # The precision changes training results: the run keeps it when it resumes on another device.
            config = config.model_copy(
                update={"train": config.train.model_copy(update={"precision": self.context.precision})}
            )
            self.log(f"train.precision=auto: {self.context.precision} on {self.context.device.type}")
        self.config = config
        self.run = run
        self.progress = progress and self.context.is_main
        self.workers = config.train.workers if config.train.workers is not None else default_num_workers()
        self.state = RunState()
        with self.context.fail_together():
            self.task = task = make_task(config, self.context)
            pin_memory = self.context.device.type == "cuda"
            self.loader = SampleLoader(task.samples, task.make_sampler(), self.workers, pin_memory)
            torch.manual_seed(config.train.seed)
            resumes = (run / LAST).is_file()
            weights = None if resumes else config.model.weights
            net = task.build_network(weights)
            if config.train.channels_last:
                net.to(memory_format=torch.channels_last)
            optimizer = make_optimizer(net, config.train)
            decay = config.train.ema_decay
            self.ema = ModelEMA(net, decay) if decay is not None else None
            if resumes:
                self.state = read_run_state(run, config, task.fingerprint, self.context.world_size, accept_changes)
                self.state.restore(net, optimizer, self.ema)
                if self.state.changes:
                    self.log("\n".join(["resuming with changes:", *self.state.changes]))
                progress_text = f"{self.state.describe_progress()} of {config.train.epochs} epochs"
                self.log(f"resuming from {run / LAST} after {progress_text}")
        with self.context.fail_together():
            if not self.context.all_equal((self.state.epoch, self.state.step)):
                raise ValueError(f"{run / LAST} differs between processes: several machines require a shared folder")
        if config.train.sync_batch_norm:
            net = torch.nn.SyncBatchNorm.convert_sync_batchnorm(net)
        self.net = net
        if self.ema is not None:
            self.ema.net.to(self.context.device)
        self.training_step = task.make_step(net, optimizer, self.ema)
        scaler = self.context.accelerator.scaler
        if scaler is not None and self.state.scaler is not None:
            scaler.load_state_dict(self.state.scaler)
        self._pending_loss: tuple[Tensor, Tensor] | None = None  # a loss and the ids of its batch
        self._last_save = time.monotonic()

    @property
    def evaluated_net(self) -> Network:
        """The network that is evaluated and saved for inference: the moving average, if there is one."""
        return self.net if self.ema is None else self.ema.net

    # -- the loop --------------------------------------------------------------------------------------------------

    def fit(self, stop_after_epochs: int | None = None) -> dict[str, float]:
        """Trains to the last epoch and returns the metrics of the last evaluation.

        Args:
            stop_after_epochs: stop after this many epochs of this call; a later call resumes.

        Raises:
            TrainingInterruptedError: after Ctrl-C or SIGTERM; the same command resumes.
            NonFiniteLossError: if the loss or the weights become NaN or infinite.
            WorkerLostError: if another training process has ended.
        """
        state, epochs = self.state, self.config.train.epochs
        last = epochs if stop_after_epochs is None else min(epochs, state.epoch + stop_after_epochs)
        logger = None
        was_finished = self._is_finished()
        if not was_finished:
            self.log(f"learning rate: {describe_learning_rates(self.config.train, state.epoch)}")
        if self.context.is_main:
            write_bytes_atomically(self.run / "config.yaml", self.config.to_yaml().encode())
            logger = RunLogger(self.run, state.epoch, self.task)
            if state.epoch == state.step == 0:
                self._draw_samples(logger)
        with catch_stop_signals() as stop_signal, self.context.detect_lost_workers():
            while True:
                if self._should_evaluate():
                    self._evaluate(logger)
                    if logger is not None:
                        self._draw_samples(logger)
                    self._end_epoch(logger)
                if state.epoch >= last or self._is_finished():
                    break
                if self._should_stop(stop_signal):
                    self._save_and_stop()
                self._train_epoch(stop_signal)
                # Save before the evaluation, which may take long.
                self._end_epoch(logger, save=self._should_save(last))
        if logger is not None:
            logger.close()
        if was_finished:
            limit = "train.epochs" if state.epoch >= self.config.train.epochs else "train.minutes"
            self.log(f"training already finished ({state.describe_progress()}); increase {limit} to continue")
        elif not self._is_finished():
            self.log(f"stopped after {last} of {epochs} epochs as requested; the same command resumes")
        elif state.epoch < epochs:
            minutes = self.config.train.minutes
            self.log(f"train.minutes={minutes:g} ended the training after epoch {state.epoch} of {epochs}")
        return state.metrics

    def _train_epoch(self, stop_signal: StopSignal) -> None:
        config, state, steps, unit = self.config.train, self.state, len(self.loader), self.task.unit
        tau = temperature(config.temperature, state.epoch)
        set_temperature(self.net, tau)
        self.training_step.set_train_mode()
        self.training_step.start_epoch(state.epoch)
        meter = ThroughputMeter()
        lr = config.lr
        bar = tqdm(
            total=steps,
            initial=state.step,
            desc=f"epoch {state.epoch + 1}/{config.epochs}",
            unit="step",
            disable=None if self.progress else True,
            leave=False,
        )
        for batch in meter.iterate(self.loader.epoch(state.epoch, state.step)):
            minutes = self._training_minutes(meter)
            lr = learning_rate(config, state.epoch * steps + state.step, steps, minutes)
            num_samples = self.loader.sampler.num_samples(state.step)
            self._train_step(batch, num_samples, lr)
            state.step += 1
            meter.samples += num_samples
            remaining = (self.task.train_size * (config.epochs - state.epoch)) - state.step * config.batch_size
            seconds_left = max(remaining, 0) / meter.samples_per_second
            if config.minutes is not None:
                seconds_left = min(seconds_left, max(60 * (config.minutes - minutes), 0))
            bar.update()
            bar.set_postfix_str(
                f"loss {state.loss_sum / max(state.step - 1, 1):.5f}, {meter.samples_per_second:.0f} {unit}/s, "
                f"data {meter.data_share:.0%}, left {format_duration(seconds_left)}"
                + (f", best {self.task.curves[0]} {state.best_metric:.3f}" if state.best_metric is not None else "")
            )
            if config.minutes is not None and minutes >= config.minutes:
                break
            if state.step < steps and self._should_stop(stop_signal):
                self._check_loss()
                state.seconds += meter.seconds
                self._save_and_stop()
            if state.step < steps and self._should_save_by_time():
                self._check_loss()
                seconds, state.seconds = state.seconds, state.seconds + meter.seconds
                self._save()
                state.seconds = seconds
        self._check_loss()
        bar.close()
        state.numbers = {
            "epoch": state.epoch + 1,
            "step": state.epoch * steps + state.step,
            "lr": lr,
            "temperature": tau,
            "loss": state.loss_sum / state.step,
            f"{unit}_per_second": meter.samples_per_second,
            "data_share": meter.data_share,
            "memory_mb": peak_memory_mb(self.context.device),
            "seconds": state.seconds + meter.seconds,
        }
        self.log(
            f"epoch {state.epoch + 1}/{config.epochs}: loss {state.numbers['loss']:.5f}, lr {lr:.2g}, "
            f"{meter.samples_per_second:.0f} {unit}/s ({meter.data_share:.0%} of the time waiting for data), "
            f"{state.numbers['memory_mb']:.0f} MB, {format_duration(state.numbers['seconds'])}"
        )
        state.numbers |= self.training_step.end_epoch()
        state.seconds_before = 60 * self._training_minutes(meter)
        state.epoch, state.step = state.epoch + 1, 0
        state.loss_sum, state.seconds = 0.0, 0.0

    def _train_step(self, batch: Batch, num_samples: int, lr: float) -> None:
        """Runs one optimizer step; meanwhile checks the loss of the previous step."""
        loss = self.context.sum(self.training_step(batch, num_samples, lr))
        self._check_loss()
        self._pending_loss = loss, batch[self.task.id_key]

    def _check_loss(self) -> None:
        """Adds up the loss of the last step once the device has computed it; called before every save."""
        if self._pending_loss is None:
            return
        (loss, ids), self._pending_loss = self._pending_loss, None
        value = float(loss)
        if not math.isfinite(value):
            raise NonFiniteLossError(
                f"the loss is {value} in epoch {self.state.epoch + 1}, on the batch of {self.task.describe_ids(ids)}, "
                f"lower train.lr or set train.clip_gradients; {self.run / LAST} keeps the last saved state, if there "
                "is one"
            )
        self.state.loss_sum += value

    def _is_finished(self) -> bool:
        """Returns whether all epochs are completed or the time limit is reached."""
        train, state = self.config.train, self.state
        return state.epoch >= train.epochs or (train.minutes is not None and state.seconds_before >= 60 * train.minutes)

    def _training_minutes(self, meter: ThroughputMeter) -> float:
        """Returns the training time so far; with a time limit its mean over processes, which must stop together."""
        minutes = (self.state.seconds_before + self.state.seconds + meter.seconds) / 60
        if self.config.train.minutes is None or self.context.world_size == 1:
            return minutes
        total = self.context.sum(torch.tensor(minutes, dtype=torch.float64, device=self.context.device))
        return float(total) / self.context.world_size

    def _should_save(self, last: int) -> bool:
        epoch = self.state.epoch
        return epoch % self.config.train.save_every == 0 or epoch >= last or self._is_finished()

    def _should_save_by_time(self) -> bool:
        minutes = self.config.train.save_minutes
        return self.context.is_main and minutes is not None and time.monotonic() - self._last_save >= 60 * minutes

    def _should_evaluate(self) -> bool:
        state = self.state
        is_due = state.epoch > 0 and (state.epoch % self.config.eval.every == 0 or self._is_finished())
        return is_due and state.step == 0 and state.evaluated_epoch != state.epoch

    def _evaluate(self, logger: RunLogger | None) -> None:
        state, net = self.state, self.evaluated_net
        net.eval()
        self.context.broadcast_buffers(net)
        entropy = EntropyMeter(net)
        # metrics are those of float32, as in `posedy test`
        with self.training_step.without_autocast(), entropy.record():
            evaluation = self.task.evaluate(net, self.workers, self.progress)
        state.metrics, state.protocol, state.evaluated_epoch = evaluation.metrics, evaluation.protocol, state.epoch
        self.log(self.task.describe(evaluation))
        state.numbers |= evaluation.metrics
        totals = self.context.sum(entropy.totals(self.context.device))
        if entropy.layers:
            by_layer = dict(zip(entropy.layers, (totals[:, 0] / totals[:, 1]).tolist(), strict=True))
            mean = sum(by_layer.values()) / len(by_layer)
            state.numbers[ENTROPY] = mean
            self.log(f"  attention: mean entropy {mean:.3f} (1: uniform, 0: one kernel)")
            if logger is not None:
                logger.write_attention(state.epoch, by_layer)
        metric = evaluation.metrics[self.task.curves[0]]
        if state.best_metric is None or metric > state.best_metric:
            state.best_metric = metric
            if self.context.is_main:
                best = {"network": network_state(net), "epoch": state.epoch, "metrics": evaluation.metrics}
                write_checkpoint(best | {"protocol": state.protocol}, self.run / BEST)

    def _draw_samples(self, logger: RunLogger) -> None:
        """Draws a fixed set of training samples with the network's predictions, if the task does."""
        image = self.task.draw(self.evaluated_net, self.training_step)
        if image is not None:
            logger.write_image(image, self.state.epoch)

    # -- saving and stopping ---------------------------------------------------------------------------------------

    def _end_epoch(self, logger: RunLogger | None, save: bool = True) -> None:
        if logger is not None:
            # Write the row before the checkpoint: resuming drops a row that is ahead of the checkpoint.
            logger.write_epoch(self.state.numbers)
            if save:
                self._save()

    def _save(self) -> None:
        """Writes last.pt, unless the weights are not finite: the previous checkpoint is kept then."""
        broken = [name for name, tensor in self.net.state_dict().items() if not tensor.isfinite().all()]
        if broken:
            raise NonFiniteLossError(
                f"after {self.state.describe_progress()}, {len(broken)} tensors of the network are not finite, first "
                f"{broken[0]}: lower train.lr or set train.clip_gradients; {self.run / LAST} is unchanged"
            )
        scaler = self.context.accelerator.scaler
        self.state.scaler = scaler.state_dict() if scaler is not None else None
        self.state.save(
            self.run / LAST,
            self.net,
            self.training_step.optimizer,
            self.ema,
            self.config,
            self.task.fingerprint,
            self.context.world_size,
        )
        self._last_save = time.monotonic()

    def _should_stop(self, stop_signal: StopSignal) -> bool:
        """Returns whether any process received a stop signal; all must stop at the same step to avoid a deadlock."""
        if self.context.world_size == 1:
            return stop_signal.received
        received = torch.tensor(float(stop_signal.received), device=self.context.device)
        return bool(self.context.sum(received) > 0)

    def _save_and_stop(self) -> None:
        if self.context.is_main:
            self._save()
        raise TrainingInterruptedError(
            f"stopped after {self.state.describe_progress()}; {self.run / LAST} is saved, the same command resumes"
        )
