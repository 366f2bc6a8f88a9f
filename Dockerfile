# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0

# The node on ROS 2 Jazzy: docker build -t aqr_perception . && docker run --rm --net=host aqr_perception
FROM ros:jazzy

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV DEBIAN_FRONTEND=noninteractive \
    PIP_BREAK_SYSTEM_PACKAGES=1 \
    PIP_CONSTRAINT=/etc/pip-constraints.txt \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore

WORKDIR /ws
COPY package.xml src/aqr_perception/package.xml

# The messages of ROS 2 are compiled for its own NumPy, and OpenCV 5 breaks cv_bridge. PyTorch comes without CUDA; for a
# GPU, give --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 and run with --gpus all.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# hadolint ignore=DL3008,DL3013
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-numpy python3-pip \
    && python3 -c 'import numpy; print(f"numpy=={numpy.__version__}\nopencv-python<5\nopencv-python-headless<5")' \
        > "$PIP_CONSTRAINT" \
    && pip install "torch>=2.9" --index-url "$TORCH_INDEX" \
    && pip install safetensors \
    && rosdep update --rosdistro "$ROS_DISTRO" \
    && rosdep install --from-paths src --ignore-src -y --rosdistro "$ROS_DISTRO" \
    && rm -rf /var/lib/apt/lists/*

COPY CMakeLists.txt src/aqr_perception/
COPY aqr_perception src/aqr_perception/aqr_perception
COPY config src/aqr_perception/config
COPY launch src/aqr_perception/launch
COPY msg src/aqr_perception/msg
COPY scripts src/aqr_perception/scripts
RUN . "/opt/ros/$ROS_DISTRO/setup.bash" \
    && colcon build --merge-install --packages-select aqr_perception --cmake-args -DBUILD_TESTING=OFF

# The base image's entry point sources ROS 2 only.
RUN printf '%s\n' '#!/bin/bash' 'set -e' ". /opt/ros/$ROS_DISTRO/setup.bash" '. /ws/install/setup.bash' 'exec "$@"' \
        > /entrypoint.sh \
    && chmod +x /entrypoint.sh
ENTRYPOINT ["/entrypoint.sh"]
CMD ["ros2", "launch", "aqr_perception", "perception.launch.py"]
