"""Shims for old hosts and missing packages: found where they are needed, applied in one process and its
workers, and told."""

from __future__ import annotations

import builtins
import collections
import multiprocessing
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from multiprocessing import spawn
from pathlib import Path
from typing import Any

import pytest
from checkout_parts import make_checkout

from limask import compat
from limask.cli import main
from limask.compat.stand_ins import stand_in
from limask.compat.start import missing, start_of
from limask.errors import LimaskError
from limask.install import install

ROOT = Path(__file__).resolve().parents[1]

#: What the old hosts' main.py does before anything else, and what each line needs.
OLD = """
import collections
import yaml
from envs import REGISTRY

with open(__file__.replace("main.py", "config/default.yaml")) as f:
    config = yaml.load(f)
print(isinstance(config, collections.Mapping), config["lr"], sorted(REGISTRY))
"""
GAME = """
from pathlib import Path

import no_such_game
from no_such_game.env import StarCraft2Env, maps
from no_such_game.env.maps import registry
registry.update({"3m": 1})
assert not list(Path(no_such_game.__path__[0]).glob("**/*.py"))

class Ours(StarCraft2Env):
    def __init__(self, map_name):
        self.params = maps.get_map_params(map_name)

REGISTRY = {"theirs": StarCraft2Env, "ours": Ours}
"""


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(compat, "_protobuf_is_newer", lambda: False)
    root = make_checkout(tmp_path / "old", "pymarl", OLD, envs__init=GAME)
    (root / "src/config/default.yaml").write_text("lr: 0.5\n")
    return root


def names(source: Path) -> list[str]:
    return [name for shim in compat.needed(source) for name in shim.name.split(", ")]


