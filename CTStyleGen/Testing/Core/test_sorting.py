"""Orders of pixels are those that PyTorch gives, quicker."""

import pytest
import torch
from CTStyleGenCore.sorting import ascending, places_ascending


@pytest.mark.parametrize("count", [0, 1, 7, 5000])
def test_values_are_in_pytorchs_order(count: int) -> None:
    values = torch.randn(count, generator=torch.Generator().manual_seed(0), requires_grad=True)
    expected = values.detach().sort()
    assert torch.equal(ascending(values), expected.values)
    assert torch.equal(places_ascending(values), expected.indices)


def test_equal_values_have_a_place_each() -> None:
    values = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0])
    places = places_ascending(values)
    assert places.sort().values.tolist() == [0, 1, 2, 3, 4] and values[places].tolist() == [0, 0, 1, 1, 1]


@pytest.mark.parametrize("every", [2, -1])
def test_parts_of_an_image_can_be_ordered(every: int) -> None:
    """Values with gaps between them in memory, or last first."""
    values = torch.randn(64, generator=torch.Generator().manual_seed(0))
    part = values[::2] if every == 2 else values.flip(0)
    assert torch.equal(places_ascending(part), part.argsort()) and torch.equal(ascending(part), part.sort().values)
