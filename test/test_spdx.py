# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""SPDX lines at the head of source files."""

import importlib.util
from pathlib import Path

import pytest
from helpers.places import ROOT

spec = importlib.util.spec_from_file_location("spdx", ROOT / "scripts" / "spdx.py")
assert spec and spec.loader
spdx = importlib.util.module_from_spec(spec)
spec.loader.exec_module(spdx)

HOLDER, LICENCE = spdx.LINES


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.py", '"""Doc."""\n', f'# {HOLDER}\n# {LICENCE}\n"""Doc."""\n'),
        ("a.py", "import os\n", f"# {HOLDER}\n# {LICENCE}\n\nimport os\n"),
        (
            "run",
            '#!/usr/bin/env python3\n"""Doc."""\n',
            f'#!/usr/bin/env python3\n# {HOLDER}\n# {LICENCE}\n"""Doc."""\n',
        ),
        ("a.sh", "#!/bin/sh\n# What.\n", f"#!/bin/sh\n# {HOLDER}\n# {LICENCE}\n\n# What.\n"),
        ("A.msg", "# What.\nbool a\n", f"# {HOLDER}\n# {LICENCE}\n\n# What.\nbool a\n"),
        ("a.cpp", "#include <a>\n", f"// {HOLDER}\n// {LICENCE}\n\n#include <a>\n"),
        ("CMakeLists.txt", "project(a)\n", f"# {HOLDER}\n# {LICENCE}\n\nproject(a)\n"),
        ("a.py", f'# {LICENCE}\n"""Doc."""\n', f'# {HOLDER}\n# {LICENCE}\n"""Doc."""\n'),
    ],
)
def test_lines_stand_before_the_text_and_after_a_line_for_the_shell(name: str, text: str, expected: str) -> None:
    assert spdx.with_lines(Path(name), text) == expected
    assert spdx.with_lines(Path(name), expected) == expected


def test_a_file_without_source_code_needs_no_lines() -> None:
    assert spdx.comment(Path("a.md"), "text") == spdx.comment(Path("LICENSE"), "text") == ""


def test_every_source_file_has_the_lines() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("the list of files comes from git")
    listed = spdx.files()
    assert len(listed) > 500 and Path("setup.py") in listed
    assert [
        path for path in listed if spdx.with_lines(path, (ROOT / path).read_text()) != (ROOT / path).read_text()
    ] == []
