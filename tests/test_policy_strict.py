"""Policies as files: round trips of any text, hostile and damaged files, the roles of sites."""

from __future__ import annotations

from pathlib import Path

import attrs
import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nnmpq.cost import TARGETS
from nnmpq.graph.trace import trace
from nnmpq.policy import LARGEST_FILE, ROLES, Policy, PolicyError, SitePolicy
from nnmpq.quantizers import QUANTIZERS

TEXT = """format: 1
network: resnet
method: learned
seed: 313
budget: {weights_kib: 70.1}
cost: {weights_kib: 69.5, mean_bits: 2.4}
sites:
  conv1/conv/W: {role: weight, bits: 4, quantizer: uniform_delta_xmax, signed: true}
  conv1/conv/relu: {role: activation, bits: 3, quantizer: pow2_b_xmax, signed: false}
"""
EXPECTED = Policy(
    "resnet",
    "learned",
    313,
    {"weights_kib": 70.1},
    {"weights_kib": 69.5, "mean_bits": 2.4},
    {
        "conv1/conv/W": SitePolicy("weight", 4, "uniform_delta_xmax", True),
        "conv1/conv/relu": SitePolicy("activation", 3, "pow2_b_xmax", False),
    },
)

sites = st.builds(
    SitePolicy, st.sampled_from(ROLES), st.integers(1, 32), st.sampled_from([*QUANTIZERS, "float"]), st.booleans()
)
numbers = st.dictionaries(st.sampled_from(sorted(TARGETS)), st.floats(allow_nan=False, allow_infinity=False))
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
policies = st.builds(
    Policy, words, words, st.none() | st.integers(), numbers, numbers, st.dictionaries(words, sites, max_size=5)
)


@settings(max_examples=150, deadline=None)
@given(policies)
def test_round_trip(policy):
    assert Policy.from_yaml(policy.to_yaml()) == policy
    assert list(Policy.from_yaml(policy.to_yaml()).sites) == list(policy.sites)


def test_reads_what_a_person_writes():
    assert Policy.from_yaml(TEXT) == EXPECTED
    assert EXPECTED.bits() == {"conv1/conv/W": 4, "conv1/conv/relu": 3}


def test_one_site_a_line_and_plain_names():
    lines = EXPECTED.to_yaml().splitlines()
    assert lines[-2:] == TEXT.splitlines()[-2:]
    other = attrs.evolve(EXPECTED, sites={**EXPECTED.sites, "fc/W": SitePolicy("weight", 8, "dorefa", True)})
    assert len(set(other.to_yaml().splitlines()) ^ set(lines)) == 1
    assert yaml.safe_load(EXPECTED.to_yaml())["sites"]["conv1/conv/W"]["bits"] == 4


def test_save_and_load(tmp_path: Path):
    policy = attrs.evolve(EXPECTED, network="größe")
    policy.save(tmp_path / "folder" / "policy.yaml")
    assert Policy.load(tmp_path / "folder" / "policy.yaml") == policy
    assert "größe".encode() in (tmp_path / "folder" / "policy.yaml").read_bytes()


