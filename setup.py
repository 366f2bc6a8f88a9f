"""pip install of the part that needs no ROS: detector, bags, pictures and the command line."""

from setuptools import setup

setup(
    name="aqr_perception",
    version="0.1.0",
    description="Camera + LiDAR 3D detection with adaptive query routing",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=[
        "aqr_perception",
        "aqr_perception.bags",
        "aqr_perception.benchmarks",
        "aqr_perception.config",
        "aqr_perception.evaluation",
        "aqr_perception.models",
        "aqr_perception.models.aqr",
        "aqr_perception.models.boxes",
        "aqr_perception.models.image",
        "aqr_perception.models.points",
        "aqr_perception.models.transformer",
        "aqr_perception.synthetic",
        "aqr_perception.training",
        "aqr_perception.training.data",
        "aqr_perception.visualization",
    ],
    package_dir={"aqr_perception.config": "config"},
    package_data={"aqr_perception.config": ["*.yaml", "models/*.yaml"]},
    install_requires=[
        "numpy",
        "opencv-python-headless",
        "pyyaml",
        "rosbags",
        "safetensors",
        "scipy",
        "torch>=2.9",
        "tqdm",
    ],
    entry_points={"console_scripts": ["aqr_perception = aqr_perception.cli:main"]},
)
