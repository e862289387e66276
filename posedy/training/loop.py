"""The training loop."""

import math
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from posedy.codec import HeatmapCodec
from posedy.config import Config
from posedy.data.coco import CocoPersons, read_coco
from posedy.data.dataset import EpochSampler, TrainingCrops, use_one_thread
from posedy.evaluation.coco_metrics import format_metrics
from posedy.evaluation.tester import evaluate_network
from posedy.evaluation.truth import KeypointTruth
from posedy.files import write_bytes_atomically
from posedy.models.dynamic_conv import set_temperature
from posedy.models.pose_net import PoseNet
from posedy.models.zoo import create_model
from posedy.prediction import normalise_crops
from posedy.training.checkpoint import BEST, LAST, read_run, save_checkpoint
from posedy.training.interrupt import Interruption, TrainingInterruptedError, interruptible
from posedy.training.log import RunLog
from posedy.training.loss import heatmap_loss
from posedy.training.schedule import learning_rate, temperature
from posedy.weights.network_file import network_state
from posedy.weights.starting_weights import start_from
from posedy.workers import default_workers


class NonFiniteLossError(ArithmeticError):
    """The loss or the weights became NaN or infinite; the message names the batch."""


class Trainer:
    """Trains the network of a configuration in a run folder, from its last checkpoint if there is one.

    The folder gets config.yaml, metrics.csv, TensorBoard curves, last.pt after every epoch (all that is needed to go
    on) and best.pt (the network of the best AP so far).

    Args:
        config: the experiment.
        run: its folder.
        progress: whether to show bars.

    Raises:
        OSError, ValueError: if data, weights or an earlier run in the folder do not fit the configuration.
    """

    def __init__(self, config: Config, run: Path, progress: bool = True) -> None:
        self.config = config
        self.run = run
        precision = config.train.precision
        self.accelerator = Accelerator(mixed_precision="no" if precision == "fp32" else precision)
        self.progress = progress and self.accelerator.is_main_process
        if config.train.batch_size % self.accelerator.num_processes:
            raise ValueError(
                f"train.batch_size={config.train.batch_size} does not divide by the {self.accelerator.num_processes} "
                "processes"
            )
        self.workers = config.train.workers if config.train.workers is not None else default_workers()
        self.codec = HeatmapCodec(config.model.input_size, config.model.sigma)
        self._read_data()

        torch.manual_seed(config.train.seed)
        self.net = self._build_network()
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=config.train.lr, fused=True)
        self.epoch, self.step = 0, 0
        self.loss_sum, self.seconds = 0.0, 0.0
        self.numbers: dict[str, float] = {}
        self.evaluated_epoch = 0
        self.best_ap: float | None = None
        self.metrics: dict[str, float] = {}
        self.protocol = ""
        scaler_state = self._go_on() if (run / LAST).is_file() else None
        self.wrapped_net, self.optimizer = self.accelerator.prepare(self.net, self.optimizer)
        if self.accelerator.scaler is not None and scaler_state is not None:
            self.accelerator.scaler.load_state_dict(scaler_state)

    # -- set-up ----------------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Prints on the main process."""
        if self.accelerator.is_main_process:
            tqdm.write(text)

    def _read_data(self) -> None:
        config = self.config
        train_sets = [config.data.train_set, *config.data.extra]
        sets = [self._read(entry.annotations, entry.images) for entry in train_sets]
        self.crops = TrainingCrops(sets, self.codec.input_size, config.augment, config.eval.padding, config.train.seed)
        self.val = self._read(config.data.val_set.annotations, config.data.val_set.images)
        if self.val.skeleton.keypoints != self.crops.skeleton.keypoints:
            raise ValueError(
                f"{self.val.annotations} and {sets[0].annotations} differ in their keypoints: "
                f"{list(self.val.skeleton.keypoints)} and {list(self.crops.skeleton.keypoints)}"
            )
        self.truth = KeypointTruth.from_coco(self.val.annotations)
        if not self.truth.labelled:
            raise ValueError(f"{self.val.annotations}: AP is undefined, num_keypoints is 0 for every person")
        if self.crops.skeleton.upper_body is None and config.augment.half_body_probability > 0:
            self.say("half body is off: the categories of the training set name no 'upper_body' keypoints")
        self.sampler = EpochSampler(
            len(self.crops),
            config.train.batch_size,
            config.train.seed,
            self.accelerator.process_index,
            self.accelerator.num_processes,
        )

    def _read(self, annotations: Path, images: Path) -> CocoPersons:
        persons = read_coco(annotations, images)
        self.say(persons.summary())
        for warning in persons.warnings:
            self.say(f"  warning: {warning}")
        return persons

    def _build_network(self) -> PoseNet:
        model, skeleton = self.config.model, self.crops.skeleton
        net = create_model(
            model.name,
            skeleton.num_keypoints,
            model.num_kernels,
            temperature=self.config.train.temperature.start,
            output=model.output,
            input_size=model.input_size,
            skeleton=skeleton,
            **model.options,
        )
        if net.in_channels not in (1, 3):
            raise ValueError(
                f"model.options: crops of photos have 3 channels, got in_channels={net.in_channels} (3 or 1)"
            )
        if model.weights is not None and not (self.run / LAST).is_file():
            self.say(f"starting from {start_from(net, model.weights)}")
        return net

    def _go_on(self) -> dict[str, Any] | None:
        """Takes up the state of the last checkpoint; returns that of the loss scaler, which does not exist yet."""
        state = read_run(self.run, self.config)
        if state["num_crops"] != len(self.crops):
            raise ValueError(
                f"{self.run} was trained on {state['num_crops']} persons, the training set has {len(self.crops)} now"
            )
        self.net.load_state_dict(state["network"]["tensors"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.step = state["epoch"], state["step"]
        self.loss_sum, self.seconds = state["loss_sum"], state["seconds"]
        self.numbers, self.metrics = state["numbers"], state["metrics"]
        self.evaluated_epoch, self.best_ap = state["evaluated_epoch"], state["best_ap"]
        self.protocol = state["protocol"]
        torch.set_rng_state(state["random"])
        where = f"epoch {self.epoch}" + (f", step {self.step}" if self.step else "")
        self.say(f"going on from {self.run / LAST} after {where} of {self.config.train.epochs} epochs")
        return state["scaler"]

    # -- the loop --------------------------------------------------------------------------------------------------

    def fit(self) -> dict[str, float]:
        """Trains to the last epoch and returns the numbers of the last evaluation.

        Raises:
            TrainingInterruptedError: after Ctrl-C; training goes on from there with the same command.
            NonFiniteLossError: if the loss is not a number any more.
        """
        epochs = self.config.train.epochs
        if self.accelerator.is_main_process:
            write_bytes_atomically(self.run / "config.yaml", self.config.to_yaml().encode())
        log = RunLog(self.run, self.epoch) if self.accelerator.is_main_process else None
        loader = DataLoader(
            self.crops,
            batch_sampler=self.sampler,
            num_workers=self.workers,
            pin_memory=self.accelerator.device.type == "cuda",
            persistent_workers=self.workers > 0,
            worker_init_fn=use_one_thread,
        )
        with interruptible() as interruption:
            while True:
                if self._evaluation_is_due():
                    self._evaluate()
                    self._save_epoch(log)
                if self.epoch >= epochs:
                    break
                if self._is_asked_to_stop(interruption):
                    self._stop_here()
                self._train_epoch(loader, interruption)
                # An epoch is safe before its evaluation, which may take long.
                self._save_epoch(log)
        if log is not None:
            log.close()
        return self.metrics

    def _train_epoch(self, loader: DataLoader[Any], interruption: Interruption) -> None:
        config, steps = self.config.train, len(self.sampler)
        tau = temperature(config.temperature, self.epoch)
        set_temperature(self.net, tau)
        self.net.train()
        self.sampler.set_position(self.epoch, self.step)
        began = time.perf_counter()
        seen, rate = 0, config.lr
        bar = tqdm(
            total=steps,
            initial=self.step,
            desc=f"epoch {self.epoch + 1}/{config.epochs}",
            unit="step",
            disable=None if self.progress else True,
            leave=False,
        )
        for batch in loader:
            rate = learning_rate(config, self.epoch * steps + self.step, steps)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.loss_sum += self._train_step(batch)
            self.step += 1
            seen += len(batch["crop"]) * self.accelerator.num_processes
            elapsed = time.perf_counter() - began
            left = (elapsed / seen) * (len(self.crops) * (config.epochs - self.epoch) - self.step * config.batch_size)
            bar.update()
            bar.set_postfix_str(
                f"loss {self.loss_sum / self.step:.5f}, {seen / elapsed:.0f} persons/s, left {_clock(max(left, 0))}"
                + (f", best AP {self.best_ap:.3f}" if self.best_ap is not None else "")
            )
            if self.step < steps and self._is_asked_to_stop(interruption):
                self.seconds += elapsed
                self._stop_here()
        bar.close()
        elapsed = time.perf_counter() - began
        self.numbers = {
            "epoch": self.epoch + 1,
            "step": (self.epoch + 1) * steps,
            "lr": rate,
            "temperature": tau,
            "loss": self.loss_sum / steps,
            "persons_per_second": seen / elapsed,
            "seconds": self.seconds + elapsed,
        }
        self.say(
            f"epoch {self.epoch + 1}/{config.epochs}: loss {self.numbers['loss']:.5f}, lr {rate:.2g}, "
            f"{self.numbers['persons_per_second']:.0f} persons/s, {_clock(self.numbers['seconds'])}"
        )
        self.epoch, self.step = self.epoch + 1, 0
        self.loss_sum, self.seconds = 0.0, 0.0

    def _train_step(self, batch: dict[str, Tensor]) -> float:
        """One step of the optimiser; returns the loss, which is checked before it can do harm."""
        device = self.accelerator.device
        crops = batch["crop"].to(device, non_blocking=True)
        keypoints = batch["keypoints"].to(device, non_blocking=True)
        labelled = batch["labelled"].to(device, non_blocking=True)
        targets, weights = self.codec.encode(keypoints, labelled)
        heatmaps = self.wrapped_net(normalise_crops(crops))
        loss = heatmap_loss(heatmaps, targets, weights, self.config.train.loss)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NonFiniteLossError(
                f"the loss is {value} in epoch {self.epoch + 1}, step {self.step + 1}, on the batch of annotations "
                f"{batch['annotation_id'].tolist()}: look at them, or train with a lower train.lr; {self.run / LAST} "
                "still holds the state of its last writing, if there was one"
            )
        self.accelerator.backward(loss)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return value

    def _evaluation_is_due(self) -> bool:
        due = self.epoch > 0 and (self.epoch % self.config.eval.every == 0 or self.epoch >= self.config.train.epochs)
        return due and self.step == 0 and self.evaluated_epoch != self.epoch

    def _evaluate(self) -> None:
        self.net.eval()
        outcome = evaluate_network(
            # accelerate has put mixed precision into net.forward; numbers are those of float32, as in a test
            partial(PoseNet.forward, self.net),
            self.val,
            None,
            self.codec,
            self.config.eval,
            device=self.accelerator.device,
            workers=self.workers,
            truth=self.truth,
            accelerator=self.accelerator,
            progress=self.progress,
        )
        self.metrics, self.protocol, self.evaluated_epoch = outcome.metrics, str(outcome.protocol), self.epoch
        self.say(format_metrics(self.metrics, self.protocol))
        self.numbers |= outcome.metrics
        if self.best_ap is None or outcome.metrics["AP"] > self.best_ap:
            self.best_ap = outcome.metrics["AP"]
            if self.accelerator.is_main_process:
                save_checkpoint(
                    self.run / BEST,
                    {
                        "network": network_state(self.net),
                        "epoch": self.epoch,
                        "metrics": outcome.metrics,
                        "protocol": self.protocol,
                    },
                )

    # -- saving and stopping ---------------------------------------------------------------------------------------

    def _save_epoch(self, log: RunLog | None) -> None:
        if log is not None:
            # The row first: one that is ahead of its checkpoint is dropped when the run goes on.
            log.write(self.numbers)
            self._save()

    def _save(self) -> None:
        """Writes last.pt, unless the weights are broken: a good state is not overwritten by a bad one."""
        network = network_state(self.net)
        broken = [name for name, tensor in network["tensors"].items() if not tensor.isfinite().all()]
        if broken:
            raise NonFiniteLossError(
                f"after epoch {self.epoch}, step {self.step}, {len(broken)} tensors of the network are not finite, "
                f"first {broken[0]}: train with a lower train.lr; {self.run / LAST} was left as it was"
            )
        scaler = self.accelerator.scaler
        save_checkpoint(
            self.run / LAST,
            {
                "network": network,
                "optimizer": self.optimizer.state_dict(),
                "scaler": scaler.state_dict() if scaler is not None else None,
                "epoch": self.epoch,
                "step": self.step,
                "num_crops": len(self.crops),
                "loss_sum": self.loss_sum,
                "seconds": self.seconds,
                "numbers": self.numbers,
                "evaluated_epoch": self.evaluated_epoch,
                "best_ap": self.best_ap,
                "metrics": self.metrics,
                "protocol": self.protocol,
                "random": torch.get_rng_state(),
                "config": self.config.model_dump(mode="json"),
            },
        )

    def _is_asked_to_stop(self, interruption: Interruption) -> bool:
        """Whether any process has been asked to; all stop at the same step, or the others would wait for ever."""
        if self.accelerator.num_processes == 1:
            return interruption.asked
        asked = torch.tensor(float(interruption.asked), device=self.accelerator.device)
        return bool(self.accelerator.reduce(asked, "sum") > 0)

    def _stop_here(self) -> None:
        if self.accelerator.is_main_process:
            self._save()
        done = f"{self.epoch} epochs" + (f" and {self.step} steps" if self.step else "")
        raise TrainingInterruptedError(
            f"stopped after {done}; {self.run / LAST} is written, the same command goes on from there"
        )


def _clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
