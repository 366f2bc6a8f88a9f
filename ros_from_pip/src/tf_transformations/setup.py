# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0

from setuptools import find_packages, setup

setup(
    name="tf_transformations",
    version="1.1.0",
    packages=find_packages(),
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/tf_transformations"]),
        ("share/tf_transformations", ["package.xml"]),
    ],
    zip_safe=True,
    maintainer="aqr_perception maintainers",
    maintainer_email="maintainers@aqr-perception.invalid",
    description="The tf_transformations functions, for machines with ROS 2 from Python wheels.",
    license="Apache-2.0",
)
