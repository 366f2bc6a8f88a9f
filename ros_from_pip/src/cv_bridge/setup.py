# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0

from setuptools import find_packages, setup

setup(
    name="cv_bridge",
    version="4.1.0",
    packages=find_packages(),
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/cv_bridge"]),
        ("share/cv_bridge", ["package.xml"]),
    ],
    zip_safe=True,
    maintainer="aqr_perception maintainers",
    maintainer_email="maintainers@aqr-perception.invalid",
    description="The Python CvBridge, for machines with ROS 2 from Python wheels.",
    license="Apache-2.0",
)
