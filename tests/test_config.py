"""The ``lim:`` block: what is accepted, what is refused, and whether the message helps."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import options_parts
import pytest
import yaml

from limask import faults, layouts, masking, resources
from limask.autoencoder.options import check_layout, known_layout, read_options
from limask.config import LAYOUTS, RENAMED, LimConfig, fields, migrated, restored
from limask.config.nested import flat, merged
from limask.errors import LimaskError

ALGS = resources.config_dir() / "algs"
ARMS = ("qmix_fc", "qmix_entity", "qmix_fc_lim", "qmix_entity_lim", "qmix_lim")
MASKERS = tuple(masking.REGISTRY)
OPTIONS = [name for name, _ in fields(LimConfig)]

AUTOENCODERS = "none, entity, team, belief, entity_belief, sightings"

# Key, refused value, and what the message has to say beside the key and the value.
REFUSED: list[tuple[str, object, tuple[str, ...]]] = [
    ("layout", "smaxx", (*LAYOUTS, "did you mean 'smax'")),
    ("layout", 3, LAYOUTS),
    ("layout", None, LAYOUTS),
    ("group_width", 0, ("integer", "at least 1")),
    ("group_width", 3.0, ("integer", "at least 1")),
    ("group_width", [3], ("integer", "at least 1")),
    ("group_width", True, ("integer", "at least 1")),
    ("trunk", "entty", ("fc, entity", "did you mean 'entity'")),
    ("trunk", ["fc"], ("fc, entity",)),
    (
        "autoencoder.name",
        "entities",
        ("none, entity, team, belief, entity_belief, sightings", "did you mean 'entity'"),
    ),
    ("autoencoder.name", None, ("none, entity, team, belief, entity_belief, sightings",)),
    ("masker.name", "randon", (*MASKERS, "did you mean 'random'")),
    ("masker.name", "random-agent", (*MASKERS, "did you mean 'random_agent'")),
    ("masker.name", None, MASKERS),
    ("masker.name", False, MASKERS),
    ("masker.ratio", 1.0, ("number", "at least 0.0", "below 1.0")),
    ("masker.ratio", 1, ("number", "at least 0.0", "below 1.0")),
    ("masker.ratio", -0.01, ("number", "at least 0.0", "below 1.0")),
    ("masker.ratio", "0.5", ("number", "at least 0.0", "below 1.0")),
    ("masker.ratio", [0.5, 1.0], ("number", "at least 0.0", "below 1.0", "or a range [low, high]")),
    ("masker.ratio", [0.5, 0.2], ("a range [low, high]",)),
    ("masker.ratio", [0.5], ("a range [low, high]",)),
    ("masker.replay", 1.1, ("number", "at least 0.0", "at most 1.0")),
    ("masker.ratio", float("nan"), ("number", "at least 0.0", "below 1.0")),
    ("masker.span", 0, ("integer", "at least 1")),
    ("masker.random_until", -1, ("integer", "at least 0")),
    ("masker.random_until", 1e4, ("integer", "at least 0")),
    ("masker.random_anneal", -1, ("integer", "at least 0")),
    ("masker.random_finish", 1.1, ("number", "at least 0.0", "at most 1.0")),
    ("masker.credit", "mixd", ("local, mixed", "did you mean 'mixed'")),
    ("autoencoder.balance", "grad", ("fixed, gradient",)),
    ("autoencoder.warmup", -1, ("integer", "at least 0")),
    ("autoencoder.saliency_weights", "saliency", ("True or False",)),
    ("autoencoder.targets", "teams", ("own, team, state, auto", "did you mean 'team'")),
    ("autoencoder.latent", 1, ("True or False",)),
    ("autoencoder.use_inference", "yes", ("True or False",)),
    ("autoencoder.sightings", "yes", ("True or False",)),
    ("autoencoder.denoise", 1, ("True or False",)),
    ("view.weight", -0.1, ("number", "at least 0.0")),
    ("view.loss", "tdd", ("distillation, td", "did you mean 'td'")),
    ("masker.keep_at_least", 0, ("integer", "at least 1")),
    ("masker.keep_at_least", 1.5, ("integer", "at least 1")),
    ("autoencoder.weight", -0.1, ("number", "at least 0.0")),
    ("autoencoder.weight", None, ("number", "at least 0.0")),
    ("autoencoder.weight", True, ("number", "at least 0.0")),
    ("autoencoder.weight", float("nan"), ("number", "at least 0.0")),
    ("autoencoder.weight", float("inf"), ("number",)),
    ("autoencoder.share", 0, ("number", "above 0.0", "at most 1.0")),
    ("autoencoder.share", 1.1, ("number", "above 0.0", "at most 1.0")),
    ("autoencoder.share", True, ("number",)),
    ("autoencoder.detach_trunk", 1, ("True or False",)),
    ("autoencoder.detach_trunk", "true", ("True or False",)),
    ("autoencoder.detach_trunk", None, ("True or False",)),
    ("autoencoder.width", 0, ("integer", "at least 1")),
    ("autoencoder.width", "64", ("integer", "at least 1")),
    ("autoencoder.lr", 0, ("number", "above 0")),
    ("autoencoder.lr", -1e-4, ("number", "above 0")),
    ("autoencoder.lr", float("nan"), ("number", "above 0")),
    ("autoencoder.lr", float("inf"), ("number",)),
    ("team.window", 0, ("integer", "at least 1")),
    ("team.window", 2.5, ("integer", "at least 1")),
    ("team.pretrain_episodes", 0, ("integer", "at least 1")),
    ("team.pretrain_updates", -1, ("integer", "at least 0")),
    ("team.finetune_calls", -1, ("integer", "at least 0")),
    ("team.finetune_calls", "always", ("integer", "at least 0")),
    ("team.joint", 1, ("True or False",)),
    ("targets.td_lambda", 1.01, ("number", "at least 0.0", "at most 1.0")),
    ("targets.td_lambda", -0.01, ("number", "at least 0.0", "at most 1.0")),
    ("targets.td_lambda", False, ("number", "at least 0.0", "at most 1.0")),
    ("targets.q_lambda", 0, ("True or False",)),
    ("targets.q_lambda", "true", ("True or False",)),
    ("faults.collect", 1, ("True or False",)),
    ("faults.replay", 1.1, ("number", "at least 0.0", "at most 1.0")),
    *((f"faults.{name}", "0.5", ("a number, or a range [low, high]",)) for name in faults.REGISTRY),
    ("faults.dropout", [0.1], ("a number, or a range [low, high]",)),
    ("faults.nearest", [1, 2, 3], ("a number, or a range [low, high]",)),
    ("faults.blind", True, ("a number, or a range [low, high]",)),
    ("minibatches", 0, ("integer", "at least 1", "auto")),
    ("minibatches", 2.0, ("integer", "at least 1", "auto")),
    ("minibatches", True, ("integer", "at least 1", "auto")),
    ("minibatches", "all", ("integer", "at least 1", "auto")),
    ("minibatches", "4", ("integer", "at least 1", "auto")),
    ("compact_replay", "no", ("True or False",)),
    ("start_from", 3, ("expected a path",)),
    ("start_from", None, ("expected a path",)),
    ("compile", "auto", ("True or False",)),
]

# Key, value on the edge of what is allowed, and what is stored.
ACCEPTED: list[tuple[str, object, object]] = [
    *(("layout", name, name) for name in LAYOUTS),
    ("layout", {"entities": []}, {"entities": []}),
    ("group_width", 1, 1),
    ("trunk", "fc", "fc"),
    ("trunk", "entity", "entity"),
    ("autoencoder.name", "entity", "entity"),
    ("autoencoder.name", "belief", "belief"),
    *(("masker.name", name, name) for name in MASKERS),
    ("masker.ratio", 0.0, 0.0),
    ("masker.ratio", 0, 0),
    ("masker.ratio", [0, 0.8], [0, 0.8]),
    ("masker.replay", 1, 1.0),
    ("masker.ratio", 0.999, 0.999),
    ("masker.span", 1, 1),
    ("masker.random_until", 0, 0),
    ("masker.random_anneal", 0, 0),
    ("masker.random_finish", 0, 0.0),
    ("masker.random_finish", 1, 1.0),
    ("masker.credit", "local", "local"),
    ("masker.credit", "mixed", "mixed"),
    ("autoencoder.balance", "fixed", "fixed"),
    ("autoencoder.balance", "gradient", "gradient"),
    ("autoencoder.warmup", 0, 0),
    ("autoencoder.saliency_weights", True, True),
    ("autoencoder.targets", "own", "own"),
    ("autoencoder.targets", "team", "team"),
    ("autoencoder.targets", "state", "state"),
    ("autoencoder.targets", "auto", "auto"),
    ("autoencoder.latent", True, True),
    ("autoencoder.use_inference", True, True),
    ("autoencoder.sightings", True, True),
    ("autoencoder.denoise", True, True),
    ("view.weight", 0, 0.0),
    ("view.weight", 2, 2.0),
    ("view.loss", "td", "td"),
    ("masker.keep_at_least", 1, 1),
    ("autoencoder.weight", 0, 0.0),
    ("autoencoder.weight", 2, 2.0),
    ("autoencoder.share", 1, 1.0),
    ("autoencoder.share", 0.01, 0.01),
    ("autoencoder.detach_trunk", True, True),
    ("autoencoder.detach_trunk", False, False),
    ("autoencoder.width", 1, 1),
    ("autoencoder.lr", 1e-9, 1e-9),
    ("autoencoder.lr", 1, 1.0),
    ("team.window", 1, 1),
    ("team.pretrain_episodes", 1, 1),
    ("team.pretrain_updates", 0, 0),
    ("team.finetune_calls", 0, 0),
    ("team.joint", True, True),
    ("targets.q_lambda", True, True),
    ("targets.td_lambda", 0, 0.0),
    ("targets.td_lambda", 1, 1.0),
    *((f"faults.{name}", [0, 1], [0, 1]) for name in faults.REGISTRY),
    ("faults.dropout", 0.4, 0.4),
    ("faults.collect", True, True),
    ("faults.replay", 1, 1.0),
    ("minibatches", 1, 1),
    ("minibatches", "auto", "auto"),
    ("compact_replay", False, False),
    ("start_from", "results/models", "results/models"),
    ("compile", True, True),
]


def refusal(block: object) -> str:
    """The message with which ``block`` is refused."""
    with pytest.raises(LimaskError) as caught:
        read_options(block)
    return str(caught.value)


def of(name: str, value: object) -> dict[str, Any]:
    """The block that sets the option of this dotted name."""
    first, _, inner = name.partition(".")
    return {first: {inner: value} if inner else value}


def plain(options: dict[str, Any]) -> dict[str, Any]:
    """Options laid over those of the plainest autoencoder."""
    return merged(options_parts.PLAIN, options)


# --- one option -----------------------------------------------------------------------


@pytest.mark.parametrize(("key", "value", "allowed"), REFUSED)
def test_refusal_names_key_value_and_what_is_allowed(
    key: str, value: object, allowed: tuple[str, ...]
) -> None:
    """A run that fails at start-up must say which line of the YAML to change, and to what."""
    message = refusal(of(key, value))
    assert f"lim.{key}={value!r}" in message
    for words in allowed:
        assert words in message
    assert "and or" not in message


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("autoencoder.width", "64", "str"),
        ("autoencoder.detach_trunk", "true", "str"),
        ("autoencoder.detach_trunk", 1, "int"),
        ("masker.ratio", True, "bool"),
        ("group_width", 3.0, "float"),
        ("masker.name", None, "NoneType"),
    ],
)
def test_refusal_names_the_type_where_that_is_wrong(key: str, value: object, kind: str) -> None:
    """`'64'` and `64` look alike in a YAML."""
    assert f"({kind})" in refusal(of(key, value))


def test_refusal_does_not_guess_wildly() -> None:
    """A hint that is no near miss would only lead astray."""
    assert "did you mean" not in refusal({"masker": {"name": "xyzzy"}})
    assert "did you mean" not in refusal({"xyzzy": 1})


@pytest.mark.parametrize(("key", "value", "stored"), ACCEPTED)
def test_edges_are_accepted(key: str, value: object, stored: object) -> None:
    """Bounds are inclusive or exclusive as documented; an int is a number, and is stored as a float."""
    # Faults without a place, a place without faults, and sightings without their belief are refused.
    beside = {"faults.collect": of("faults.dropout", 0.5), "faults.replay": of("faults.dropout", 0.5)}
    beside |= {f"faults.{name}": of("faults.collect", True) for name in faults.REGISTRY}
    beside |= {
        f"autoencoder.{name}": of("autoencoder.name", "entity_belief") for name in ("sightings", "denoise")
    }
    config = read_options(merged(plain(beside.get(key, {})), of(key, value)))
    read = config.value(key)
    assert read == stored
    assert type(read) is type(stored)


def test_tables_cover_every_option() -> None:
    """A new option comes with a refused and an accepted value."""
    assert {key for key, *_ in REFUSED} == set(OPTIONS)
    assert {key for key, *_ in ACCEPTED} == set(OPTIONS)


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("masker.rato", "masker.ratio"),
        ("autoencoder.wieght", "autoencoder.weight"),
        ("masker.keep_atleast", "masker.keep_at_least"),
        ("Trunk", "trunk"),
        ("lamda_rec", "autoencoder.weight"),
        ("decoder_dims", "autoencoder.width"),
    ],
)
def test_unknown_key_names_the_nearest_and_all_known(key: str, nearest: str) -> None:
    """A misspelt key must not silently leave a default in force."""
    message = refusal(of(key, 1))
    assert f"lim.{key} " in message
    assert f"did you mean 'lim.{nearest}'?" in message
    assert all(name in message for name in OPTIONS)


def test_unknown_key_need_not_be_a_string() -> None:
    """YAML reads `on:` as the key True."""
    assert "lim.True" in refusal({True: 1})


@pytest.mark.parametrize("block", [None, "random", 3, ["masker"], True])
def test_block_must_be_a_mapping(block: object) -> None:
    """`lim:` with nothing below it is None."""
    message = refusal(block)
    assert repr(block) in message
    assert "block of options" in message


def test_empty_block_is_the_defaults() -> None:
    """An option that is left out has the default of the dataclass."""
    assert read_options({}) == LimConfig()


def test_config_is_frozen() -> None:
    """Nothing may change an option in the middle of a run."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        LimConfig().masker.name = "none"  # type: ignore[misc]


