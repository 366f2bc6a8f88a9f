"""Preset entries of a small fusion model, for tests of whole commands."""

SMALL: dict[str, object] = {
    "description": "aqr_tiny, made smaller",
    "point_range": [-51.2, -51.2, -5.0, 51.2, 51.2, 3.0],
    "image": {"size": [160, 64], "backbone": "resnet18", "width": 8},
    "points": {
        "voxel_size": [0.4, 0.4, 0.25],
        "grid": [256, 256, 32],
        "max_voxels": 20000,
        "encoder_channels": [8, 8, 16, 16],
        "encoder_output": 16,
        "backbone_channels": [32, 32],
        "backbone_layers": [1, 1],
        "neck_channels": 16,
    },
    "sweeps": 1,
    "decoder": {
        "channels": 64,
        "queries": 60,
        "layers": 2,
        "heads": 4,
        "feedforward": 64,
        "depths": 8,
        "proposals": {"bev": 30, "image": 20},
    },
    "aqr": {"mode": "both", "bev_window": 5, "image_window": 5, "router_image_window": 3},
}
