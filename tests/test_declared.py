"""Layouts declared in a YAML, and the line that tells of an environment without a layout."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import host_parts
import pytest
import torch
import yaml

from limask import masking
from limask.autoencoder.options import known_layout, read_options, resolve
from limask.errors import LimaskError
from limask.hosts.base import Host
from limask.layouts import declared_layout, flat_note

#: 12 features: what host_parts' made-up agents observe; its 5 actions are two plain ones and three targets.
BLOCK = yaml.safe_load("""
entities:
  - {kind: own, count: 1, width: 2}
  - {kind: ally, count: 2, width: 2}
  - {kind: box, count: 3, width: 2, first_action: 2}
""")


def test_declared_by_hand() -> None:
    layout = declared_layout(BLOCK)
    assert [(g.kind, g.count, g.width, g.first_action, g.is_hideable) for g in layout.groups] == [
        ("own", 1, 2, None, False),
        ("ally", 2, 2, None, True),
        ("box", 3, 2, 2, True),
    ]
    assert layout.obs_size == 12
    assert layout.kinds == {"ally", "box"}
    assert layout.target is layout.groups[2]


def test_declared_takes_the_place_of_what_the_environment_says() -> None:
    config = read_options({"layout": BLOCK})
    assert known_layout(config, "smax", {"map_name": "3m"}) == declared_layout(BLOCK)
    assert resolve(config, "gymma", {}, 12) == declared_layout(BLOCK)


def changed(entry: int, **keys: Any) -> dict[str, Any]:
    """The block with some keys of an entry changed, or removed where None."""
    entities = [dict(each) for each in BLOCK["entities"]]
    entities[entry] = {key: value for key, value in (entities[entry] | keys).items() if value is not None}
    return {"entities": entities}


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({}, ("lim.layout={}", "list of entities", "kind: own")),
        ({"entities": []}, ("lim.layout={'entities': []}", "list of entities")),
        ({"entities": "own"}, ("list of entities",)),
        ({"entities": {"own": 3}}, ("list of entities",)),
        ({"entities": BLOCK["entities"], "entites": 1}, ("list of entities", "entites")),
        ({"entities": ["own"]}, ("lim.layout.entities[0]='own'", "kind, count, width")),
        (
            changed(1, widht=2),
            ("lim.layout.entities[1]", "'widht' is no key", "kind, count, width", "first_action"),
        ),
        (changed(1, width=None), ("lim.layout.entities[1]", "width is missing")),
        (changed(1, width=0), ("lim.layout.entities[1].width=0 (int)", "integer of at least 1")),
        (changed(1, count="2"), ("lim.layout.entities[1].count='2' (str)", "integer of at least 1")),
        (changed(1, count=True), ("lim.layout.entities[1].count=True (bool)",)),
        (changed(1, count=2.0), ("lim.layout.entities[1].count=2.0 (float)",)),
        (changed(2, first_action=-1), ("lim.layout.entities[2].first_action=-1", "at least 0")),
        (changed(2, kind=3), ("lim.layout.entities[2].kind=3", "small letters")),
        (changed(2, kind="Box"), ("lim.layout.entities[2].kind='Box'", "small letters")),
        (changed(2, kind="keys"), ("lim.layout.entities[2].kind='keys'", "taken by torch")),
        (changed(2, kind="ally"), ("lim.layout.entities[2].kind='ally'", "twice")),
        (changed(0, first_action=0), ("lim.layout.entities[0].first_action", "kind 'own'")),
        (changed(1, first_action=0), ("ally and box all have first_action",)),
        ({"entities": BLOCK["entities"][:1]}, ("own or move", "lim.layout=flat")),
    ],
)
def test_mistakes_are_told_before_an_environment_is_built(
    block: dict[str, Any], words: tuple[str, ...]
) -> None:
    with pytest.raises(LimaskError) as caught:
        known_layout(read_options({"layout": block}), "gymma", {})
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_what_is_neither_a_name_nor_a_block_is_refused() -> None:
    with pytest.raises(LimaskError, match=r"lim\.layout=\[1\] \(list\): expected one of auto, .* or a block"):
        read_options({"layout": [1]})


def test_sums_that_do_not_agree_are_both_shown() -> None:
    config = read_options({"layout": BLOCK})
    with pytest.raises(LimaskError) as caught:
        resolve(config, "gymma", {}, 14)
    for words in ("'declared'", "own 1×2 + ally 2×2 + box 3×2 = 12", "observations of 14"):
        assert words in str(caught.value)


def test_masker_of_teammates_needs_allies() -> None:
    block = changed(1, kind="player")
    known_layout(read_options({"layout": BLOCK, "masker": {"name": "random_agent"}}), "gymma", {})
    with pytest.raises(LimaskError, match="random_agent.*on layout 'declared'"):
        known_layout(read_options({"layout": block, "masker": {"name": "random_agent"}}), "gymma", {})


# --- in a host -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def host() -> Host:
    return host_parts.load_host("pymarlzooplus")


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (changed(1, count=1, width=4), ("1 tokens of kind 'ally'", "team of 3", "other 2 agents", "player")),
        (
            changed(2, first_action=1),
            ("3 tokens of kind 'box'", "5 actions", "so 4 of these", "first_action"),
        ),
        (changed(2, first_action=3), ("so 2 of these",)),
        (changed(2, width=3), ("= 15", "observations of 12")),
    ],
)
def test_team_and_actions_that_do_not_agree_are_told(
    host: Host, block: dict[str, Any], words: tuple[str, ...]
) -> None:
    args = host_parts.make_args(host, "qmix_entity_lim")
    args.lim["layout"] = block
    with pytest.raises(LimaskError) as caught:
        host_parts.make_learner(host, args)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("masker", masking.REGISTRY)
def test_every_masker_trains_on_a_declared_layout(host: Host, masker: str) -> None:
    options = {
        "masker": {"name": masker, "random_until": 0, "random_anneal": 0},
        "autoencoder": {"share": 1.0},
    }
    args = host_parts.make_args(host, "qmix_entity_lim", lim=options)
    args.lim["layout"] = BLOCK
    learner = host_parts.make_learner(host, args)
    for t_env in range(1, 3):
        learner.train(host_parts.make_batch(host, args, 6), t_env, t_env)
    stats = learner.logger.stats
    assert {"rec_error_box", "mask_rate_box", "rec_error_ally"} <= stats.keys()
    assert all(torch.tensor(values).isfinite().all() for values in stats.values())


def test_values_of_aimed_actions_follow_their_entities(host: Host) -> None:
    args = host_parts.make_args(host, "qmix_entity")
    args.lim["layout"] = BLOCK
    agent = host_parts.make_learner(host, args).mac.agent
    inputs = torch.cat([torch.randn(3, 12), torch.zeros(3, 5), torch.eye(3)], dim=1)
    start = agent.init_hidden().expand(3, -1)
    before, _ = agent(inputs, start)
    order = [0, 1, 2, 3, 4, 5, 10, 11, 6, 7, 8, 9]
    after, _ = agent(torch.cat([inputs[:, :12][:, order], inputs[:, 12:]], dim=1), start)
    torch.testing.assert_close(after, before[:, [0, 1, 4, 2, 3]])


class Runner:
    """Stands in for a host's runner, of an environment with ``args.n_features`` features."""

    def __init__(self, args: Any, logger: Any) -> None:
        self.n_features = args.n_features
        self.is_closed = False

    def get_env_info(self) -> dict[str, int]:
        sizes = {"n_agents": 2, "n_actions": 5, "state_shape": 12, "episode_limit": 9}
        return sizes | {"obs_shape": self.n_features}

    def close_env(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize(
    ("layout", "env", "n_features", "expected"),
    [
        (
            "auto",
            "gymma",
            6,
            "layout: flat (limask knows no entities in observations of env=gymma, rware:rware-tiny",
        ),
        ("flat", "gymma", 6, ""),
        ("auto", "smax", 75, ""),
        (BLOCK, "gymma", 12, ""),
    ],
)
def test_one_line_tells_of_an_environment_without_a_layout(
    host: Host, caplog: pytest.LogCaptureFixture, layout: Any, env: str, n_features: int, expected: str
) -> None:
    env_args = {"map_name": "3m"} if env == "smax" else {"key": "rware:rware-tiny-2ag-v2"}
    args = host_parts.make_args(host, "qmix_entity_lim", env=env, env_args=env_args, buffer_cpu_only=True)
    args.lim["layout"], args.n_features = layout, n_features
    logger = SimpleNamespace(console_logger=logging.getLogger("declared"))
    with caplog.at_level(logging.INFO, logger="declared"):
        host._checked(Runner)(args, logger)
    lines = [line for line in caplog.messages if line.startswith("layout:")]
    assert len(lines) == (expected != "")
    assert all(line.startswith(expected) and "group" not in line and "3 features" in line for line in lines)
    assert flat_note(read_options({"layout": layout}), env, env_args) == "".join(lines)


@pytest.mark.parametrize("epsilon", [1.0, 0.1])
def test_the_log_tells_of_trained_agents_that_would_act_at_random(
    host: Host, caplog: pytest.LogCaptureFixture, epsilon: float
) -> None:
    args = host_parts.make_args(
        host, "qmix_entity_lim", env="smax", env_args={"map_name": "3m"}, buffer_cpu_only=True
    )
    args.n_features, args.epsilon_start, args.lim["start_from"] = 75, epsilon, "qmix_lim_robust/3m"
    with caplog.at_level(logging.INFO, logger="declared"):
        host._checked(Runner)(args, SimpleNamespace(console_logger=logging.getLogger("declared")))
    lines = [line for line in caplog.messages if line.startswith("lim.start_from with epsilon_start=1.0: ")]
    assert len(lines) == (epsilon == 1.0)


def test_a_size_that_is_not_the_layouts_is_refused_before_training_and_the_environment_closed(
    host: Host,
) -> None:
    built: list[Runner] = []

    def build(args: Any, logger: Any) -> Runner:
        built.append(Runner(args, logger))
        return built[0]

    env_args = {"map_name": "3m"}
    args = host_parts.make_args(host, "qmix_entity_lim", env="smax", env_args=env_args, buffer_cpu_only=True)
    args.n_features = 76
    with pytest.raises(LimaskError, match=r"(?s)75.*76|76.*75"):
        host._checked(build)(args, SimpleNamespace(console_logger=logging.getLogger("declared")))
    assert built[0].is_closed
