#!/usr/bin/env bash
# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0

# Make .ros/: everything that is needed to build, run and test this project.
#
# With a sourced ROS 2, this is a virtual environment on top of ROS 2 and a colcon build of this package. Without one, ROS 2
# comes from PyPI wheels, and packages without a wheel are built from src/ next to this file.
# DISTRO in the environment chooses the distribution of the wheels; those of another than the default are in .ros-DISTRO/.
# A second run takes seconds: a step is skipped while its inputs are unchanged.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
distros_of_wheels="jazzy kilted"
default_distro=kilted
distro=${DISTRO:-}
folder=.ros
[[ -z $distro || $distro == "$default_distro" ]] || folder=.ros-$distro
ros=$root/$folder
torch_version=2.13.0
cpu_index=https://download.pytorch.org/whl/cpu

fail() { echo "setup: $*" >&2; exit 1; }
say() { echo "setup: $*"; }

# Stop if the chosen distribution is not there, before anything is made.
check_distro() {
    [[ -n $distro ]] || return 0
    if [[ -n $(prefixes_of_others) && -n ${ROS_DISTRO:-} ]]; then
        [[ $distro == "$ROS_DISTRO" ]] ||
            fail "found DISTRO=$distro and a sourced ROS 2 $ROS_DISTRO, needed one distribution; leave DISTRO out, or use a shell without a sourced ROS 2"
        return 0
    fi
    [[ " $distros_of_wheels " == *" $distro "* ]] ||
        fail "found DISTRO=$distro, but PyPI has wheels of $distros_of_wheels only; choose one of these, or install ROS 2 $distro (docs.ros.org) and source its setup file"
}

