"""An exponential moving average of a model's weights, which detects better than the weights themselves."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """The average of a model's parameters over its steps; buffers, such as batch norm statistics, are copied.

    The decay is ramped as (1 + n) / (10 + n) after n updates, so that the random first weights are soon forgotten.

    Attributes:
        decay: the highest, reached after about 9 / (1 - decay) updates.
        updates: how often `update` was called.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self._model = model
        self._average = {name: tensor.detach().clone() for name, tensor in self._live().items()}
        self._averaged = [name for name, _ in model.named_parameters()]

    @torch.no_grad()
    def update(self) -> None:
        """Take the model's present weights into the average."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        live = self._live()
        averages = [self._average[name] for name in self._averaged]
        torch._foreach_lerp_(averages, [live[name] for name in self._averaged], 1.0 - decay)
        for name in live.keys() - set(self._averaged):
            self._average[name].copy_(live[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the model the averaged weights for a while, and its own back afterwards."""
        live = self._live()
        own = {name: tensor.clone() for name, tensor in live.items()}
        try:
            _copy(live, self._average)
            yield
        finally:
            _copy(live, own)

    def state_dict(self) -> dict[str, object]:
        """Return the average, whole and on the CPU, under the model's keys. Every process must ask for it."""
        return {"updates": self.updates, "average": self.whole()}

    def whole(self) -> dict[str, Tensor]:
        """Return the averaged weights, whole and on the CPU. Every process must ask for them."""
        return {name: value.cpu() for name, value in self._average.items()}

    def load_state_dict(self, updates: int, average: Mapping[str, Tensor]) -> None:
        """Go on from a `state_dict`."""
        self.updates = updates
        _copy(self._average, average)

    def _live(self) -> dict[str, Tensor]:
        """Return the model's own tensors: changing them changes the model."""
        return {name: tensor.detach() for name, tensor in self._model.state_dict(keep_vars=True).items()}


@torch.no_grad()
def _copy(into: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, tensor in into.items():
        tensor.copy_(values[name])