W = "conv1/conv/W: {role: weight, bits: 4, quantizer: uniform_delta_xmax, signed: true}"
REFUSED = {
    "unknown key": ("method:", "metod:", "'metod'; the nearest is 'method'"),
    "missing key": ("seed: 313\n", "", "key 'seed' is missing"),
    "other format": ("format: 1", "format: 2", "format = 2"),
    "format of wrong type": ("format: 1", "format: true", "format = True"),
    "name of wrong type": ("network: resnet", "network: [1]", "network = [1]"),
    "seed of wrong type": ("seed: 313", "seed: 3.5", "seed = 3.5"),
    "seed a truth": ("seed: 313", "seed: true", "seed = True"),
    "limit of wrong type": ("70.1", "'70.1'", "budget: weights_kib = '70.1'"),
    "limit no number": ("70.1", ".nan", "budget: weights_kib = nan"),
    "budget no mapping": ("{weights_kib: 70.1}", "70.1", "budget: a mapping"),
    "sites no mapping": (TEXT[TEXT.index("sites:") :], "sites: [1, 2]\n", "sites: a mapping"),
    "site no mapping": ("{role: weight, bits: 4, quantizer: uniform_delta_xmax, signed: true}", "4", "conv1/conv/W"),
    "unknown site key": ("bits: 4", "bit: 4", "'bit'; the nearest is 'bits'"),
    "missing site key": (", signed: true", "", "conv1/conv/W: key 'signed' is missing"),
    "no bits": ("bits: 4", "bits: 0", "conv1/conv/W: bits = 0"),
    "33 bits": ("bits: 4", "bits: 33", "bits = 33"),
    "half bits": ("bits: 4", "bits: 4.0", "bits = 4.0"),
    "bits a truth": ("bits: 4", "bits: true", "bits = True"),
    "unknown quantizer": ("uniform_delta_xmax", "uniform_dleta_xmax", "the nearest is 'uniform_delta_xmax'"),
    "quantizer of wrong type": ("uniform_delta_xmax", "[a]", "quantizer = ['a']"),
    "unknown role": ("role: weight", "role: wieght", "the nearest is 'weight'"),
    "role of wrong type": ("role: weight", "role: {}", "role = {}"),
    "signed of wrong type": ("signed: true", "signed: 1", "signed = 1"),
    "site twice": (W, W + "\n  " + W, "'conv1/conv/W' stands twice"),
    "key twice": ("seed: 313", "seed: 313\nseed: 314", "'seed' stands twice"),
    "name no text": ("conv1/conv/W:", "12:", "key 12 is no text"),
    "python object": ("network: resnet", "network: !!python/object/apply:os.getcwd []", "not YAML"),
    "impossible date": ("network: resnet", "network: 2001-99-99", "not YAML"),
    "not closed": ("signed: true}", "signed: true", "not YAML"),
    "deep nest": ("resnet", "[" * 5000, "not YAML"),
    "merged keys": ("method: learned", "<<: {method: learned}", "not YAML"),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_refused_whole_with_file_key_and_value(case, tmp_path: Path):
    old, new, message = REFUSED[case]
    assert old in TEXT
    path = tmp_path / "bad.yaml"
    path.write_text(TEXT.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(PolicyError) as caught:
        Policy.load(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "a", "[]", "1", "null"])
def test_files_that_are_something_else(text):
    with pytest.raises(PolicyError, match="a mapping is needed"):
        Policy.from_yaml(text)


def test_messages_stay_short():
    """Each anchor holds the one before ten times; written out they would be 10^9 words."""
    lines = ["x: &a0 [1,1,1,1,1,1,1,1,1,1]"] + [f"  - &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    bomb = "network:\n  - &a0 [1,1]\n" + "\n".join(lines[1:]) + "\n"
    with pytest.raises(PolicyError) as caught:
        Policy.from_yaml(TEXT.replace("network: resnet\n", bomb))
    assert len(str(caught.value)) < 1000


def test_unreadable_files(tmp_path: Path):
    with pytest.raises(PolicyError, match="none.yaml"):
        Policy.load(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"network: gr\xf6\xdfe")
    with pytest.raises(PolicyError, match="latin.yaml"):
        Policy.load(tmp_path / "latin.yaml")
    with open(tmp_path / "large.yaml", "wb") as stream:
        stream.truncate(LARGEST_FILE + 1)
    with pytest.raises(PolicyError, match="larger"):
        Policy.load(tmp_path / "large.yaml")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_files_are_refused_or_read_as_policies(data):
    """Whatever stands in a file, the reader returns a policy or raises its one error."""
    position = data.draw(st.integers(0, len(TEXT)))
    length = data.draw(st.integers(0, 12))
    text = TEXT[:position] + data.draw(st.text(max_size=8)) + TEXT[position + length :]
    try:
        assert isinstance(Policy.from_yaml(text), Policy)
    except PolicyError:
        pass


@pytest.mark.parametrize(
    "fields",
    [("weigth", 4, "dorefa", True), ("weight", 0, "dorefa", True), ("weight", True, "dorefa", True)]
    + [("weight", 4, "dorefo", True), ("weight", 4, "dorefa", 1)],
)
def test_sites_are_checked_when_made(fields):
    with pytest.raises((ValueError, TypeError)):
        SitePolicy(*fields)


def small_network():
    h = F.relu(PF.affine(nn.Variable((1, 4)), 4, with_bias=False, name="first"))
    return trace(PF.affine(h, 2, with_bias=False, name="last"))


def policy_of(**roles: str) -> Policy:
    names = {name.replace("__", "/"): role for name, role in roles.items()}
    return Policy("small", sites={n: SitePolicy(r, 4, "uniform_b_xmax", True) for n, r in names.items()})


def test_check_accepts_its_own_network():
    policy = policy_of(first__affine__W="weight", last__affine__W="weight")
    policy.check(small_network())
    with_activation = attrs.evolve(
        policy, sites={**policy.sites, "first/affine/relu": SitePolicy("activation", 4, "pact", False)}
    )
    with_activation.check(small_network())


def test_check_names_missing_and_surplus_sites():
    policy = policy_of(first__affine__W="weight", lost__affine__W="weight")
    with pytest.raises(PolicyError) as caught:
        policy.check(small_network())
    assert "it has no bits for last/affine/W (its nearest is lost/affine/W)" in str(caught.value)
    assert "it names lost/affine/W, the network's nearest is last/affine/W" in str(caught.value)
    assert "first/affine/W" not in str(caught.value)


def test_check_names_sites_of_another_role():
    policy = policy_of(first__affine__W="weight", last__affine__W="activation")
    with pytest.raises(PolicyError, match="last/affine/W"):
        policy.check(small_network())
