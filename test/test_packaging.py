"""The package's files agree with each other."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]


def script(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("script", ROOT / path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_file_tells_the_same_version() -> None:
    manifest = ElementTree.parse(ROOT / "package.xml").getroot().findtext("version")
    setup = re.search(r'version="([^"]+)"', (ROOT / "setup.py").read_text())
    package = re.search(r'__version__ = "([^"]+)"', (ROOT / "aqr_perception" / "__init__.py").read_text())
    assert setup and package and manifest == setup[1] == package[1]


def test_the_manifest_is_a_valid_ament_cmake_package() -> None:
    catkin = pytest.importorskip("catkin_pkg.package", reason="needs catkin_pkg; run `make test`")
    package = catkin.parse_package(str(ROOT / "package.xml"))
    package.validate()
    assert package.package_format == 3 and package.get_build_type() == "ament_cmake"


def test_every_ros_package_that_the_code_imports_is_a_dependency() -> None:
    manifest = ElementTree.parse(ROOT / "package.xml").getroot()
    named = {entry.text for tag in ("depend", "exec_depend") for entry in manifest.iter(tag)}
    imported = set()
    for path in (*(ROOT / "aqr_perception").rglob("*.py"), *(ROOT / "launch").glob("*.py")):
        imported |= set(re.findall(r"^\s*(?:from|import) ([a-z_0-9]+)", path.read_text(), re.MULTILINE))
    ros = {name for name in imported if name.endswith("_msgs") or name in ("rclpy", "cv_bridge", "sensor_msgs_py")}
    ros |= {name for name in imported if name.startswith("launch")}
    # builtin_interfaces comes with rclpy; the Python package tf2_ros lives in the ROS package tf2_ros_py.
    assert ros - named == set()
    assert ("tf2_ros" in imported) == ("tf2_ros_py" in named)


def test_every_message_is_generated() -> None:
    listed = set(re.findall(r"msg/\w+\.msg", (ROOT / "CMakeLists.txt").read_text()))
    assert listed == {f"msg/{path.name}" for path in (ROOT / "msg").glob("*.msg")}


def test_pip_installs_every_module_but_the_nodes() -> None:
    packages = {
        ".".join(path.relative_to(ROOT).parts)
        for path in (ROOT / "aqr_perception").rglob("*")
        if path.is_dir() and any(path.glob("*.py"))
    }
    listed = set(re.findall(r'^\s+"(aqr_perception[\w.]*)",$', (ROOT / "setup.py").read_text(), re.MULTILINE))
    assert listed == (packages - {"aqr_perception.nodes"}) | {"aqr_perception", "aqr_perception.config"}


def test_the_underlay_is_hidden_from_colcon_and_rosdep() -> None:
    assert (ROOT / "ros_from_pip" / "COLCON_IGNORE").is_file()


@pytest.mark.parametrize("path", sorted((ROOT / "launch").glob("*.py")), ids=lambda path: path.name)
def test_launch_files_are_valid_python_with_a_description(path: Path) -> None:
    assert "generate_launch_description" in compile(path.read_text(), str(path), "exec").co_names


def test_the_builders_include_folders_are_replaced_and_nothing_else() -> None:
    pytest.importorskip("numpy")
    relocate = script("ros_from_pip/relocate_cmake.py").relocate
    builder = "/opt/python/cp311-cp311"
    numpy_include = f"{builder}/lib/python3.11/site-packages/numpy/_core/include"
    text = f'set(a "{builder}/include/python3.11;{numpy_include}")\nset(b "/opt/ros/include;/opt/cuda/bin")\n'
    relocated = relocate(text, "/here/python", "/here/numpy")
    assert relocated == 'set(a "/here/python;/here/numpy")\nset(b "/opt/ros/include;/opt/cuda/bin")\n'
    assert relocate(relocated, "/x", "/y") == relocated
