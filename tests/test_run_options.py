"""What ``limask run`` says of options before anything of a host is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from checkout_parts import NAMED

from limask.config.nested import flat, merged, nested
from limask.errors import LimaskError
from limask.hosts import run
from limask.hosts.options import checked_arguments, configs_of, find_config, read_config, read_value
from limask.hosts.pymarlzooplus import PymarlzooplusHost
from limask.hosts.registry import host_of
from limask.hosts.run import run_host
from limask.install import recognised

CONFIGS = ["--config=qmix_lim", "--env-config=smax", "with"]

#: Options, and words of the one line that refuses them.
REFUSED = [
    (["t_mx=1000"], ("t_mx is no option", "did you mean 't_max'?")),
    (["env_args.map_nam=3m"], ("env_args.map_nam is no option", "did you mean 'env_args.map_name'?")),
    (["env_args.map_name=3k"], ("env_args.map_name='3k' is no SMAX scenario", "did you mean '3m'?")),
    (["lim.makser.name=random"], ("lim.makser.name is no option", "did you mean 'lim.masker.name'?")),
    (["lim.masker.name=rndom"], ("lim.masker.name='rndom'", "did you mean 'random'?")),
    (["obs_agent_id=no"], ("obs_agent_id='no': expected True or False",)),
    (["obs_last_action=1"], ("obs_last_action=1: expected True or False",)),
    (["seed=abc"], ("seed='abc': expected a whole number, at least 0",)),
    (["seed=-5"], ("seed=-5:",)),
    (["seed=1.5"], ("seed=1.5:",)),
    (["seed=4294967296"], ("seed=4294967296:", "at most 4294967295")),
    (["lr=nan"], ("lr='nan': expected a number, above 0",)),
    (["lr=-1"], ("lr=-1:",)),
    (["lr=fast"], ("lr='fast':",)),
    (["gamma=1.01"], ("gamma=1.01: expected a number, at least 0 and at most 1",)),
    (["hidden_dim=0"], ("hidden_dim=0: expected a whole number, at least 1",)),
    (["batch_size_run=0"], ("batch_size_run=0:",)),
    (["batch_size=1.5"], ("batch_size=1.5:",)),
    (["test_interval=0"], ("test_interval=0:",)),
    (["grad_norm_clip=0"], ("grad_norm_clip=0: expected a number, above 0",)),
    (["buffer_size=100"], ("buffer_size=100 with batch_size=256", "set buffer_size to at least 256")),
    (["t_max=200"], ("t_max=200 with batch_size=256", "raise t_max, or lower batch_size")),
    (["runner=vectr"], ("runner='vectr' is none of this host's", "did you mean 'vector'?")),
    (["learner=lim_lerner"], ("learner='lim_lerner'", "did you mean 'lim_learner'?")),
    (["runner=episode"], ("runner='episode' with batch_size_run=8", "set batch_size_run=1")),
    (["checkpoint_path=nowhere"], ("checkpoint_path='nowhere': no such folder",)),
    (["checkpoint_path=/"], ("checkpoint_path='/' holds no checkpoint",)),
    (["evaluate=True"], ("evaluate=True without checkpoint_path",)),
    (["save_replay=true"], ("save_replay=True with env='smax'",)),
    (["lim.minibatches=300"], ("lim.minibatches=300 with batch_size=256",)),
]


@pytest.mark.parametrize(("options", "words"), REFUSED, ids=[" ".join(options) for options, _ in REFUSED])
def test_bad_options_are_refused_in_one_line(
    tmp_path: Path, options: list[str], words: tuple[str, ...]
) -> None:
    """Before the host starts: no folder is left behind."""
    with pytest.raises(LimaskError) as caught:
        run_host("pymarlzooplus", [*CONFIGS, *options], tmp_path / "results")
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config=qmix_lm", "--env-config=smax"], ("--config=qmix_lm: no such config", "'qmix_lim'")),
        (["--config=qmix_lim", "--env-config=smx"], ("--env-config=smx: no such config", "'smax'")),
        (["--config=qmix_lim"], ("--env-config=… is missing",)),
        (["--env-config=smax"], ("--config=… is missing",)),
    ],
)
def test_configs_that_are_not_there(tmp_path: Path, arguments: list[str], words: tuple[str, ...]) -> None:
    with pytest.raises(LimaskError) as caught:
        run_host("pymarlzooplus", arguments, tmp_path / "results")
    assert all(word in str(caught.value) for word in words)
    assert not (tmp_path / "results").exists()


def test_results_cannot_go_into_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(LimaskError, match=r"--results=.*file is a file: expected a folder"):
        run_host("pymarlzooplus", [*CONFIGS, "t_max=1000"], tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("where", ["pymarlzooplus", *map(str, NAMED)])
def test_every_config_of_the_hosts_own_is_let_through(where: str) -> None:
    configs = configs_of(where, where)
    host = PymarlzooplusHost() if where == "pymarlzooplus" else host_of(recognised(Path(where)))
    env = ["--env-config=sc2"] if (configs / "envs/sc2.yaml").exists() else ["--env-config=gymma"]
    names = [path.stem for path in (configs / "algs").glob("*.yaml")]
    assert "qmix" in names
    for name in names:
        run._checked([f"--config={name}", *env], host, configs)


def checked(*options: str) -> list[str]:
    host, configs = PymarlzooplusHost(), configs_of("pymarlzooplus", "test")
    defaults = read_config(configs / "default.yaml")
    for kind, name in (("envs", "smax"), ("algs", "qmix_lim")):
        defaults = merged(defaults, read_config(find_config(configs, kind, name, "test")))
    return checked_arguments([*CONFIGS, *options], defaults, host, configs)[len(CONFIGS) :]


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("t_max=1e6", "t_max=1000000"),
        ("batch_size=1e2", "batch_size=100"),
        ("obs_agent_id=false", "obs_agent_id=False"),
        ("use_cuda=true", "use_cuda=True"),
        ("mixer=null", "mixer=None"),
        ("lim.autoencoder.saliency_weights=false", "lim.autoencoder.saliency_weights=False"),
        ("lr=1", "lr=1"),
        ("lim.masker.ratio=[0, 0.8]", "lim.masker.ratio=[0, 0.8]"),
        ("env_args.map_name=3m", "env_args.map_name=3m"),
    ],
)
def test_values_are_read_as_yaml_and_python_mean_them(given: str, read: str) -> None:
    """A host that reads ``false`` as text takes it for True."""
    assert checked(given) == [read]


def test_a_block_may_stand_where_the_config_has_text() -> None:
    layout = "lim.layout={'entities': [{'kind': 'ally', 'count': 2, 'width': 37}]}"
    assert checked(layout) == [layout]


def test_text_is_text() -> None:
    words: dict[str, Any] = {
        "true": True,
        "null": None,
        "3m": "3m",
        "1e3": 1000.0,
        "[1,2]": [1, 2],
    }
    assert {word: read_value(word) for word in words} == words
    assert read_value("(" * 10000) == "(" * 10000


def test_nested_is_the_inverse_of_flat() -> None:
    options = {"a": 1, "b": {"c": [2], "d": {"e": None}}}
    assert nested(flat(options)) == options
