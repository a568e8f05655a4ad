"""The ``lim:`` block: what is accepted, what is refused, and whether the message helps."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from limask import layouts, masking, resources
from limask.autoencoder.options import check_layout, read_options
from limask.config import LAYOUTS, LimConfig
from limask.errors import LimaskError

ALGS = resources.config_dir() / "algs"
ARMS = ("qmix_fc", "qmix_entity", "qmix_fc_lim", "qmix_entity_lim", "qmix_lim")
MASKERS = tuple(masking.REGISTRY)
OPTIONS = [field.name for field in dataclasses.fields(LimConfig)]

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
    ("autoencoder", "entities", ("none, entity, team, belief", "did you mean 'entity'")),
    ("autoencoder", None, ("none, entity, team, belief",)),
    ("masker", "randon", (*MASKERS, "did you mean 'random'")),
    ("masker", "random-agent", (*MASKERS, "did you mean 'random_agent'")),
    ("masker", None, MASKERS),
    ("masker", False, MASKERS),
    ("mask_ratio", 1.0, ("number", "at least 0.0", "below 1.0")),
    ("mask_ratio", 1, ("number", "at least 0.0", "below 1.0")),
    ("mask_ratio", -0.01, ("number", "at least 0.0", "below 1.0")),
    ("mask_ratio", "0.5", ("number", "at least 0.0", "below 1.0")),
    ("mask_ratio", float("nan"), ("number", "at least 0.0", "below 1.0")),
    ("mask_span", 0, ("integer", "at least 1")),
    ("random_until", -1, ("integer", "at least 0")),
    ("random_until", 1e4, ("integer", "at least 0")),
    ("random_anneal", -1, ("integer", "at least 0")),
    ("random_finish", 1.1, ("number", "at least 0.0", "at most 1.0")),
    ("credit", "mixd", ("local, mixed", "did you mean 'mixed'")),
    ("balance", "grad", ("fixed, gradient",)),
    ("rec_warmup", -1, ("integer", "at least 0")),
    ("rec_weights", "saliency", ("True or False",)),
    ("rec_targets", "teams", ("own, team, state, auto", "did you mean 'team'")),
    ("rec_latent", 1, ("True or False",)),
    ("use_inference", "yes", ("True or False",)),
    ("lambda_aug", -0.1, ("number", "at least 0.0")),
    ("keep_at_least", 0, ("integer", "at least 1")),
    ("keep_at_least", 1.5, ("integer", "at least 1")),
    ("lambda_rec", -0.1, ("number", "at least 0.0")),
    ("lambda_rec", None, ("number", "at least 0.0")),
    ("lambda_rec", True, ("number", "at least 0.0")),
    ("lambda_rec", float("nan"), ("number", "at least 0.0")),
    ("lambda_rec", float("inf"), ("number",)),
    ("rec_share", 0, ("number", "above 0.0", "at most 1.0")),
    ("rec_share", 1.1, ("number", "above 0.0", "at most 1.0")),
    ("rec_share", True, ("number",)),
    ("detach_trunk", 1, ("True or False",)),
    ("detach_trunk", "true", ("True or False",)),
    ("detach_trunk", None, ("True or False",)),
    ("decoder_dim", 0, ("integer", "at least 1")),
    ("decoder_dim", "64", ("integer", "at least 1")),
    ("decoder_lr", 0, ("number", "above 0")),
    ("decoder_lr", -1e-4, ("number", "above 0")),
    ("decoder_lr", float("nan"), ("number", "above 0")),
    ("decoder_lr", float("inf"), ("number",)),
    ("window", 0, ("integer", "at least 1")),
    ("window", 2.5, ("integer", "at least 1")),
    ("pretrain_episodes", 0, ("integer", "at least 1")),
    ("pretrain_updates", -1, ("integer", "at least 0")),
    ("finetune_calls", -1, ("integer", "at least 0")),
    ("finetune_calls", "always", ("integer", "at least 0")),
    ("joint", 1, ("True or False",)),
    ("td_lambda", 1.01, ("number", "at least 0.0", "at most 1.0")),
    ("td_lambda", -0.01, ("number", "at least 0.0", "at most 1.0")),
    ("td_lambda", False, ("number", "at least 0.0", "at most 1.0")),
    ("q_lambda", 0, ("True or False",)),
    ("q_lambda", "true", ("True or False",)),
    ("minibatches", 0, ("integer", "at least 1", "auto")),
    ("minibatches", 2.0, ("integer", "at least 1", "auto")),
    ("minibatches", True, ("integer", "at least 1", "auto")),
    ("minibatches", "all", ("integer", "at least 1", "auto")),
    ("minibatches", "4", ("integer", "at least 1", "auto")),
    ("compile", "auto", ("True or False",)),
]

# Key, value on the edge of what is allowed, and what is stored.
ACCEPTED: list[tuple[str, object, object]] = [
    *(("layout", name, name) for name in LAYOUTS),
    ("layout", {"entities": []}, {"entities": []}),
    ("group_width", 1, 1),
    ("trunk", "fc", "fc"),
    ("trunk", "entity", "entity"),
    ("autoencoder", "entity", "entity"),
    ("autoencoder", "belief", "belief"),
    *(("masker", name, name) for name in MASKERS),
    ("mask_ratio", 0.0, 0.0),
    ("mask_ratio", 0, 0.0),
    ("mask_ratio", 0.999, 0.999),
    ("mask_span", 1, 1),
    ("random_until", 0, 0),
    ("random_anneal", 0, 0),
    ("random_finish", 0, 0.0),
    ("random_finish", 1, 1.0),
    ("credit", "local", "local"),
    ("credit", "mixed", "mixed"),
    ("balance", "fixed", "fixed"),
    ("balance", "gradient", "gradient"),
    ("rec_warmup", 0, 0),
    ("rec_weights", True, True),
    ("rec_targets", "own", "own"),
    ("rec_targets", "team", "team"),
    ("rec_targets", "state", "state"),
    ("rec_targets", "auto", "auto"),
    ("rec_latent", True, True),
    ("use_inference", True, True),
    ("lambda_aug", 0, 0.0),
    ("lambda_aug", 2, 2.0),
    ("keep_at_least", 1, 1),
    ("lambda_rec", 0, 0.0),
    ("lambda_rec", 2, 2.0),
    ("rec_share", 1, 1.0),
    ("rec_share", 0.01, 0.01),
    ("detach_trunk", True, True),
    ("detach_trunk", False, False),
    ("decoder_dim", 1, 1),
    ("decoder_lr", 1e-9, 1e-9),
    ("decoder_lr", 1, 1.0),
    ("window", 1, 1),
    ("pretrain_episodes", 1, 1),
    ("pretrain_updates", 0, 0),
    ("finetune_calls", 0, 0),
    ("joint", True, True),
    ("q_lambda", True, True),
    ("td_lambda", 0, 0.0),
    ("td_lambda", 1, 1.0),
    ("minibatches", 1, 1),
    ("minibatches", "auto", "auto"),
    ("compile", True, True),
]


def refusal(block: object) -> str:
    """The message with which ``block`` is refused."""
    with pytest.raises(LimaskError) as caught:
        read_options(block)
    return str(caught.value)


# --- one option -----------------------------------------------------------------------


@pytest.mark.parametrize(("key", "value", "allowed"), REFUSED)
def test_refusal_names_key_value_and_what_is_allowed(
    key: str, value: object, allowed: tuple[str, ...]
) -> None:
    """A run that fails at start-up must say which line of the YAML to change, and to what."""
    message = refusal({key: value})
    assert f"lim.{key}={value!r}" in message
    for words in allowed:
        assert words in message
    assert "and or" not in message


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("decoder_dim", "64", "str"),
        ("detach_trunk", "true", "str"),
        ("detach_trunk", 1, "int"),
        ("mask_ratio", True, "bool"),
        ("group_width", 3.0, "float"),
        ("masker", None, "NoneType"),
    ],
)
def test_refusal_names_the_type_where_that_is_wrong(key: str, value: object, kind: str) -> None:
    """`'64'` and `64` look alike in a YAML."""
    assert f"({kind})" in refusal({key: value})


def test_refusal_does_not_guess_wildly() -> None:
    """A hint that is no near miss would only lead astray."""
    assert "did you mean" not in refusal({"masker": "xyzzy"})
    assert "did you mean" not in refusal({"xyzzy": 1})


@pytest.mark.parametrize(("key", "value", "stored"), ACCEPTED)
def test_edges_are_accepted(key: str, value: object, stored: object) -> None:
    """Bounds are inclusive or exclusive as documented; an int is a number, and is stored as a float."""
    read = getattr(read_options({key: value}), key)
    assert read == stored
    assert type(read) is type(stored)


def test_tables_cover_every_option() -> None:
    """A new option comes with a refused and an accepted value."""
    assert {key for key, *_ in REFUSED} == set(OPTIONS)
    assert {key for key, *_ in ACCEPTED} == set(OPTIONS)


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("maskr", "masker"),
        ("lambda_reg", "lambda_rec"),
        ("keep_atleast", "keep_at_least"),
        ("Trunk", "trunk"),
    ],
)
def test_unknown_key_names_the_nearest_and_all_known(key: str, nearest: str) -> None:
    """A misspelt key must not silently leave a default in force."""
    message = refusal({key: 1})
    assert f"lim.{key} " in message
    assert f"did you mean {nearest!r}?" in message
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
        LimConfig().masker = "none"  # type: ignore[misc]


def test_every_option_is_documented() -> None:
    """The dataclass's docstring is the reference of the options."""
    assert LimConfig.__doc__ is not None
    assert [name for name in OPTIONS if f"{name}: " not in LimConfig.__doc__] == []


