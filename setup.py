# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Installation by pip of the part that needs no ROS: detector, training, simulator, bags, pictures, command line."""

from pathlib import Path

from setuptools import find_namespace_packages, setup

setup(
    name="aqr_perception",
    version="0.1.0",
    description="Camera + LiDAR 3D detection with adaptive query routing",
    long_description=(Path(__file__).parent / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="aqr_perception maintainers",
    license="Apache-2.0",
    license_files=["LICENSE", "aqr_perception/report/assets/uPlot.LICENSE.txt"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
    python_requires=">=3.10",
    # nodes/, offline/ and the folders live/ import rclpy; colcon installs them.
    packages=[
        *find_namespace_packages(
            include=["aqr_perception", "aqr_perception.*"],
            exclude=["aqr_perception.nodes*", "aqr_perception.offline*", "aqr_perception.*.live*", "*.__pycache__"],
        ),
        "aqr_perception.config",
        "aqr_perception.definitions",
    ],
    package_dir={"aqr_perception.config": "config", "aqr_perception.definitions": "msg"},
    package_data={
        "aqr_perception": ["py.typed", "models/*/*.cpp", "report/assets/*", "weights/*.safetensors"],
        "aqr_perception.config": ["**/*.yaml"],
        "aqr_perception.definitions": ["*.msg"],
    },
    # The lowest versions are those of Ubuntu 22.04. torch: FlexAttention returns the values that we need since 2.9.
    # OpenCV 5 renumbers the types of pixels, which breaks the cv_bridge of the same Python.
    install_requires=[
        "jinja2>=3.0",
        "numpy>=1.21",
        "opencv-python-headless>=4.5.4,<5",
        "pyyaml",
        "rosbags>=0.11",
        "safetensors",
        "scipy>=1.8",
        "torch>=2.9",
        "tqdm",
    ],
    extras_require={
        # Plus `pip install --no-deps nuscenes-devkit==1.2.0`, whose requirement of NumPy 1 is unnecessary.
        "train": ["cachetools", "matplotlib", "pyquaternion", "scikit-learn", "shapely>=2.0.3", "tensorboard"],
        # Plus `pip install --no-deps nuscenes-devkit==1.2.0 motmetrics==1.4.0`, for `evaluate --tracking`.
        "export": ["onnx", "onnxruntime", "onnxscript"],
        "docs": ["mkdocs-material>=9.5,<10", "mkdocstrings[python]>=1.0,<2"],
        "openvino": ["openvino"],
        "ray": ["ray"],
        "rerun": ["rerun-sdk"],
        "tracking": ["pandas>=2", "xmltodict"],
        "simulate": ["embreex", "matplotlib", "pillow", "trimesh>=4"],
    },
    entry_points={"console_scripts": ["aqr_perception = aqr_perception.cli:main"]},
)
