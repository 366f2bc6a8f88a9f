# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0

from setuptools import setup

package_name = "tf2_py"

setup(
    name=package_name,
    version="0.41.0",
    packages=[package_name],
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/" + package_name]),
        ("share/" + package_name, ["package.xml"]),
    ],
    install_requires=["setuptools", "numpy", "scipy", "transforms3d"],
    zip_safe=True,
    maintainer="aqr_perception maintainers",
    maintainer_email="maintainers@aqr-perception.invalid",
    description="The tf2_py transform buffer in plain Python",
    license="Apache-2.0",
)
