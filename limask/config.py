"""The ``lim:`` block of an algorithm's YAML as one frozen dataclass.

Each option is checked here by itself. What cannot go together, or asks for what a masker, an autoencoder or a
layout cannot do, is refused in ``limask.autoencoder.options``, which knows their registries.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from limask.errors import LimaskError, nearest

LAYOUTS = ("auto", "smax", "smac", "smacv2", "smaclite", "lbf", "flat")
TRUNKS = ("fc", "entity")
#: The autoencoder that the layout chooses.
AUTO = "auto"
#: Episodes in one SGD step where ``minibatches: auto`` divides the sampled batch.
EPISODES_PER_STEP = 32


def option(default: Any, **allowed: Any) -> Any:
    """A field of a dataclass of options: ``choices``, or bounds ``low``, ``above``, ``high``, ``below``;
    ``block`` says what a block of options looks like where one may stand here, ``is_registered`` that a
    registry has the choices, which ``limask.autoencoder.options`` knows."""
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
            the agent's own last steps, when acting too, ``belief`` all tokens from a state of its own, and
            the agent acts on those that it does not see; ``auto`` is ``belief`` where the layout has entities
            and ``entity`` elsewhere.
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
        lambda_rec: weight of the reconstruction loss beside the TD loss; in autoencoders ``team`` and
            ``belief``, which no gradient of Q reaches, a factor of their own gradient.
        balance: ``fixed`` (λ_rec times the loss) or ``gradient`` (the reconstruction's gradient on the agent
            is kept at λ_rec times the TD loss's).
        rec_warmup: environment steps before which the autoencoder learns alone: no gradient of the
            reconstruction loss and nothing that is inferred reaches the agent.
        rec_weights: whether a token counts in the reconstruction loss by its saliency for Q_tot.
        rec_targets: what is reconstructed: ``own`` (tokens that the environment showed the agent), ``team``
            (also, put as the agent would see them, those that only its teammates see), ``state`` (also all
            others that the global state knows of) or ``auto`` (as much as the layout knows how to tell).
        rec_latent: whether the target network's embeddings of tokens are reconstructed instead of their
            features.
        use_inference: whether the decoder of autoencoder ``entity`` takes part in acting, with what it makes
            of the tokens that are not visible.
        lambda_aug: weight of the TD loss of the hidden view.
        rec_share: share of the sampled episodes that the reconstruction loss is computed on, at least one.
        detach_trunk: whether the reconstruction loss trains the decoder only.
        decoder_dim: hidden width of the decoder, or of all networks of autoencoder ``belief``.
        decoder_lr: learning rate of the Adam of the decoder, or of all of autoencoder ``belief``, or of the
            SGD of autoencoder ``team``.
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
        compile: whether the agent's acting step is compiled at its first use, on the CPU and with a C++
            compiler: its actions may then differ by rounding.
    """

    layout: str | Mapping[str, Any] = option("auto", choices=LAYOUTS, block="{entities: […]}")
    group_width: int = option(3, low=1)
    trunk: str = option("entity", choices=TRUNKS)
    autoencoder: str = option("entity", is_registered=True)
    masker: str = option("random", is_registered=True)
    mask_ratio: float = option(0.5, low=0.0, below=1.0)
    mask_span: int = option(1, low=1)
    random_until: int = option(20000, low=0)
    random_anneal: int = option(20000, low=0)
    random_finish: float = option(0.25, low=0.0, high=1.0)
    credit: str = option("local", choices=("local", "mixed"))
    keep_at_least: int = option(1, low=1)
    lambda_rec: float = option(0.1, low=0.0)
    balance: str = option("fixed", choices=("fixed", "gradient"))
    rec_warmup: int = option(0, low=0)
    rec_weights: bool = option(False)
    rec_targets: str = option("own", choices=("own", "team", "state", "auto"))
    rec_latent: bool = option(False)
    use_inference: bool = option(False)
    lambda_aug: float = option(0.0, low=0.0)
    rec_share: float = option(0.25, above=0.0, high=1.0)
    detach_trunk: bool = option(False)
    decoder_dim: int = option(64, low=1)
    decoder_lr: float = option(5e-4, above=0.0)
    window: int = option(5, low=1)
    pretrain_episodes: int = option(104, low=1)
    pretrain_updates: int = option(260, low=0)
    finetune_calls: int = option(300, low=0)
    joint: bool = option(False)
    td_lambda: float = option(0.0, low=0.0, high=1.0)
    q_lambda: bool = option(False)
    minibatches: int | Literal["auto"] = option("auto", low=1, choices=("auto",))
    compile: bool = option(False)

    @classmethod
    def from_block(cls, block: object) -> LimConfig:
        """Read a ``lim:`` block.

        Raises:
            LimaskError: the block is no mapping, a key is unknown, or a value has the wrong type or is out
                of range; the message names the key, the value, what is allowed and the nearest valid name.
        """
        if not isinstance(block, Mapping):
            raise LimaskError(
                f"lim={block!r}: expected a block of options, as in limask's config/algs/qmix_lim.yaml"
            )
        fields = {field.name: field for field in dataclasses.fields(cls)}
        for key in block:
            if key not in fields:
                raise LimaskError(
                    f"lim.{key} is no option{nearest(key, fields)} (known: {', '.join(fields)})"
                )
        values = {key: checked(fields[key], value) for key, value in block.items()}
        return cls(**values)

    def check_unused(self, values: Mapping[str, object], why: str, remedy: str = "") -> None:
        """Refuse options that the autoencoder has no use for, but for the one value of each.

        Raises:
            LimaskError: names the option and what to set instead.
        """
        for name, value in values.items():
            if (given := getattr(self, name)) != value:
                raise LimaskError(
                    f"lim.{name}={given!r} with lim.autoencoder={self.autoencoder!r}, {why}; set "
                    f"lim.{name}={value!r}{remedy}"
                )

    def on_layout(self, kinds: frozenset[str]) -> LimConfig:
        """The config with ``autoencoder: auto`` decided for a layout with these kinds of entities."""
        if self.autoencoder != AUTO:
            return self
        return dataclasses.replace(self, autoencoder="belief" if kinds else "entity")

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


def checked(field: dataclasses.Field[Any], value: Any) -> Any:
    """``value`` in the type of an option's field.

    Raises:
        LimaskError: the value is not allowed; the message names the key and what is.
    """
    allowed = field.metadata
    choices = allowed.get("choices", ())
    types = _TYPES[str(field.type).split(" ")[0]]
    if allowed.get("is_registered") or (isinstance(value, str) and value in choices):
        return value
    if "block" in allowed and isinstance(value, Mapping):
        return value
    is_number = isinstance(value, (int, float)) and isinstance(value, types) and not isinstance(value, bool)
    is_number = is_number and math.isfinite(value)
    is_right = is_number and _is_inside(value, allowed) if bool not in types else isinstance(value, bool)
    if not is_right:
        raise not_allowed(field.name, value, _expected(types, allowed), choices)
    return float(value) if float in types else value


def not_allowed(name: str, value: object, expected: str, choices: Iterable[str] = ()) -> LimaskError:
    """That ``value`` is not allowed for an option, with what is and the nearest of the ``choices``."""
    close = nearest(value, choices) if isinstance(value, str) else ""
    return LimaskError(f"lim.{name}={value!r} ({type(value).__name__}): expected {expected}{close}")


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