# --- combinations ---------------------------------------------------------------------


def test_mask_without_autoencoder_is_refused() -> None:
    """Nothing would use the mask: the run would be a plain QMIX under another name."""
    message = refusal({"autoencoder": "none", "masker": "random", "lambda_rec": 0})
    assert "lim.masker='random'" in message
    assert "lim.autoencoder='none'" in message


def test_reconstruction_weight_without_autoencoder_is_refused() -> None:
    """There is nothing to reconstruct."""
    message = refusal({"autoencoder": "none", "masker": "none", "lambda_rec": 0.1})
    assert "lim.lambda_rec=0.1" in message
    assert "lim.autoencoder='none'" in message


@pytest.mark.parametrize(
    "block",
    [
        {"autoencoder": "none", "masker": "none", "lambda_rec": 0},
        {"autoencoder": "entity", "masker": "none", "lambda_rec": 0.1},
        {"autoencoder": "entity", "masker": "random", "lambda_rec": 0},
    ],
)
def test_control_arms_are_accepted(block: dict[str, Any]) -> None:
    """The plain learner, the plain autoencoder, and the masked one that only watches."""
    read_options(block)


TEAM: dict[str, Any] = {"autoencoder": "team", "trunk": "fc", "masker": "random_agent", "mask_ratio": 0}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"masker": "random"}, ("lim.masker='random'", "random_agent", "td_threshold")),
        ({"masker": "none"}, ("lim.masker='none'", "random_agent")),
        ({"masker": "td_threshold"}, ("lim.masker='td_threshold'", "lim.joint=False", "set lim.joint=True")),
        ({"trunk": "entity"}, ("lim.trunk='entity'", "set lim.trunk='fc'")),
        ({"mask_ratio": 0.5}, ("lim.mask_ratio=0.5", "set lim.mask_ratio=0.0")),
        ({"lambda_aug": 0.1}, ("lim.lambda_aug=0.1", "set lim.lambda_aug=0.0")),
        ({"balance": "gradient"}, ("lim.balance='gradient'", "set lim.balance='fixed'")),
        ({"detach_trunk": True}, ("lim.detach_trunk=True", "set lim.detach_trunk=False")),
    ],
)
def test_what_autoencoder_team_has_no_use_for_is_refused(
    options: dict[str, Any], words: tuple[str, ...]
) -> None:
    """An option that changes nothing must not look as if it did."""
    message = refusal(TEAM | options)
    assert "lim.autoencoder='team'" in message or "lim.joint=False" in message
    assert all(word in message for word in words)


