"""Map the top-level rooms to `corpusmith.*`, with every subpackage, so that none is left out of the wheel."""

from setuptools import find_packages, setup

ROOMS = ("schemas", "operators", "pipelines", "training")

packages = [room if not sub else f"{room}.{sub}" for room in ROOMS for sub in ["", *find_packages(room)]]

setup(
    packages=[f"corpusmith.{name}" for name in packages],
    package_dir={f"corpusmith.{room}": room for room in ROOMS},
)
