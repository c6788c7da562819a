"""Golden files of How Sparse Can We Prune that need curvature: Lanczos, Hessian-vector products, densities, null rows."""

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from pruning_core.errors import BadInput
from pruning_core.papers.how_sparse.curvature.batches import batch_losses, loss_tolerance
from pruning_core.papers.how_sparse.curvature.hessian import Hessian
from pruning_core.papers.how_sparse.curvature.lanczos import lanczos, quadrature
from pruning_core.papers.how_sparse.curvature.measures import (
    Spectrum,
    exact_hessian,
    null_row_share,
    reference_density,
    row_norms,
    spectrum,
    top_eigenvalues,
    trace_estimate,
)
from pruning_core.papers.how_sparse.reference import reference_limit

Arrays = Mapping[str, np.ndarray]


class Chain(nn.Module):
    """Convolutions, if any, flatten, linear layers; parts are registered in the order of the state dict."""

    def __init__(self, parts: Mapping[str, nn.Sequential]):
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(self, "conv"):
            x = self.conv(x)
        return self.linear(x.flatten(1))


def network(z: Arrays, prefix: str, fits: Callable[[nn.Module], bool]) -> Chain:
    """The network of a state dict, in evaluation mode and double precision: the first form that ``fits``.

    The names leave open strides, paddings and what stands between the layers that have parameters.
    """
    state = {name[len(prefix) :]: torch.from_numpy(np.array(z[name])) for name in z if name.startswith(prefix)}
    state = {name: value.double() if value.is_floating_point() else value for name, value in state.items()}
    for convolutions in convolutional(state) if any(name.startswith("conv.") for name in state) else [None]:
        parts = {"linear": _linear(state)} | ({"conv": convolutions} if convolutions is not None else {})
        order = dict.fromkeys(name.split(".")[0] for name in state)
        model = Chain({name: parts[name] for name in order}).double().eval()
        model.load_state_dict(state)
        try:
            if fits(model):
                return model
        except BadInput:  # sizes that do not match
            continue
    raise AssertionError("no network with these weights gives the losses of the file")


def _layers(state: Mapping[str, Tensor], part: str) -> list[int]:
    return sorted({int(name.split(".")[1]) for name in state if name.startswith(f"{part}.")})