def test_every_option_says_what_it_is() -> None:
    """And who uses it: the YAMLs' comments and the page on options are written from that."""
    for name, field in fields(LimConfig):
        assert len(field.metadata["meaning"]) > 20, name
        assert field.metadata["used_by"], name


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_old_spellings_are_refused_with_the_new_name(old: str, new: str) -> None:
    assert refusal({old: 1}) == f"lim.{old} is lim.{new} now"
    assert new in OPTIONS


def test_an_old_spelling_in_a_group_is_refused_with_the_new_name() -> None:
    """As half a change of an old block leaves it."""
    message = refusal({"autoencoder": {"lambda_rec": 1}})
    assert message == "lim.autoencoder.lambda_rec is lim.autoencoder.weight now"


@pytest.mark.parametrize("name", [*OPTIONS, "masker", "autoencoder", "layout.entities"])
def test_names_of_options_groups_and_declared_layouts_are_known(name: str) -> None:
    LimConfig.check_name(name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mask_ratio", "lim.mask_ratio is lim.masker.ratio now"),
        ("masker.rato", "did you mean 'lim.masker.ratio'?"),
        ("mask", "did you mean 'lim.masker'?"),
        ("trunk.entities", "lim.trunk.entities is no option"),
    ],
)
def test_names_of_nothing_are_refused(name: str, words: str) -> None:
    with pytest.raises(LimaskError, match=re.escape(words)):
        LimConfig.check_name(name)


