"""What a user gains: ResNet-50 with half of its channels against the network that torchvision gives, in one precision."""

from functools import partial

import torch
import torchvision

from pruning_core import count_macs, prune
from pruning_core.models import fold_batch_norm
from stopwatch import Made, row

INFERENCE = {"fold_batch_norm": True, "channels_last": True}


def _rows(dtype: torch.dtype, batch: int) -> None:
    setting = f"{str(dtype).removeprefix('torch.')}, batch of {batch}"

    def dense_and_images() -> tuple[torch.nn.Module, torch.Tensor]:
        torch.manual_seed(0)
        return torchvision.models.resnet50(weights=None).eval(), torch.randn(batch, 3, 224, 224)

    def both(build) -> Made:
        """The network that ``build`` makes of the dense one, and that one, on the same images."""
        dense, images = dense_and_images()
        small = build(dense, images[:1])
        fewer = count_macs(dense, images[:1]) / count_macs(small, images[:1])

        def call(network: torch.nn.Module) -> None:
            with torch.inference_mode():
                network(images.to(dtype))

        return (
            partial(call, small.to(dtype)),
            partial(call, dense.to(dtype)),
            lambda *_: f"{fewer:.2f} times fewer MACs",
        )

    def cut(dense, example, **how):
        return prune(dense, "l1_norm", 0.5, across="layer", example_input=example, round_to=8).shrink(**how)

    peer = "ResNet-50 of torchvision"
    row(f"half of its channels, {setting}", peer, turns=5)(partial(both, cut))
    row(f"half, folded, channels_last, {setting}", peer, at_most=0.25, turns=5)(
        partial(both, partial(cut, **INFERENCE))
    )
    row(f"all of it, folded, channels_last, {setting}", peer, turns=5)(
        partial(both, lambda dense, example: fold_batch_norm(dense, example).to(memory_format=torch.channels_last))
    )


for dtype in (torch.float32, torch.bfloat16):
    for batch in (1, 8):
        _rows(dtype, batch)
