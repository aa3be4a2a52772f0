"""Changes one line of exported code at a time and asks whether the untagged tests notice.

    python .ci/mutations.py [--number 60] [--seed 0] [--module NAME ...] [--workers 2] [--most 0] [--only NUMBER ...]

The lines are drawn with a seed, at least one from each module.  Each change is made in a notebook of a copy of this
checkout, which is exported; then the untagged cells run, first those of the changed notebook, then those of the
notebooks whose modules import it, until one fails or says something else than what is stored.  A line is printed for
each change, the last line counts.
"""
import argparse
import ast
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

import nbformat

from cells import ROOT, imports_of, notebooks
from checks import CheckFailed, run, stop_all

COMPARED = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==", ast.In: "not in",
            ast.NotIn: "in", ast.Is: "is not", ast.IsNot: "is"}
COMPUTED = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "/", ast.Mod: "*", ast.Pow: "*",
            ast.BitOr: "&", ast.BitAnd: "|"}


def between(left, right):
    "Where the operator between two operands stands; nowhere where they are on two lines."
    return left.end_lineno, left.end_col_offset, right.col_offset if left.end_lineno == right.lineno else 0


def changes_of(node):
    "What may be put in the place of a node: (line, first byte, last byte, new text), all within one line."
    here = lambda n: (n.lineno, n.col_offset, n.end_col_offset)
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in COMPARED:
        yield *between(node.left, node.comparators[0]), f" {COMPARED[type(node.ops[0])]} "
    if isinstance(node, ast.BinOp) and type(node.op) in COMPUTED:
        yield *between(node.left, node.right), f" {COMPUTED[type(node.op)]} "
    if isinstance(node, ast.BoolOp):
        yield *between(*node.values[:2]), " or " if isinstance(node.op, ast.And) else " and "
    if isinstance(node, ast.Constant) and type(node.value) in (bool, int, float):
        yield *here(node), str(not node.value if isinstance(node.value, bool) else node.value + 1)
    if isinstance(node, (ast.If, ast.IfExp, ast.While)) and node.test.lineno == node.test.end_lineno:
        yield *here(node.test), ("not", node.test)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.lineno, node.col_offset, node.operand.col_offset, ""
    if isinstance(node, ast.Return) and node.value is not None and not isinstance(node.value, ast.Constant):
        yield *here(node), "return None"
    if isinstance(node, (ast.Raise, ast.Assign, ast.AugAssign)) or isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield *here(node), "pass"


def is_quiet(node):
    "Types, defaults of fields with their help, and messages are not behaviour."
    return isinstance(node, (ast.JoinedStr, ast.Import, ast.ImportFrom)) or (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("setting", "field"))


def nodes(tree):
    "All nodes whose change can be seen."
    yield tree
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not is_quiet(child):
                yield from nodes(child)


def line_changes(source):
    "The source with one line changed, and (line before, line after), for every change that still parses."
    lines = source.encode().split(b"\n")
    for node in nodes(ast.parse(source)):
        for line, first, last, new in changes_of(node):
            old = lines[line - 1]
            if getattr(node, "end_lineno", line) != line and not isinstance(node, (ast.If, ast.While, ast.IfExp)) or last <= first:
                continue
            if isinstance(node, (ast.Compare, ast.BinOp, ast.BoolOp)) and set(old[first:last]) & set(b"()"):
                continue  # an operator between brackets: what is put there would bind otherwise
            text = f"not ({old[first:last].decode()})" if isinstance(new, tuple) else new
            changed = old[:first] + text.encode() + old[last:]
            made = b"\n".join([*lines[:line - 1], changed, *lines[line:]]).decode()
            try:
                ast.parse(made)
            except SyntaxError:
                continue
            if changed != old:
                yield made, old.decode().strip(), changed.decode().strip()


def all_changes(paths, modules):
    "Every change by module: (notebook, module, cell id, changed source, line before, line after)."
    out = {}
    for path in paths:
        for cell in nbformat.read(path, 4).cells if modules[path] else []:
            if cell.cell_type == "code" and re.match(r"#\|\s*exports?\s*$", cell.source.split("\n")[0]):
                out.setdefault(modules[path], []).extend((path.name, modules[path], cell.id, *c) for c in line_changes(cell.source))
    return out


