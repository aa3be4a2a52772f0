"Imports one module as a user's installation would: without the packages of the dev extra, in a process of its own."
import importlib
import re
import sys
from configparser import ConfigParser
from pathlib import Path

config = ConfigParser()
config.read(Path(__file__).resolve().parent.parent / "settings.ini", encoding="utf-8")
for requirement in config["DEFAULT"]["dev_requirements"].split():
    sys.modules[re.split("[<>=]", requirement)[0]] = None  # unimportable: a plain `pip install .` does not bring them
importlib.import_module(sys.argv[1])
