"""What somebody asks of a paper's official setting, and official command lines read by their own flags.

Each paper's ``official.py`` turns a setting and what is asked of it into experiments at the paper's scale; ``official/``
gathers them by name, shortens them and writes what came out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import click

from pruning_core.checks import Constraints, Device, Flag, Maybe, Several, Text, Whole, check, check_fields
from pruning_core.errors import BadInput, known_name, shown

SEEDS = Whole(1, 10_000)
"""How many networks may be asked for: a slip of the finger must not plan experiments until the memory is full."""
NUMBER_OF_EPOCHS = Whole(1, 10**6)
"""For how many epochs a training may be asked to go on, and every how many of them something be watched: more never come."""


@dataclass(frozen=True)
class Asked:
    """``seeds``: how many networks (None: as many as the official setting has); ``points``: at most so many fractions of a
    sweep, spread evenly over it; ``methods``: only these of the setting's; ``reference``: what the official code computes,
    where it differs from its paper; ``flags``: words of the official command line, which override the setting's own;
    ``data``: the images that the experiments will be moved to (None: the setting's own).
    """

    constraints: ClassVar = Constraints(
        seeds=Maybe(SEEDS),
        points=Maybe(Whole(at_least=1)),
        methods=Several(Text()),
        reference=Flag(),
        flags=Several(Text()),
        device=Device(),
        data=Maybe(Text()),
    )

    seeds: int | None = None
    points: int | None = None
    methods: tuple[str, ...] = ()
    reference: bool = False
    flags: tuple[str, ...] = ()
    device: str = "cpu"
    data: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    def no_flags(self, name: str) -> None:
        """Raises BadInput for words that a setting without a command line cannot take."""
        if self.flags:
            raise BadInput(f"{name} takes no {shown(self.flags[0])}: what it takes stands in `official --help`.")

    def methods_of(self, name: str, methods: Iterable[str], aliases: Mapping[str, str] | None = None) -> list[str]:
        """Those of a setting's ``methods`` that are asked for; all, where none is. Raises UnknownName for one that it does
        not have, and BadInput for one that is asked for twice. ``aliases``: other names of them.

        >>> Asked(methods=("rni",)).methods_of("rni/vgg16-cifar10-rni", ["rni"])
        ['rni']
        """
        known = list(methods)
        chosen = [known_name(f"method of {name}", (aliases or {}).get(given, given), known) for given in self.methods]
        if twice := next((given for given in chosen if chosen.count(given) > 1), None):
            raise BadInput(f"the method {twice!r} of {name} is asked for twice: name each once.")
        return chosen or known


def spread(values: Sequence[Any], points: int | None) -> list[Any]:
    """At most ``points`` of the values, evenly spread, the last always among them; None: all.

    >>> spread([1, 2, 3, 4, 5], 2), spread([1, 2], None)
    ([3, 5], [1, 2])
    """
    n = len(values)
    if points is None or points >= n:
        return list(values)
    return [values[-(-n * (i + 1) // check("points", points, Whole(at_least=1))) - 1] for i in range(points)]


def read_flags(program: str, defaults: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """The flags of an official program: what ``words`` say, and the defaults for the others.

    A default says of which type a flag is; ``False`` is a switch. Dashes of a name become underscores. Raises BadInput, with
    the nearest name, for a flag that the program does not have or a value of another type.

    >>> read_flags("main.py", {"epochs": 80, "l0": False}, ["--epochs", "2", "--l0"])
    {'epochs': 2, 'l0': True}
    """
    keys = {name.replace("-", "_"): name for name in defaults}
    options = [
        click.Option([f"--{name}", key], default=default, is_flag=default is False, type=type(default))
        for (key, name), default in zip(keys.items(), defaults.values(), strict=True)
    ]
    try:
        context = click.Command(program, params=[*options]).make_context(program, list(words))
    except click.ClickException as error:
        raise BadInput(f"{program}: {' '.join(error.format_message().split())}") from error
    return {key: context.params[key] for key in keys}
