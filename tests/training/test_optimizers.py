import math

import pytest
import torch
import transformers
from torch import nn

from klimb.training import optimizers
from klimb.training.optimizers import (
    Optimizer,
)
from klimb.training.settings import OptimizerSettings

SETTINGS = {"learning_rate": 0.05, "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-8, "weight_decay": 0.1, "warmup_steps": 3}


def gradient_at(point: torch.Tensor) -> torch.Tensor:
    """Of Σ (p − 1)⁴ / 4: not constant, so that a step taken at another point shows."""
    return (point - 1) ** 3


@pytest.fixture
def stepped_twin(twin):
    return twin(start(), rate=0.05, beta1=0.9, beta2=0.99, decay=0.1, warmup_steps=3)


def start() -> torch.Tensor:
    return torch.linspace(-1, 2, 6, dtype=torch.float64).reshape(2, 3)


def make(kind: str, **changes) -> tuple[nn.Parameter, Optimizer]:
    parameter = nn.Parameter(start())
    return parameter, Optimizer({"weight": parameter}, OptimizerSettings(kind=kind, **(SETTINGS | changes)))


def step(parameter: nn.Parameter, optimizer: Optimizer) -> None:
    with optimizer.gradient_point():
        parameter.grad = gradient_at(parameter.detach()).clone()
        optimizer.step()


def test_parameters_are_the_twins_x_outside_and_its_y_inside_at_each_of_50_steps(stepped_twin):
    parameter, optimizer = make("schedule-free")
    twin = stepped_twin
    for _ in range(50):
        with optimizer.gradient_point():
            assert torch.allclose(parameter, twin.y, atol=1e-12)
            parameter.grad = gradient_at(parameter.detach()).clone()
            optimizer.step()
        twin.step(gradient_at(twin.y))
        assert torch.allclose(parameter, twin.x, atol=1e-12)
    assert (twin.x - twin.y).abs().max() > 1e-3  # The two points are far enough apart for a mix-up to show.


def test_the_twin_catches_the_usual_mistake_of_sampling_and_saving_at_y(stepped_twin):
    # What one gets without the switch back: the parameters stay in the package's train mode.
    parameter, optimizer = make("schedule-free")
    twin = stepped_twin
    for _ in range(5):
        optimizer._inner.train()
        parameter.grad = gradient_at(parameter.detach()).clone()
        optimizer._inner.step()
        twin.step(gradient_at(twin.y))
    assert torch.allclose(parameter, twin.y, atol=1e-12)
    assert not torch.allclose(parameter, twin.x, atol=1e-4)


def test_the_first_ratio_after_a_switch_is_pi_y_over_pi_x_by_hand(stepped_twin):
    # A linear policy over 3 tokens with logits W·h; log w = log softmax(W_y·h) − log softmax(W_x·h).
    parameter, optimizer = make("schedule-free")
    twin = stepped_twin
    hidden = torch.tensor([0.5, -1.5], dtype=torch.float64)
    for _ in range(4):
        step(parameter, optimizer)
        twin.step(gradient_at(twin.y))

    def log_pi(token: int, weight: torch.Tensor) -> float:
        logits = [sum(weight[i, t].item() * hidden[i].item() for i in range(2)) for t in range(3)]
        return logits[token] - math.log(sum(math.exp(logit) for logit in logits))

    sampled_at = parameter.detach().clone()
    with optimizer.gradient_point():
        for token in range(3):
            by_hand = log_pi(token, twin.y) - log_pi(token, twin.x)
            assert log_pi(token, parameter) - log_pi(token, sampled_at) == pytest.approx(by_hand, abs=1e-12)
            assert abs(by_hand) > 1e-3


def test_adamw_has_one_point_and_takes_torchs_steps():
    parameter, optimizer = make("adamw", warmup_steps=0)
    other = nn.Parameter(start())
    plain = torch.optim.AdamW([other], lr=0.05, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1, fused=True)
    for _ in range(10):
        before = parameter.detach().clone()
        with optimizer.gradient_point():
            assert torch.equal(parameter, before)
        step(parameter, optimizer)
        other.grad = gradient_at(other.detach()).clone()
        plain.step()
        assert torch.equal(parameter, other)


@pytest.mark.parametrize("kind", ["adamw", "schedule-free"])
def test_the_warm_up_is_linear_then_constant_and_never_zero_nor_stacked(kind: str):
    parameter, optimizer = make(kind)
    rates = []
    for _ in range(5):
        announced = optimizer.learning_rate
        step(parameter, optimizer)
        group = optimizer._inner.param_groups[0]
        rates.append(group["lr"] if kind == "adamw" else group["scheduled_lr"])
        assert announced == pytest.approx(rates[-1], rel=1e-12)
    assert rates == pytest.approx([0.05 / 3, 0.1 / 3, 0.05, 0.05, 0.05], rel=1e-12)


def rates_of(num_steps: int, **changes) -> list[float]:
    """Return what torch's optimizer steps with, as a share of the learning rate of 0.05."""
    parameter, optimizer = make("adamw", **changes)
    rates = []
    for _ in range(num_steps):
        announced = optimizer.learning_rate
        step(parameter, optimizer)
        rates.append(optimizer._inner.param_groups[0]["lr"] / 0.05)
        assert announced == pytest.approx(rates[-1] * 0.05, rel=1e-12)
    return rates


def test_the_linear_schedule_by_hand_and_its_floor_for_good():
    # Warm-up 1/2, 2/2; then p = 0, 1/4, 2/4, 3/4, and 1 from step 6 on; 1 − p of what lies above a fifth.
    rates = rates_of(8, schedule="linear", warmup_steps=2, schedule_steps=6, min_learning_rate_fraction=0.2)
    assert rates == pytest.approx([0.5, 1, 1, 0.8, 0.6, 0.4, 0.2, 0.2], rel=1e-12)


def test_the_cosine_schedule_by_hand():
    # (1 + cos πp) / 2 at p = 0, 1/3, 2/3 is 1, 3/4, 1/4.
    rates = rates_of(5, schedule="cosine", warmup_steps=0, schedule_steps=3)
    assert rates == pytest.approx([1, 0.75, 0.25, 0, 0], abs=1e-12)


def schedule_of_transformers(schedule: str, floor: float, *, warmup_steps: int, schedule_steps: int) -> list[float]:
    sgd = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    if schedule == "linear":
        made = transformers.get_linear_schedule_with_warmup(sgd, warmup_steps, schedule_steps)
    elif floor:
        made = transformers.get_scheduler(
            "cosine_with_min_lr", sgd, warmup_steps, schedule_steps, scheduler_specific_kwargs={"min_lr_rate": floor}
        )
    else:
        made = transformers.get_cosine_schedule_with_warmup(sgd, warmup_steps, schedule_steps)
    rates = []
    for _ in range(schedule_steps + 1):
        rates.append(made.get_last_lr()[0])
        sgd.step()
        made.step()
    return rates


@pytest.mark.parametrize(("schedule", "floor"), [("linear", 0.0), ("cosine", 0.0), ("cosine", 0.1)])
@pytest.mark.parametrize("warmup_steps", [0, 1, 4])
def test_schedules_are_those_of_transformers_but_that_the_warm_up_is_one_step_ahead(schedule, floor, warmup_steps):
    theirs = schedule_of_transformers(schedule, floor, warmup_steps=warmup_steps, schedule_steps=11)
    settings = OptimizerSettings(
        schedule=schedule, warmup_steps=warmup_steps, schedule_steps=11, min_learning_rate_fraction=floor
    )
    # Behind their last step the cosine of theirs rises again; ours stays at the floor.
    assert settings.rate_fraction(20) == floor
    ours = [settings.rate_fraction(step) for step in range(12)]
    assert ours[warmup_steps:] == pytest.approx(theirs[warmup_steps:], abs=1e-12)
    # Theirs begins the warm-up at a rate of 0, a step on which nothing is learnt.
    assert ours[:warmup_steps] == pytest.approx([(step + 1) / warmup_steps for step in range(warmup_steps)])


def test_the_warm_up_of_transformers_is_ours_one_step_later_where_it_has_no_floor():
    theirs = schedule_of_transformers("linear", 0.0, warmup_steps=4, schedule_steps=11)
    settings = OptimizerSettings(schedule="linear", warmup_steps=4, schedule_steps=11)
    assert theirs[1:5] == pytest.approx([settings.rate_fraction(step) for step in range(4)])


def test_schedule_guard_and_ess_scaling_multiply():
    _, optimizer = make("adamw", schedule="linear", warmup_steps=0, schedule_steps=4)
    optimizer.num_steps, optimizer.rate_factor = 2, 0.5
    with optimizer.gradient_point():
        optimizer.step(scale=0.25)
    assert optimizer._inner.param_groups[0]["lr"] == pytest.approx(0.05 * 0.5 * 0.5 * 0.25, rel=1e-12)


def test_a_restored_optimizer_goes_on_in_its_schedule_bit_for_bit():
    changes = {"schedule": "cosine", "schedule_steps": 9}
    parameter, optimizer = make("adamw", **changes)
    for _ in range(4):
        step(parameter, optimizer)
    copy, restored = make("adamw", **changes)
    with torch.no_grad():
        copy.copy_(parameter)
    tensors, numbers = optimizer.state()
    restored.load_state({name: tensor.clone() for name, tensor in tensors.items()}, numbers)
    assert restored.learning_rate == optimizer.learning_rate < 0.05
    for _ in range(7):
        step(parameter, optimizer)
        step(copy, restored)
    assert torch.equal(parameter, copy)


@pytest.mark.parametrize("kind", ["adamw", "schedule-free"])
def test_a_restored_optimizer_goes_on_bit_for_bit(kind: str):
    parameter, optimizer = make(kind)
    for _ in range(4):
        step(parameter, optimizer)
    tensors, numbers = optimizer.state()
    copy, restored = make(kind)
    with torch.no_grad():
        copy.copy_(parameter)
    restored.load_state({name: tensor.clone() for name, tensor in tensors.items()}, numbers)
    for _ in range(4):
        step(parameter, optimizer)
        step(copy, restored)
    assert torch.equal(parameter, copy)
    assert restored.num_steps == optimizer.num_steps == 8


def test_the_learning_rate_may_change_on_restoring():
    parameter, optimizer = make("schedule-free")
    step(parameter, optimizer)
    _, slower = make("schedule-free", learning_rate=0.01)
    slower.load_state(*optimizer.state())
    assert slower.learning_rate == pytest.approx(0.01 * 2 / 3)
    assert slower._inner.param_groups[0]["lr"] == 0.01


def test_a_state_of_other_parameters_is_refused():
    _, optimizer = make("adamw")
    other = Optimizer({"elsewhere": nn.Parameter(start())}, OptimizerSettings(warmup_steps=0))
    with pytest.raises(ValueError, match="other parameters"):
        other.load_state(*optimizer.state())


@pytest.mark.parametrize("kind", ["adamw", "schedule-free"])
def test_vectors_are_spared_from_decay_if_asked(kind: str):
    matrix, vector = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    settings = OptimizerSettings(kind=kind, learning_rate=0.1, weight_decay=0.5, warmup_steps=0, decay_vectors=False)
    optimizer = Optimizer({"matrix": matrix, "vector": vector}, settings)
    with optimizer.gradient_point():
        matrix.grad, vector.grad = torch.zeros(2, 2), torch.zeros(2)
        optimizer.step()
    assert vector.tolist() == [1, 1]
    assert matrix.flatten().tolist() == pytest.approx([0.95] * 4)


def test_a_missing_schedulefree_is_an_import_error_that_names_the_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(optimizers, "schedulefree", None)
    with pytest.raises(ImportError, match="pip install schedulefree"):
        make("schedule-free")
    make("adamw")


@pytest.mark.parametrize("kind", ["adamw", "schedule-free"])
def test_stepping_or_saving_at_the_wrong_point_is_refused(kind: str):
    _, optimizer = make(kind)
    with pytest.raises(ValueError, match="not at the gradient point"):
        optimizer.step()
    with optimizer.gradient_point(), pytest.raises(ValueError, match="save outside"):
        optimizer.state()
    with optimizer.gradient_point(), pytest.raises(ValueError, match="there already"), optimizer.gradient_point():
        pass


def test_an_error_inside_brings_the_parameters_back_to_x():
    parameter, optimizer = make("schedule-free")
    for _ in range(3):
        step(parameter, optimizer)
    before = parameter.detach().clone()
    with pytest.raises(RuntimeError), optimizer.gradient_point():
        raise RuntimeError
    assert torch.allclose(parameter, before, atol=1e-14)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be finite and > 0, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"beta1": 1.0}, "beta1 must be in"),
        ({"kind": "schedule-free", "beta1": 0.0}, "beta1 must be > 0 for schedule-free"),
        ({"weight_decay": -0.1}, "weight_decay must be finite and >= 0"),
        ({"warmup_steps": -1}, "warmup_steps must be 'auto' or >= 0"),
        ({"schedule": "linear", "schedule_steps": 0}, "schedule_steps must be 'auto' or >= 1"),
        ({"schedule": "linear", "schedule_steps": 3, "warmup_steps": 4}, "ends before the warm-up"),
        ({"schedule": "linear", "min_learning_rate_fraction": 1.5}, "min_learning_rate_fraction must be in"),
        ({"schedule": "cosine", "kind": "schedule-free"}, "averages its points in the place of a schedule"),
        ({"schedule_steps": 9}, "schedule_steps = 9 does nothing with schedule = 'constant'"),
        ({"min_learning_rate_fraction": 0.1}, "min_learning_rate_fraction = 0.1 does nothing"),
    ],
)
def test_bad_settings_are_named(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        OptimizerSettings(**changes)


def test_a_policy_with_nothing_to_train_is_refused():
    with pytest.raises(ValueError, match="no trainable parameter"):
        Optimizer({}, OptimizerSettings(warmup_steps=10))
