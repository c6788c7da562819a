"""Shares of outputs, reduced over positions: matrix products with a maximum in them, compiled.

For each filter i and input e a_pe x_ip is reduced over the output positions p of a point, where the row x of filter i is
one of two, by the sign of its weight w_ie; then the largest over points counts. No array library has a kernel for that.
Written so that the inner loop runs along e in the processor's vector registers: it costs about as much as the matrix
product of the same size.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import torch
from torch import Tensor

CHUNK = 512  # entries of a row at a time, so that eight rows stay in the first cache
SMALL = 2**22  # products below which a second thread is not worth its start


def largest_products(columns: Tensor, above: Tensor, below: Tensor, weight: Tensor, mean: bool = False) -> Tensor:
    """``columns[n, p, e] * (above if weight[i, e] > 0 else below)[n, p, i]``, reduced; at least 0; (out, e).

    Reduced to the maximum over points n and positions p or, with ``mean``, to the maximum over points of the mean over
    positions. ``columns`` (N, P, e), ``above`` and ``below`` (N, P, out), ``weight`` (out, e): of one type, float32 or
    float64, without NaN. Uses as many threads as torch; the result does not depend on their number.
    """
    if weight.device.type != "cpu":
        return row_by_row(columns, above, below, weight, mean)
    given = [np.ascontiguousarray(part.numpy()) for part in (columns, above, below, weight)]
    largest = np.zeros_like(given[-1])
    out = len(largest)
    threads = max(1, min(torch.get_num_threads(), out)) if out * given[0].size > SMALL else 1
    fill = _largest_mean if mean else _largest
    if threads == 1:
        fill(*given, largest, 0, out)
    else:
        cuts = [out * k // threads for k in range(threads + 1)]
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda first, last: fill(*given, largest, first, last), cuts[:-1], cuts[1:]))
    return torch.from_numpy(largest)


def row_by_row(columns: Tensor, above: Tensor, below: Tensor, weight: Tensor, mean: bool) -> Tensor:
    """The same in torch, filter by filter, for devices that are not compiled for."""
    largest = torch.zeros_like(weight)
    for i, row in enumerate(weight):
        reduced = []
        for scale in (above, below):
            products = columns * scale[..., i, None]
            reduced.append((products.mean(1) if mean else products.amax(1)).amax(0))
        largest[i] = torch.where(row > 0, reduced[0], reduced[1]).clamp(min=0)
    return largest


def _compiled(mean: bool) -> Callable:
    """The loops, for either reduction; ``mean`` is a constant to the compiler."""

    @numba.njit(nogil=True, cache=True, fastmath={"nnan", "nsz", "contract"}, error_model="numpy")
    def fill(a, above, below, weight, largest, first, last):
        points, positions, inputs = a.shape
        scale = largest.dtype.type(1 / positions) if mean else largest.dtype.type(1)
        found = np.empty((last - first, min(CHUNK, inputs)), largest.dtype)
        for start in range(0, inputs, CHUNK):
            stop = min(inputs, start + CHUNK)
            for n in range(points):
                found[:] = 0
                # Eight positions at a time: the row of results is then read and written once for all of them. Spelt out,
                # since the compiler only turns a flat loop over rows of one dimension into vector instructions (slices of
                # a[n, p : p + 8] cost it that, and ten times the time).
                whole = positions - positions % 8
                for p in range(0, whole, 8):
                    a0, a1 = a[n, p, start:stop], a[n, p + 1, start:stop]
                    a2, a3 = a[n, p + 2, start:stop], a[n, p + 3, start:stop]
                    a4, a5 = a[n, p + 4, start:stop], a[n, p + 5, start:stop]
                    a6, a7 = a[n, p + 6, start:stop], a[n, p + 7, start:stop]
                    for i in range(first, last):
                        x0, x1, x2, x3, x4, x5, x6, x7 = above[n, p : p + 8, i]
                        y0, y1, y2, y3, y4, y5, y6, y7 = below[n, p : p + 8, i]
                        signs, row = weight[i, start:stop], found[i - first]
                        for e in range(stop - start):
                            positive = signs[e] > 0
                            v0 = a0[e] * (x0 if positive else y0)
                            v1 = a1[e] * (x1 if positive else y1)
                            v2 = a2[e] * (x2 if positive else y2)
                            v3 = a3[e] * (x3 if positive else y3)
                            v4 = a4[e] * (x4 if positive else y4)
                            v5 = a5[e] * (x5 if positive else y5)
                            v6 = a6[e] * (x6 if positive else y6)
                            v7 = a7[e] * (x7 if positive else y7)
                            if mean:
                                row[e] += v0 + v1 + v2 + v3 + v4 + v5 + v6 + v7
                            else:
                                row[e] = max(row[e], v0, v1, v2, v3, v4, v5, v6, v7)
                for p in range(whole, positions):
                    a0 = a[n, p, start:stop]
                    for i in range(first, last):
                        x0, y0 = above[n, p, i], below[n, p, i]
                        signs, row = weight[i, start:stop], found[i - first]
                        for e in range(stop - start):
                            v0 = a0[e] * (x0 if signs[e] > 0 else y0)
                            row[e] = row[e] + v0 if mean else max(row[e], v0)
                for i in range(first, last):
                    total, row = largest[i, start:stop], found[i - first]
                    for e in range(stop - start):
                        total[e] = max(total[e], scale * row[e])

    return fill


_largest, _largest_mean = _compiled(mean=False), _compiled(mean=True)
