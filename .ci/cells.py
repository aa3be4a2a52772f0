"Which notebooks and cells there are, and which of them can run on this machine."
import re
import subprocess
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
NEEDED = {"cuda": "no CUDA GPU", "browser": "no chromium"}  # by flag, what is missing where a cell is left out


def notebooks():
    "The paths of all notebooks whose cells are run, in the order of their numbers."
    paths = sorted((ROOT / "nbs").rglob("*.ipynb"))
    return [p for p in paths if not any(part[0] in "_." for part in p.relative_to(ROOT / "nbs").parts) and not skip_exec(p)]


def skip_exec(path):
    "Whether a notebook says at its top that its outputs are stored and its cells not run."
    top = nbformat.read(path, 4).cells[:2]
    return any(re.search(r"^[-\s]*skip_exec:\s*true\s*$", c.source, re.M) for c in top if c.cell_type != "code")


def imports_of(path):
    "The module that a notebook exports (empty where it exports none), and the modules of civillaw that its cells import."
    text = "\n".join(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code")
    exported = re.search(r"#\|\s*default_exp\s+(\w+)", text)
    return exported[1] if exported else "", set(re.findall(r"(?:from|import)\s+civillaw\.(\w+)", text))


def flags_of(cell):
    "The words of the `#|` lines that open a cell."
    return {line[2:].split(":")[0].strip() for line in cell.source.splitlines() if line.startswith("#|")}


def why_left_out(cell, able, slow=True):
    "Why a code cell is not run; empty where it is."
    flags = flags_of(cell)
    if re.search(r"^#\|\s*eval:\s*false", cell.source, re.M):
        return "eval: false"
    if "nbdev_export(" in cell.source:
        return "export"
    missing = [flag for flag in NEEDED if flag in flags and flag not in able]
    return missing[0] if missing else "slow" if "slow" in flags and not slow else ""


def answers(*command):
    "Whether a command can be run and ends well."
    try:
        return subprocess.run(command, capture_output=True, timeout=120).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def abilities():
    "The flags of cells that this machine can serve."
    able = ["slow"]
    if answers("chromium", "--version"):
        able.append("browser")
    if answers(sys.executable, "-c", "import sys, torch; sys.exit(not torch.cuda.is_available())"):
        able.append("cuda")
    return able
