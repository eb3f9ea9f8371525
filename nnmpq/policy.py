"""Policies: how many bits each site gets, as a file that people read and compare."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import yaml

from nnmpq.files import atomic_write, nearest
from nnmpq.graph.network import ACTIVATION, Network
from nnmpq.quantizers import QUANTIZERS

FORMAT = 1
HEADER = ("format", "network", "method", "seed", "budget", "cost", "sites")
ROLES = ("weight", "bias", "activation")
SITE_KEYS = ("role", "bits", "quantizer", "signed")
# A policy takes about 100 bytes a site.
LARGEST_FILE = 2**24


_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2


class PolicyError(ValueError):
    """A policy file that is not one, or that is another network's."""


def _whole_bits(instance: Any, attribute: Any, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 32:
        raise ValueError(f"bits = {_shown(value)}: a whole number from 1 to 32 is needed")


@attrs.frozen
class SitePolicy:
    """Bits of one site.

    Args:
        role: "weight", "bias" or "activation".
        bits: 1 to 32; 32 is float.
        quantizer: a key of `nnmpq.quantizers.QUANTIZERS`, or "float".
        signed: whether the grid reaches below zero.
    """

    role: str = attrs.field(validator=attrs.validators.in_(ROLES))
    bits: int = attrs.field(validator=_whole_bits)
    quantizer: str = attrs.field(validator=attrs.validators.in_((*QUANTIZERS, "float")))
    signed: bool = attrs.field(validator=attrs.validators.instance_of(bool))


def as_dict(items: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a mapping; `dict` itself, with a type that attrs' converters need."""
    return dict(items)


@attrs.frozen
class Policy:
    """Bits and quantizer of every site, and what they came from.

    Args:
        network: name of the network.
        method: what produced the bits.
        seed: its seed.
        budget: limits that it had to meet.
        cost: what it costs.
        sites: bits by site name.

    Example:
        >>> policy = Policy("tiny", "uniform", sites={"fc/W": SitePolicy("weight", 4, "uniform_b_xmax", True)})
        >>> Policy.from_yaml(policy.to_yaml()) == policy
        True
    """

    network: str = ""
    method: str = ""
    seed: int | None = None
    budget: Mapping[str, float] = attrs.field(factory=dict, converter=as_dict)
    cost: Mapping[str, float] = attrs.field(factory=dict, converter=as_dict)
    sites: Mapping[str, SitePolicy] = attrs.field(factory=dict, converter=as_dict)

    def bits(self) -> dict[str, int]:
        """Return the bits by site name."""
        return {name: site.bits for name, site in self.sites.items()}

    def to_yaml(self) -> str:
        """Return the policy as YAML, one site a line."""
        limits = {"seed": self.seed, "budget": dict(self.budget), "cost": dict(self.cost)}
        lines = [f"format: {FORMAT}\nnetwork: {_text(self.network)}\nmethod: {_text(self.method)}\n"]
        lines += [yaml.safe_dump(limits, sort_keys=False, allow_unicode=True), "sites:"]
        for name, site in self.sites.items():
            entry = yaml.safe_dump(attrs.asdict(site), default_flow_style=True, sort_keys=False, width=10**6)
            lines.append(f"\n  {_text(name)}: {entry.strip()}")
        if not self.sites:
            lines[-1] = "sites: {}"
        return "".join(lines) + "\n"

    def save(self, path: str | Path) -> None:
        """Write the policy; a reader never sees half of it."""
        atomic_write(path, self.to_yaml())

    @classmethod
    def load(cls, path: str | Path) -> Policy:
        """Read a policy file.

        Raises:
            PolicyError: it cannot be read, or is not a policy; it is refused whole.
        """
        try:
            if Path(path).stat().st_size > LARGEST_FILE:
                raise PolicyError(f"{path}: larger than {LARGEST_FILE} bytes: this is no policy")
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise PolicyError(f"{path}: cannot be read as a policy: {error}") from error
        return cls.from_yaml(text, str(path))

    @classmethod
    def from_yaml(cls, text: str, source: str = "policy") -> Policy:
        """Read a policy from YAML.

        Args:
            text: the YAML.
            source: name of the file, for messages.

        Raises:
            PolicyError: it is not a policy.
        """
        try:
            document = yaml.load(text, _UniqueKeys)  # noqa: S506 (a safe loader)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise PolicyError(f"{source}: not YAML: {error}") from error
        _keys(document, HEADER, source, "the file")
        if document["format"] != FORMAT or isinstance(document["format"], bool):
            raise PolicyError(f"{source}: format = {_shown(document['format'])}: this version reads format {FORMAT}")
        for key, kind in (("network", str), ("method", str), ("seed", (int, type(None)))):
            if not isinstance(document[key], kind) or isinstance(document[key], bool):
                raise PolicyError(f"{source}: {key} = {_shown(document[key])}: wrong type")
        for key in ("budget", "cost"):
            _numbers(document[key], source, key)
        if not isinstance(document["sites"], dict):
            raise PolicyError(f"{source}: sites: a mapping of site names is needed")
        sites = {name: _site(name, entry, source) for name, entry in document["sites"].items()}
        return cls(**{key: document[key] for key in HEADER[1:-1]}, sites=sites)

    def check(self, network: Network) -> None:
        """Compare the policy with a network.

        Raises:
            PolicyError: weights or biases of the network have no bits here, or sites here are not the network's.
        """
        names = [site.name for site in network.sites()]
        known = set(names)
        missing = [s.name for s in network.sites() if s.role != "activation" and s.name not in self.sites]
        surplus = [name for name in self.sites if name not in known]
        problems = [f"it has no bits for {name}{_near(name, surplus)}" for name in missing]
        problems += [f"it names {name}, the network's nearest is {nearest(name, names)}" for name in surplus]
        for site in network.sites():
            role = self.sites[site.name].role if site.name in self.sites else site.role
            if (role == ACTIVATION) != (site.role == ACTIVATION):
                problems.append(f"{site.name} is of the role {role} there, of the role {site.role} in the network")
        if problems:
            shown = "; ".join(problems[:8]) + ("" if len(problems) <= 8 else f"; and {len(problems) - 8} more")
            raise PolicyError(f"this policy ({self.network or 'of no name'}) is another network's: {shown}")


class _UniqueKeys(yaml.SafeLoader):
    """YAML's safe loader, which also refuses a key that stands twice."""


def _unique_mapping(loader: _UniqueKeys, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is no text", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def _shown(value: Any) -> str:
    """A value for a message: short, whatever a file holds."""
    return _SHORT.repr(value)


def _near(name: str, choices: list[str]) -> str:
    return f" (its nearest is {nearest(name, choices)})" if choices else ""


def _text(word: str) -> str:
    """A word on one line of YAML, in quotes only where it needs them, so that the file reads well."""
    bare = yaml.safe_dump(word, width=10**6, allow_unicode=True).split("\n")[0]
    # Only this style keeps every line break and control character.
    return word if bare == word else yaml.safe_dump(word, default_style='"', width=10**6).strip()


def _keys(found: Any, wanted: tuple[str, ...], source: str, where: str) -> None:
    if not isinstance(found, dict):
        raise PolicyError(f"{source}: {where}: a mapping is needed")
    for key in found:
        if key not in wanted:
            raise PolicyError(f"{source}: {where}: unknown key {_shown(key)}; the nearest is {nearest(key, wanted)!r}")
    for key in wanted:
        if key not in found:
            raise PolicyError(f"{source}: {where}: key {key!r} is missing")


def _numbers(found: Any, source: str, where: str) -> None:
    if not isinstance(found, dict):
        raise PolicyError(f"{source}: {where}: a mapping of numbers is needed")
    for key, value in found.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise PolicyError(f"{source}: {where}: {key} = {_shown(value)}: a number is needed")


def _site(name: str, entry: Any, source: str) -> SitePolicy:
    where = f"sites: {name}"
    _keys(entry, SITE_KEYS, source, where)
    if not isinstance(entry["role"], str) or entry["role"] not in ROLES:
        near = nearest(str(entry["role"]), ROLES)
        raise PolicyError(f"{source}: {where}: role = {_shown(entry['role'])}: the nearest is {near!r}")
    bits = entry["bits"]
    if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 32:
        raise PolicyError(f"{source}: {where}: bits = {_shown(bits)}: a whole number from 1 to 32 is needed")
    names = (*QUANTIZERS, "float")
    if not isinstance(entry["quantizer"], str) or entry["quantizer"] not in names:
        near = nearest(str(entry["quantizer"]), names)
        raise PolicyError(f"{source}: {where}: quantizer = {_shown(entry['quantizer'])}: the nearest is {near!r}")
    if not isinstance(entry["signed"], bool):
        raise PolicyError(f"{source}: {where}: signed = {_shown(entry['signed'])}: true or false is needed")
    return SitePolicy(**entry)
