"""What a wheel holds: an editable install finds what setup.cfg forgets."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).parents[1]
SETUP = ConfigParser()
SETUP.read(ROOT / "setup.cfg")


def test_every_folder_of_the_package_is_listed():
    folders = [path.parent for path in ROOT.glob("keras_cnn/**/__init__.py")]
    found = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(SETUP["options"]["packages"].split()) == found | {"keras_cnn.recipes"}


def test_every_file_that_is_no_code_is_listed():
    folders = {"keras_cnn.recipes": ROOT / "recipes"}
    for path in ROOT.glob("keras_cnn/**/*.*"):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            folders[".".join(path.parent.relative_to(ROOT).parts)] = path.parent
    listed = SETUP["options.package_data"]
    assert set(listed) == set(folders)
    for package, folder in folders.items():
        patterns = listed[package].split()
        for path in folder.glob("*.*"):
            assert path.suffix in (".py", ".pyc") or any(map(path.match, patterns)), path
