"""The ``lim:`` block of an algorithm's YAML as frozen dataclasses: what each option is, in one place.

``make options`` writes the comments of the YAMLs in ``config/algs`` and ``docs/options.md`` from here.

Each option is checked here by itself. What cannot go together, or asks for what a masker, an autoencoder or a
layout cannot do, is refused in ``limask.autoencoder.options``, which knows their registries.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from limask.config.former import RENAMED
from limask.config.schema import Severity, fields, group, option, read, unknown_name
from limask.errors import LimaskError

LAYOUTS = ("auto", "smax", "smac", "smacv2", "smaclite", "lbf", "flat")
TRUNKS = ("fc", "entity")
#: The autoencoder that the layout chooses.
AUTO = "auto"
#: Episodes in one SGD step where ``minibatches: auto`` divides the sampled batch.
EPISODES_PER_STEP = 32


@dataclasses.dataclass(frozen=True)
class MaskerOptions:
    """What is hidden from the autoencoder's view."""

    name: str = option(
        "random",
        "what is hidden: none | random (tokens) | random_agent (teammates) | td_threshold, td_ema, "
        "td_variance, td_recent, td_observation (teammates, by TD error) | value_saliency, "
        "learning_progress, coordination, adversarial (tokens) | one of a checkout's own",
        is_registered=True,
    )
    ratio: Severity = option(
        0.5, "expected share of the visible entity tokens that is hidden, or a range [low, high] of which "
        "each episode draws its own", low=0.0, below=1.0, is_severity=True, used_by="maskers of tokens",
    )  # fmt: skip
    replay: float = option(
        0.0, "share of the sampled episodes that Q-learning, too, sees with the tokens hidden", low=0.0,
        high=1.0, used_by="entity, beliefs",
    )  # fmt: skip
    span: int = option(
        1, "how long a token stays hidden", unit="time steps", low=1, used_by="maskers of tokens"
    )
    keep_at_least: int = option(
        1, "visible tokens that stay in each observation where it has so many; the agent itself counts",
        unit="tokens", low=1, used_by="autoencoders of tokens",
    )  # fmt: skip
    random_until: int = option(
        20000, "how long random masks stand in for an informed masker", unit="environment steps", low=0,
        used_by="informed maskers",
    )  # fmt: skip
    random_anneal: int = option(
        20000, "over how long the share of random masks falls after that", unit="environment steps", low=0,
        used_by="informed maskers",
    )  # fmt: skip
    random_finish: float = option(
        0.25, "share of random masks that stays", low=0.0, high=1.0, used_by="informed maskers"
    )
    credit: str = option(
        "local",
        "whose TD error scores an agent: local (Q_i against r + γ max Q_i') | mixed (the team's, shared out "
        "by |∂Q_tot/∂Q_i|)",
        choices=("local", "mixed"),
        used_by="td_ maskers",
    )


@dataclasses.dataclass(frozen=True)
class AutoencoderOptions:
    """What is reconstructed, from what, and what it does to the agent."""

    name: str = option(
        AUTO,
        "auto (belief where the layout has entities, else entity) | none | entity (hidden tokens, from the "
        "agent's own hidden state) | belief (all tokens, from networks of its own; the agent acts on what it "
        "infers) | entity_belief (the same from each entity's last sighting, with weights shared by kind) | "
        "sightings (those sightings themselves: nothing is trained) | "
        "team (MA²E: teammates' observations, from the agent's own last steps)",
        is_registered=True,
    )
    width: int = option(
        32, "width of the decoder, or of all networks of a belief", unit="features", low=1,
        used_by="entity, beliefs",
    )  # fmt: skip
    lr: float = option(0.002, "learning rate of its own Adam (team: SGD)", above=0.0)
    weight: float = option(
        0.1,
        "λ_rec, weight of the reconstruction loss beside the TD loss; in beliefs and team, which no gradient "
        "of Q reaches, a factor of their own gradient",
        low=0.0,
    )
    balance: str = option(
        "fixed",
        "fixed (λ_rec times the loss) | gradient (the norm of its gradient on the agent is kept at λ_rec "
        "times that of the TD loss)",
        choices=("fixed", "gradient"),
        used_by="entity",
    )
    warmup: int = option(
        20000, "before that nothing the autoencoder learns or infers reaches the agent",
        unit="environment steps", low=0, used_by="entity, beliefs",
    )  # fmt: skip
    targets: str = option(
        "auto",
        "what is reconstructed: own (tokens that the agent was shown) | team (those that only teammates see, "
        "too) | state (all that the global state knows of, too) | auto (as much as the layout can tell)",
        choices=("own", "team", "state", "auto"),
        used_by="entity, beliefs",
    )
    share: float = option(
        0.125, "share of the sampled episodes that is reconstructed, at least one", above=0.0, high=1.0
    )
    latent: bool = option(
        False, "reconstruct the target network's embeddings of tokens, not their features", used_by="entity"
    )
    saliency_weights: bool = option(
        False, "tokens count in the loss by their saliency for Q_tot", used_by="entity, beliefs"
    )
    sightings: bool = option(
        False, "agents get each entity's last sighting beside what is decoded from it",
        used_by="entity_belief",
    )  # fmt: skip
    denoise: bool = option(
        False,
        "agents get inferences of the tokens that they see, too: what these are taken to be, by all that was "
        "shown so far",
        used_by="beliefs",
    )
    detach_trunk: bool = option(False, "the reconstruction trains the decoder only", used_by="entity")
    use_inference: bool = option(
        False, "the agent acts on what the decoder makes of tokens out of sight", used_by="entity"
    )


