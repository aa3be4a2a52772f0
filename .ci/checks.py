"""Every check of the project, called by `run_scripts.sh test [--slow]`.

A line is printed for each check as it ends.  The last line counts: a test cell is a notebook cell with an assertion;
a notebook that runs to its end counts its test cells (at least one), every other check counts one, and a notebook that
fails counts one failure.  What could not run here is named before that line.
"""
import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import nbformat

from cells import BIN, NEEDED, ROOT, abilities, answers, imports_of, notebooks, why_left_out

ASSERTION = re.compile(r"\bassert\b|(?<!def )\btest_\w+\(")
RUNNING = set()  # commands under way, ended when the run is interrupted


class CheckFailed(Exception):
    "A check that did not hold; its text is shown in full."


def kill(process):
    "Ends a command with all that it started: browsers and servers too."
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def stop_all(*_):
    for process in list(RUNNING):
        kill(process)
    os._exit(130)


def run(command, env=None, timeout=600, expect=(0,), cwd=ROOT):
    "Runs a command at the top of the checkout; returns its output, or raises CheckFailed with all of it."
    process = subprocess.Popen(
        [str(part) for part in command], cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, encoding="utf-8", errors="replace", start_new_session=True,
    )
    RUNNING.add(process)
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        kill(process)
        raise CheckFailed(f"{process.communicate()[0]}\nstopped after {timeout} s") from None
    finally:
        RUNNING.discard(process)
    if process.returncode not in expect:
        raise CheckFailed(f"{output}\nexit status {process.returncode}: {' '.join(map(str, command))}")
    return output


# ---- the checks ------------------------------------------------------------------------------------------------------

def contents(folder, pattern):
    "The files below `folder` as a dict from relative path to bytes."
    paths = {p.relative_to(folder): p for p in folder.rglob(pattern)}
    return {str(name): p.read_bytes() for name, p in paths.items() if not any(part[0] == "." for part in name.parts)}


def compare(made, here, what):
    names = sorted(name for name in made.keys() | here.keys() if made.get(name) != here.get(name))
    if names:
        raise CheckFailed(f"{what}: {', '.join(names)}")


def scratch_copy(tmp):
    "A copy for nbdev to work on, so that a check never changes the files that somebody is editing."
    skip = shutil.ignore_patterns(".ipynb_checkpoints", "__pycache__", "media")
    shutil.copy(ROOT / "settings.ini", tmp)
    shutil.copytree(ROOT / "nbs", tmp / "nbs", ignore=skip, ignore_dangling_symlinks=True)
    (tmp / "civillaw").mkdir()
    return tmp


def check_clean(env):
    "nbdev_clean would change nothing."
    with tempfile.TemporaryDirectory() as tmp:
        copy = scratch_copy(Path(tmp))
        output = run([BIN / "nbdev_clean"], env, cwd=copy)
        if "Failed to clean" in output:  # nbdev only warns
            raise CheckFailed(output)
        compare(contents(copy / "nbs", "*.ipynb"), contents(ROOT / "nbs", "*.ipynb"), "not clean, run nbdev_clean")


def check_export(env):
    "The package is what nbdev_export makes of the notebooks, from nothing: no stale and no edited module."
    with tempfile.TemporaryDirectory() as tmp:
        copy = scratch_copy(Path(tmp))
        run([BIN / "nbdev_export"], env, cwd=copy)
        compare(contents(copy / "civillaw", "*.py"), contents(ROOT / "civillaw", "*.py"),
                "differs from its notebook, run nbdev_export")


def check_names(env):
    "No module uses a name that only its notebook's namespace has, or imports one that it does not use."
    run([BIN / "ruff", "check", "--no-cache", "--quiet", "--isolated", "--select", "F401,F821,F841", "--per-file-ignores",
         "__init__.py:F401", "civillaw", ".ci"], env)


def check_order():
    "A notebook imports from lower numbers only, in its tests too."
    number = {module: path.name for path in notebooks() for module, _ in [imports_of(path)] if module}
    upward = [f"{path.name} imports {number[name]}" for path in notebooks() for name in imports_of(path)[1]
              if number.get(name, "") > path.name]
    if upward:
        raise CheckFailed("\n".join(upward))