@pytest.mark.parametrize("group", ["masker", "autoencoder"])
def test_a_name_where_a_group_stands_is_refused_with_the_option_that_takes_it(group: str) -> None:
    message = refusal({group: "random"})
    assert message == f"lim.{group}='random': expected a block of options; set lim.{group}.name='random'"


def test_blocks_of_before_options_were_grouped_can_still_be_read() -> None:
    """As runs that were trained then hold them."""
    old = {
        "masker": "td_ema",
        "mask_ratio": 0.3,
        "autoencoder": "entity",
        "rec_targets": "own",
        "trunk": "fc",
    }
    new = {"masker": {"name": "td_ema", "ratio": 0.3}, "autoencoder": {"name": "entity", "targets": "own"}}
    assert migrated(old) == new | {"trunk": "fc"}
    assert migrated(migrated(old)) == migrated(old)


def test_what_a_block_of_then_lacks_has_the_default_of_then() -> None:
    """Those of now would change what the run reconstructs."""
    old = {"masker": "td_ema", "mask_ratio": 0.3, "trunk": "fc"}
    new = {
        "masker": {"name": "td_ema", "ratio": 0.3},
        "autoencoder": {
            "name": "entity", "width": 64, "lr": 0.0005, "warmup": 0, "targets": "own", "share": 0.25,
        },
        "targets": {"td_lambda": 0.0},
        "trunk": "fc",
    }  # fmt: skip
    assert restored(old) == new
    assert restored(restored(old)) == new
    given = {"autoencoder": "belief", "decoder_dim": 8, "td_lambda": 0.6, "rec_targets": "state"}
    kept = LimConfig.from_block(restored(given))
    assert (kept.autoencoder.name, kept.autoencoder.width, kept.targets.td_lambda) == ("belief", 8, 0.6)
    assert (kept.autoencoder.targets, kept.autoencoder.share) == ("state", 0.25)
    assert restored(old) == new, "reading one block changes no default of another"