@dataclasses.dataclass(frozen=True)
class ViewOptions:
    """What Q-learning makes of the view with tokens hidden, in the episodes that are reconstructed."""

    weight: float = option(
        0.0, "λ_view, weight of a loss of the agent's values of the hidden view", low=0.0,
        used_by="entity, beliefs",
    )  # fmt: skip
    loss: str = option(
        "distillation",
        "which: distillation (towards the target network's values of the full view, in units of "
        "Q_tot) | td (the TD loss, towards the full view's targets)",
        choices=("distillation", "td"),
        used_by="entity, beliefs",
    )


@dataclasses.dataclass(frozen=True)
class FaultOptions:
    """Faults of the agents' sensors in training; tests have none. Of several kinds each episode draws one."""

    collect: bool = option(False, "in the episodes that are played: agents act on them, and learn from them")
    replay: float = option(
        0.0, "share of the sampled episodes in which they are drawn anew, before anything is learned; the "
        "reconstruction keeps the truth",
        low=0.0, high=1.0, used_by="none, entity, beliefs",
    )  # fmt: skip
    dropout: Severity = option(0.0, "p: each sighting is lost at each step", is_severity=True)
    burst: Severity = option(0.0, "p: a sighting goes out for 5 steps, with p / 5 a step", is_severity=True)
    nearest: Severity = option(
        0, "how many of the nearest enemies in sight are never seen", unit="enemies", is_severity=True
    )
    blind: Severity = option(0, "how many see nobody else all episode", unit="agents", is_severity=True)
    stale: Severity = option(0, "how old sightings are", unit="time steps", is_severity=True)
    noise: Severity = option(0.0, "σ of Gaussian noise on what is shown", is_severity=True)
    flipped: Severity = option(0.0, "φ: an agent's whole observation is negated at a step", is_severity=True)
    sight: Severity = option(0.0, "lost share of the sight range", is_severity=True)

    def severities(self) -> dict[str, Any]:
        """Severity by kind, of those that are not 0."""
        own = {
            name: getattr(self, name) for name, field in fields(type(self)) if "is_severity" in field.metadata
        }
        return {name: given for name, given in own.items() if given != 0}


