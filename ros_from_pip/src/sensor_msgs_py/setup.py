# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0

from setuptools import find_packages, setup

setup(
    name="sensor_msgs_py",
    version="5.5.1",
    packages=find_packages(),
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/sensor_msgs_py"]),
        ("share/sensor_msgs_py", ["package.xml"]),
    ],
    zip_safe=True,
    maintainer="aqr_perception maintainers",
    maintainer_email="maintainers@aqr-perception.invalid",
    description="The Python point_cloud2, for machines with ROS 2 from Python wheels.",
    license="Apache-2.0",
)