@pytest.mark.parametrize("block", [{}, {"trunk": "fc"}, {"masker": {"ratio": 0.3}}])
def test_blocks_of_now_are_read_as_they_are(block: dict[str, Any]) -> None:
    assert restored(block) == block


# --- combinations ---------------------------------------------------------------------


def test_mask_without_autoencoder_is_refused() -> None:
    """Nothing would use the mask: the run would be a plain QMIX under another name."""
    message = refusal({"autoencoder": {"name": "none", "weight": 0}, "masker": {"name": "random"}})
    assert "lim.masker.name='random'" in message
    assert "lim.autoencoder.name='none'" in message


def test_reconstruction_weight_without_autoencoder_is_refused() -> None:
    """There is nothing to reconstruct."""
    message = refusal({"autoencoder": {"name": "none", "weight": 0.1}, "masker": {"name": "none"}})
    assert "lim.autoencoder.weight=0.1" in message
    assert "lim.autoencoder.name='none'" in message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dropout": 0.5}, ("lim.faults.dropout=0.5", "nothing would go wrong", "lim.faults.collect=True")),
        ({"collect": True}, ("lim.faults.collect=True, and no kind of fault",)),
        ({"replay": 0.5}, ("lim.faults.replay=0.5, and no kind of fault",)),
    ],
)
def test_faults_that_would_do_nothing_are_refused(options: dict[str, Any], words: tuple[str, ...]) -> None:
    message = refusal({"faults": options})
    assert all(word in message for word in words)