def check_imports(modules, env):
    "Each module can be imported alone and without the development packages."
    run([sys.executable, ROOT / ".ci/import_modules.py", *modules], env)


def check_readme(env):
    run([sys.executable, ROOT / ".ci/readme.py", "--check"], env)


def check_help(env):
    "The help screen needs no set-up, and a mistyped command is one line with status 2."
    if "Examples:" not in run(["bash", ROOT / "run_scripts.sh"], env):
        raise CheckFailed("run_scripts.sh without a command shows no examples")
    output = run(["bash", ROOT / "run_scripts.sh", "tarin"], env, expect=(2,))
    if len(output.splitlines()) != 1 or "'tarin'" not in output:
        raise CheckFailed(f"an unknown command should be named in one line:\n{output}")


def plain_folder():
    "A place for temporary folders with no hidden folder in its path: below one, nbdev builds no page."
    places = [Path(place).resolve() for place in (tempfile.gettempdir(), "/tmp", "/var/tmp", Path.home())]
    plain = [p for p in places if os.access(p, os.W_OK) and not any(part[0] == "." for part in p.parts)]
    return plain[0] if plain else None


def check_docs(env):
    "The site is built from the notebooks, in a copy elsewhere, and no link in it is broken; it is left in `_proc`."
    with tempfile.TemporaryDirectory(dir=plain_folder()) as tmp:
        copy = scratch_copy(Path(tmp))
        shutil.copytree(ROOT / "civillaw", copy / "civillaw", dirs_exist_ok=True)
        shutil.copy(ROOT / "_quarto.yml", copy / "nbs")  # a link in nbs/, which copytree takes for a dangling one
        # nbdev_proc_nbs would first try to install Quarto with sudo; proc_nbs is the part that is needed.
        run([sys.executable, "-c", "from nbdev.serve import proc_nbs; proc_nbs(force=True)"], env, cwd=copy)
        output = run([BIN / "smalldocs", "check", "_proc"], env, expect=(0, 1), cwd=copy)
        # nbdev writes output-file for Quarto, whose grid nbs/styles.css sets for smalldocs; links out of nbs/ (LICENSE) are
        # for the README, and readme.py checks those.
        harmless = re.compile(r"output-file is not read|format\.html\.grid is ignored|\(outside the project\)$|^\d+ page\(s\)")
        problems = [line for line in output.splitlines() if not harmless.search(line)]
        if problems:
            raise CheckFailed("\n".join(problems))
        run([BIN / "smalldocs", "render", "_proc"], env, cwd=copy)
        shutil.rmtree(ROOT / "_proc", ignore_errors=True)
        shutil.copytree(copy / "_proc", ROOT / "_proc")


def check_notebook(path, full, able, env, timeout):
    "A notebook in Jupyter's own kernel: its cells run, and what its untagged ones say is what is stored under them."
    run([sys.executable, ROOT / ".ci/outputs.py", path, *(["--slow"] if full else []), "--able", *able], env, timeout)


def git_state():
    "What git sees of the checkout, ignored files too, but for caches and what these checks build."
    status = run(["git", "status", "--porcelain", "--untracked-files=all", "--ignored=matching"])
    lines = [line for line in status.splitlines() if not re.search(r"__pycache__|^!! (_proc|\.venv)", line)]
    return lines, run(["git", "diff"]).splitlines()


def check_unchanged(before):
    changed = [line for now, then in zip(git_state(), before) for line in set(now) ^ set(then)]
    if changed:
        raise CheckFailed("differs from before the checks:\n" + "\n".join(sorted(changed)))


# ---- what there is to count ------------------------------------------------------------------------------------------

