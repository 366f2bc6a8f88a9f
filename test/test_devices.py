"""The device and number format that a user asked for."""

import pytest
import torch

from aqr_perception.devices import DeviceError, choose_device, choose_precision


def test_a_device_that_is_not_there_is_named_with_the_ones_that_are() -> None:
    with pytest.raises(DeviceError, match="tpu7"):
        choose_device("tpu7")
    with pytest.raises(DeviceError, match=f"sees {torch.cuda.device_count()} CUDA"):
        choose_device("cuda:99")
    with pytest.raises(DeviceError, match="fp16"):
        choose_precision("fp16", torch.device("cpu"))
    with pytest.raises(DeviceError, match="fp8"):
        choose_precision("fp8", torch.device("cpu"))