def python(source: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own: shims stay in the one that applies them."""
    setup = "from limask import compat; compat._protobuf_is_newer = lambda: False;"
    setup += f"from pathlib import Path; source = Path({str(source)!r}); import sys;"
    setup += "sys.path.insert(0, str(source));"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", setup + code], env=env, text=True, capture_output=True, timeout=60
    )


def test_an_old_host_needs_every_shim_and_starts_with_them(old: Path) -> None:
    assert names(old / "src") == ["yaml.load", "collections.Mapping", "no_such_game"]
    run = "import runpy; runpy.run_path(str(source / 'main.py'), run_name='__main__')"
    assert python(old / "src", run).returncode == 1
    done = python(old / "src", "compat.apply(source);" + run)
    assert done.stdout == "True 0.5 ['ours', 'theirs']\n", done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("limask compat: ")]
    assert [line.split(": ")[1] for line in told] == ["yaml.load", "collections.Mapping", "no_such_game"]
    assert not hasattr(collections, "Mapping"), "a shim left its process"


@pytest.mark.parametrize(
    ("main", "is_needed"),
    [
        ("import collections\ndef f(x):\n    return isinstance(x, collections.Mapping)\n", True),
        ("def f(x):\n    from collections import OrderedDict, Mapping\n", True),
        (
            "try:\n    from collections import Mapping\nexcept:\n    from collections.abc import Mapping\n",
            False,
        ),
        ("import collections.abc\nx = collections.abc.Mapping  # no collections.Mapping\n", False),
    ],
)
def test_mapping_is_put_back_where_nothing_else_is_tried(main: str, is_needed: bool, tmp_path: Path) -> None:
    assert names(make_checkout(tmp_path / "host", main=main) / "src") == ["collections.Mapping"] * is_needed


def test_stand_ins_cannot_be_played(old: Path) -> None:
    for name in ("theirs", "ours"):
        play = f"compat.apply(source); from envs import REGISTRY; (lambda: REGISTRY[{name!r}]('3m'))()"
        done = python(old / "src", play)
        assert done.returncode == 1
        last = done.stderr.strip().splitlines()[-1]
        assert "LimaskError: no_such_game.env" in last
        assert "the package no_such_game is not installed: install it" in last


def test_what_the_host_itself_tries_or_never_imports_needs_nothing(old: Path) -> None:
    (old / "src/envs/__init__.py").write_text(
        "try:\n    import no_such_game\nexcept ImportError:\n    pass\n"
    )
    (old / "src/envs/unused.py").write_text("import no_such_game\n")
    assert names(old / "src") == ["yaml.load", "collections.Mapping"]
    (old / "src/envs/__init__.py").write_text("from . import used\n")
    (old / "src/envs/used.py").write_text("from ..envs.unused import StarCraft2Env\n")
    assert names(old / "src") == ["yaml.load", "collections.Mapping", "no_such_game"]


# -- workers ----------------------------------------------------------------------------------------------

#: Starts one worker by each method. What they are given and what they run is the host's, as in its parallel
#: runner.
PARALLEL = """
import collections
import multiprocessing
import yaml
from envs import REGISTRY, env_worker

def play():
    with open(__file__.replace("main.py", "config/default.yaml")) as f:
        yaml.load(f)
    collections.Mapping
    for method in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context(method)
        ours, theirs = context.Pipe()
        worker = context.Process(target=env_worker, args=(theirs, REGISTRY["ours"], REGISTRY["theirs"]))
        worker.start()
        theirs.close()
        try:
            print(method, *ours.recv(), flush=True)
        except EOFError:
            print(method, "has ended", flush=True)
        worker.join()

if __name__ == "__main__":
    play()
"""
WORKER = """
import collections
import yaml

def env_worker(connection, ours, theirs):
    try:
        theirs()
    except Exception as error:
        told = str(error)
    connection.send((issubclass(ours, theirs), yaml.load("1"), collections.Mapping.__name__, told))
"""


@pytest.mark.parametrize("way", ["src/main.py", "src/launch.py", "limask run"])
def test_workers_are_reached_by_every_start_method(old: Path, way: str) -> None:
    """Where the installed ``main.py`` is the main program, where another program imports it, and where it has
    no block: a worker of the last two does not run one."""
    (old / "src/main.py").write_text(PARALLEL)
    (old / "src/envs/__init__.py").write_text("from no_such_game import Theirs" + WORKER)
    with (old / "src/envs/__init__.py").open("a") as file:
        file.write("class Ours(Theirs):\n    pass\nREGISTRY = {'ours': Ours, 'theirs': Theirs}\n")
    (old / "src/launch.py").write_text("if __name__ == '__main__':\n    import main\n    main.play()\n")
    if way == "limask run":
        done = python(
            old / "src",
            "compat.apply(source); import runpy; runpy.run_path(str(source / 'main.py'), None, '__main__')",
        )
    else:
        install(old, with_compat=True)
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, old / way], env=env, text=True, capture_output=True, timeout=120
        )
    used = "no_such_game.Theirs was used, and the package no_such_game is not installed: "
    lines = [line.partition("install it")[0] for line in done.stdout.splitlines()]
    methods = multiprocessing.get_all_start_methods()
    assert lines == [f"{method} True 1 Mapping {used}" for method in methods], done.stderr
    assert done.stderr.count("limask compat: no_such_game: ") == 1, "told by workers, too"


# -- packages that are missing ----------------------------------------------------------------------------


def test_any_missing_package_is_found_and_all_are_named_in_one_line(tmp_path: Path) -> None:
    envs = (
        "import no_such_game\nfrom no.such import package\nimport os.path, no_such_model as m\nimport numpy\n"
    )
    source = make_checkout(tmp_path / "host", main="import envs\n", envs__init=envs) / "src"
    assert [shim.name for shim in compat.needed(source)] == ["no, no_such_game, no_such_model"]
    assert compat.missing_packages(source) == ["no", "no_such_game", "no_such_model"]


def test_what_can_be_done_without_stays_missing(old: Path, tmp_path: Path) -> None:
    """To the host's own fallbacks, to libraries, and to whoever asks whether it is installed."""
    tries = "try:\n    import no_such_game\n    FOUND = True\nexcept ImportError:\n    FOUND = False\n"
    late = "def play():\n    import no_such_game\n"
    (old / "src/envs/tries.py").write_text(tries + late)
    (old / "src/envs/__init__.py").write_text("import no_such_game\nfrom .tries import FOUND, play\n")
    (tmp_path / "library.py").write_text(tries)
    code = f"""
compat.apply(source)
sys.path.append({str(tmp_path)!r})
import envs, library, importlib.util
print(envs.no_such_game.Game.__name__, envs.FOUND, library.FOUND, importlib.util.find_spec("no_such_game"))
print("no_such_game" in sys.modules)
try:
    envs.play()
except ModuleNotFoundError as error:
    print(error.name)
"""
    done = python(old / "src", f"exec({code!r})")
    assert done.stdout == "Game False False None\nFalse\nno_such_game\n", done.stderr


def test_a_package_that_the_host_finds_by_itself_is_not_missing(tmp_path: Path) -> None:
    """In the checkout's root, where it may be a package of its own, or where it adds to the path."""
    root = make_checkout(tmp_path / "host", main="import envs\n", envs__init="import no_such_game\n")
    (root / "no_such_game").mkdir()
    (root / "no_such_game/logs.txt").touch()
    assert compat.missing_packages(root / "src") == ["no_such_game"]
    (root / "third_party/no_such_game").mkdir(parents=True)
    (root / "third_party/no_such_game/__init__.py").write_text("REAL = True\n")
    assert compat.missing_packages(root / "src") == ["no_such_game"], "nothing looks there"
    main = f"import sys\nsys.path.append({str(root / 'third_party')!r})\nimport envs\n"
    (root / "src/main.py").write_text(main)
    assert compat.missing_packages(root / "src") == []
    (root / "src/main.py").write_text("import envs\n")
    (root / "no_such_game/__init__.py").write_text("import no_such_grid\n")
    assert compat.missing_packages(root / "src") == ["no_such_grid"]


def test_a_package_that_turns_up_is_taken(old: Path, tmp_path: Path) -> None:
    (tmp_path / "no_such_game.py").write_text("REAL = True\n")
    (old / "src/envs/__init__.py").write_text("from no_such_game import REAL\n")
    late = f"compat.apply(source); sys.path.append({str(tmp_path)!r}); import envs; print(envs.REAL)"
    assert python(old / "src", late).stdout == "True\n"


@pytest.fixture
def no_such_game(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """Runs a host's ``envs`` in this process, with no_such_game stood in for."""
    monkeypatch.setattr(builtins, "__import__", builtins.__import__)

    def run(text: str) -> dict[str, Any]:
        source = make_checkout(tmp_path / "host", main="import envs\n", envs__init=text) / "src"
        stand_in(missing(source, start_of(source)))
        names: dict[str, Any] = {"__name__": "envs"}
        exec(compile(text, source / "envs/__init__.py", "exec"), names)
        return names

    return run


def test_a_host_may_do_with_stand_ins_what_it_does_when_it_starts(
    no_such_game: Callable[[str], dict[str, Any]],
) -> None:
    """Derive, decorate, register, index for types, compute constants: in modules and in classes."""
    names = no_such_game(
        """
from abc import ABC
from typing import Optional
import no_such_game
import no_such_game.maps as maps
from no_such_game.env import Env, register, jit
from no_such_game import *

class Ours(Env, ABC):
    size = maps.SIZE * 2 + 1

    @jit(nopython=True)
    def step(self, space: Optional[Env] = None) -> list[Env]:
        return []

class Generic(no_such_game.Base[int]):
    pass

maps.registry["ours"] = [register(name) for name in ("a", "b")]
no_such_game.envs.registration.register(id="c", entry_point=Ours)
del maps.registry["theirs"]
is_ours = isinstance(Ours, Env) or not Env
single = Ours()
"""
    )
    assert not names["is_ours"]
    assert issubclass(names["Ours"], names["Env"])
    assert names["single"] is names["Env"]


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("Env()", "no_such_game.env.Env"),
        ("Ours()", "no_such_game.env.Env"),
        ("single.step()", "no_such_game.env.Env.step"),
        ("game.make('3m')", "no_such_game.make"),
        ("maps['3m']", "no_such_game.env.maps"),
        ("list(maps)", "no_such_game.env.maps"),
        ("len(maps)", "no_such_game.env.maps"),
        ("'3m' in maps", "no_such_game.env.maps"),
        ("float(maps.size)", "no_such_game.env.maps.size"),
        ("range(maps.size)", "no_such_game.env.maps.size"),
        ("maps.size < 3", "no_such_game.env.maps.size"),
        ("2 * maps.size", "no_such_game.env.maps.size"),
        ("open_file()", "no_such_game.env.maps"),
        ("Ours.undefined()", "no_such_game.env.Env.undefined"),
    ],
)
def test_to_use_a_stand_in_is_an_error_that_names_the_package(
    code: str, what: str, no_such_game: Callable[[str], dict[str, Any]]
) -> None:
    names = no_such_game(
        """
import no_such_game as game
from no_such_game.env import Env, maps

class Ours(Env):
    pass

single = Env()

def open_file():
    with maps:
        pass
"""
    )
    with pytest.raises(LimaskError) as caught:
        eval(f"(lambda: {code})()", names)
    assert str(caught.value).startswith(f"{what} was used, and the package no_such_game is not installed: ")


