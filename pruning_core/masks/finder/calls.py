"""One call of an operator as the rules see it, and the table of rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from pruning_core.masks.finder.labels import Labels, Marks, all_labels

CONSTANT = "where they meet a tensor whose size is fixed"
WHOLE = "which looks at all of them at once"


class Call:
    """One call of an operator: its arguments by name, and the labels of its tensors."""

    def __init__(self, labels: Labels, func: Any, args: Sequence, kwargs: dict, output: Any, follower: Any):
        self.labels, self.func, self.output, self.follower = labels, func, output, follower
        self.op = func._schema.name.split("::")[1]
        self.given, self.named = args, kwargs
        self.free: set[int] | None = None  # dimensions whose size follows from the tensor
        self.counted = False  # whether sizes were written out

    def __getitem__(self, name: str) -> Any:
        for position, argument in enumerate(self.func._schema.arguments):
            if argument.name == name:
                if name in self.named:
                    return self.named[name]
                return self.given[position] if position < len(self.given) else argument.default_value
        raise KeyError(name)

    def has(self, name: str) -> bool:
        """Whether the operator has an argument of this name."""
        return any(argument.name == name for argument in self.func._schema.arguments)

    def why(self, what: str = "which has no rule") -> Callable[[], str]:
        """The reason for which channels are fixed here, put in words when it is needed."""
        op = "scaled_dot_product_attention" if "scaled_dot_product" in self.op else self.op.strip("_")
        return lambda: f"they go through {self.follower.place(op, what)}"

    def tensors(self) -> list[Tensor]:
        """The tensors among the arguments, also in lists."""
        found = []
        for value in (*self.given, *self.named.values()):
            if isinstance(value, Tensor):
                found.append(value)
            elif isinstance(value, list | tuple):
                found += [entry for entry in value if isinstance(entry, Tensor)]
        return found


Rule = Callable[[Call], "Marks | list[Marks]"]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register the rule of these operators, by their names in ATen without a final underscore."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def marks_of(tensor: Any) -> Marks:
    """The labels that a tensor carries."""
    return getattr(tensor, "_channel_labels", ())


def unknown(call: Call) -> Marks:
    """Everything that goes in is fixed."""
    call.labels.fix(all_labels(block for tensor in call.tensors() for block in marks_of(tensor)), call.why())
    return ()


def dims_of(call: Call, rank: int) -> set[int]:
    """The dimensions that a call names, all ``rank`` of them where it names none."""
    for name in ("dim", "dims", "dimension"):
        if call.has(name):
            given = call[name]
            if given is None or given == []:
                break
            return {dim % max(rank, 1) for dim in ([given] if isinstance(given, int) else given)}
    return set(range(rank))