@pytest.mark.parametrize("options", [{}, {"joint": True}, {"joint": True, "masker": "td_ema"}])
def test_autoencoder_team_is_accepted_on_any_layout(options: dict[str, Any]) -> None:
    """Its tokens are agents: no layout has to know teammates."""
    check_layout(read_options(TEAM | options), "flat", frozenset())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rec_targets": "team", "rec_weights": True}, ("lim.rec_weights=True", "lim.rec_targets='team'")),
        ({"rec_targets": "state", "rec_weights": True}, ("lim.rec_weights=True", "lim.rec_targets='state'")),
        ({"rec_latent": True, "trunk": "fc"}, ("lim.rec_latent=True", "lim.trunk='fc'")),
        ({"rec_latent": True, "use_inference": True}, ("lim.rec_latent=True", "lim.use_inference=True")),
        ({"use_inference": True, "lambda_rec": 0}, ("lim.use_inference=True", "lim.lambda_rec=0")),
        ({"autoencoder": "belief", "lambda_rec": 0}, ("lim.autoencoder='belief'", "lim.lambda_rec=0")),
        *(
            ({"autoencoder": "belief", key: value}, (f"lim.{key}={value!r}", "lim.autoencoder='belief'"))
            for key, value in {
                "lambda_aug": 0.5,
                "balance": "gradient",
                "detach_trunk": True,
                "rec_latent": True,
                "use_inference": True,
            }.items()
        ),
        *(
            (
                {"autoencoder": "none", "masker": "none", "lambda_rec": 0, key: value},
                (f"lim.{key}={value!r}", "lim.autoencoder='none'"),
            )
            for key, value in {"rec_targets": "team", "rec_latent": True, "use_inference": True}.items()
        ),
        *(
            (TEAM | {key: value}, (f"lim.{key}={value!r}", "lim.autoencoder='team'"))
            for key, value in {"rec_targets": "team", "rec_latent": True, "use_inference": True}.items()
        ),
    ],
)
def test_what_is_reconstructed_and_used_has_to_go_together(
    options: dict[str, Any], words: tuple[str, ...]
) -> None:
    """Each refusal names both options: one of them would do nothing, or act on what never learns."""
    message = refusal(options)
    assert all(word in message for word in words)


