"""Export of trained models to ONNX, OpenVINO and torch.export for a fixed rig."""