def survey(path, able):
    "How many test cells of a notebook run here, and a line for each that does not."
    tests, skipped = 0, []
    for number, cell in enumerate(nbformat.read(path, 4).cells):
        if cell.cell_type != "code" or not ASSERTION.search(cell.source):
            continue
        why = why_left_out(cell, able)
        tests += not why
        if why and why != "export":
            first_line = next((l for l in cell.source.splitlines() if l.strip() and not l.startswith("#|")), "")
            skipped.append(f"{path.relative_to(ROOT).as_posix()} cell {number} ({NEEDED.get(why, why)}): {first_line[:80]}")
    return tests, skipped


# ---- running and counting --------------------------------------------------------------------------------------------

class Report:
    "Prints a line for each check as it ends and keeps the counts."
    def __init__(self):
        self.passed = self.failed = 0
        self.lock = Lock()

    def check(self, name, function, *args, counts=1, what="test cells"):
        start = time.time()
        try:
            function(*args)
            details = None
        except Exception as error:
            details = str(error) if isinstance(error, CheckFailed) else "".join(traceback.format_exception(error))
        seconds, rule = f"{time.time() - start:6.1f} s", "-" * 100
        with self.lock:  # checks end in several threads
            if details is None:
                self.passed += counts
                print(f"ok   {seconds}  {name}" + (f" ({counts} {what})" if counts > 1 else ""), flush=True)
            else:
                self.failed += 1
                print(f"FAIL {seconds}  {name}\n{rule}\n{details.strip()}\n{rule}", flush=True)


def environment(full, workers):
    "For the test processes: offline, quiet, and no more threads than there are cores."
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    env = os.environ | {
        "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }
    return env if full else env | {"CIVILLAW_TESTS": "short"}  # which slow cells read; a user's Jupyter runs them in full


def main():
    parser = argparse.ArgumentParser(prog="run_scripts.sh test", description="Runs every check of the project.")
    parser.add_argument("--slow", action="store_true", help="run the slow cells in full, not in their short form")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1), help="notebooks tested at a time")
    args = parser.parse_args()

    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, stop_all)
    report, able, env = Report(), abilities(), environment(args.slow, args.workers)
    in_git = answers("git", "-C", str(ROOT), "rev-parse")
    before = git_state() if in_git else None
    modules = [f"civillaw.{p.stem}" for p in sorted((ROOT / "civillaw").glob("*.py")) if not p.stem.startswith("_")]
    surveys = {path: survey(path, able) for path in notebooks()}
    skipped = [line for _, lines in surveys.values() for line in lines]

    report.check("nbdev_clean leaves the notebooks unchanged", check_clean, env)
    report.check("nbdev_export leaves the package unchanged", check_export, env)
    report.check("README.md is current", check_readme, env)
    report.check("ruff: undefined and unused names", check_names, env)
    report.check("notebooks import from lower numbers only", check_order)
    report.check("run_scripts.sh: help screen, unknown command", check_help, env)
    with ThreadPoolExecutor(args.workers) as pool:
        pool.submit(report.check, "each module is imported alone", check_imports, modules, env, counts=len(modules),
                    what="modules")
        pool.submit(report.check, "documentation site", check_docs, env)
        # The high numbers are the heavy ones; begun first, they leave the light ones to fill the other core at the end.
        for path, (tests, _) in reversed(surveys.items()):
            pool.submit(report.check, path.relative_to(ROOT).as_posix(), check_notebook, path, args.slow, able, env,
                        3600 * 3 if args.slow else 1500, counts=max(1, tests))
    if in_git:
        report.check("the checks leave the checkout unchanged", check_unchanged, before)
    else:
        skipped.append("the checks leave the checkout unchanged: not a git checkout")
    if "browser" not in able and os.environ.get("CI", "").lower() in ("true", "1"):
        report.check("browser tests in CI", lambda: run(["chromium", "--version"]))

    if not args.slow:
        print("slow cells ran in their short form; `run_scripts.sh test --slow` runs them in full")
    for line in skipped:
        print(f"skipped {line}")
    print(f"{report.passed} passed, {report.failed} failed" + (f", {len(skipped)} skipped" if skipped else ""))
    sys.exit(report.failed > 0)


if __name__ == "__main__":
    main()
