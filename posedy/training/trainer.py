"""The training loop."""

import math
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import default_collate
from tqdm import tqdm

from posedy.config import Config
from posedy.data.datasets import SampleIndex
from posedy.data.loaders import Batch, CropLoader
from posedy.evaluation.coco_eval import format_metrics
from posedy.evaluation.evaluator import evaluate_model
from posedy.files import write_bytes_atomically
from posedy.models.dynamic_conv import set_temperature
from posedy.models.pose_net import PoseNet, normalize_crops
from posedy.models.pretrained import network_state
from posedy.prediction import TorchModel
from posedy.system import default_workers, peak_memory_mb
from posedy.training.checkpoint import BEST, LAST, RunState, read_run, save_checkpoint
from posedy.training.cuda_graph import GraphedStep
from posedy.training.distillation import load_teacher
from posedy.training.distributed import Processes
from posedy.training.interrupt import Interruption, TrainingInterruptedError, interruptible
from posedy.training.loggers import Meter, RunLog, clock
from posedy.training.optim import WeightAverage, describe_rates, learning_rate, make_optimizer, temperature
from posedy.training.setup import build_network, make_order, read_training_data
from posedy.training.step import TrainingStep
from posedy.training.visualize import batch_picture

_PICTURED = 8


class NonFiniteLossError(ArithmeticError):
    """The loss or the weights became NaN or infinite; the message names the batch."""


