"""What `to_cfg` writes reads back equal."""

from __future__ import annotations

import attrs
from hypothesis import given
from hypothesis import strategies as st

from nnmpq.config.choices import ACTIVATION_QUANTIZERS, ACTIVATION_SITES, ARCHITECTURES, WEIGHT_QUANTIZERS
from nnmpq.config.errors import InvalidValue
from nnmpq.config.experiment import Experiment
from nnmpq.config.reader import read_experiment, to_cfg

LINES = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=12).filter(
    lambda text: text == text.strip() and text.lower() != "none" and len(text.splitlines()) == 1
)
POSITIVE = st.floats(1e-300, 1e300)
# Options of networks that have no list of values.
ANY = {
    **dict.fromkeys(("scale_layer", "preactivation", "auxiliary"), st.booleans()),
    "width_multiplier": POSITIVE,
    "hidden": st.lists(st.integers(1, 10**6), max_size=3).map(tuple),
}


@st.composite
def experiments(draw):
    """Any experiment that the rules allow, with no regard to sense."""

    def maybe(strategy):
        return draw(st.none() | strategy)

    values = {
        "arch": (arch := draw(st.sampled_from(list(ARCHITECTURES)))),
        **{key: draw(st.sampled_from(known) if known else ANY[key]) for key, known in ARCHITECTURES[arch].items()},
        "data_dir": maybe(LINES),
        "weightfile": maybe(LINES),
        "train_images": maybe(st.integers(1, 10**6)),
        "epochs": draw(st.integers(1, 1000)),
        "optimizer": maybe(st.sampled_from(["momentum", "adam"])),
        "initial_learning_rate": draw(POSITIVE),
        "momentum": draw(st.floats(0, 1, exclude_max=True)),
        "quantizer_learning_rate": maybe(POSITIVE),
        "faithful": draw(st.booleans()),
        "activation_sites": tuple(draw(st.lists(st.sampled_from(ACTIVATION_SITES), max_size=3))),
        "keep": tuple(draw(st.lists(LINES.filter(lambda text: not set(text) & set(",:")), max_size=3))),
        "w_quantize": maybe(st.sampled_from(sorted(WEIGHT_QUANTIZERS))),
        "a_quantize": maybe(st.sampled_from(sorted(ACTIVATION_QUANTIZERS))),
        "w_bitwidth": draw(st.integers(1, 8)),
        "w_xmin_max": draw(POSITIVE),
        "target_weight_kbytes": draw(st.just(-1.0) | POSITIVE),
    }
    if draw(st.booleans()):
        milestones = draw(st.lists(st.integers(1, 1000), unique=True, max_size=4))
        values["milestones"] = tuple(sorted(m for m in milestones if m < values["epochs"]))
    try:
        return Experiment(draw(st.sampled_from(["DEFAULT", "A", "x.y-1"])), **values)
    except InvalidValue:
        return Experiment("A", epochs=values["epochs"], data_dir=values["data_dir"])


@given(experiment=experiments())
def test_what_is_written_reads_back_equal(tmp_path_factory, experiment):
    path = tmp_path_factory.mktemp("cfg") / "config.cfg"
    path.write_text(to_cfg(experiment), encoding="utf-8")
    assert read_experiment(path, experiment.name) == experiment


def test_what_is_written_has_every_key():
    written = [line.split(" =")[0] for line in to_cfg(Experiment("A")).splitlines()[1:]]
    assert written == [field.name for field in attrs.fields(Experiment) if field.name != "name"]