def test_faults_are_held_against_the_layout() -> None:
    """Before an environment exists."""
    options = plain({"faults": {"collect": True, "nearest": 4}})
    with pytest.raises(LimaskError, match=r"lim\.faults\.nearest=4: 4: expected a whole number k of enemies"):
        known_layout(read_options(options), "smax", {"map_name": "3m"})
    options["faults"]["nearest"] = 3
    known_layout(read_options(options), "smax", {"map_name": "3m"})


@pytest.mark.parametrize(
    "block",
    [
        {"autoencoder": {"name": "none", "weight": 0}, "masker": {"name": "none"}},
        {"autoencoder": {"name": "entity", "weight": 0.1}, "masker": {"name": "none"}},
        {"autoencoder": {"name": "entity", "weight": 0}, "masker": {"name": "random"}},
    ],
)
def test_control_arms_are_accepted(block: dict[str, Any]) -> None:
    """The plain learner, the plain autoencoder, and the masked one that only watches."""
    read_options(plain(block))


NONE: dict[str, Any] = plain({"autoencoder": {"name": "none", "weight": 0}, "masker": {"name": "none"}})
TEAM: dict[str, Any] = plain(
    {
        "autoencoder": {"name": "team"},
        "trunk": "fc",
        "masker": {"name": "random_agent", "ratio": 0},
    }
)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"masker": {"name": "random"}}, ("lim.masker.name='random'", "random_agent", "td_threshold")),
        ({"masker": {"name": "none"}}, ("lim.masker.name='none'", "random_agent")),
        (
            {"masker": {"name": "td_threshold"}},
            ("lim.masker.name='td_threshold'", "lim.team.joint=False", "set lim.team.joint=True"),
        ),
        ({"trunk": "entity"}, ("lim.trunk='entity'", "set lim.trunk='fc'")),
        ({"masker": {"ratio": 0.5}}, ("lim.masker.ratio=0.5", "set lim.masker.ratio=0.0")),
        ({"view": {"weight": 0.1}}, ("lim.view.weight=0.1", "set lim.view.weight=0.0")),
        (
            {"autoencoder": {"balance": "gradient"}},
            ("lim.autoencoder.balance='gradient'", "set lim.autoencoder.balance='fixed'"),
        ),
        (
            {"autoencoder": {"detach_trunk": True}},
            ("lim.autoencoder.detach_trunk=True", "set lim.autoencoder.detach_trunk=False"),
        ),
    ],
)
def test_what_autoencoder_team_has_no_use_for_is_refused(
    options: dict[str, Any], words: tuple[str, ...]
) -> None:
    """An option that changes nothing must not look as if it did."""
    message = refusal(merged(TEAM, options))
    assert "lim.autoencoder.name='team'" in message or "lim.team.joint=False" in message
    assert all(word in message for word in words)


