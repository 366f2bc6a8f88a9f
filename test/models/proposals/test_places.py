# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Values of maps at places."""

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from aqr_perception.models.proposals.places import bev_surroundings, bev_values

RANGE = (-6.0, -4.0, 6.0, 4.0)
CELL = 2.0
ROWS, COLUMNS = 4, 6


def maps() -> torch.Tensor:
    return torch.randn(2, 3, ROWS, COLUMNS, generator=torch.Generator().manual_seed(0))


def centre(row: int, column: int) -> torch.Tensor:
    """Return the (2, 1, 3) centre of a cell in both samples."""
    x, y = RANGE[0] + (column + 0.5) * CELL, RANGE[1] + (row + 0.5) * CELL
    return torch.tensor([x, y, 0.7]).expand(2, 1, 3)


@settings(max_examples=30, deadline=None)
@given(row=st.integers(0, ROWS - 1), column=st.integers(0, COLUMNS - 1), inside=st.floats(-0.49, 0.49))
def test_surroundings_are_the_cells_of_a_patch_and_0_beyond_the_map(row: int, column: int, inside: float) -> None:
    place = centre(row, column) + CELL * torch.tensor([inside, -inside, 0.0])
    found = bev_surroundings(maps(), place, RANGE).view(2, 3, 3, 3)  # sample, row, column, channel
    expected = F.pad(maps(), (1, 1, 1, 1))[:, :, row : row + 3, column : column + 3].permute(0, 2, 3, 1)
    assert torch.equal(found, expected)


def test_the_middle_of_the_surroundings_is_the_value_at_a_cells_centre() -> None:
    for row, column in ((0, 0), (2, 5), (3, 1)):
        around = bev_surroundings(maps(), centre(row, column), RANGE)
        torch.testing.assert_close(around[..., 12:15], bev_values(maps(), centre(row, column), RANGE))


def test_a_place_far_outside_has_nothing_around_it() -> None:
    assert not bev_surroundings(maps(), torch.full((2, 1, 3), 40.0), RANGE).any()