def draw(changes, number, seed, modules):
    "So many changes: one of each module, the others from all."
    chance, pools = random.Random(seed), {m: list(c) for m, c in sorted(changes.items()) if not modules or m in modules}
    for pool in pools.values():
        chance.shuffle(pool)
    chosen = [pool.pop() for pool in pools.values() if pool]
    rest = [change for pool in pools.values() for change in pool]
    chance.shuffle(rest)
    return (chosen + rest)[:number]


def users(paths, modules, imports):
    "For each notebook itself and those that import its module, directly or not, in the order of their numbers."
    reach = {}
    for path in paths:
        reach[path] = imports[path].union(*(reach[p] for p in reach if modules[p] and modules[p] in imports[path]))
    return {path.name: [path.name, *(p.name for p in paths if p != path and modules[path] in reach[p])] for path in paths}


def copy_checkout(folder):
    "A copy that can be changed, and the environment in which it is imported."
    for name in ("nbs", "civillaw", ".ci"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"),
                        ignore_dangling_symlinks=True, symlinks=True)
    for name in ("settings.ini", "_quarto.yml", "README.md", "requirements.txt"):
        shutil.copy(ROOT / name, folder)
    return os.environ | dict(PYTHONPATH=str(folder), HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1")


def notices(folder, env, notebook, limit):
    "Whether the untagged cells of a notebook fail, or say something else than what is stored."
    try:
        run([sys.executable, ".ci/outputs.py", f"nbs/{notebook}", "--fast", "--able"], env, limit, cwd=folder)
    except CheckFailed:
        return True
    return False


def caught_by(folder, env, change, order, limit):
    "Where a change is noticed; empty where it is not."
    name, module, cell_id, made, *_ = change
    path, module_file = folder / "nbs" / name, folder / "civillaw" / f"{module}.py"
    before, exported = path.read_bytes(), module_file.read_bytes()
    notebook = nbformat.read(path, 4)
    next(c for c in notebook.cells if c.id == cell_id).source = made
    nbformat.write(notebook, path)
    try:
        run([sys.executable, "-c", f"from nbdev.export import nb_export; nb_export({str(path)!r}, {str(folder / 'civillaw')!r})"],
            env, cwd=folder)
        return next((user for user in order if notices(folder, env, user, limit)), "")
    except CheckFailed:
        return "its export"
    finally:
        path.write_bytes(before)
        module_file.write_bytes(exported)


def main():
    parser = argparse.ArgumentParser(description="Do the untagged tests notice a changed line?")
    parser.add_argument("--number", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--module", nargs="*", default=[])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=int, default=240, help="seconds for one notebook; what takes longer is noticed")
    parser.add_argument("--most", type=int, default=0, help="notebooks that are tried for one change, the nearest first; 0: all")
    parser.add_argument("--only", nargs="*", type=int, help="numbers of changes of the draw")
    args = parser.parse_args()
    paths, read = notebooks(), {path: imports_of(path) for path in notebooks()}
    modules, imports = ({path: pair[k] for path, pair in read.items()} for k in (0, 1))
    chosen, order = draw(all_changes(paths, modules), args.number, args.seed, args.module), users(paths, modules, imports)
    order = {name: users[:args.most or None] for name, users in order.items()}
    chosen = [(k, c) for k, c in enumerate(chosen, 1) if not args.only or k in args.only]
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, stop_all)
    folders, survivors = Queue(), []
    with tempfile.TemporaryDirectory() as tmp, ThreadPoolExecutor(args.workers) as pool:
        for k in range(args.workers):
            folder = Path(tmp) / f"copy{k}"
            folder.mkdir()
            folders.put((folder, copy_checkout(folder)))

        def in_a_copy(work, *rest):
            folder, env = folders.get()
            try:
                return work(folder, env, *rest, args.limit)
            finally:
                folders.put((folder, env))

        def attempt(numbered):
            number, change = numbered
            start, by = time.time(), in_a_copy(caught_by, change, order[change[0]])
            if not by:
                survivors.append(number)
            print(f"{'caught by ' + by if by else 'SURVIVED'}  {number:3}  {time.time() - start:5.0f} s  {change[0]} {change[2]}\n"
                  f"    - {change[4]}\n    + {change[5]}", flush=True)

        needed = sorted({name for _, change in chosen for name in order[change[0]]})
        failing = [n for n, bad in zip(needed, pool.map(lambda n: in_a_copy(notices, n), needed)) if bad]
        if failing:
            sys.exit(f"without any change these fail already: {', '.join(failing)}")
        list(pool.map(attempt, chosen))
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} changes caught (seed {args.seed}); survived: {sorted(survivors) or 'none'}")


if __name__ == "__main__":
    main()
