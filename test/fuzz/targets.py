"""Table of the fuzzed targets.

A target makes an input from `Choices`, gives it to the package, and checks the result. It returns whether the input was
accepted, false for the documented error, and raises anything else: that is a fault.
"""

from collections.abc import Callable, Mapping

from fuzz import deliberate_faults, file_targets, message_targets
from fuzz.choices import Choices

Target = Callable[[Choices], bool]

TARGETS: Mapping[str, Target] = {
    "cloud": message_targets.fuzz_cloud,
    "image": message_targets.fuzz_image,
    "compressed": message_targets.fuzz_compressed,
    "calibration": message_targets.fuzz_calibration,
    "transform": message_targets.fuzz_transform,
    "frame": message_targets.fuzz_frame,
    "parameters": file_targets.fuzz_parameters,
    "parameter_file": file_targets.fuzz_parameter_file,
    "preset": file_targets.fuzz_preset,
    "model": file_targets.fuzz_model,
    "checkpoint": file_targets.fuzz_checkpoint,
    "inspection": file_targets.fuzz_inspection,
    "deliberate": deliberate_faults.fuzz_deliberate,
}
