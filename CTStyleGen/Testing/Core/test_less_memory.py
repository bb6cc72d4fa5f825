"""A training that lacks memory goes on with less. "cpu:0" stands for a GPU here: PyTorch computes on it as on "cpu"."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from CTStyleGenCore.anatomy import load_anatomy
from CTStyleGenCore.devices import Computing
from CTStyleGenCore.errors import OutOfMemory
from CTStyleGenCore.model_file import read_weights
from CTStyleGenCore.perceptual import random_weights
from CTStyleGenCore.presets import load_preset
from CTStyleGenCore.ranks import Ranks
from CTStyleGenCore.slices import HuRange
from CTStyleGenCore.trainer import Trainer
from CTStyleGenCore.training import TrainingOptions, train
from CTStyleGenCore.training_data import load_training_data
from torch import Tensor

GPU = "cpu:0"
Events = list[dict]


@pytest.fixture
def learned(cases: Path, tmp_path: Path) -> Callable[..., tuple[dict[str, Tensor], Events]]:
    """Trains, and returns the weights and what was told."""

    def run(steps: int, device: str = GPU, ranks: Ranks | None = None, **options: object) -> tuple:
        output, events = tmp_path / "m.ctstyle", []
        told = TrainingOptions(cases, ("A",), output, 64, steps=steps, computing=Computing(device), **options)  # type: ignore[arg-type]
        train(told, load_preset("quick"), random_weights(), events.append, lambda: False, ranks)
        return read_weights(output), events

    return run


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Trainer, int], bool]], list[int]]:
    """Gives the generator room for what a function of trainer and slices says; returns how many it is given, a list."""

    def limit(enough: Callable[[Trainer, int], bool]) -> list[int]:
        generate, given = Trainer._generate, []

        def tried(self: Trainer, y: Tensor, z: Tensor) -> Tensor:
            given.append(len(y))
            if not enough(self, len(y)):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return generate(self, y, z)

        monkeypatch.setattr(Trainer, "_generate", tried)
        return given

    return limit


def notices(events: Events) -> list[str]:
    return [event["message"] for event in events if event["event"] == "notice"]


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_step_in_parts_is_the_step(cases: Path, at_once: int) -> None:
    """Gradients of both players and losses are those of all slices at once, up to the order of sums."""
    data = load_training_data(cases, ("A",), load_anatomy("thorax"), 64, 3, 1, HuRange())

    def stepped(computing: Computing) -> tuple[dict[str, Tensor], list[Tensor]]:
        made_of = load_preset("paper"), load_anatomy("thorax"), random_weights(), data, 64, 0, computing
        trainer = Trainer(*made_of, batch=5)
        losses = trainer.train_step()
        return losses, [p.grad for player in (trainer.G, trainer.D) for p in player.parameters()]

    (losses, gradients), (expected, its) = stepped(Computing(at_once=at_once)), stepped(Computing())
    assert losses.keys() == expected.keys()
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(expected[name].item(), rel=1e-4), name
    for gradient, one in zip(gradients, its, strict=True):
        assert (gradient - one).norm() <= 1e-4 * one.norm()


def test_fewer_slices_at_once_where_all_are_too_many(learned: Callable, room: Callable) -> None:
    given = room(lambda trainer, slices: slices <= 1)
    _, events = learned(1, batch=5)
    assert notices(events) == [
        f"The memory of {GPU} is not enough: going on from the first step with {n} of a step's slices at once, to the "
        "same result."
        for n in (2, 1)
    ]
    assert [slices for slices in given if slices > 1] == [5, 2]


def test_a_gpu_that_runs_out_hands_over_to_the_cpu(learned: Callable, room: Callable) -> None:
    """From the last checkpoint, so that the result is, to the bit, that of a run with enough memory."""
    expected, _ = learned(6)
    room(lambda trainer, slices: trainer.device == "cpu" or trainer.step < 4)
    weights, events = learned(6, checkpoint_seconds=0.0)
    assert notices(events) == [f"The memory of {GPU} is not enough: going on from the last checkpoint on the CPU."]
    done = [event["done"] for event in events if event["event"] == "progress"]
    assert done == [1, 2, 3, 4, 5, 6]
    assert all(torch.equal(weights[name], t) for name, t in expected.items())


def test_a_checkpoint_of_an_earlier_run_is_not_gone_on_from(learned: Callable, room: Callable, tmp_path: Path) -> None:
    (tmp_path / "m.ctstyle.checkpoint").write_text("an earlier run's")
    room(lambda trainer, slices: trainer.device == "cpu")
    _, events = learned(1)
    assert notices(events) == [f"The memory of {GPU} is not enough: going on from the first step on the CPU."]


@pytest.mark.parametrize("ranks", [Ranks(), Ranks(0, 2)])
def test_where_there_is_no_less_the_run_ends(learned: Callable, room: Callable, ranks: Ranks, tmp_path: Path) -> None:
    """On the CPU one slice at a time; and of several processes, which have to compute alike."""
    given = room(lambda trainer, slices: False)
    with pytest.raises(OutOfMemory, match="train with a --size below 64"):
        learned(1, "cpu" if ranks.count == 1 else GPU, ranks)
    assert len(given) == 1 and list(tmp_path.iterdir()) == []


def test_what_less_memory_means(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("CTStyleGenCore.devices._has_bfloat16", lambda device: False)
    now, ladder = Computing("cuda:0", "bfloat16"), []
    while (now := now.with_less_memory(batch=5)) is not None:  # type: ignore[assignment]
        ladder.append((now.device, now.precision, now.at_once))
    assert ladder == [("cuda:0", "bfloat16", 2), ("cuda:0", "bfloat16", 1), ("cpu", "float32", 1)]