@pytest.mark.parametrize(
    ("options", "kinds", "remedy"),
    [
        ({"rec_targets": "team"}, frozenset({"ally", "enemy"}), "set lim.rec_targets='own'"),
        ({"rec_targets": "state"}, frozenset({"ally", "enemy"}), "the global state holds of units; set"),
        ({"autoencoder": "belief"}, frozenset(), "set lim.autoencoder='entity'"),
        ({"use_inference": True}, frozenset(), "set lim.use_inference=False"),
        ({"rec_latent": True}, frozenset(), "set lim.rec_latent=False"),
    ],
)
def test_layout_that_cannot_carry_targets_or_inferences_is_refused(
    options: dict[str, Any], kinds: frozenset[str], remedy: str
) -> None:
    """By its name, and with the way out."""
    config = read_options(options)
    with pytest.raises(LimaskError) as caught:
        check_layout(config, "lbf", kinds)
    (key, value) = next(iter(options.items()))
    assert f"lim.{key}={value!r} on layout 'lbf'" in str(caught.value)
    assert remedy in str(caught.value)
    check_layout(config, "smax", frozenset({"ally", "enemy"}), targets=frozenset({"own", "team", "state"}))


BOTH = frozenset({"ally", "enemy"})


def test_auto_is_a_belief_where_there_are_entities() -> None:
    auto = read_options({"autoencoder": "auto", "rec_targets": "auto"})
    assert [auto.on_layout(kinds).autoencoder for kinds in (BOTH, frozenset())] == ["belief", "entity"]
    check_layout(auto.on_layout(frozenset()), "flat", frozenset())
    plain = read_options({"autoencoder": "none", "masker": "none", "lambda_rec": 0})
    assert plain.on_layout(BOTH) is plain
    assert "lim.autoencoder='auto'" in refusal({"autoencoder": "auto", "lambda_rec": 0})
    assert "lim.autoencoder='auto'" in refusal({"autoencoder": "auto", "use_inference": True})


