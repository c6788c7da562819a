"""Golden files of i-SpaSP: the selection on two layers and on blocks, costs of configurations, the fine-tuning loop."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import pruning_core as pc
from pruning_core.data.splits import Split
from pruning_core.methods.ispasp import ISpaSP, two_layer
from pruning_core.papers.ispasp.configurations import STAGES, cost, mobilenetv2_configuration, resnet34_configuration
from pruning_core.training.evaluation import evaluate
from pruning_core.training.losses import CrossEntropy
from pruning_core.training.optimizers import LearningRate, Optimizer
from pruning_core.training.trainer import Trainer
from tests.golden.harness import Check, check, parameters


def tensor(z, name: str) -> torch.Tensor:
    return torch.from_numpy(np.asarray(z[name]))


def same_selection(found, z):
    """Ours stops when the support repeats; the official code goes on with what no longer changes."""
    close = {"rtol": 1e-8, "atol": 1e-9 * float(np.abs(z["importance"]).max())}
    np.testing.assert_allclose(found.activation, z["h"], rtol=1e-8, atol=1e-9 * float(np.abs(z["h"]).max()))
    for t in range(int(z["T"])):
        ours = found.steps[min(t, len(found.steps) - 1)]
        np.testing.assert_array_equal(ours.support, np.sort(z["support"][t]))
        np.testing.assert_allclose(ours.importance, z["importance"][t], **close)
    residuals = 0.5 * np.array([found.residuals[min(t, len(found.residuals) - 1)] for t in range(int(z["T"]) + 1)])
    np.testing.assert_allclose(residuals, z["residual"], rtol=1e-8, atol=1e-9 * float(np.abs(z["residual"]).max()))


def two_layer_file(z):
    hidden = torch.relu(tensor(z, "X") @ tensor(z, "W0").T)
    weight, s, iterations = tensor(z, "W1"), int(z["s"]), int(z["T"])
    assert int(hidden.shape[1] * float(z["ratio"])) == s
    for pieces in (1, 3):
        for early in (True, False):
            options = {"residuals": True, "until_repeat": early}
            found = two_layer(lambda n=pieces: hidden.chunk(n), weight, s, iterations, **options)
            assert len(found.steps) == iterations or early
            same_selection(found, z)
    if 2 * s >= hidden.shape[1]:
        assert torch.equal(found.support, hidden.sum(0).topk(s).indices.sort().values)


class Block(nn.Module):
    """A residual block of two convolutions, from the arrays of a file; the skip is the input where it fits."""

    def __init__(self, z):
        super().__init__()
        stride = int(z["stride"]) if "stride" in z else 1
        hidden, inputs = z["dense_conv1"].shape[:2]
        outputs = len(z["dense_conv2"])
        self.conv1 = nn.Conv2d(inputs, hidden, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        load(self.double(), z, {"conv1.weight": "conv1", "conv2.weight": "conv2"})

    def forward(self, x):
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + x)


class InvertedResidual(nn.Module):
    """Expand, depthwise, project, from the arrays of a file; with a skip where shapes allow."""

    def __init__(self, z):
        super().__init__()
        hidden, inputs = z["dense_w_expand"].shape[:2]
        outputs, stride = len(z["dense_w_project"]), int(z["stride"])
        self.expand, self.bn_expand = nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden)
        self.dw, self.bn_dw = nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False), nn.BatchNorm2d(hidden)
        self.project, self.bn_project = nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        names = {f"{layer}.weight": f"w_{layer}" for layer in ("expand", "dw", "project")}
        load(self.double(), z, names)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x):
        hidden = F.relu6(self.bn_dw(self.dw(F.relu6(self.bn_expand(self.expand(x))))))
        out = self.bn_project(self.project(hidden))
        return out + x if self.skip else out


def load(model, z, names):
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                value.copy_(tensor(z, "dense_" + names.get(name, name.replace(".", "_"))))


def block(kind, consumer, norm, hidden_of, names, z):
    """One block: the selection, the same through prune(), and the smaller block, with the statistics of either kind."""
    model, x = kind(z).eval(), tensor(z, "x").double()
    chunks = x.split(int(z["bs"]))
    stored = {part: tensor(z, f"pruned_{norm}_running_{part}") for part in ("mean", "var")}
    # In files of the official behaviour the norm behind the pruned block has been in training mode.
    by_batch = not torch.allclose(stored["mean"], tensor(z, f"dense_{norm}_running_mean"))
    layers = nn.Sequential(model.get_submodule(consumer), model.get_submodule(norm))
    s = int(z["s"])

    @torch.no_grad()
    def hidden():
        for chunk in chunks:
            yield hidden_of(model, chunk)

    found = two_layer(hidden, layers, s, int(z["T"]), residuals=True, reference=by_batch)
    same_selection(found, z)
    if by_batch:
        supports = [np.sort(support) for support in z["support"][:-1]]
        for part, value in moving_statistics(layers, hidden, supports).items():
            np.testing.assert_allclose(value, stored[part], rtol=1e-8, atol=1e-10)

    size = len(z["h"])
    assert int(size * float(z["ratio"])) == s
    method = ISpaSP(iterations=int(z["T"]), reference=by_batch)
    batches = [(chunk, None) for chunk in chunks]
    sites = pc.prune(model, "ispasp", 0.0, batches=batches).sites
    (site,) = [name for name, group in sites.groups.items() if group.consumes[0].layer == consumer]
    small = pc.prune(model, method, None, across={site: 1 - s / size}, batches=batches).shrink().eval()
    support = np.sort(z["support"][-1])
    dense, state = model.state_dict(), small.state_dict()
    for name, value in state.items():
        if name.endswith(("running_mean", "running_var")):
            expected = dense[name] if name.startswith(norm) else dense[name][support]
            np.testing.assert_array_equal(value, expected)
        elif not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(value, z["pruned_" + names.get(name, name.replace(".", "_"))])
    n = len(z["dense_out"])
    with torch.no_grad():
        np.testing.assert_allclose(model(x[:n]), z["dense_out"], rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(small(x[:n]), z["pruned_out_stats_copied_eval"], rtol=1e-8, atol=1e-10)
        for name, value in state.items():  # the official block comes back with other statistics: those in the file
            if name.endswith(("running_mean", "running_var")):
                value.copy_(tensor(z, "pruned_" + name.replace(".", "_")))
        np.testing.assert_allclose(small(x[:n]), z["pruned_out_as_returned_eval"], rtol=1e-8, atol=1e-10)


@torch.no_grad()
def moving_statistics(layers, hidden, supports):
    """What the norm behind the pruned block has averaged: an update of momentum 0.1 for every chunk and iteration but one."""
    conv, norm = layers
    fresh = nn.BatchNorm2d(norm.num_features).double()
    for support in supports:
        for chunk in hidden():
            kept = torch.zeros_like(chunk)
            kept[:, support] = chunk[:, support]
            fresh(conv(kept))
    return {"mean": fresh.running_mean, "var": fresh.running_var}


def basic_block_file(z):
    names = {"conv1.weight": "conv1", "conv2.weight": "conv2"}
    block(Block, "conv2", "bn2", lambda model, x: F.relu(model.bn1(model.conv1(x))), names, z)


def inverted_residual_file(z):
    names = {f"{layer}.weight": f"w_{layer}" for layer in ("expand", "dw", "project")}

    def hidden(model, x):
        return F.relu6(model.bn_dw(model.dw(F.relu6(model.bn_expand(model.expand(x))))))

    block(InvertedResidual, "project", "bn_project", hidden, names, z)


def resnet34_cost_file(z):
    for i, (ratios, last) in enumerate(zip(z["ratios"], z["prune_last"], strict=True)):
        removed = resnet34_configuration(ratios.tolist(), bool(last))
        found = cost("torchvision/resnet34", removed)
        assert found.parameters == int(z["params"][i])
        np.testing.assert_allclose(found.macs_with_norm, z["flops"][i], rtol=5e-3)
        every = [f"layer{stage}.{b}.conv1" for stage, (blocks, _) in enumerate(STAGES, 1) for b in range(blocks)]
        widths = [found.widths.get(name, STAGES[int(name[5]) - 1][1]) for name in every]
        np.testing.assert_array_equal(widths, z["mid_widths"][i])


def mobilenetv2_cost_file(z):
    blocks = [int(b) for b in np.atleast_1d(z["blocks"])]
    for i, ratio in enumerate(np.atleast_1d(z["ratio"])):
        found = cost("torchvision/mobilenet_v2", mobilenetv2_configuration(float(ratio), blocks))
        assert found.parameters == int(np.atleast_1d(z["params"])[i])
        np.testing.assert_allclose(found.macs_with_norm, np.atleast_1d(z["flops"])[i], rtol=5e-3)


class Tiny(nn.Module):
    """The network of the file, its sizes read from the arrays."""

    def __init__(self, z):
        super().__init__()
        out, inputs, k, _ = z["init_conv1__weight"].shape
        self.conv1, self.bn1 = nn.Conv2d(inputs, out, k, bias=False), nn.BatchNorm2d(out)
        self.block = nn.Sequential()
        self.block.add_module("bn1", nn.BatchNorm2d(out))
        self.fc = nn.Linear(z["init_fc__weight"].shape[1], len(z["init_fc__weight"]))
        self.double().load_state_dict(
            {name: tensor(z, f"init_{name.replace('.', '__')}") for name in self.state_dict()}
        )

    def forward(self, x):
        return self.fc(self.block(F.relu(self.bn1(self.conv1(x)))).flatten(1))


def finetune_file(z):
    model = Tiny(z)
    split = Split(tensor(z, "X").double(), tensor(z, "Y"))
    lr, epochs, steps = float(z["lr"]), int(z["epochs"]), len(z["lr_wd_per_step"])
    rate = LearningRate("cosine" if bool(z["cosine"]) else "constant")
    # The official rule: what has ".bn" or ".bias" in its name does not decay, so the stem's norm does.
    rule = {"weight_decay": float(z["wd"]), "undecayed": (".bn", ".bias")}
    settings = Optimizer("sgd", lr, float(z["momentum"]), nesterov=True, **rule)
    trainer = Trainer(
        model, settings, epochs=epochs, learning_rate=rate, batch_size=-(-len(z["X"]) // (steps // epochs)),
        loss=CrossEntropy(0.1), shuffle=False,
    )  # fmt: skip
    measured = [evaluate(model, split, loss=CrossEntropy(0.1))]
    rates, decays = [], []

    def remember(optimizer, *_):
        rates.append(sorted({group["lr"] for group in optimizer.param_groups}))
        decays.append(sorted({group["weight_decay"] for group in optimizer.param_groups}))

    trainer.optimizer.register_step_pre_hook(remember)
    rows = []
    for _ in range(epochs):
        rows.append(trainer.train_epoch(split))
        measured.append(evaluate(model, split, loss=CrossEntropy(0.1)))
    np.testing.assert_allclose([m.loss for m in measured], z["test_losses"], rtol=1e-7)
    np.testing.assert_allclose([m.accuracy for m in measured], z["test_accs"], rtol=1e-12)
    np.testing.assert_allclose([row["loss"] for row in rows], z["train_losses"], rtol=1e-7)
    np.testing.assert_allclose([row["accuracy"] for row in rows], z["train_accs"], rtol=1e-12)
    np.testing.assert_allclose(np.array(rates).repeat(2, 1), z["lr_wd_per_step"][:, :2], rtol=1e-12)
    np.testing.assert_allclose(decays, np.sort(z["lr_wd_per_step"][:, 2:], 1), rtol=1e-12)
    for name, value in model.state_dict().items():
        np.testing.assert_allclose(value, z[f"final_{name.replace('.', '__')}"], rtol=1e-7, atol=1e-10)


def label_smooth_file(z):
    logits, targets = tensor(z, "logits"), tensor(z, "targets")
    loss = CrossEntropy(float(z["epsilon"]))(logits, targets)
    np.testing.assert_allclose(loss, z["loss"], rtol=1e-10)
    found = evaluate(nn.Identity(), Split(logits, targets))
    np.testing.assert_allclose(found.accuracy, z["top1"], rtol=1e-12)


CHECKS: dict[str, Check] = {
    "two_layer": two_layer_file,
    "basic_block": basic_block_file,
    "inverted_residual": inverted_residual_file,
    "resnet34_cost": resnet34_cost_file,
    "mobilenetv2_cost": mobilenetv2_cost_file,
    "finetune": finetune_file,
    "label_smooth": label_smooth_file,
}


@parameters("ispasp")
def test_golden(path):
    check("ispasp", path, CHECKS)
