"The package, described by settings.ini: nbdev reads the same file, so nothing is said twice."
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
config = ConfigParser(delimiters=["="])
config.read(HERE / "settings.ini", encoding="utf-8")
settings = config["DEFAULT"]
readme = HERE / "README.md"

setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else "",
    long_description_content_type="text/markdown",
    author=settings["author"],
    license="Apache-2.0",
    keywords=settings["keywords"].split(),
    python_requires=f">={settings['min_python']}",
    packages=find_packages(include=[settings["lib_path"], f"{settings['lib_path']}.*"]),
    package_data={settings["lib_path"]: ["assets/**"]},
    install_requires=settings["requirements"].split(),
    extras_require={name: settings[f"{name}_requirements"].split() for name in ("dev", "engines", "int8")},
    # No "nbdev" entry point: it would link names in the prose to doc_host and git_url, which are empty so far.
    entry_points={"console_scripts": settings["console_scripts"].split()},
    zip_safe=False,
)
