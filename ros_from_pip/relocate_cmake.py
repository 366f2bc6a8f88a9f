# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Correction of the wheels' CMake files, some of which name the include folders of the machine that built them.

Usage: ``python relocate_cmake.py PREFIX``, with the interpreter that PREFIX belongs to.
"""

import re
import sys
import sysconfig
from pathlib import Path

import numpy

# For example /opt/python/cp311-cp311/include/python3.11, or .../site-packages/numpy/_core/include.
_BUILDERS_PYTHON = re.compile(r"/opt/(?:python|_internal)/[^\s;\"')]*?/include/python3\.\d+")
_BUILDERS_NUMPY = re.compile(r"/opt/(?:python|_internal)/[^\s;\"')]*?/numpy/(?:_core|core)/include")


def relocate(text: str, python_include: str, numpy_include: str) -> str:
    """Return a CMake file's text with the builder's include folders replaced."""
    text = _BUILDERS_NUMPY.sub(lambda _: numpy_include, text)
    return _BUILDERS_PYTHON.sub(lambda _: python_include, text)


def main() -> int:
    """Rewrite every CMake file under the prefix; return the process's exit status."""
    changed = 0
    for path in Path(sys.argv[1]).rglob("*.cmake"):
        text = path.read_text(errors="surrogateescape")
        relocated = relocate(text, sysconfig.get_path("include"), numpy.get_include())
        if relocated != text:
            path.write_text(relocated, errors="surrogateescape")
            changed += 1
    print(f"relocated {changed} CMake files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