def test_a_version_that_is_not_there_names_the_package(
    no_such_game: Callable[[str], dict[str, Any]],
) -> None:
    with pytest.raises(AttributeError, match="the package no_such_game is not installed"):
        no_such_game("import no_such_game\nno_such_game.__version__\n")


@pytest.mark.parametrize("pickler", ["pickle", "cloudpickle"])
def test_stand_ins_are_pickled(pickler: str, no_such_game: Callable[[str], dict[str, Any]]) -> None:
    module = pytest.importorskip(pickler)
    env = no_such_game("from no_such_game import Env\n")["Env"]
    for game in (env, env.inner):
        again = pickle.loads(module.dumps(game))
        assert pickler == "cloudpickle" or again is game
        with pytest.raises(LimaskError, match=f"no_such_game.{game.__qualname__} was used"):
            again()


def test_a_host_of_today_needs_nothing(tmp_path: Path) -> None:
    text = "from collections.abc import Mapping\nimport yaml\nyaml.load(f, Loader=yaml.SafeLoader)\n"
    assert names(make_checkout(tmp_path / "new", main=text) / "src") == []


@pytest.mark.parametrize(
    ("protobuf", "implementation", "imported", "is_needed"),
    [
        ("7.36.2", "", "import s2clientprotocol\n", True),
        ("7.36.2", "", "", False),
        ("3.20.1", "", "import s2clientprotocol\n", False),
        ("7.36.2", "python", "import s2clientprotocol\n", False),
    ],
)
def test_protobuf_reads_old_messages_in_python(
    protobuf: str,
    implementation: str,
    imported: str,
    is_needed: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spawn, "get_preparation_data", spawn.get_preparation_data)
    monkeypatch.setattr(compat, "version", {"protobuf": protobuf, "s2clientprotocol": "5.0"}.__getitem__)
    monkeypatch.setenv("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", implementation)
    source = make_checkout(tmp_path / "host", main="import envs\n", envs__init=imported) / "src"
    assert ("protobuf" in names(source)) == is_needed
    compat.apply(source)
    expected = "python" if protobuf.startswith("7") else implementation
    assert os.environ["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] == expected


def test_run_without_the_flag_names_it_and_runs_nothing(
    old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", "--host", str(old), "--config=qmix_lim", "--env-config=smax"]
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert "add --compat" in told.err
    assert "(yaml.load, collections.Mapping)" in told.err
    assert told.err.count("\n") == 1


def test_run_stands_in_for_what_is_not_installed_without_being_asked(tmp_path: Path) -> None:
    """Nothing that is installed is changed for it."""
    game = "import no_such_game\nREGISTRY = {}\n"
    source = make_checkout(tmp_path / "host", "pymarl", "import yaml\nimport envs\n", envs__init=game) / "src"
    assert names(source) == ["no_such_game"] and compat.changes(source) == []
    run = "import yaml; load = yaml.load; from limask.hosts.run import _make_compatible as start;"
    run += "start(source, False); import envs; print(envs.no_such_game.__name__, yaml.load is load)"
    done = python(source, run)
    assert done.stdout == "no_such_game True\n", done.stderr
    assert done.stderr.count("limask compat: no_such_game: not installed, and stood in for") == 1