class Trainer:
    """Trains the network of a configuration in a run folder, from its last checkpoint if there is one.

    The folder gets config.yaml, metrics.csv, curves.png, TensorBoard curves, pictures of a batch, last.pt after every
    epoch (all that is needed to go on) and best.pt (the network of the best AP so far).

    Args:
        config: the experiment.
        run: its folder.
        progress: whether to show bars.
        accept_changes: go on with a configuration that changes the mathematics, which is refused otherwise.

    Raises:
        OSError, ValueError: if data, weights or an earlier run in the folder do not fit the configuration.
    """

    def __init__(self, config: Config, run: Path, progress: bool = True, accept_changes: bool = False) -> None:
        self.processes = Processes(config.train)
        self.say = self.processes.say
        if config.train.precision == "auto":
            # part of the mathematics: a run that goes on elsewhere must keep it
            config = config.model_copy(
                update={"train": config.train.model_copy(update={"precision": self.processes.precision})}
            )
            self.say(f"train.precision=auto: {self.processes.precision} on {self.processes.device.type}")
        self.config = config
        self.run = run
        self.progress = progress and self.processes.is_main
        self.workers = config.train.workers if config.train.workers is not None else default_workers()
        self.state = RunState()
        with self.processes.fail_together():
            self.data = read_training_data(config, self.say, self.processes.is_main)
            order = make_order(config, self.data.crops, self.processes.rank, self.processes.count)
            pin_memory = self.processes.device.type == "cuda"
            self.loader = CropLoader(self.data.crops, order, self.workers, pin_memory)
            torch.manual_seed(config.train.seed)
            goes_on = (run / LAST).is_file()
            weights = None if goes_on else config.model.weights
            net = build_network(config, self.data.crops.skeleton, self.say, weights)
            if config.train.channels_last:
                net.to(memory_format=torch.channels_last)
            teacher = load_teacher(config, net, self.processes)
            optimizer = make_optimizer(net, config.train)
            decay = config.train.ema_decay
            self.average = WeightAverage(net, decay) if decay is not None else None
            if goes_on:
                self.state = read_run(run, config, self.data.fingerprint, self.processes.count, accept_changes)
                self.state.restore(net, optimizer, self.average)
                if self.state.changes:
                    self.say("\n".join(["going on with changes:", *self.state.changes]))
                self.say(f"going on from {run / LAST} after {self.state.place()} of {config.train.epochs} epochs")
        with self.processes.fail_together():
            if not self.processes.same((self.state.epoch, self.state.step)):
                raise ValueError(
                    f"not every process finds the same {run / LAST}: several machines need a shared folder"
                )
        if config.train.sync_batch_norm:
            net = torch.nn.SyncBatchNorm.convert_sync_batchnorm(net)
        self.net, self.codec = net, net.codec
        if self.average is not None:
            self.average.net.to(self.processes.device)
        step = GraphedStep if config.train.cuda_graph else TrainingStep
        self.training_step = step(net, optimizer, self.average, self.codec, config.train, self.processes, teacher)
        scaler = self.processes.accelerator.scaler
        if scaler is not None and self.state.scaler is not None:
            scaler.load_state_dict(self.state.scaler)
        self._pending: tuple[Tensor, Tensor] | None = None  # a loss and whose it is
        self._saved = time.monotonic()

    @property
    def evaluated_net(self) -> PoseNet:
        """The network that is measured and saved for use: the average of the weights, if there is one."""
        return self.net if self.average is None else self.average.net

    # -- the loop --------------------------------------------------------------------------------------------------

    def fit(self, stop_after_epochs: int | None = None) -> dict[str, float]:
        """Trains to the last epoch and returns the numbers of the last evaluation.

        Args:
            stop_after_epochs: end after so many epochs of this call, to go on another time.

        Raises:
            TrainingInterruptedError: after Ctrl-C; training goes on from there with the same command.
            NonFiniteLossError: if the loss is not a number any more.
            WorkerLostError: if another process of the training has ended.
        """
        state, epochs = self.state, self.config.train.epochs
        last = epochs if stop_after_epochs is None else min(epochs, state.epoch + stop_after_epochs)
        log = None
        is_over = self._is_done()
        if not is_over:
            self.say(f"learning rate: {describe_rates(self.config.train, state.epoch)}")
        if self.processes.is_main:
            write_bytes_atomically(self.run / "config.yaml", self.config.to_yaml().encode())
            log = RunLog(self.run, state.epoch)
            if state.epoch == state.step == 0:
                self._draw_batch(log)
        with interruptible() as interruption, self.processes.together():
            while True:
                if self._evaluation_is_due():
                    self._evaluate()
                    if log is not None:
                        self._draw_batch(log)
                    self._end_epoch(log)
                if state.epoch >= last or self._is_done():
                    break
                if self._is_asked_to_stop(interruption):
                    self._stop_here()
                self._train_epoch(interruption)
                # An epoch is safe before its evaluation, which may take long.
                self._end_epoch(log, save=self._saving_is_due(last))
        if log is not None:
            log.close()
        if is_over:
            self.say(
                f"nothing was left to do: training is finished after {state.place()}; increase train.epochs to continue"
            )
        elif not self._is_done():
            self.say(f"stopped after {last} of {epochs} epochs, as asked; the same command goes on from there")
        return state.metrics

    def _train_epoch(self, interruption: Interruption) -> None:
        config, state, steps = self.config.train, self.state, len(self.loader)
        tau = temperature(config.temperature, state.epoch)
        set_temperature(self.net, tau)
        self.training_step.begin_epoch()
        meter = Meter()
        rate = config.lr
        bar = tqdm(
            total=steps,
            initial=state.step,
            desc=f"epoch {state.epoch + 1}/{config.epochs}",
            unit="step",
            disable=None if self.progress else True,
            leave=False,
        )
        for batch in meter.watch(self.loader.epoch(state.epoch, state.step)):
            minutes = self._minutes(meter)
            rate = learning_rate(config, state.epoch * steps + state.step, steps, minutes)
            persons = self.loader.order.persons(state.step)
            self._train_step(batch, persons, rate)
            state.step += 1
            meter.persons += persons
            left = (len(self.data.crops) * (config.epochs - state.epoch)) - state.step * config.batch_size
            bar.update()
            bar.set_postfix_str(
                f"loss {state.loss_sum / max(state.step - 1, 1):.5f}, {meter.persons_per_second:.0f} persons/s, "
                f"data {meter.data_share:.0%}, left {clock(max(left, 0) / meter.persons_per_second)}"
                + (f", best AP {state.best_ap:.3f}" if state.best_ap is not None else "")
            )
            if config.minutes is not None and minutes >= config.minutes:
                break
            if state.step < steps and self._is_asked_to_stop(interruption):
                self._check_loss()
                state.seconds += meter.seconds
                self._stop_here()
            if state.step < steps and self._saving_in_time_is_due():
                self._check_loss()
                seconds, state.seconds = state.seconds, state.seconds + meter.seconds
                self._save()
                state.seconds = seconds
        self._check_loss()
        bar.close()
        state.numbers = {
            "epoch": state.epoch + 1,
            "step": state.epoch * steps + state.step,
            "lr": rate,
            "temperature": tau,
            "loss": state.loss_sum / state.step,
            "persons_per_second": meter.persons_per_second,
            "data_share": meter.data_share,
            "memory_mb": peak_memory_mb(self.processes.device),
            "seconds": state.seconds + meter.seconds,
        }
        self.say(
            f"epoch {state.epoch + 1}/{config.epochs}: loss {state.numbers['loss']:.5f}, lr {rate:.2g}, "
            f"{meter.persons_per_second:.0f} persons/s ({meter.data_share:.0%} of the time waiting for data), "
            f"{state.numbers['memory_mb']:.0f} MB, {clock(state.numbers['seconds'])}"
        )
        state.seconds_before = 60 * self._minutes(meter)
        state.epoch, state.step = state.epoch + 1, 0
        state.loss_sum, state.seconds = 0.0, 0.0

    def _train_step(self, batch: Batch, persons: int, rate: float) -> None:
        """One step of the optimizer; the loss of the step before is looked at meanwhile."""
        loss = self.processes.sum(self.training_step(batch, persons, rate))
        self._check_loss()
        self._pending = loss, batch["annotation_id"]

    def _check_loss(self) -> None:
        """Adds the loss of the last step up, once the device has it; nothing is saved before its loss was looked at."""
        if self._pending is None:
            return
        (loss, annotation_ids), self._pending = self._pending, None
        value = float(loss)
        if not math.isfinite(value):
            raise NonFiniteLossError(
                f"the loss is {value} in epoch {self.state.epoch + 1}, on the batch of annotations "
                f"{annotation_ids.tolist()}: look at them, or train with a lower train.lr or with "
                f"train.clip_gradients; {self.run / LAST} still holds the state of its last writing, if there was one"
            )
        self.state.loss_sum += value

    def _is_done(self) -> bool:
        """Whether all epochs are done, or their time is over."""
        train, state = self.config.train, self.state
        return state.epoch >= train.epochs or (train.minutes is not None and state.seconds_before >= 60 * train.minutes)

    def _minutes(self, meter: Meter) -> float:
        """The time of training so far; if there is a limit, the same in all processes, whose rates and ends must be."""
        minutes = (self.state.seconds_before + self.state.seconds + meter.seconds) / 60
        if self.config.train.minutes is None or self.processes.count == 1:
            return minutes
        total = self.processes.sum(torch.tensor(minutes, dtype=torch.float64, device=self.processes.device))
        return float(total) / self.processes.count

    def _saving_is_due(self, last: int) -> bool:
        epoch = self.state.epoch
        return epoch % self.config.train.save_every == 0 or epoch >= last or self._is_done()

    def _saving_in_time_is_due(self) -> bool:
        minutes = self.config.train.save_minutes
        return self.processes.is_main and minutes is not None and time.monotonic() - self._saved >= 60 * minutes

    def _evaluation_is_due(self) -> bool:
        state = self.state
        due = state.epoch > 0 and (state.epoch % self.config.eval.every == 0 or self._is_done())
        return due and state.step == 0 and state.evaluated_epoch != state.epoch

    def _evaluate(self) -> None:
        state, net = self.state, self.evaluated_net
        net.eval()
        self.processes.share_buffers(net)
        with self.training_step.without_autocast():  # the metrics are those of float32, as in a test
            outcome = evaluate_model(
                TorchModel(net, self.processes.device),
                self.data.val,
                None,
                self.config.eval,
                workers=self.workers,
                truth=self.data.truth,
                accelerator=self.processes.accelerator,
                progress=self.progress,
            )
        state.metrics, state.protocol, state.evaluated_epoch = outcome.metrics, str(outcome.protocol), state.epoch
        self.say(format_metrics(state.metrics, state.protocol))
        state.numbers |= outcome.metrics
        if state.best_ap is None or outcome.metrics["AP"] > state.best_ap:
            state.best_ap = outcome.metrics["AP"]
            if self.processes.is_main:
                best = {"network": network_state(net), "epoch": state.epoch, "metrics": outcome.metrics}
                save_checkpoint(self.run / BEST, best | {"protocol": state.protocol})

    @torch.no_grad()
    def _draw_batch(self, log: RunLog) -> None:
        """Draws the same few training crops each time, with their targets and what the network makes of them."""
        crops, net = self.data.crops, self.evaluated_net
        draws = [SampleIndex(0, index * len(crops) // _PICTURED) for index in range(_PICTURED)]
        batch = default_collate(crops.__getitems__(draws))
        was_training = net.training
        with self.training_step.without_autocast():
            heatmaps = net.eval()(normalize_crops(batch["crop"].to(self.processes.device))).float().cpu()
        net.train(was_training)
        targets, _ = self.codec.encode(batch["keypoints"], batch["labeled"])
        found, scores = self.codec.decode(heatmaps.nan_to_num())
        picture = batch_picture(
            batch["crop"].numpy(),
            batch["keypoints"].numpy(),
            batch["labeled"].numpy(),
            targets.numpy(),
            heatmaps.numpy(),
            found.numpy(),
            scores.numpy(),
            crops.skeleton,
            _PICTURED,
        )
        log.show(picture, self.state.epoch)

    # -- saving and stopping ---------------------------------------------------------------------------------------

    def _end_epoch(self, log: RunLog | None, save: bool = True) -> None:
        if log is not None:
            # The row first: one that is ahead of its checkpoint is dropped when the run goes on.
            log.write(self.state.numbers)
            if save:
                self._save()

    def _save(self) -> None:
        """Writes last.pt, unless the weights are broken: a good state is not overwritten by a bad one."""
        broken = [name for name, tensor in self.net.state_dict().items() if not tensor.isfinite().all()]
        if broken:
            raise NonFiniteLossError(
                f"after {self.state.place()}, {len(broken)} tensors of the network are not finite, first {broken[0]}: "
                f"train with a lower train.lr or with train.clip_gradients; {self.run / LAST} was left as it was"
            )
        scaler = self.processes.accelerator.scaler
        self.state.scaler = scaler.state_dict() if scaler is not None else None
        self.state.save(
            self.run / LAST,
            self.net,
            self.training_step.optimizer,
            self.average,
            self.config,
            self.data.fingerprint,
            self.processes.count,
        )
        self._saved = time.monotonic()

    def _is_asked_to_stop(self, interruption: Interruption) -> bool:
        """Whether any process has been asked to; all stop at the same step, or the others would wait for ever."""
        if self.processes.count == 1:
            return interruption.asked
        asked = torch.tensor(float(interruption.asked), device=self.processes.device)
        return bool(self.processes.sum(asked) > 0)

    def _stop_here(self) -> None:
        if self.processes.is_main:
            self._save()
        raise TrainingInterruptedError(
            f"stopped after {self.state.place()}; {self.run / LAST} is written, the same command goes on from there"
        )