# Print the first Python that ROS 2 has wheels for and that can make virtual environments (on Debian a separate package).
find_python() {
    local candidate
    for candidate in python3 python3.13 python3.12 python3.11 python3.10; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

found_pythons() {
    local candidate found
    for candidate in python3 python3.{9,10,11,12,13,14}; do
        if found=$("$candidate" -c 'import sys; print(sys.version.split()[0])' 2>/dev/null); then echo "$found"; fi
    done | sort -u | paste -sd' '
}

# Stop with the problem and its remedy before anything is downloaded.
check_machine() {
    [[ $(uname -s) == Linux && $(uname -m) == x86_64 ]] ||
        fail "found $(uname -s) on $(uname -m), but ROS 2 wheels exist only for Linux on x86_64; install ROS 2 (docs.ros.org), source its setup file, and run this again"
    local found
    found=$(found_pythons)
    find_python >/dev/null ||
        fail "found ${found:+Python }${found:-no Python}, but ROS 2 wheels need one from 3.10 to 3.13 with venv; install it (apt-get install python3 python3-venv), or install ROS 2 (docs.ros.org) and source its setup file"
    local tool
    for tool in g++ make; do
        command -v "$tool" >/dev/null || fail "$tool is missing, but the message packages are built with it; apt-get install build-essential"
    done
}

# Print a hash of files.
fingerprint() { (cd "$root" && find "$@" -type f -not -path '*/__pycache__/*' | LC_ALL=C sort | xargs -d '\n' sha256sum | sha256sum); }
unchanged() { [[ -f $ros/$1.stamp && $(cat "$ros/$1.stamp") == "$2" ]]; }

# Print the sourced prefixes, without the .ros/ and .ros-DISTRO/ of this or another clone.
prefixes_of_others() { tr ':' '\n' <<<"${AMENT_PREFIX_PATH:-}" | grep -v -e '^$' -e '/\.ros\(-[a-z]*\)\?/' | paste -sd:; }

have_sourced_ros() {
    [[ -n $(prefixes_of_others) ]] || return 1
    local error
    error=$(python3 -c 'import rclpy' 2>&1) && return
    say "ROS 2 ${ROS_DISTRO:-} is sourced, but $(command -v python3) cannot import its rclpy ($(tail -n1 <<<"$error")); taking ROS 2 from PyPI instead" >&2
    return 1
}

install_torch() {
    local pip=$1
    if [[ -e /proc/driver/nvidia/version ]]; then
        "$pip" install --quiet "torch==$torch_version"
        return
    fi
    # The CPU build is a tenth of the size. The default build works, too, where the CPU index cannot be reached.
    "$pip" install --quiet --retries 0 --timeout 10 --index-url "$cpu_index" "torch==$torch_version" 2>/dev/null ||
        "$pip" install --quiet "torch==$torch_version"
}

install_wheels() {
    check_machine
    local python stamp wheels=${distro:-$default_distro}
    python=$(find_python)
    stamp="$("$python" --version) $(fingerprint "ros_from_pip/requirements_$wheels.txt" ros_from_pip/requirements.txt ros_from_pip/requirements_no_deps.txt ros_from_pip/requirements_checks.txt ros_from_pip/setup.sh ros_from_pip/relocate_cmake.py)"
    unchanged wheels "$stamp" && return
    say "installing ROS 2 ${wheels^} and libraries into $folder/venv (a few minutes)"
    # A virtual environment of this Python is updated; one of another Python is replaced.
    if [[ "$("$ros/venv/bin/python" --version 2>/dev/null)" != "$("$python" --version)" ]]; then
        rm -rf "$ros"
        "$python" -m venv "$ros/venv"
    fi
    "$ros/venv/bin/pip" install --quiet --upgrade pip
    install_torch "$ros/venv/bin/pip"
    "$ros/venv/bin/pip" install --quiet -r "$root/ros_from_pip/requirements_$wheels.txt" -r "$root/ros_from_pip/requirements.txt" -r "$root/ros_from_pip/requirements_checks.txt"
    "$ros/venv/bin/pip" install --quiet --no-deps -r "$root/ros_from_pip/requirements_no_deps.txt"
    "$ros/venv/bin/python" "$root/ros_from_pip/relocate_cmake.py" "$ros/venv"
    echo "$stamp" >"$ros/wheels.stamp"
}

write_environment_of_wheels() {
    local site
    site=$("$ros/venv/bin/python" -c 'import sys; print(f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages")')
    cat >"$ros/env.sh" <<EOF
# Written by ros_from_pip/setup.sh; source it in any shell: . $folder/env.sh
. "$ros/venv/bin/activate"
export AMENT_PREFIX_PATH="$ros/ws:$ros/underlay:$ros/venv"
export CMAKE_PREFIX_PATH="\$AMENT_PREFIX_PATH"
export PYTHONPATH="$ros/ws/$site:$ros/underlay/$site"
export LD_LIBRARY_PATH="$ros/ws/lib:$ros/underlay/lib:$ros/venv/lib"
export PATH="$ros/ws/lib/aqr_perception:\$PATH"
export ROS_VERSION=2 ROS_PYTHON_VERSION=3 ROS_DISTRO=${distro:-$default_distro} RMW_IMPLEMENTATION=rmw_fastrtps_cpp
EOF
}

# Check the packages that rosdep installs from package.xml, so that all missing ones are named at once.
check_ros_packages() {
    local module missing=()
    for module in cv_bridge cv2 message_filters sensor_msgs_py tf2_ros tf_transformations diagnostic_msgs nav_msgs vision_msgs visualization_msgs; do
        python3 -c "import $module" 2>/dev/null || missing+=("$module")
    done
    ((${#missing[@]} == 0)) ||
        fail "ROS 2 ${ROS_DISTRO:-} lacks ${missing[*]}; rosdep install --from-paths . --ignore-src --skip-keys 'python3-pytorch-pip python3-rosbags-pip', then run this again"
    command -v colcon >/dev/null || fail "colcon is missing; apt-get install python3-colcon-common-extensions"
    python3 -c 'import venv, ensurepip' 2>/dev/null || fail "Python's venv is missing; apt-get install python3-venv"
}

install_beside_ros() {
    local stamp
    stamp="$(python3 --version) $(prefixes_of_others) $(fingerprint ros_from_pip/requirements_beside_ros.txt ros_from_pip/requirements_no_deps.txt ros_from_pip/requirements_checks.txt ros_from_pip/setup.sh)"
    unchanged wheels "$stamp" && return
    check_ros_packages
    say "found ROS 2 ${ROS_DISTRO:-}; installing the libraries that it lacks into $folder/venv"
    rm -rf "$ros"
    mkdir -p "$ros"
    python3 -m venv --system-site-packages "$ros/venv"
    # The messages of ROS 2 are compiled for its own NumPy, so pip must keep that version. OpenCV 5 breaks cv_bridge.
    python3 -c 'import numpy; print(f"numpy=={numpy.__version__}\nopencv-python<5\nopencv-python-headless<5")' \
        >"$ros/constraints.txt"
    export PIP_CONSTRAINT="$ros/constraints.txt"
    python3 -c 'import torch' 2>/dev/null || install_torch "$ros/venv/bin/pip"
    "$ros/venv/bin/pip" install --quiet -r "$root/ros_from_pip/requirements_beside_ros.txt"
    "$ros/venv/bin/pip" install --quiet --no-deps -r "$root/ros_from_pip/requirements_no_deps.txt"
    # Copies that the system has run in the system's Python, which does not see these libraries.
    "$ros/venv/bin/pip" install --quiet --ignore-installed -r "$root/ros_from_pip/requirements_checks.txt"
    unset PIP_CONSTRAINT
    cat >"$ros/env.sh" <<EOF
# Written by ros_from_pip/setup.sh; source it after ROS 2's own setup file.
. "$ros/venv/bin/activate"
# colcon's file reads variables that may be unset, which stops the shells of make (set -u).
_nounset=\$(shopt -po nounset || true)
set +u
. "$ros/ws/local_setup.bash"
eval "\$_nounset"
unset _nounset
export PATH="$ros/ws/lib/aqr_perception:\$PATH"
# Plugins that ROS 2 adds to pytest. They stop pytest 9, which dropped an argument that they use; no test needs them.
export PYTEST_ADDOPTS="-p no:launch_testing -p no:launch_ros -p no:launch_pytest \${PYTEST_ADDOPTS:-}"
EOF
    echo "$stamp" >"$ros/wheels.stamp"
}

# build NAME COLCON-ARGUMENTS...: build into $ros/NAME; print the log NAME.log there if the build fails.
build() {
    local name=$1
    shift
    (cd "$root" && colcon --log-base "$ros/log" build --merge-install --build-base "$ros/build-$name" \
        --install-base "$ros/$name" "$@" >"$ros/$name.log" 2>&1) || {
        cat "$ros/$name.log" >&2
        fail "the build of $name failed; its output is above and in $folder/$name.log"
    }
}

build_underlay() {
    local stamp
    stamp=$(fingerprint ros_from_pip/src)
    unchanged underlay "$stamp" && return
    say "building the ROS 2 packages that have no wheel (two minutes)"
    rm -rf "$ros/underlay" "$ros/build-underlay"
    build underlay --base-paths ros_from_pip/src --cmake-args -DBUILD_TESTING=OFF -GNinja
    echo "$stamp" >"$ros/underlay.stamp"
}

build_package() {
    local stamp
    stamp=$(fingerprint aqr_perception config launch msg scripts package.xml CMakeLists.txt)
    unchanged ws "$stamp" && return
    say "building aqr_perception"
    # CMake refuses to export include folders inside the source folder, such as the virtual environment's: build from a copy.
    rm -rf "$ros/ws" "$ros/source"
    mkdir -p "$ros/source"
    (cd "$root" && cp -a aqr_perception config launch msg scripts package.xml CMakeLists.txt "$ros/source")
    build ws --base-paths "$folder/source" --packages-select aqr_perception --cmake-args -DBUILD_TESTING=OFF "${@}"
    echo "$stamp" >"$ros/ws.stamp"
}

main() {
    # Two runs at once would remove each other's files: the second waits for the first.
    exec 9<"${BASH_SOURCE[0]}"
    flock 9
    check_distro
    if have_sourced_ros; then
        install_beside_ros
        # shellcheck disable=SC1091
        . "$ros/venv/bin/activate"
        build_package
        return
    fi
    # Keep the caller's paths out of the wheels and the builds.
    unset PYTHONPATH AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH
    install_wheels
    write_environment_of_wheels
    set +u
    # shellcheck disable=SC1091
    . "$ros/env.sh"
    set -u
    build_underlay
    build_package -GNinja
}

main "$@"
