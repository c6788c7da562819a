"""Curvature on a device: the numbers of the CPU."""

import copy

import pytest
import torch

from pruning_core.papers.how_sparse.curvature.batches import batch_losses
from pruning_core.papers.how_sparse.curvature.hessian import Hessian, LivingHessian
from pruning_core.papers.how_sparse.curvature.measures import (
    exact_hessian,
    null_row_share,
    spectrum,
    top_eigenvalues,
    trace_estimate,
)
from tests.papers.how_sparse.curvature.dense import NETWORKS, OPTIONS, case, noise, seeded


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", NETWORKS)
def test_products_stay_where_the_network_is(kind, options, device):
    model, batches = case(kind)
    here = Hessian(model, batches, **options)
    there = Hessian(copy.deepcopy(model).to(device), batches, **options)
    vectors = noise(here.dimension, 2, seed=1)
    found = there.matvec(vectors)
    assert found.device.type == there.weights().device.type == device
    torch.testing.assert_close(found.cpu(), here.matvec(vectors), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(there.weights().cpu(), here.weights(), rtol=0, atol=0)
    torch.testing.assert_close(batch_losses(there.model, batches), batch_losses(model, batches), rtol=1e-9, atol=0)


def test_measures_are_those_of_the_cpu(device):
    model, batches = case("relu")
    here, there = Hessian(model, batches), Hessian(copy.deepcopy(model).to(device), batches)
    close = {"rtol": 1e-6, "atol": 1e-8}
    torch.testing.assert_close(exact_hessian(there).cpu(), exact_hessian(here), **close)
    traces = [trace_estimate(hessian, 4, generator=seeded(3)).samples.cpu() for hessian in (there, here)]
    torch.testing.assert_close(*traces, **close)
    tops = [top_eigenvalues(hessian, 2, generator=seeded())[0].cpu() for hessian in (there, here)]
    torch.testing.assert_close(*tops, **close)
    for exact_below in (0, 5000):  # by Lanczos quadrature, and dense
        options = {"probes": 2, "steps": 12, "exact_below": exact_below, "progress": False}
        spectra = [spectrum(hessian, generator=seeded(5), **options) for hessian in (there, here)]
        torch.testing.assert_close(*(s.eigenvalues for s in spectra), rtol=1e-4, atol=1e-6)
    shares = [null_row_share(hessian, rows=torch.arange(here.dimension)).share for hessian in (there, here)]
    assert shares[0] == shares[1]


def test_the_hessian_of_what_is_alive(device):
    model, batches = case("relu")
    alive = {n: torch.rand(p.shape, generator=seeded(2)) < 0.5 for n, p in model.named_parameters()}
    here = LivingHessian(Hessian(model, batches), alive)
    there = LivingHessian(Hessian(copy.deepcopy(model).to(device), batches), alive)
    vector = noise(here.dimension, seed=1)
    torch.testing.assert_close(there.matvec(vector).cpu(), here.matvec(vector), rtol=1e-8, atol=1e-10)
