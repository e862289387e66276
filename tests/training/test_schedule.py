"""Learning rate and temperature schedules."""

import pytest

from posedy.config import TemperatureConfig, TrainConfig
from posedy.training.optim import describe_learning_rates, learning_rate, lr_milestones, temperature


def test_default_learning_rate_decays_at_epochs_170_and_200() -> None:
    config = TrainConfig()
    steps = 10
    rates = [learning_rate(config, epoch * steps, steps) for epoch in range(210)]
    assert rates[:170] == [1e-3] * 170
    assert rates[170:200] == pytest.approx([1e-4] * 30)
    assert rates[200:] == pytest.approx([1e-5] * 10)
    assert learning_rate(config, 170 * steps - 1, steps) == 1e-3


def test_default_milestones_scale_with_the_number_of_epochs() -> None:
    assert lr_milestones(TrainConfig(epochs=21)) == [17, 20]
    assert lr_milestones(TrainConfig(epochs=21, lr_drops=[5])) == [5]


def test_cosine_decays_to_0_and_warmup_rises_linearly() -> None:
    config = TrainConfig(epochs=2, schedule="cosine", lr=0.5)
    rates = [learning_rate(config, step, 50) for step in range(100)]
    assert rates[0] == 0.5
    assert rates == sorted(rates, reverse=True)
    assert rates[50] == pytest.approx(0.25)
    assert rates[-1] < 0.001
    warm = TrainConfig(warmup_steps=10, lr=1.0)
    assert [learning_rate(warm, step, 50) for step in (0, 4, 9, 30)] == pytest.approx([0.1, 0.5, 1.0, 1.0])


def test_minutes_advance_the_schedule_if_ahead_of_the_steps() -> None:
    cosine = TrainConfig(epochs=2, schedule="cosine", lr=0.5, minutes=10)
    assert learning_rate(cosine, 0, 50, minutes=5) == pytest.approx(0.25)
    assert learning_rate(cosine, 50, 50, minutes=1) == pytest.approx(0.25)
    assert learning_rate(cosine, 0, 50, minutes=11) == pytest.approx(0)
    warm = TrainConfig(epochs=2, warmup_steps=20, lr=1.0, minutes=10, lr_drops=[])
    assert [learning_rate(warm, 0, 50, minutes) for minutes in (0, 1, 2, 5)] == pytest.approx([0.05, 0.5, 1, 1])
    paper = TrainConfig(minutes=210)
    assert [learning_rate(paper, 0, 10, minutes) for minutes in (169, 171, 201)] == pytest.approx([1e-3, 1e-4, 1e-5])
    assert learning_rate(TrainConfig(), 0, 10, minutes=1e9) == 1e-3


@pytest.mark.parametrize(
    ("settings", "done", "description"),
    [
        ({}, 0, "epochs 1-170: 0.001, 171-200: 0.0001, 201-210: 1e-05"),
        ({}, 199, "epochs 200: 0.0001, 201-210: 1e-05"),
        ({"lr_drops": [3], "epochs": 5, "warmup_steps": 9}, 0, "epochs 1-3: 0.001, 4-5: 0.0001; warm-up over 9 steps"),
        ({"lr_drops": [3], "epochs": 5, "warmup_steps": 9}, 3, "epochs 4-5: 0.0001"),
        ({"schedule": "cosine", "epochs": 10}, 0, "epochs 1-10: 0.001 to 0 (cosine)"),
        ({"schedule": "cosine", "epochs": 10}, 5, "epochs 6-10: 0.0005 to 0 (cosine)"),
        ({"lr_drops": [], "minutes": 7}, 0, "epochs 1-210: 0.001; compressed if train.minutes=7 ends first"),
    ],
)
def test_describe_learning_rates_lists_remaining_epochs(
    settings: dict[str, object], done: int, description: str
) -> None:
    assert describe_learning_rates(TrainConfig.model_validate(settings), done) == description


def test_temperature_is_constant_by_default_and_linear_when_annealed() -> None:
    assert {temperature(TemperatureConfig(), epoch) for epoch in range(210)} == {30}
    annealed = TemperatureConfig(start=30, end=1, epochs=10)
    assert [temperature(annealed, epoch) for epoch in (0, 5, 10, 200)] == pytest.approx([30, 15.5, 1, 1])
    assert temperature(TemperatureConfig(start=30, end=1, epochs=0), 0) == 1


def test_temperature_is_exactly_the_end_after_a_start_of_any_size() -> None:
    schedule = TemperatureConfig(start=1e20, end=0.7, epochs=2)
    assert [temperature(schedule, epoch) for epoch in (0, 1, 2, 3)] == [1e20, 5e19, 0.7, 0.7]
