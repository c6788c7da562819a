"""GraSP: weight times Hessian times gradient, and the gradient that it keeps."""

import torch
from torch import nn
from torch.nn import functional as F

import pruning_core as pc
from pruning_core.masks.masks import Masks
from pruning_core.masks.sites import find_sites
from pruning_core.methods.grasp import Grasp
from pruning_core.methods.shared.elasticities import loss_gradients
from tests.methods.gradient_networks import conv


def test_grasp_is_weight_times_hessian_times_gradient():
    """On a network small enough for the full Hessian."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
        x, y = torch.randn(12, 3).double(), torch.randint(3, (12,))
    names = ["0.weight", "2.weight"]
    sizes = [12, 12]

    def loss_of(flat):
        parts = dict(
            zip(names, [p.view(s) for p, s in zip(flat.split(sizes), [(4, 3), (3, 4)], strict=True)], strict=True)
        )
        return F.cross_entropy(torch.func.functional_call(model, parts, x) / 7.0, y)

    flat = torch.cat([model.get_parameter(n).detach().flatten() for n in names])
    hessian = torch.autograd.functional.hessian(loss_of, flat)
    gradient = torch.autograd.functional.jacobian(loss_of, flat)
    expected = flat * (hessian @ gradient)
    sites = find_sites(model, channels=False)
    from pruning_core.methods.base import View

    view = View(model, sites, Masks(), [(x, y)], F.cross_entropy, torch.Generator())
    ours = Grasp(temperature=7.0).score(view)
    torch.testing.assert_close(torch.cat([ours[n].flatten() for n in names]), expected, rtol=1e-9, atol=1e-14)
    turned = Grasp(temperature=7.0, reference=True).score(view)
    assert all(torch.equal(turned[n], -ours[n]) for n in names)


def test_grasp_keeps_more_gradient_than_its_opposite(batches):
    """What the score is for: to first order, the squared gradient norm after a small cut."""
    model = conv()

    def squared_norm(network):
        names = [n for n, p in network.named_parameters() if p.dim() > 1]
        gradients, _ = loss_gradients(network, names, batches, lambda out, y: F.cross_entropy(out / 200, y))
        return sum(float((g**2).sum()) for g in gradients.values())

    kept = {
        reference: pc.prune(model, Grasp(reference=reference), 0.02, batches=batches).model
        for reference in (False, True)
    }
    assert squared_norm(kept[False]) > squared_norm(kept[True])
