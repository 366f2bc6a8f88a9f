#!/usr/bin/env python3
# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""SPDX lines (licence and copyright) at the head of every source file: spdx.py [--fix].

Without --fix, it names the files that lack them and ends with status 1; `make lint` runs it. Files of other licences
keep their own lines, see `OTHERS`.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINES = ("SPDX-FileCopyrightText: aqr_perception maintainers", "SPDX-License-Identifier: Apache-2.0")
HASH = {".py", ".sh", ".msg", ".cmake", ".toml", ".yaml", ".yml"}
SLASHES = {".cpp", ".hpp", ".h", ".js"}
NAMED = {"CMakeLists.txt", "Makefile", "Dockerfile"}
PARAMETERS = "config"
"""Folder of files that people copy and change: no copyright line of ours."""
OTHERS = {"aqr_perception/report/assets/uPlot.iife.min.js": "MIT, see uPlot.LICENSE.txt next to it"}


def comment(path: Path, text: str) -> str:
    """Return the start of a comment line in a file, or "" for a file that needs no lines."""
    if path.suffix in SLASHES:
        return "// "
    if path.suffix in HASH or path.name in NAMED or (not path.suffix and text.startswith("#!")):
        return "# "
    return ""


def files() -> list[Path]:
    """Return the files of the repository that need the lines, relative to its root."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    paths = [Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file()]
    wanted = []
    for path in paths:
        if path.as_posix() in OTHERS or path.parts[0] == PARAMETERS:
            continue
        if path.suffix not in HASH | SLASHES | {""} and path.name not in NAMED:
            continue
        text = (ROOT / path).read_text(errors="replace")
        if text.strip() and comment(path, text):
            wanted.append(path)
    return wanted


def with_lines(path: Path, text: str) -> str:
    """Return a file's text with both lines, after a line for the shell; unchanged if they are there."""
    start = comment(path, text)
    ours = [f"{start}{line}\n" for line in LINES]
    lines = text.splitlines(keepends=True)
    if all(line in lines for line in ours):
        return text
    first = [lines.pop(0)] if text.startswith("#!") else []
    others = "".join(line for line in lines if line not in ours).lstrip("\n")
    # A docstring follows at once; other text after an empty line, so that it stays a comment of its own.
    gap = "" if others.startswith(('"""', 'r"""')) else "\n"
    return "".join([*first, *ours, gap, others])


def main() -> int:
    """Check or mend all files; return the process's exit status."""
    fix = "--fix" in sys.argv[1:]
    lacking = []
    for path in files():
        text = (ROOT / path).read_text()
        mended = with_lines(path, text)
        if mended != text:
            lacking.append(path)
            if fix:
                (ROOT / path).write_text(mended)
    for path in lacking:
        print(f"{path}: {'SPDX lines added' if fix else 'no SPDX lines; run scripts/spdx.py --fix'}")
    return int(bool(lacking) and not fix)


if __name__ == "__main__":
    sys.exit(main())
