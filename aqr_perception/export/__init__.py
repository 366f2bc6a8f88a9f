# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Export of trained models to ONNX, OpenVINO and torch.export for a fixed rig."""