def _linear(state: Mapping[str, Tensor]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in _layers(state, "linear"):
        layers += [nn.ReLU() for _ in range(len(layers), i)]
        weight = state[f"linear.{i}.weight"]
        layers.append(nn.Linear(weight.shape[1], weight.shape[0], bias=f"linear.{i}.bias" in state))
    return nn.Sequential(*layers)


def convolutional(state: Mapping[str, Tensor]) -> Iterator[nn.Sequential]:
    places = _layers(state, "conv")
    kernels = [i for i in places if state[f"conv.{i}.weight"].dim() == 4]
    gaps = [b - a - 1 for a, b in itertools.pairwise(places)]
    pools: list[list[nn.Module]] = [[nn.MaxPool2d(2)], [nn.AvgPool2d(2)]]
    between: dict[int, list[list[nn.Module]]] = {
        0: [[]],
        1: [[nn.ReLU()], *pools],
        2: [[nn.ReLU(), *pool] for pool in pools],
    }
    ends = [*between[0], *between[1], *between[2]]
    fillings = itertools.product(*(between[gap] for gap in gaps), ends)
    geometries = list(itertools.product(itertools.product((0, 1, 2), (1, 2)), repeat=len(kernels)))
    for filling, geometry in itertools.product(list(fillings), geometries):
        layers: list[nn.Module] = []
        for i, after in zip(places, filling, strict=True):
            weight = state[f"conv.{i}.weight"]
            if weight.dim() == 4:
                padding, stride = geometry[kernels.index(i)]
                bias = f"conv.{i}.bias" in state
                layers.append(nn.Conv2d(weight.shape[1], len(weight), weight.shape[2:], stride, padding, bias=bias))
            else:
                layers.append(nn.BatchNorm2d(len(weight)))
            layers += after
        yield nn.Sequential(*layers)


def batches_of(z: Arrays) -> list[tuple[Tensor, Tensor]]:
    x, y, size = torch.from_numpy(z["X"]).double(), torch.from_numpy(z["y"]).long(), int(z["batch_size"])
    return list(zip(x.split(size), y.split(size), strict=True))


def precision(z: Arrays, *names: str) -> float:
    """1e-9, or what single precision leaves where one of the arrays was computed in it."""
    return 1e-9 if all(z[name].dtype == np.float64 for name in names) else 1e-4


def close(found, stored: np.ndarray, tolerance: float) -> None:
    """Relative, and near zero relative to the largest entry."""
    stored = np.asarray(stored, dtype=np.float64)
    scale = float(np.abs(stored).max(initial=0))
    np.testing.assert_allclose(np.asarray(found), stored, rtol=tolerance, atol=tolerance * scale)


def lanczos_runs(z: Arrays, product: Callable[[Tensor], Tensor], parity: float, without: float = 1e-4) -> None:
    """Every run of the file from its start: with the official accidents exactly, ``without`` them up to that tolerance.

    Behind the first tiny beta the official numbers are rounding noise, so only what comes before counts there.
    """
    starts = torch.from_numpy(z["v0_rademacher"]).double()
    for run, start in enumerate(starts):
        alpha, beta = (z[name][run] for name in ("alpha", "beta")) if "alpha" in z else (None, None)
        ritz, weight = z["ritz"][run].astype(np.float64), z["weight"][run].astype(np.float64)
        order, scale = np.argsort(ritz), float(np.abs(ritz).max())
        ritz, weight = ritz[order], weight[order]
        official = lanczos(product, start, len(ritz), reference=True)
        clean = lanczos(product, start, len(ritz))
        tiny = np.flatnonzero(beta < 1e-5 * scale) if beta is not None else []
        if beta is not None:
            end = int(tiny[0]) if len(tiny) else len(beta)
            close(official.alpha[: end + 1], alpha[: end + 1], parity)
            close(official.beta[:end], beta[:end], parity)
            close(clean.alpha[: end + 1], alpha[: end + 1], without)
            close(clean.beta[:end], beta[:end], without)
            if parity < 1e-6:  # ours stops where nothing is left, if rounding has not filled the matrix up
                assert len(clean.alpha) == (end + 1 if len(tiny) else len(ritz))
        if len(tiny):
            _same_measure(quadrature(*official), (ritz, weight), 1e-3 * scale)
            _same_measure(quadrature(*clean), (ritz, weight), 1e-3 * scale)
        else:
            for found, tolerance in ((quadrature(*official), parity), (quadrature(*clean), without)):
                np.testing.assert_allclose(found[0], ritz, rtol=0, atol=tolerance * scale)
                np.testing.assert_allclose(found[1], weight, rtol=0, atol=tolerance)


def _same_measure(ours: tuple[Tensor, Tensor], theirs: tuple[np.ndarray, np.ndarray], width: float) -> None:
    """Two sets of weighted points, as far as they carry weight, agree: the weight around each point of either."""
    points = [tuple(np.asarray(part, dtype=np.float64) for part in pair) for pair in (ours, theirs)]
    for centre in np.concatenate([values[weights > 1e-4] for values, weights in points]):
        near = [weights[np.abs(values - centre) < width].sum() for values, weights in points]
        np.testing.assert_allclose(near[0], near[1], atol=1e-3)


def lanczos_file(z: Arrays) -> None:
    """A matrix A, also as the Hessian of half w'Aw plus a sum of |w|, whose second derivative is zero."""
    matrix = torch.from_numpy(z["A"]).double()
    assert z["ritz"].shape[1] == int(z["n_steps"])
    lanczos_runs(z, lambda v: matrix @ v, precision(z, "A", "ritz"))
    np.testing.assert_allclose(float(matrix.trace()), z["exact_trace"], rtol=1e-9, atol=1e-9)

    class Quadratic(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.linspace(0.5, 1.5, len(matrix), dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return x * (0.5 * self.w @ matrix @ self.w + self.w.abs().sum())

    ones = torch.ones(4, 1, dtype=torch.float64)
    hessian = Hessian(Quadratic().eval(), [(ones, ones)], lambda outputs, labels: outputs.mean())
    close(exact_hessian(hessian), ((matrix + matrix.T) / 2).numpy(), 1e-9)
    rules = [
        quadrature(*lanczos(hessian.matvec, s, int(z["n_steps"])))
        for s in torch.from_numpy(z["v0_rademacher"]).double()
    ]
    for run, start in enumerate(z["v0_rademacher"].astype(np.float64)):
        rayleigh = start @ z["A"].astype(np.float64) @ start / (start @ start)
        single = Spectrum.of([rules[run]], len(matrix))
        np.testing.assert_allclose(single.mean(), rayleigh, rtol=1e-8, atol=1e-9 * float(matrix.abs().max()))
    values = spectrum(hessian, generator=torch.Generator(), exact_below=len(matrix), progress=False)
    close(values.eigenvalues[0], np.sort(z["lam_true"]), precision(z, "A", "lam_true"))


def hvp(z: Arrays) -> None:
    """Products, the whole Hessian, its trace and top, losses of batches, their spread, and Lanczos from the file's starts."""
    batches = batches_of(z)
    tight = precision(z, "Hv", *(name for name in z if name.startswith("sd__") and "num_batches" not in name))

    def fits(model: nn.Module) -> bool:
        return np.allclose(batch_losses(model, batches), z["batch_losses"], rtol=tight)

    model = network(z, "sd__", fits)
    losses = batch_losses(model, batches)
    np.testing.assert_allclose(losses, z["batch_losses"], rtol=tight)
    # The sum of magnitudes that is added has no second derivative: it is in none of the other arrays.
    norm = float(z["lmbda"]) * sum(float(p.detach().abs().sum()) for p in model.parameters()) if z["l1"] else 0.0
    np.testing.assert_allclose(loss_tolerance(losses), z["epsilon_std_of_batch_losses"], rtol=tight)
    sizes = [len(x) for x, _ in batches]
    np.testing.assert_allclose(np.average(losses, weights=sizes) + norm, z["mean_loss_with_reg"], rtol=tight)
    for options in ({}, {"reuse_graph": False}, {"merge": False, "reuse_graph": False}):
        hessian = Hessian(model, batches, **options)  # type: ignore[arg-type]
        assert list(hessian.shapes) == [str(name) for name in z["param_order"]]
        products = hessian.matvec(torch.from_numpy(z["v"]).T).T
        close(products, z["Hv"], tight)
        close((products * torch.from_numpy(z["v"])).sum(1), z["vHv"], tight)
    hessian = Hessian(model, batches)
    matrix = exact_hessian(hessian)
    close(matrix, z["H"], tight)
    np.testing.assert_allclose(float(matrix.trace()), z["exact_trace"], rtol=tight)
    exact = spectrum(hessian, generator=torch.Generator(), exact_below=hessian.dimension, progress=False)
    close(exact.eigenvalues[0], np.sort(z["eigvals"]), tight)
    np.testing.assert_allclose(exact.mean() * hessian.dimension, z["exact_trace"], rtol=tight)
    probes = torch.from_numpy(z["trace_probes"]).double()
    np.testing.assert_allclose((hessian.matvec(probes.T).T * probes).sum(1), z["trace_vHv"], rtol=tight, atol=1e-12)
    estimate = trace_estimate(hessian, 200, generator=torch.Generator())
    assert abs(estimate.value - float(z["exact_trace"])) < 5 * estimate.standard_error
    top, _ = top_eigenvalues(hessian, len(z["power_top2"]), generator=torch.Generator(), by="magnitude")
    np.testing.assert_allclose(top, z["power_top2"], rtol=1e-4)
    lanczos_runs(z, hessian.matvec, tight)


def density_grid(z: Arrays) -> None:
    """The official grid density, whole or where it is not zero, and the width that follows from it or from Ritz values."""
    ritz, weight = (torch.from_numpy(z[name]).double() for name in ("ritz", "weight"))
    density, grid = reference_density(ritz, weight, int(z["num_bins"]), float(z["sigma_squared"]), float(z["overhead"]))
    if "density" in z:
        np.testing.assert_allclose(density, z["density"], rtol=1e-9)
        np.testing.assert_allclose(grid, z["grid"], rtol=1e-12, atol=1e-12)
        tolerance = 1e-9
    else:
        _nonzero(z, density, grid, "nonzero_index", "nonzero_density")
        tolerance = 1e-6
    spread = Spectrum.of([(r, w / w.sum()) for r, w in zip(ritz, weight, strict=True)], 1).flattened()
    for i, radius in enumerate(z["R"]):
        np.testing.assert_allclose(_width(grid, density, radius, z["eps"]), z["gw_from_grid"][i], rtol=tolerance)
        np.testing.assert_allclose(_width(*spread, radius, z["eps"]), z["gw_direct_from_ritz"][i], rtol=1e-9)


def _nonzero(z: Arrays, density: Tensor, grid: Tensor, where: str, values: str) -> None:
    np.testing.assert_allclose(grid[[0, -1]], z["grid_first_last"], rtol=1e-12)
    index = z[where]
    assert bool((np.diff(index) > 0).all()), "the places of a density rise"
    nothing = 1e-250 * float(density.max())  # what underflows to zero for one may be just above it for the other
    np.testing.assert_allclose(density[index], z[values], rtol=1e-6, atol=nothing)
    assert np.delete(density.numpy(), index).max(initial=0) <= nothing


def _width(values: Tensor, weights: Tensor, radius: float, tolerance: float) -> float:
    """The mean of r^2 / (R^2 + r^2) with r^2 = 2 epsilon / |lambda|."""
    semi = 2 * tolerance / values.abs()
    return float((weights * semi / (radius**2 + semi)).sum() / weights.sum())


def check_pipeline_curvature(z: Arrays) -> None:
    """What a complete run knows from curvature: epsilon, Ritz values of the pruned model, its density, its null rows."""
    batches = batches_of(z)

    def fits(model: nn.Module) -> bool:
        return np.allclose(loss_tolerance(batch_losses(model, batches)), z["epsilon"], rtol=1e-6)

    model = network(z, "analysed__", fits)
    tight = precision(z, "ritz", *(name for name in z if name.startswith("analysed__") and "num_batches" not in name))
    np.testing.assert_allclose(loss_tolerance(batch_losses(model, batches)), z["epsilon"], rtol=tight)
    assert sum(p.numel() for p in model.parameters()) == int(z["n_params"])
    hessian = Hessian(model, batches)
    lanczos_runs(z, hessian.matvec, tight, without=5e-3)
    ritz, weight = (torch.from_numpy(z[name]).double() for name in ("ritz", "weight"))
    starts = torch.from_numpy(z["v0_rademacher"]).double()
    clean = Spectrum.of([quadrature(*lanczos(hessian.matvec, s, ritz.shape[1])) for s in starts], hessian.dimension)
    official = Spectrum.of([(r, w / w.sum()) for r, w in zip(ritz, weight, strict=True)], hessian.dimension)
    for radius in z["R_list"][:: max(1, len(z["R_list"]) // 20)]:
        widths = [_width(*s.flattened(), radius, z["epsilon"]) for s in (clean, official)]
        np.testing.assert_allclose(*widths, atol=1e-3)  # what the README grants a predicted ratio
    if "density_nonzero_index" in z:
        density, grid = reference_density(ritz, weight, int(z["grid_bins"]))
        _nonzero(z, density, grid, "density_nonzero_index", "density_nonzero")
    if "row_l1" in z:
        whole = Hessian(model, batches, exclude_norms=False)
        found = null_row_share(whole, reference=True)
        np.testing.assert_allclose(found.norms, z["row_l1"], rtol=1e-6, atol=1e-14)
        assert round(100 * found.share) == int(z["zero_rows"])
        # The norm of a mean is at most the mean of norms, and on rows that are null for every batch both are zero.
        mean = row_norms(whole, found.indices)
        sizes = torch.tensor([float(len(x)) for x, _ in batches])
        assert bool((mean <= found.norms * sizes.max() * (1 + 1e-9) + 1e-14).all())
    _in_one_call(z, model, batches, starts)


def _in_one_call(z: Arrays, model: nn.Module, batches, starts: Tensor) -> None:
    """From the dense weights to the official answer, whose last digit hangs on the rounding of Ritz values."""
    trained = {name.removeprefix("trained__"): torch.from_numpy(z[name]) for name in z if name.startswith("trained__")}
    dense = copy.deepcopy(model)
    dense.load_state_dict(trained)
    options = {"steps": z["ritz"].shape[1], "points": len(z["R_list"]), "start": starts}
    found = reference_limit(dense, batches, null_rows=int(z["zero_rows"]) > 0, **options)
    np.testing.assert_allclose(found.epsilon, z["epsilon"], rtol=1e-9)
    np.testing.assert_allclose(found.null_fraction, int(z["zero_rows"]) / 100, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.removed, z["predicted_ratio"], rtol=0, atol=1.5e-3)


CHECKS: dict[str, Callable[[Arrays], None]] = {"lanczos": lanczos_file, "hvp": hvp, "density_grid": density_grid}