@pytest.mark.parametrize(
    "options", [{}, {"team": {"joint": True}}, {"team": {"joint": True}, "masker": {"name": "td_ema"}}]
)
def test_autoencoder_team_is_accepted_on_any_layout(options: dict[str, Any]) -> None:
    """Its tokens are agents: no layout has to know teammates."""
    check_layout(read_options(merged(TEAM, options)), "flat", frozenset())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"autoencoder": {"targets": "team", "saliency_weights": True}},
            ("lim.autoencoder.saliency_weights=True", "lim.autoencoder.targets='team'"),
        ),
        (
            {"autoencoder": {"targets": "state", "saliency_weights": True}},
            ("lim.autoencoder.saliency_weights=True", "lim.autoencoder.targets='state'"),
        ),
        ({"autoencoder": {"latent": True}, "trunk": "fc"}, ("lim.autoencoder.latent=True", "lim.trunk='fc'")),
        (
            {"autoencoder": {"latent": True, "use_inference": True}},
            ("lim.autoencoder.latent=True", "lim.autoencoder.use_inference=True"),
        ),
        (
            {"autoencoder": {"use_inference": True, "weight": 0}},
            ("lim.autoencoder.use_inference=True", "lim.autoencoder.weight=0"),
        ),
        (
            {"autoencoder": {"name": "belief", "weight": 0}},
            ("lim.autoencoder.name='belief'", "lim.autoencoder.weight=0"),
        ),
        (
            {"autoencoder": {"name": "sightings", "weight": 0.1}, "masker": {"name": "none"}},
            (
                "lim.autoencoder.weight=0.1",
                "lim.autoencoder.name='sightings'",
                "set lim.autoencoder.weight=0",
            ),
        ),
        (
            {"autoencoder": {"name": "sightings", "weight": 0}, "masker": {"name": "random"}},
            ("lim.masker.name='random'", "lim.autoencoder.name='sightings'", "lim.masker.replay above 0"),
        ),
        *(
            (
                {"autoencoder": {"name": name, "weight": 0}, "masker": {"name": masker, "replay": 1.0}},
                (f"lim.masker.name={masker!r}", "lim.autoencoder.weight=0", "set lim.masker.name='random'"),
            )
            for name in ("entity", "sightings")
            for masker in ("adversarial", "learning_progress")
        ),
        *(
            (
                merged({"autoencoder": {"name": "belief"}}, of(key, value)),
                (f"lim.{key}={value!r}", "lim.autoencoder.name='belief'"),
            )
            for key, value in {
                "autoencoder.balance": "gradient",
                "autoencoder.detach_trunk": True,
                "autoencoder.latent": True,
                "autoencoder.use_inference": True,
                "autoencoder.sightings": True,
            }.items()
        ),
        *(
            (
                {
                    "autoencoder": {"name": name, "weight": weight, option: True},
                    "masker": {"name": "none"},
                },
                (f"lim.autoencoder.{option}=True", f"lim.autoencoder.name={name!r}"),
            )
            for option in ("sightings", "denoise")
            for name, weight in (("entity", 0.1), ("sightings", 0.0), ("none", 0.0))
        ),
        *(
            (
                merged(block, of(key, value)),
                (f"lim.{key}={value!r}", f"lim.autoencoder.name={block['autoencoder']['name']!r}"),
            )
            for block in (NONE, TEAM)
            for key, value in {
                "autoencoder.targets": "team",
                "autoencoder.latent": True,
                "autoencoder.use_inference": True,
            }.items()
        ),
    ],
)
def test_what_is_reconstructed_and_used_has_to_go_together(
    options: dict[str, Any], words: tuple[str, ...]
) -> None:
    """Each refusal names both options: one of them would do nothing, or act on what never learns."""
    message = refusal(plain(options))
    assert all(word in message for word in words)


@pytest.mark.parametrize(
    ("options", "kinds", "remedy"),
    [
        (
            {"autoencoder": {"targets": "team"}},
            frozenset({"ally", "enemy"}),
            "set lim.autoencoder.targets='own'",
        ),
        (
            {"autoencoder": {"targets": "state"}},
            frozenset({"ally", "enemy"}),
            "the global state holds of units; set",
        ),
        ({"autoencoder": {"name": "belief"}}, frozenset(), "set lim.autoencoder.name='entity'"),
        ({"autoencoder": {"use_inference": True}}, frozenset(), "set lim.autoencoder.use_inference=False"),
        ({"autoencoder": {"latent": True}}, frozenset(), "set lim.autoencoder.latent=False"),
    ],
)
def test_layout_that_cannot_carry_targets_or_inferences_is_refused(
    options: dict[str, Any], kinds: frozenset[str], remedy: str
) -> None:
    """By its name, and with the way out."""
    config = read_options(plain(options))
    with pytest.raises(LimaskError) as caught:
        check_layout(config, "lbf", kinds)
    ((key, value),) = flat(options).items()
    assert f"lim.{key}={value!r} on layout 'lbf'" in str(caught.value)
    assert remedy in str(caught.value)
    check_layout(config, "smax", frozenset({"ally", "enemy"}), targets=frozenset({"own", "team", "state"}))


BOTH = frozenset({"ally", "enemy"})


@pytest.mark.parametrize(
    ("options", "targets", "remedy"),
    [
        ({}, ("own", "team"), "set lim.faults.replay above 0"),
        (
            {"autoencoder": {"targets": "team"}},
            ("own", "team", "state"),
            "set lim.autoencoder.targets='state', or ",
        ),
    ],
)
def test_denoising_needs_to_know_the_truth(
    options: dict[str, Any], targets: tuple[str, ...], remedy: str
) -> None:
    """From the state, or by faults that limask itself draws in replay."""
    denoising = plain({"autoencoder": {"name": "belief", "denoise": True, "targets": "auto"}})
    config = read_options(merged(denoising, options))
    with pytest.raises(LimaskError, match=remedy) as caught:
        check_layout(config, "smac", BOTH, targets)
    assert f"lim.autoencoder.targets={config.autoencoder.targets!r}" in str(caught.value)
    replayed = merged(merged(denoising, options), {"faults": {"replay": 0.5, "noise": 0.2}})
    check_layout(read_options(replayed), "smac", BOTH, targets)
    check_layout(read_options(denoising), "smax", BOTH, ("own", "team", "state"))


