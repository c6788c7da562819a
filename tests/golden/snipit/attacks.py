"""Golden checks of the attacks: success rates against epsilon on a pruned network."""

from collections.abc import Callable, Mapping

import numpy as np
import torch

from pruning_core.training.attacks import attack
from tests.golden.snipit.built import named, network

NAMES = {
    "FGSM": "fgsm",
    "LinfPGD": "pgd",
    "L1FastGradientAttack": "l1_fgm",
    "L2DeepFoolAttack": "deepfool",
    "CarliniWagner": "carlini_wagner",
    "DDNAttack": "ddn",
    "SaltAndPepperNoiseAttack": "salt_and_pepper",
    "L2RepeatedAdditiveGaussianNoiseAttack": "gaussian_noise",
}
IMAGES_OFF = {"fgsm": 1, "l1_fgm": 1, "deepfool": 1, "carlini_wagner": 2, "ddn": 2, "pgd": 3}
RANDOM = 0.15
STEPS = {
    "carlini_wagner": 1000
}  # the official 10,000 take minutes; what is found later moves fewer images than allowed


def adversarial(z):
    """Success rates of every attack in the file; random ones within their spread."""
    model = network(z, "param").float().eval()
    x, y = torch.from_numpy(z["x"]), torch.from_numpy(z["y"])
    bounds = tuple(float(b) for b in z["bounds"])
    np.testing.assert_allclose(bounds, (float(x.min()), float(x.max())), rtol=1e-6)
    for official, success in named(z, "success/").items():
        name = NAMES[official]
        result = attack(model, x, y, name, epsilons=z["epsilons"].tolist(), steps=STEPS.get(name))
        allowed = IMAGES_OFF[name] / len(x) if name in IMAGES_OFF else RANDOM
        np.testing.assert_allclose(result.success, success, rtol=0, atol=allowed + 1e-6, err_msg=official)
        np.testing.assert_allclose(result.clean_accuracy, z["clean_accuracy"], rtol=0, atol=1 / len(x) + 1e-6)


CHECKS: dict[str, Callable[[Mapping[str, np.ndarray]], None]] = {"adversarial": adversarial}
