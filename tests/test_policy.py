from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnmpq.cost import TARGETS
from nnmpq.graph.trace import trace
from nnmpq.policy import Policy, PolicyError, SitePolicy
from nnmpq.quantizers import QUANTIZERS
from tests.networks import foreign, images, residual

names = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=20)
targets = st.sampled_from([name for name in TARGETS if name != "bitops_inner"])
numbers = st.dictionaries(targets, st.floats(0.001, 1e12), max_size=3)
sites = st.builds(
    SitePolicy,
    role=st.sampled_from(["weight", "bias", "activation"]),
    bits=st.integers(1, 32),
    quantizer=st.sampled_from([*QUANTIZERS, "float"]),
    signed=st.booleans(),
)
policies = st.builds(
    Policy,
    network=names,
    method=names,
    seed=st.none() | st.integers(0, 2**31),
    budget=numbers,
    cost=numbers,
    sites=st.dictionaries(names, sites, max_size=5),
)


@settings(deadline=None)
@given(policies)
def test_what_is_written_is_read(policy: Policy) -> None:
    assert Policy.from_yaml(policy.to_yaml()) == policy


def example() -> str:
    entry = SitePolicy("weight", 4, "uniform_b_xmax", True)
    return Policy("net", "uniform", 1, {"weights_kib": 2.0}, {"bitops": 3.0}, {"a/W": entry, "b/W": entry}).to_yaml()


@pytest.mark.parametrize(
    "old,new,message",
    [
        ("bits: 4", "bits: 40", "a/W: bits = 40"),
        ("bits: 4", "bits: true", "a/W: bits = True"),
        ("bits: 4", "bits: four", "a/W: bits = 'four'"),
        ("bits: 4", "bit: 4", "unknown key 'bit'; the nearest is 'bits'"),
        ("uniform_b_xmax", "uniform_b_max", "the nearest is 'uniform_b_xmax'"),
        ("role: weight", "role: wieght", "the nearest is 'weight'"),
        ("signed: true", "signed: 1", "signed = 1"),
        ("b/W", "a/W", "stands twice"),
        ("format: 1", "format: 2", "format = 2"),
        ("method:", "methd:", "the nearest is 'method'"),
        ("seed: 1", "seed: one", "seed = 'one'"),
        ("weights_kib: 2.0", "weights_kib: many", "weights_kib = 'many'"),
        ("network: net", "network: !!python/object/apply:os.getcwd []", "not YAML"),
        ("sites:", "sites: 3 #", "not YAML|a mapping of site names"),
    ],
)
def test_a_bad_file_is_refused_whole(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    text = example()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(PolicyError, match=message) as caught:
        Policy.load(path)
    assert str(path) in str(caught.value)


def test_missing_cut_and_binary_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="none.yaml"):
        Policy.load(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PolicyError, match="binary.yaml"):
        Policy.load(tmp_path / "binary.yaml")
    text = example()
    for end in range(len(text.rstrip())):
        if text[:end].rstrip().endswith("signed: true}"):
            continue  # cut between two sites it is a policy of fewer sites, which `check` tells from the network's
        with pytest.raises(PolicyError):
            Policy.from_yaml(text[:end])


def test_one_site_is_one_line() -> None:
    lines = example().splitlines()
    assert [line for line in lines if line.startswith("  a/W")] == [
        "  a/W: {role: weight, bits: 4, quantizer: uniform_b_xmax, signed: true}"
    ]


def test_another_networks_policy_names_what_differs(tmp_path: Path) -> None:
    network = trace(residual(images()))
    entry = SitePolicy("weight", 4, "uniform_b_xmax", True)
    complete = {s.name: attrs.evolve(entry, role=s.role) for s in network.sites() if s.role != "activation"}
    Policy(sites=complete).check(network)
    with pytest.raises(PolicyError, match="has no bits for second/conv/W"):
        Policy(sites={k: v for k, v in complete.items() if k != "second/conv/W"}).check(network)
    with pytest.raises(PolicyError, match="names secnd/conv/W, the network's nearest is second/conv/W"):
        Policy(sites={**complete, "secnd/conv/W": entry}).check(network)
    with pytest.raises(PolicyError, match="another network's"):
        Policy(sites=complete).check(trace(foreign(images())))


def test_saving_replaces_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "policy.yaml"
    policy = Policy.from_yaml(example())
    policy.save(path)
    assert Policy.load(path) == policy
    assert [p.name for p in path.parent.iterdir()] == ["policy.yaml"]