def test_auto_is_a_belief_where_there_are_entities() -> None:
    auto = read_options({"autoencoder": {"name": "auto", "targets": "auto"}})
    assert [auto.on_layout(kinds).autoencoder.name for kinds in (BOTH, frozenset())] == ["belief", "entity"]
    check_layout(auto.on_layout(frozenset()), "flat", frozenset())
    without = read_options(NONE)
    assert without.on_layout(BOTH) is without
    assert "lim.autoencoder.name='auto'" in refusal({"autoencoder": {"name": "auto", "weight": 0}})
    assert "lim.autoencoder.name='auto'" in refusal({"autoencoder": {"name": "auto", "use_inference": True}})


@pytest.mark.parametrize(
    ("options", "kinds", "remedy"),
    [
        ({"trunk": "fc", "masker": {"name": "random"}}, frozenset(), "lim.trunk='entity'"),
        ({"trunk": "entity", "masker": {"name": "random_agent"}}, frozenset(), "lim.masker.name='random'"),
        (
            {"trunk": "entity", "masker": {"name": "random_agent"}},
            frozenset({"enemy"}),
            "lim.masker.name='random'",
        ),
        (
            {"trunk": "fc", "masker": {"name": "random_agent"}},
            frozenset({"enemy"}),
            "lim.masker.name='random'",
        ),
    ],
)
def test_layout_that_cannot_carry_the_masker_is_refused(
    options: dict[str, Any], kinds: frozenset[str], remedy: str
) -> None:
    """The message names the masker, the layout and the way out."""
    with pytest.raises(LimaskError) as caught:
        check_layout(read_options(plain(options)), "lbf", kinds)
    assert f"lim.masker.name={options['masker']['name']!r}" in str(caught.value)
    assert "'lbf'" in str(caught.value)
    assert remedy in str(caught.value)


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({"trunk": "fc", "masker": {"name": "none"}}, frozenset()),
        ({"trunk": "entity", "masker": {"name": "random"}}, frozenset()),
        ({"trunk": "fc", "masker": {"name": "random"}}, BOTH),
        ({"trunk": "fc", "masker": {"name": "random_agent"}}, BOTH),
        ({"trunk": "entity", "masker": {"name": "random_agent"}}, frozenset({"ally"})),
    ],
)
def test_layout_that_can_carry_the_masker_is_accepted(options: dict[str, Any], kinds: frozenset[str]) -> None:
    """No more is refused than has to be."""
    check_layout(read_options(plain(options)), "some layout", kinds)


# --- SGD steps of a batch -------------------------------------------------------------


@pytest.mark.parametrize(
    ("minibatches", "batch_size", "steps"),
    [
        ("auto", 1, 1),
        ("auto", 31, 1),
        ("auto", 32, 1),
        ("auto", 63, 1),
        ("auto", 64, 2),
        ("auto", 256, 8),
        (1, 256, 1),
        (5, 32, 5),
        (32, 32, 32),
    ],
)
def test_sgd_steps_of_a_batch(minibatches: int | str, batch_size: int, steps: int) -> None:
    """`auto` is one step for every 32 episodes, and one for a smaller batch."""
    assert read_options({"minibatches": minibatches}).n_minibatches(batch_size) == steps


def test_more_sgd_steps_than_episodes_are_refused() -> None:
    """An SGD step without an episode has no loss."""
    with pytest.raises(LimaskError, match=r"lim\.minibatches=33 with batch_size=32"):
        read_options({"minibatches": 33}).n_minibatches(32)


# --- agreement with the rest of the project -------------------------------------------


def test_names_agree_with_the_registries() -> None:
    """Layouts are repeated in the config so that it can be read without an environment."""
    assert set(LAYOUTS) == {"auto", "flat", *layouts.REGISTRY}


def algorithms() -> list[Path]:
    """The YAML files of algorithms that have a `lim:` block."""
    files = sorted((resources.config_dir() / "algs").glob("*.yaml"))
    return [file for file in files if "lim" in yaml.safe_load(file.read_text(encoding="utf-8"))]


def test_there_are_algorithms_with_a_block() -> None:
    """Else the tests below would pass on nothing."""
    assert {"qmix_lim", "qmix_fc"} <= {file.stem for file in algorithms()}


@pytest.mark.parametrize("file", algorithms(), ids=lambda file: file.stem)
def test_yaml_and_dataclass_agree(file: Path) -> None:
    """Every option stands in the YAML, so that no default is hidden, and its combination is allowed."""
    algorithm = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert sorted(flat(algorithm["lim"])) == sorted(OPTIONS)
    config = read_options(algorithm["lim"])
    config.n_minibatches(algorithm["batch_size"])
    assert algorithm["name"] == file.stem


