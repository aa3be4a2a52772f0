"Makes README.md from nbs/index.ipynb (and README.ko.md from nbs/index_ko.ipynb); --check fails when one is stale."
import re
import shutil
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
READMES = {"index.ipynb": "README.md", "index_ko.ipynb": "README.ko.md"}
HIDING = {"hide", "default_exp", "export", "exporti", "exports"}  # flags whose cells are not for readers
# The richest form that GitHub shows: markdown, a picture, an HTML table, then plain text.
SHOWN = ["text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/html", "text/plain"]
FLAG = re.compile(r"^\s*#\s*\|\s*(.*?)\s*$")


def split_flags(source):
    "The leading `#|` lines of a cell as a list, and the source without them."
    lines, flags = source.splitlines(), []
    while lines and (found := FLAG.match(lines[0])):
        flags.append(found[1])
        lines.pop(0)
    return flags, "\n".join(lines)


def clean_code(cell):
    "Drops what the flags of a code cell hide; returns whether anything is left to show."
    flags, cell.source = split_flags(cell.source)
    if {flag.split()[0] for flag in flags if flag} & HIDING or "include: false" in flags:
        return False
    if "echo: false" in flags:
        cell.metadata["transient"] = {"remove_source": True}
    if "output: false" in flags:
        cell.outputs = []
    return "echo: false" not in flags or bool(cell.outputs)


def from_top(match):
    "One link, which is relative to nbs/ in a notebook and to the top in a README."
    before, target = match.groups()
    path, hash_, anchor = target.partition("#")
    if path and not re.match(r"[a-z]+:", path):
        if not (NBS / path).exists():
            sys.exit(f"dead link in the notebook of a README: {target}")
        path = READMES.get(path) or (NBS / path).resolve().relative_to(ROOT).as_posix()
    return f"{before}{path}{hash_}{anchor}"


def relative_links(text):
    return re.sub(r"""(\]\(|\b(?:src|href)=["'])([^)\s"']+)""", from_top, text)


def tidy(notebook):
    "The notebook without front matter and hidden cells, its links made for the top of the repository."
    cells = [c for c in notebook.cells if c.cell_type == "markdown" or c.cell_type == "code" and clean_code(c)]
    for number, cell in enumerate(cells):
        if cell.cell_type == "markdown":
            if number == 0:  # nbdev reads `- key: value` lines under the title as front matter
                cell.source = re.sub(r"^- \w+: .*\n?", "", cell.source, flags=re.MULTILINE)
            cell.source = relative_links(cell.source)
    notebook.cells = cells
    notebook.metadata["language_info"] = {"name": "python"}  # nbdev_clean takes it away; it colours the code
    return notebook


def render(name):
    "The files made from one notebook: a dict from path (relative to the top) to bytes."
    exporter = MarkdownExporter()
    exporter.display_data_priority = SHOWN
    pictures = f"nbs/media/{Path(name).stem}"
    names = {"output_files_dir": pictures, "unique_key": "output"}
    text, extra = exporter.from_notebook_node(tidy(nbformat.read(NBS / name, 4)), resources=names)
    text = re.sub(r"<style scoped>.*?</style>\s*", "", text, flags=re.DOTALL)  # of pandas tables, shown as text
    text = re.sub(r"\n\s*\n\s*\n", "\n\n", text).strip()
    note = f"<!-- Made from nbs/{name} by .ci/readme.py: edit the notebook, not this file. -->"
    files = {READMES[name]: f"{note}\n\n{text}\n".encode()}
    return files | dict(extra["outputs"])


def is_stale(path, content):
    return not (ROOT / path).exists() or (ROOT / path).read_bytes() != content


def main(check):
    names = [name for name in READMES if name == "index.ipynb" or (NBS / name).exists()]
    files = {path: content for name in names for path, content in render(name).items()}
    stale = [path for path, content in files.items() if is_stale(path, content)]
    if check and stale:
        sys.exit(f"stale: {', '.join(stale)}; run `python .ci/readme.py` and commit the result")
    if not check:
        for name in names:  # pictures of outputs that are gone must not stay
            shutil.rmtree(NBS / "media" / Path(name).stem, ignore_errors=True)
        for path, content in files.items():
            (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / path).write_bytes(content)


if __name__ == "__main__":
    main(check="--check" in sys.argv[1:])
