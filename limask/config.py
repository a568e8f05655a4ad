"""The ``lim:`` block of an algorithm's YAML as one frozen dataclass.

Names of layouts, trunks, maskers and autoencoders are repeated here (and tested against the registries)
so that a mistake is found before an environment exists.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from typing import Any, Literal

from limask.errors import LimaskError

LAYOUTS = ("auto", "smax", "smac", "smacv2", "smaclite", "lbf", "flat")
TRUNKS = ("fc", "entity")
AUTOENCODERS = ("none", "entity", "team")
MASKERS = (
    "none", "random", "random_agent", "td_threshold", "td_ema", "td_variance", "td_recent", "td_observation",
    "value_saliency", "learning_progress", "coordination", "adversarial",
)  # fmt: skip
#: Maskers that hide whole agents.
AGENT_MASKERS = ("random_agent", "td_threshold", "td_ema", "td_variance", "td_recent", "td_observation")

#: The one value of options that autoencoder ``team`` has no use for.
_UNUSED_BY_TEAM = {
    "trunk": "fc", "mask_ratio": 0.0, "mask_span": 1, "keep_at_least": 1, "balance": "fixed", "rec_warmup": 0,
    "rec_weights": False, "lambda_aug": 0.0, "detach_trunk": False, "decoder_dim": 64,
}  # fmt: skip

#: Episodes in one SGD step where ``minibatches: auto`` divides the sampled batch.
EPISODES_PER_STEP = 32


def _option(default: Any, **allowed: Any) -> Any:
    return dataclasses.field(default=default, metadata=allowed)


@dataclasses.dataclass(frozen=True)
class LimConfig:
    """What limask adds to a host's run.

    Attributes:
        layout: which slice of an observation is which entity; ``auto`` takes it from the environment, and a
            block ``{entities: [{kind, count, width, first_action}, …]}`` declares it.
        group_width: features per token where the layout is ``flat``.
        trunk: ``fc`` (the host's RNN agent) or ``entity`` (invariant pooling, equivariant attack head).
        autoencoder: what is reconstructed and from what; ``none`` is the plain Q-learner, ``entity``
            reconstructs hidden tokens from the agent's hidden state, ``team`` teammates' observations from
            the agent's own last steps, when acting too.
        masker: which tokens are hidden from the autoencoder's view.
        mask_ratio: expected share of the visible tokens that may be hidden at all.
        mask_span: time steps that a token stays hidden for, where single tokens are hidden.
        random_until: environment steps before which an informed masker is replaced by random masks.
        random_anneal: environment steps after that over which the share of random masks falls.
        random_finish: share of random masks that stays.
        credit: whose TD error scores an agent: ``local`` (Q_i against r + γ max Q_i') or ``mixed``
            (the team's, shared out by abs(∂Q_tot/∂Q_i)).
        keep_at_least: visible tokens that stay visible in each agent's observation, where it has so many; the
            agent's own features count.
        lambda_rec: weight of the reconstruction loss beside the TD loss; in autoencoder ``team``, which no
            gradient of Q reaches, a factor of its own gradient.
        balance: ``fixed`` (λ_rec times the loss) or ``gradient`` (the reconstruction's gradient on the agent
            is kept at λ_rec times the TD loss's).
        rec_warmup: environment steps before which the reconstruction loss trains the decoder only.
        rec_weights: whether a token counts in the reconstruction loss by its saliency for Q_tot.
        lambda_aug: weight of the TD loss of the hidden view.
        rec_share: share of the sampled episodes that the reconstruction loss is computed on, at least one.
        detach_trunk: whether the reconstruction loss trains the decoder only.
        decoder_dim: hidden width of the decoder.
        decoder_lr: learning rate of the decoder's own Adam, or of the SGD of autoencoder ``team``.
        window: last time steps that autoencoder ``team`` sees, the present one included.
        pretrain_episodes: episodes of the run before which nothing is learned, and the largest number of them
            that autoencoder ``team`` is pretrained on; the host's first sample may come later.
        pretrain_updates: SGD steps of the pretraining, with random agents hidden; 0 is none.
        finetune_calls: batches sampled by the host after that, with each of which autoencoder ``team`` makes
            one SGD step on the latest episodes; then it stays as it is.
        joint: instead, whether autoencoder ``team`` goes on learning beside every update of Q, on the share
            ``rec_share`` of its episodes, with the masker's agents hidden and only these scored.
        td_lambda: λ of the TD(λ) targets; 0 is the one-step target.
        q_lambda: whether each step's reward is corrected by how far the best action's value lies above that
            of the action taken: PyMARL2's Q(λ) targets.
        minibatches: SGD steps made of one sampled batch; ``auto`` is one for every 32 episodes.
    """

    layout: str | Mapping[str, Any] = _option("auto", choices=LAYOUTS, block="{entities: […]}")
    group_width: int = _option(3, low=1)
    trunk: str = _option("entity", choices=TRUNKS)
    autoencoder: str = _option("entity", choices=AUTOENCODERS)
    masker: str = _option("random", choices=MASKERS)
    mask_ratio: float = _option(0.5, low=0.0, below=1.0)
    mask_span: int = _option(1, low=1)
    random_until: int = _option(20000, low=0)
    random_anneal: int = _option(20000, low=0)
    random_finish: float = _option(0.25, low=0.0, high=1.0)
    credit: str = _option("local", choices=("local", "mixed"))
    keep_at_least: int = _option(1, low=1)
    lambda_rec: float = _option(0.1, low=0.0)
    balance: str = _option("fixed", choices=("fixed", "gradient"))
    rec_warmup: int = _option(0, low=0)
    rec_weights: bool = _option(False)
    lambda_aug: float = _option(0.0, low=0.0)
    rec_share: float = _option(0.25, above=0.0, high=1.0)
    detach_trunk: bool = _option(False)
    decoder_dim: int = _option(64, low=1)
    decoder_lr: float = _option(5e-4, above=0.0)
    window: int = _option(5, low=1)
    pretrain_episodes: int = _option(104, low=1)
    pretrain_updates: int = _option(260, low=0)
    finetune_calls: int = _option(300, low=0)
    joint: bool = _option(False)
    td_lambda: float = _option(0.0, low=0.0, high=1.0)
    q_lambda: bool = _option(False)
    minibatches: int | Literal["auto"] = _option("auto", low=1, choices=("auto",))

    @classmethod
    def from_block(cls, block: object) -> LimConfig:
        """Read a ``lim:`` block.

        Raises:
            LimaskError: the block is no mapping, a key is unknown, a value has the wrong type or is out
                of range, or two values cannot go together; the message names the key, the value, what is
                allowed and the nearest valid name.
        """
        if not isinstance(block, Mapping):
            raise LimaskError(
                f"lim={block!r}: expected a block of options, as in limask's config/algs/qmix_lim.yaml"
            )
        fields = {field.name: field for field in dataclasses.fields(cls)}
        for key in block:
            if key not in fields:
                raise LimaskError(
                    f"lim.{key} is no option{_nearest(key, fields)} (known: {', '.join(fields)})"
                )
        values = {key: _checked(fields[key], value) for key, value in block.items()}
        config = cls(**values)
        config._check_combinations()
        return config

    def _check_combinations(self) -> None:
        if self.autoencoder == "none" and self.masker != "none":
            raise LimaskError(
                f"lim.masker={self.masker!r} with lim.autoencoder='none': nothing would use the mask; "
                "set lim.masker='none' or lim.autoencoder='entity'"
            )
        if self.autoencoder == "team":
            self._check_team()
        for name in ("lambda_rec", "lambda_aug"):
            if self.autoencoder == "none" and (value := getattr(self, name)) > 0:
                raise LimaskError(
                    f"lim.{name}={value} with lim.autoencoder='none': there is nothing to "
                    f"reconstruct; set lim.{name}=0 or lim.autoencoder='entity'"
                )

    def _check_team(self) -> None:
        if self.masker not in AGENT_MASKERS:
            raise LimaskError(
                f"lim.masker={self.masker!r} with lim.autoencoder='team', which hides whole agents: expected "
                f"one of {', '.join(AGENT_MASKERS)}"
            )
        if self.masker != "random_agent" and not self.joint:
            raise LimaskError(
                f"lim.masker={self.masker!r} with lim.joint=False: it reads the TD errors of the update that "
                "the autoencoder learns beside; set lim.joint=True or lim.masker='random_agent'"
            )
        for name, value in _UNUSED_BY_TEAM.items():
            if (given := getattr(self, name)) != value:
                raise LimaskError(
                    f"lim.{name}={given!r} with lim.autoencoder='team', which has no use for it; set "
                    f"lim.{name}={value!r}"
                )

    def check_layout(self, name: str, kinds: frozenset[str]) -> None:
        """Refuse what a layout cannot carry; ``kinds`` are the kinds of entity that it knows.

        Raises:
            LimaskError: names both options and what to choose instead.
        """
        if self.autoencoder == "team":
            return  # its tokens are agents, on any layout
        if self.masker != "none" and self.trunk == "fc" and not kinds:
            raise LimaskError(
                f"lim.masker={self.masker!r} with lim.trunk='fc' on layout {name!r}, which has no entities "
                "to hide; set lim.trunk='entity' (feature groups become tokens) or lim.masker='none'"
            )
        if self.masker in (*AGENT_MASKERS, "coordination") and "ally" not in kinds:
            raise LimaskError(
                f"lim.masker={self.masker!r} on layout {name!r}, which does not say which features show a "
                "teammate; set lim.masker='random'"
            )

    def n_minibatches(self, batch_size: int) -> int:
        """SGD steps for a sampled batch of ``batch_size`` episodes.

        Raises:
            LimaskError: the batch cannot be divided into so many.
        """
        steps = max(1, batch_size // EPISODES_PER_STEP) if self.minibatches == "auto" else self.minibatches
        if steps > batch_size:
            raise LimaskError(
                f"lim.minibatches={steps} with batch_size={batch_size}: expected at most one SGD step per "
                "sampled episode; lower lim.minibatches or raise batch_size"
            )
        return steps


def _nearest(name: object, known: Any) -> str:
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _checked(field: dataclasses.Field[Any], value: Any) -> Any:
    """``value`` in the field's type, or an error naming the key and what is allowed."""
    allowed = field.metadata
    choices = allowed.get("choices", ())
    types = _TYPES[str(field.type).split(" ")[0]]
    if isinstance(value, str) and value in choices:
        return value
    if "block" in allowed and isinstance(value, Mapping):
        return value
    is_number = isinstance(value, (int, float)) and isinstance(value, types) and not isinstance(value, bool)
    is_number = is_number and math.isfinite(value)
    is_right = is_number and _is_inside(value, allowed) if bool not in types else isinstance(value, bool)
    if not is_right:
        raise LimaskError(
            f"lim.{field.name}={value!r} ({type(value).__name__}): expected {_expected(types, allowed)}"
            f"{_nearest(value, choices) if isinstance(value, str) else ''}"
        )
    return float(value) if float in types else value


#: Annotation of a field → what a YAML value may be.
_TYPES: dict[str, tuple[type, ...]] = {"str": (), "bool": (bool,), "int": (int,), "float": (float, int)}

_BOUNDS = {"low": "at least", "above": "above", "high": "at most", "below": "below"}


def _is_inside(value: float, allowed: Mapping[str, Any]) -> bool:
    return (
        value >= allowed.get("low", value)
        and value <= allowed.get("high", value)
        and ("above" not in allowed or value > allowed["above"])
        and ("below" not in allowed or value < allowed["below"])
    )


def _expected(types: tuple[type, ...], allowed: Mapping[str, Any]) -> str:
    choices = ", ".join(allowed.get("choices", ()))
    if not types:
        return f"one of {choices}" + (f" or a block {allowed['block']}" if "block" in allowed else "")
    if bool in types:
        return "True or False"
    number = "a number such as 0.0005" if float in types else "an integer"
    bounds = " and ".join(f"{word} {allowed[key]}" for key, word in _BOUNDS.items() if key in allowed)
    return f"{number} {bounds}" + (f" or {choices}" if choices else "")