@dataclasses.dataclass(frozen=True)
class TeamOptions:
    """Autoencoder ``team`` (MA²E), and when it learns."""

    window: int = option(
        5, "last steps that it sees, with the present one", unit="time steps", low=1, used_by="team"
    )
    pretrain_episodes: int = option(
        104, "played before anything is learned; it is pretrained on as many at most", unit="episodes", low=1,
        used_by="team",
    )  # fmt: skip
    pretrain_updates: int = option(
        260, "its pretraining, before Q-learning starts; 0 is none", unit="SGD steps", low=0, used_by="team"
    )
    finetune_calls: int = option(
        300, "after that, one on the latest episodes for each sampled batch; then it is frozen",
        unit="SGD steps", low=0, used_by="team",
    )  # fmt: skip
    joint: bool = option(
        False, "instead, one beside every update of Q, with the masker's agents hidden and only these scored",
        used_by="team",
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class TargetOptions:
    """Targets of the TD loss."""

    td_lambda: float = option(0.6, "λ of the TD(λ) targets; 0 is the one-step target", low=0.0, high=1.0)
    q_lambda: bool = option(False, "PyMARL2's Q(λ) targets, corrected at every step for the action taken")


@dataclasses.dataclass(frozen=True)
class LimConfig:
    """What limask adds to a host's run."""

    layout: str | Mapping[str, Any] = option(
        "auto", "which features are which entity; auto takes it from the environment",
        choices=LAYOUTS, block="{entities: [{kind: ally, count: 2, width: 5}, …]}",
    )  # fmt: skip
    group_width: int = option(
        3, "size of a token where the layout is flat", unit="features", low=1, used_by="flat"
    )
    trunk: str = option(
        "entity", "fc (the host's RNN agent) | entity (invariant pooling, equivariant attack values)",
        choices=TRUNKS,
    )  # fmt: skip
    masker: MaskerOptions = group(MaskerOptions)
    autoencoder: AutoencoderOptions = group(AutoencoderOptions)
    view: ViewOptions = group(ViewOptions)
    faults: FaultOptions = group(FaultOptions)
    team: TeamOptions = group(TeamOptions)
    targets: TargetOptions = group(TargetOptions)
    minibatches: int | Literal["auto"] = option(
        "auto", "made of one sampled batch; auto is one for every 32 episodes",
        unit="SGD steps", low=1, choices=("auto",),
    )  # fmt: skip
    compact_replay: bool = option(
        True, "keep the replay buffer, where it is on the CPU, without padding and zeros: the same episodes, "
        "to the last bit, in a fraction of the memory",
    )  # fmt: skip
    start_from: str = option(
        "", "checkpoint of another run, as in …/models/150000, or the name of agents that limask brings, as "
        "qmix_lim_robust/3m: this run begins with them; with trunk entity their team may have another size",
        is_path=True,
    )  # fmt: skip
    compile: bool = option(
        False, "compile the acting step at its first use (CPU; needs a C++ compiler, takes 10 to 30 s)"
    )

    @classmethod
    def from_block(cls, block: object) -> LimConfig:
        """Read a ``lim:`` block.

        Raises:
            LimaskError: the block or a group is no mapping, a key is unknown or an old spelling, or a value
                has the wrong type or is out of range; the message names the key, the value, what is allowed
                and the nearest valid name.
        """
        if not isinstance(block, Mapping):
            raise LimaskError(
                f"lim={block!r}: expected a block of options, as in limask's config/algs/qmix_lim.yaml"
            )
        return read(cls, block, RENAMED)

    @classmethod
    def check_name(cls, name: str) -> None:
        """Refuse a dotted name, as ``masker.rato``, that is neither an option's nor a group's.

        Raises:
            LimaskError: names the option that had that name before, or else the nearest.
        """
        for known, field in fields(cls):
            inside = "block" in field.metadata and name.startswith(f"{known}.")
            if name == known or known.startswith(f"{name}.") or inside:
                return
        raise unknown_name(cls, name, RENAMED)

    def value(self, name: str) -> object:
        """The option of that dotted name, as ``masker.ratio``."""
        found: object = self
        for part in name.split("."):
            found = getattr(found, part)
        return found

    def check_unused(self, values: Mapping[str, object], why: str, remedy: str = "") -> None:
        """Refuse options that the autoencoder has no use for, but for the one value of each.

        Args:
            values: by dotted name.
            why: there is no use for them.
            remedy: another way out than that value.

        Raises:
            LimaskError: names the option and what to set instead.
        """
        for name, value in values.items():
            if (given := self.value(name)) != value:
                raise LimaskError(
                    f"lim.{name}={given!r} with lim.autoencoder.name={self.autoencoder.name!r}, {why}; set "
                    f"lim.{name}={value!r}{remedy}"
                )

    def on_layout(self, kinds: frozenset[str]) -> LimConfig:
        """The config with ``autoencoder.name: auto`` decided for a layout with these kinds of entities."""
        if self.autoencoder.name != AUTO:
            return self
        name = "belief" if kinds else "entity"
        return dataclasses.replace(self, autoencoder=dataclasses.replace(self.autoencoder, name=name))

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
