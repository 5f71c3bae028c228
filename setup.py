"""The one thing pyproject.toml cannot say: `assets/` is installed inside the package, as `prophy/_assets`."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["prophy", "prophy.*"]), "prophy._assets"],
    package_dir={"prophy._assets": "assets"},
    package_data={
        "prophy": ["py.typed"],
        "prophy.ui.views": ["static/*"],
        "prophy.evaluation.report": ["evidence.*"],
        "prophy._assets": ["**/*"],
    },
)
