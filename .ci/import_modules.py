"""Imports each module of the package as a user's installation would: alone, without the packages of the dev extra.

A line is printed for each module that cannot be imported; the exit status tells whether there was one.  What they all
stand on is imported once and each module then in a fork, so that none finds another one already there.
"""
import importlib
import os
import re
import sys
import traceback
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def hide_dev_packages():
    "Make unimportable what a plain `pip install .` does not bring."
    config = ConfigParser()
    config.read(ROOT / "settings.ini", encoding="utf-8")
    for requirement in config["DEFAULT"]["dev_requirements"].split():
        sys.modules[re.split("[<>=]", requirement)[0]] = None


def can_import(module):
    "Whether a module can be imported in a process of its own; says why not."
    if child := os.fork():
        return os.waitpid(child, 0)[1] == 0
    try:
        importlib.import_module(module)
    except BaseException:
        print(f"{module}\n{traceback.format_exc()}", flush=True)
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    hide_dev_packages()
    import datasets, peft, transformers  # noqa: F401
    sys.exit(not all([can_import(module) for module in sys.argv[1:]]))
