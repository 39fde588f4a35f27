"""A named state of the user's optimizer, such as momentum, as one vector that can be exchanged."""

from __future__ import annotations

import torch
from torch.optim import Optimizer

from swarmsgd.core.arena import Arena
from swarmsgd.errors import ConfigError


class OptimizerState:
    """State `name` of all parameters in `arena`, float32 [D], as `live`.

    An optimizer makes its state in its first step, parameter by parameter, and may be given another
    one (`load_state_dict`). `adopt` notices both, and moves the numbers to where `live` has them;
    until then `live` holds zeros and what exchanges brought, and a new state is added to that.
    """

    def __init__(self, name: str, arena: Arena, optimizer: Optimizer) -> None:
        self.name = name
        self.live = torch.zeros_like(arena.live)
        self._arena = arena
        self._optimizer = optimizer
        self._parts = list(arena.parts(self.live))
        self._held: list[torch.Tensor | None] = [None] * len(self._parts)
        self.adopt()

    def adopt(self) -> None:
        """See to it that the optimizer works on parts of `live`. Costs a look at each parameter.

        Raises ConfigError if its state is no tensor of the parameter's shape in float32.
        """
        states = self._optimizer.state
        for at, (parameter, part) in enumerate(self._parts):
            state = states.get(parameter)
            if not state:
                continue
            found = state.get(self.name)
            if found is not None and found is not self._held[at]:
                self._check(found, parameter)
                with torch.no_grad():
                    if self._held[at] is None:
                        part.add_(found)
                    else:
                        part.copy_(found)
                self._held[at] = state[self.name] = part

    def check_found(self) -> None:
        """Adopt; raise ConfigError if the optimizer, which has made a step, has no such state."""
        self.adopt()
        if not any(part is not None for part in self._held):
            names = sorted(
                {str(name) for state in self._optimizer.state.values() for name in state}
            )
            raise ConfigError(
                f"exchange_state names {self.name!r}, but after a step this "
                f"{type(self._optimizer).__name__} has "
                + (f"only {', '.join(names)}" if names else "no state at all")
                + (": its momentum is 0, perhaps" if self.name == "momentum_buffer" else "")
            )

    def describe(self, vector: torch.Tensor) -> str:
        """Where `vector` is not finite."""
        return self._arena.first_bad(vector)

    def release(self) -> None:
        """Give each parameter's state a storage of its own again, with the values it has now."""
        for (parameter, part), held in zip(self._parts, self._held, strict=True):
            state = self._optimizer.state.get(parameter)
            if state and held is not None and state.get(self.name) is held:
                state[self.name] = part.clone(memory_format=torch.preserve_format)

    def _check(self, found: object, parameter: torch.Tensor) -> None:
        if not isinstance(found, torch.Tensor) or found.shape != parameter.shape:
            got = f"of shape {list(found.shape)}" if isinstance(found, torch.Tensor) else found
            raise ConfigError(
                f"exchange_state names {self.name!r}, which is {got} for a parameter of shape "
                f"{list(parameter.shape)}: only state of the parameters' own shapes can be averaged"
            )
        if found.dtype != torch.float32:
            raise ConfigError(
                f"exchange_state names {self.name!r}, which is {found.dtype}, wanted torch.float32"
            )