@pytest.mark.parametrize(
    ("options", "kinds", "remedy"),
    [
        ({"trunk": "fc", "masker": "random"}, frozenset(), "lim.trunk='entity'"),
        ({"trunk": "entity", "masker": "random_agent"}, frozenset(), "lim.masker='random'"),
        ({"trunk": "entity", "masker": "random_agent"}, frozenset({"enemy"}), "lim.masker='random'"),
        ({"trunk": "fc", "masker": "random_agent"}, frozenset({"enemy"}), "lim.masker='random'"),
    ],
)
def test_layout_that_cannot_carry_the_masker_is_refused(
    options: dict[str, Any], kinds: frozenset[str], remedy: str
) -> None:
    """The message names the masker, the layout and the way out."""
    with pytest.raises(LimaskError) as caught:
        check_layout(read_options(options), "lbf", kinds)
    assert f"lim.masker={options['masker']!r}" in str(caught.value)
    assert "'lbf'" in str(caught.value)
    assert remedy in str(caught.value)


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({"trunk": "fc", "masker": "none"}, frozenset()),
        ({"trunk": "entity", "masker": "random"}, frozenset()),
        ({"trunk": "fc", "masker": "random"}, BOTH),
        ({"trunk": "fc", "masker": "random_agent"}, BOTH),
        ({"trunk": "entity", "masker": "random_agent"}, frozenset({"ally"})),
    ],
)
def test_layout_that_can_carry_the_masker_is_accepted(options: dict[str, Any], kinds: frozenset[str]) -> None:
    """No more is refused than has to be."""
    check_layout(read_options(options), "some layout", kinds)


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
    assert sorted(algorithm["lim"]) == sorted(OPTIONS)
    config = read_options(algorithm["lim"])
    config.n_minibatches(algorithm["batch_size"])
    assert algorithm["name"] == file.stem


#: What autoencoder ``belief`` learns from, when it is let in, how wide it is, and how fast it learns.
OF_BELIEF = ("rec_targets", "rec_share", "rec_warmup", "decoder_dim", "decoder_lr")


def test_arms_differ_in_the_trunk_and_the_autoencoder_alone() -> None:
    """Otherwise a difference between their curves says nothing about masking."""
    arms = {name: yaml.safe_load((ALGS / f"{name}.yaml").read_text()) for name in ARMS}
    may_differ = {"trunk", "autoencoder", "masker", "mask_ratio", "lambda_rec", *OF_BELIEF}
    reference = arms["qmix_fc"]
    for name, arm in arms.items():
        assert arm.pop("name") == name
        differing = {key for key in arm["lim"] if arm["lim"][key] != reference["lim"][key]}
        assert differing <= may_differ
        assert arm | {"lim": None, "name": None} == reference | {"lim": None, "name": None}


def test_published_methods_differ_in_what_they_are_published_with() -> None:
    """Runner, replay, epsilon, targets, batch and updates are those of the other arms."""
    reference = yaml.safe_load((ALGS / "qmix_fc.yaml").read_text())
    arms = {
        name: yaml.safe_load((ALGS / f"{name}.yaml").read_text()) for name in ("qmix_ma2e", "qmix_li_ma2e")
    }
    method = {"autoencoder", "masker", "lambda_rec"}
    joint = {"joint", "random_until", "random_anneal", "random_finish"}
    for name, may_differ in (("qmix_ma2e", method), ("qmix_li_ma2e", method | joint)):
        arm = arms[name]
        assert {key for key in arm["lim"] if arm["lim"][key] != reference["lim"][key]} == may_differ
        above = {"name": name, "hidden_dim": 128, "rnn_hidden_dim": 128, "lim": None}
        assert arm | {"lim": None} == reference | above
    assert arms["qmix_ma2e"]["lim"]["masker"] == "random_agent"
    assert arms["qmix_li_ma2e"]["lim"]["masker"] == "td_threshold"


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
    differing = {key for key in block if block[key] != reference[key]}
    assert differing == {"trunk", "td_lambda"} | (set() if name == "qplex_lim" else {"minibatches"})
