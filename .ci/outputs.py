"""Runs notebooks from top to bottom in Jupyter's own kernel and looks at their stored outputs.

    python .ci/outputs.py [NOTEBOOK ...]           compares the text under untagged cells with what is stored
    python .ci/outputs.py --write [NOTEBOOK ...]   stores what the cells say now (`run_scripts.sh outputs`)
    --slow, --fast                                 slow cells in full; slow cells left out (else: in their short form)

What hangs on the machine is masked before the comparison: numbers with a unit of time, memory or speed, errors of
rounding, times, dates, paths, addresses.  A cell with `#| measured` hangs on the machine altogether: of it only is
asked that it says something.  An error in a cell is an error here.
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from cells import ROOT, abilities, flags_of, notebooks, why_left_out

UNITS = r"(?:m?s|min|minutes?|seconds?|[kMG]i?B|GFLOP/s|GB/s|MB/s|(?:tokens?|rows?|examples?|characters|steps?)/s)"
MASKS = [
    (re.compile(r"0x[0-9a-f]{6,}"), "ADDRESS"),
    (re.compile(r"(?:/tmp|/var/tmp|/home|/root|/Users)[\w./+-]*"), "PATH"),
    (re.compile(r"(?<!\d)(?:\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?)?|\d{8}_\d{6})(?!\d)"), "DATE"),
    (re.compile(r"\b\d{1,2}:\d\d(?::\d\d)?\b"), "TIME"),
    (re.compile(r"\d+\.\d{5,}(?!e)"), lambda number: f"{float(number[0]):.3f}"),  # no CPU's last digits decide
    (re.compile(r"[-+]?\d(?:\.\d+)?e-(?:0[4-9]|[1-9]\d)|\b0\.0+e\+00"), "ROUNDING"),
    (re.compile(rf"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?\s?{UNITS}(?![\w/])"), "MEASURED"),
]
SHOWN = ("text/markdown", "text/html", "text/plain")  # of an output the first that it has
TAGS = re.compile(r"<style.*?</style>|<script.*?</script>|<[^>]*>", re.S)


def run(notebook, able, slow, folder):
    "Runs the cells of a notebook that can run here, in place; returns the others with their reasons."
    left_out = {c.id: why for c in notebook.cells if c.cell_type == "code" and (why := why_left_out(c, able, slow))}
    everything = notebook.cells
    notebook.cells = [c for c in everything if c.id not in left_out]
    try:
        NotebookClient(notebook, timeout=None, kernel_name="python3", coalesce_streams=True,
                       resources={"metadata": {"path": folder}}).execute()
    finally:
        notebook.cells = everything
    return left_out


def keep_results(notebook, left_out):
    "Drops what is not a result from the outputs of the cells that were run, in place."
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.id not in left_out:
            cell.outputs = [without_places(o) for o in cell.outputs if is_kept(o)]


def without_places(output):
    "The output without this checkout's place and the names of temporary folders, which say nothing to a reader."
    def clean(text):
        text = "".join(text).replace(f"{ROOT}/", "")
        return re.sub(rf"{re.escape(tempfile.gettempdir())}/tmp\w+", "TMP", text)

    if output.output_type == "stream":
        output.text = clean(output.text)
    for kind in output.get("data", {}):
        if kind.startswith("text/"):
            output.data[kind] = clean(output.data[kind])
    return output


def is_kept(output):
    "Warnings and bars are not results, and a widget without its kernel is empty."
    if output.output_type == "stream":
        return output.name == "stdout"
    data = output.get("data", {})
    return "application/vnd.jupyter.widget-view+json" not in data and "<progress" not in "".join(data.get("text/html", ""))


def said(cell):
    "What is compared of the outputs of a cell: masked text, and which of them are pictures."
    texts = []
    for output in cell.outputs:
        if output.output_type == "stream":
            texts.append(output.text)
        elif data := output.get("data"):
            kind = next((kind for kind in SHOWN if kind in data), "")
            text = "".join(data.get(kind, ""))
            texts.append("picture" if "image/png" in data else TAGS.sub(" ", text) if kind == "text/html" else text)
    text = "\n".join(texts)
    for pattern, word in MASKS:
        text = pattern.sub(word, text)
    return "something" if text.strip() and "measured" in flags_of(cell) else text


def stale(stored, fresh, left_out):
    "A line for each untagged cell that says something else than what is stored."
    lines = []
    for before, after in zip(stored.cells, fresh.cells):
        if before.cell_type != "code" or before.id in left_out or flags_of(before) & {"slow", "browser", "cuda"}:
            continue
        old, new = said(before), said(after)
        if old.split() != new.split():
            first = next((l for l in before.source.splitlines() if not l.startswith("#|")), "")
            lines.append(f"cell {before.id}: {first[:70]}\n  stored: {difference(old, new)}\n  now:    {difference(new, old)}")
    return lines


def difference(text, other):
    "The first line of a text that the other has not."
    theirs = set(other.splitlines())
    return next((line for line in text.splitlines() if line not in theirs), text[:1] and "(fewer lines)" or "(nothing)")[:200]


def main():
    parser = argparse.ArgumentParser(description="Stored outputs of notebooks: compared, or made anew.")
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--slow", action="store_true")
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--able", nargs="*", help="flags that this machine can serve; left out: it is looked")
    args = parser.parse_args()
    with_slow = args.slow or not (args.write or args.fast)  # an output of a short form is never stored
    if not args.slow:
        os.environ.setdefault("CIVILLAW_TESTS", "short")
    able, failed = abilities() if args.able is None else args.able, 0
    for path in args.notebooks or notebooks():
        stored, fresh = nbformat.read(path, 4), nbformat.read(path, 4)
        try:
            left_out = run(fresh, able, with_slow, str(path.resolve().parent))
        except CellExecutionError as error:
            failed += 1
            print(f"{path.name}: {error}", flush=True)
            continue
        for notebook in (stored, fresh):
            keep_results(notebook, left_out)
        for why in sorted(set(left_out.values()) - {"export", "eval: false"}):
            print(f"{path.name}: not made here ({why}): {', '.join(k for k, w in left_out.items() if w == why)}", flush=True)
        if args.write:
            fresh.metadata.pop("widgets", None)  # their state, of no use without the kernel
            nbformat.write(fresh, path)
            continue
        lines = stale(stored, fresh, left_out)
        failed += bool(lines)
        print("\n".join([f"{path.name}: stale outputs, run `run_scripts.sh outputs`", *lines] if lines else [f"{path.name}: ok"]),
              flush=True)
    if args.write:
        subprocess.run([Path(sys.executable).parent / "nbdev_clean"], cwd=ROOT, check=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
