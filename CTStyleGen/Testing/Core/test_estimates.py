"""What a training is expected to take."""

from dataclasses import replace

import pytest
from CTStyleGenCore.estimates import estimate, giga_operations_per_second, steps_of
from CTStyleGenCore.presets import PRESETS, load_preset


def test_steps_are_those_of_the_training() -> None:
    paper, quick = load_preset("paper"), load_preset("quick")
    assert steps_of(paper, [40, 40, 1], None, one_style=False) == 100 * 5  # a case has one slice alone
    assert steps_of(paper, [40, 40, 40], None, one_style=True) == 100 * 4
    assert steps_of(quick, [40, 40, 40], 3, one_style=False) == 3 * 30


def test_few_slices_are_drawn_often_enough() -> None:
    """Unless a number of epochs is asked for, and however many slices a step has; `paper` has its epochs alone."""
    styles, paper = load_preset("styles"), load_preset("paper")
    assert styles.steps(3) == styles.steps(20) == styles.steps(20, batch=8) == styles.least_steps > 60 * 20
    assert styles.steps(100) == 60 * 100 and styles.steps(100, batch=3) == 60 * 100 / 3
    assert styles.steps(3, epochs=5) == 15 and styles.steps(3, epochs=5, batch=2) == 8
    assert paper.steps(3) == 300


def test_growing_takes_less() -> None:
    """Steps with fewer pixels are there for sizes above 128 alone; none is lost, the last is of the own size."""
    styles = load_preset("styles")
    assert styles.stages(128, 10) == [(128, 10)] and styles.stages(64, 10) == [(64, 10)]
    assert styles.stages(256, 10) == [(128, 6), (256, 4)]
    assert styles.stages(512, 100) == [(128, 30), (256, 30), (512, 40)]
    assert styles.stages(512, 1) == [(128, 0), (256, 0), (512, 1)]
    assert load_preset("paper").stages(256, 10) == [(128, 0), (256, 10)]
    growing, grown = (estimate(p, 256, 1000, "cpu").seconds for p in (styles, replace(styles, growing_share=0.0)))
    assert growing is not None and grown is not None and growing < 0.7 * grown


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("size", [64, 128, 256, 512])
def test_every_preset_has_an_estimate(preset: str, size: int) -> None:
    few, many = (estimate(load_preset(preset), size, steps, "cpu") for steps in (100, 10_000))
    assert few.seconds is not None and many.seconds is not None and few.memory_bytes is not None
    assert few.seconds < many.seconds < 101 * few.seconds
    assert 0.5e9 < few.memory_bytes == many.memory_bytes < 4e9


def test_what_nobody_has_measured_is_not_made_up() -> None:
    paper = load_preset("paper")
    assert estimate(paper, 256, 100, "cuda:0").seconds is None
    unknown = estimate(paper, 1024, 100, "cpu")
    assert (unknown.steps, unknown.seconds, unknown.memory_bytes) == (100, None, None)


def test_speed_of_this_computer() -> None:
    assert 0.1 < giga_operations_per_second() < 100_000
