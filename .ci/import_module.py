"Imports one module as a user's installation would, and names every global that its functions use undefined."
import builtins
import dis
import importlib
import re
import sys
from configparser import ConfigParser
from pathlib import Path
from types import CodeType

ROOT = Path(__file__).resolve().parent.parent


def hide_development_packages():
    "Makes the packages of the dev extra unimportable: a plain `pip install .` does not bring them."
    config = ConfigParser()
    config.read(ROOT / "settings.ini", encoding="utf-8")
    for requirement in config["DEFAULT"]["dev_requirements"].split():
        sys.modules[re.split("[<>=]", requirement)[0]] = None


def code_objects(code):
    "A code object and all those nested in it."
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from code_objects(const)


def undefined_names(module):
    "Names that would raise NameError when a function of `module` runs: a notebook's namespace hides them."
    with open(module.__file__, encoding="utf-8") as file:
        top = compile(file.read(), module.__file__, "exec")
    code = [instruction for c in code_objects(top) for instruction in dis.get_instructions(c)]
    used = {i.argval for i in code if i.opname == "LOAD_GLOBAL"}
    stored = {i.argval for i in code if i.opname == "STORE_GLOBAL"}
    return sorted(used - stored - set(vars(module)) - set(vars(builtins)))


if __name__ == "__main__":
    name = sys.argv[1]
    hide_development_packages()
    missing = undefined_names(importlib.import_module(name))
    if missing:
        sys.exit(f"{name} uses names that it neither defines nor imports: {', '.join(missing)}")
