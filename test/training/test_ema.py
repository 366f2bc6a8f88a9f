"""The weight average follows the weights, and lends itself to the model."""

import pytest
import torch
from helpers import stand_in

from aqr_perception.training.ema import Ema


def moved(model: stand_in.Model) -> None:
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(1)


def test_the_average_is_the_weighted_mean_of_all_weights_so_far() -> None:
    model = stand_in.model()
    ema = Ema(model, decay=0.5)
    expected = model.head.weight.detach().clone()
    for update in range(5):
        moved(model)
        ema.update()
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * model.head.weight.detach()
    torch.testing.assert_close(ema.whole()["head.weight"], expected)


def test_statistics_are_copied_not_averaged() -> None:
    model = stand_in.model()
    ema = Ema(model, decay=0.999)
    for _ in range(3):
        moved(model)
        ema.update()
    average = ema.whole()
    assert torch.equal(average["norm.running_mean"], model.norm.running_mean)
    assert torch.equal(average["norm.num_batches_tracked"], model.norm.num_batches_tracked)
    assert not torch.equal(average["head.weight"], model.head.weight)


def test_the_model_gets_the_average_for_a_while_and_its_own_weights_back() -> None:
    model = stand_in.model()
    ema = Ema(model, decay=0.9)
    moved(model)
    ema.update()
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(RuntimeError, match="while applied"), ema.applied():
        assert stand_in.differences(dict(model.state_dict()), ema.whole()) == []
        raise RuntimeError("while applied")
    assert stand_in.differences(dict(model.state_dict()), own) == []


def test_an_average_survives_saving_and_loading() -> None:
    model = stand_in.model()
    ema = Ema(model, decay=0.9)
    for _ in range(3):
        moved(model)
        ema.update()
    other = Ema(stand_in.model(), decay=0.9)
    state = ema.state_dict()
    other.load_state_dict(state["updates"], state["average"])
    assert other.updates == 3 and stand_in.differences(other.whole(), ema.whole()) == []
