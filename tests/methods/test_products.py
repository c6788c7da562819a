"""Compiled reductions of products, against what is written out in torch."""

import pytest
import torch

from pruning_core.methods.shared.products import CHUNK, largest_products, row_by_row


def drawn(points, positions, out, inputs, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    columns = torch.randn((points, positions, inputs), generator=generator, dtype=dtype).clamp(min=0)
    above, below = torch.rand((2, points, positions, out), generator=generator, dtype=dtype)
    return columns, above, below, torch.randn((out, inputs), generator=generator, dtype=dtype)


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("points", "positions", "out", "inputs"),
    [(1, 1, 1, 1), (3, 5, 4, 7), (2, 8, 3, 16), (4, 19, 2, 33), (2, 9, 5, CHUNK + 3), (1, 64, 10, 2 * CHUNK)],
)
def test_it_agrees_with_products_written_out(points, positions, out, inputs, dtype, mean):
    given = drawn(points, positions, out, inputs, dtype)
    found = largest_products(*given, mean=mean)
    wanted = row_by_row(*given, mean=mean)
    assert found.dtype == dtype and found.shape == (out, inputs) and float(wanted.max()) > 0.1
    torch.testing.assert_close(found, wanted, rtol=1e-6 if dtype == torch.float32 else 1e-13, atol=0)


@pytest.mark.parametrize("mean", [False, True])
def test_the_number_of_threads_changes_nothing(mean):
    given = drawn(2, 200, 37, 400, torch.float32)  # large enough for more than one thread
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(largest_products(*given, mean=mean))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


def test_the_sign_of_a_weight_chooses_its_row():
    columns = torch.ones(1, 1, 3)
    above, below = torch.full((1, 1, 1), 2.0), torch.full((1, 1, 1), 5.0)
    assert largest_products(columns, above, below, torch.tensor([[1.0, -1.0, 0.0]])).tolist() == [[2.0, 5.0, 5.0]]


def test_slices_that_are_not_contiguous_are_taken():
    columns, above, below, weight = drawn(2, 11, 4, 6, torch.float64)
    turned = columns.transpose(1, 2).contiguous().transpose(1, 2)
    assert not turned.is_contiguous()
    assert torch.equal(largest_products(turned, above, below, weight), largest_products(columns, above, below, weight))