def differing(block: dict[str, Any], reference: dict[str, Any]) -> set[str]:
    """Dotted names of the options that are not the same in both."""
    ours, theirs = flat(block), flat(reference)
    return {name for name in ours if ours[name] != theirs[name]}


#: What autoencoder ``belief`` learns from, when it is let in, how wide it is, and how fast it learns.
OF_BELIEF = {f"autoencoder.{name}" for name in ("targets", "share", "warmup", "width", "lr")}


def test_arms_differ_in_the_trunk_and_the_autoencoder_alone() -> None:
    """Otherwise a difference between their curves says nothing about masking."""
    arms = {name: yaml.safe_load((ALGS / f"{name}.yaml").read_text()) for name in ARMS}
    may_differ = {
        "trunk",
        "autoencoder.name",
        "autoencoder.weight",
        "masker.name",
        "masker.ratio",
    } | OF_BELIEF
    reference = arms["qmix_fc"]
    for name, arm in arms.items():
        assert arm.pop("name") == name
        assert differing(arm["lim"], reference["lim"]) <= may_differ
        assert arm | {"lim": None, "name": None} == reference | {"lim": None, "name": None}


def test_published_methods_differ_in_what_they_are_published_with() -> None:
    """Runner, replay, epsilon, targets, batch and updates are those of the other arms."""
    reference = yaml.safe_load((ALGS / "qmix_fc.yaml").read_text())
    arms = {
        name: yaml.safe_load((ALGS / f"{name}.yaml").read_text()) for name in ("qmix_ma2e", "qmix_li_ma2e")
    }
    method = {"autoencoder.name", "masker.name", "autoencoder.weight"}
    joint = {"team.joint"} | {f"masker.random_{name}" for name in ("until", "anneal", "finish")}
    for name, may_differ in (("qmix_ma2e", method), ("qmix_li_ma2e", method | joint)):
        arm = arms[name]
        assert differing(arm["lim"], reference["lim"]) == may_differ
        above = {"name": name, "hidden_dim": 128, "rnn_hidden_dim": 128, "lim": None}
        assert arm | {"lim": None} == reference | above
    assert arms["qmix_ma2e"]["lim"]["masker"]["name"] == "random_agent"
    assert arms["qmix_li_ma2e"]["lim"]["masker"]["name"] == "td_threshold"


def test_the_robust_config_is_qmix_lim_with_lost_sightings_and_a_belief_from_the_last_of_them() -> None:
    robust, reference = (
        yaml.safe_load((ALGS / f"{name}.yaml").read_text()) for name in ("qmix_lim_robust", "qmix_lim")
    )
    own = {"autoencoder.name": "entity_belief", "faults.collect": True, "faults.burst": [0, 0.8]}
    assert {name: flat(robust["lim"])[name] for name in own} == own
    assert differing(robust["lim"], reference["lim"]) == set(own)
    assert robust | {"lim": None, "name": None} == reference | {"lim": None, "name": None}


def test_vdn_and_iql_differ_from_qmix_in_the_mixer_alone() -> None:
    """Otherwise a difference between their curves says nothing about the mixer."""
    reference = yaml.safe_load((ALGS / "qmix_lim.yaml").read_text())
    for name, mixer in (("vdn_lim", "vdn"), ("iql_lim", None)):
        algorithm = yaml.safe_load((ALGS / f"{name}.yaml").read_text())
        assert algorithm == reference | {"name": name, "mixer": mixer}


def test_qatten_differs_from_qmix_in_the_mixer_and_its_widths_alone() -> None:
    reference = yaml.safe_load((ALGS / "qmix_lim.yaml").read_text())
    algorithm = yaml.safe_load((ALGS / "qatten_lim.yaml").read_text())
    differing = {key for key in reference | algorithm if reference.get(key) != algorithm.get(key)}
    qmix = {"mixing_embed_dim", "hypernet_layers", "hypernet_embed"}
    qatten = {key for key in algorithm if key.startswith("n_")} | {"type"}
    assert differing == {"name", "mixer"} | qmix | qatten
    assert algorithm["n_head_embedding_layer2"] == algorithm["n_attention_head"]


@pytest.mark.parametrize("name", ["mappo_lim", "ippo_lim", "maa2c_lim", "qplex_lim"])
def test_wrapped_learners_reconstruct_as_qmix_fc_lim_does(name: str) -> None:
    """They differ from it in the trunk, and in what their own loss decides."""
    reference = yaml.safe_load((ALGS / "qmix_fc_lim.yaml").read_text())["lim"]
    block = yaml.safe_load((ALGS / f"{name}.yaml").read_text())["lim"]
    of_its_loss = {"targets.td_lambda"} | (set() if name == "qplex_lim" else {"minibatches"})
    assert differing(block, reference) == {"trunk"} | of_its_loss
