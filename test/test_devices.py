"""Choice of device and number format."""

import pytest
import torch

from aqr_perception.devices import DeviceError, choose_device, choose_precision


def test_an_unavailable_device_is_named_with_the_available_ones() -> None:
    with pytest.raises(DeviceError, match="tpu7"):
        choose_device("tpu7")
    with pytest.raises(DeviceError, match=f"sees {torch.cuda.device_count()} CUDA"):
        choose_device("cuda:99")
    with pytest.raises(DeviceError, match="fp16"):
        choose_precision("fp16", torch.device("cpu"))
    with pytest.raises(DeviceError, match="fp8"):
        choose_precision("fp8", torch.device("cpu"))
