"""The two published configuration files, section by section, against the rules that their names follow."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import attrs
import pytest

from nnmpq.config.experiment import Experiment
from nnmpq.config.reader import read_experiment
from nnmpq.config.sections import read_sections

CFGS = Path(__file__).resolve().parents[2] / "cfgs"
FP, POW2 = CFGS / "train_resnet_quant_fp.cfg", CFGS / "train_resnet_quant_pow2.cfg"
FLOAT_RESULT = "params_DEFAULT/params_best.h5"


def product(*parts: str) -> list[str]:
    """Every combination of words; ``|`` separates the choices of a part."""
    names = [""]
    for part in parts:
        names = [name + choice for name in names for choice in part.split("|")]
    return names


FLOAT = ["DEFAULT", *product("DEFAULT_", "|INIT|RLR|INIT_RLR")]
FP_NAMES = [
    *FLOAT,
    *product("FP_W2", "|A4", "Q_INIT", "|_RLR|_RRLR"),
    *product("PARAMETRIC_FP_W", "|A", "Q_", "DELTA_XMAX|B_XMAX|DELTA_B", "|_INIT|_RLR|_INIT_RLR|_INIT_ADAM"),
    *product("PARAMETRIC_FP_W2", "|A4", "Q_B_XMAX_CON_INIT", "|_RLR|_RRLR"),
    *product(
        "PARAMETRIC_FP_W",
        "|AM|AS",
        "Q_DELTA_XMAX_CON_INIT",
        "|_OLR|_RRLR|_RLR|_RLR2|_RLR3|_RLR4|_RLR5|_RLR6",
    ),
]
# 42 sections learn both ends under limits: of weights alone RLR2 to 5, with activations FT2 to FT4.
P3 = "PARAMETRIC_POW2_W"
P3_END = "Q_XMIN_XMAX_CON_INIT"
POW2_NAMES = [
    *FLOAT,
    *product("POW2_W2", "|A4", "Q_INIT", "|_RLR|_RRLR"),
    *product("PARAMETRIC_POW2_W", "|A", "Q_", "XMIN_XMAX|B_XMAX|B_XMIN", "|_INIT|_RLR|_INIT_RLR"),
    *product("PARAMETRIC_POW2_W2", "|A4", "Q_B_XMAX_CON_INIT", "|_RLR|_RRLR"),
    *product(P3, "|AM|AS", P3_END, "|_RLR|_RRLR|_FT|_RLR_FT|_RRLR_FT|_RLR2|_RRLR2"),
    *product(P3, P3_END, "_RLR|_RRLR", "3|4|5"),
    *product(P3, "AM|AS", P3_END, "_RLR|_RRLR", "_FT2|_FT3|_FT4"),
]


def learning_rate(name: str) -> float:
    if name == "DEFAULT" or "_OLR" in name:
        return 0.1
    if name.endswith("_ADAM"):
        return 0.001
    if "B_XMIN" in name:
        return 0.001 if name.endswith("_RLR") else 0.003
    return 0.003 if "_RRLR" in name else 0.01 if "_RLR" in name else 0.03


def limits(name: str) -> dict[str, Any]:
    if "CON_INIT" not in name or "B_XMAX" in name:
        return {}
    values: dict[str, Any] = {"target_weight_kbytes": 70.1}
    if "_WAMQ_" in name:
        values |= {"target_activation_kbytes": 8.1, "target_activation_type": "max"}
    if "_WASQ_" in name:
        values |= {"target_activation_kbytes": 92.1, "target_activation_type": "sum"}
    return values


def quantizers(name: str) -> dict[str, Any]:
    match = re.match(r"(PARAMETRIC_)?(FP|POW2)_W2?(A4|AM|AS|A)?Q_(XMIN_XMAX|DELTA_XMAX|DELTA_B|B_XMAX|B_XMIN)?", name)
    if match is None:
        return {}
    parametric, family, activations, which = match.groups()
    quantizer = family.lower()
    if parametric:
        quantizer = f"parametric_{quantizer}_{which.lower().replace('delta', 'd')}"
    values: dict[str, Any] = {"w_quantize": quantizer}
    if activations:
        values["a_quantize"] = f"{quantizer}_relu"
    pinned = parametric and "_W2" in name
    if "_W2" in name or name.startswith(("FP_W2", "POW2_W2")):
        values["w_bitwidth"] = 2
        if pinned:
            values |= {"w_bitwidth_min": 2, "w_bitwidth_max": 2}
    if activations == "A4" and pinned:
        values |= {"a_bitwidth": 4, "a_bitwidth_min": 4, "a_bitwidth_max": 4}
    return values


def expected_fp(name: str) -> dict[str, Any]:
    values = {"initial_learning_rate": learning_rate(name), **quantizers(name), **limits(name)}
    if "INIT" in name:
        values["weightfile"] = FLOAT_RESULT
    if name.endswith("_ADAM"):
        values["optimizer"] = "adam"
    if re.search(r"_WA[MS]Q_.*_RLR[2-6]$", name):
        values["a_bitwidth"] = 6
        if name[-1] in "235":
            values["initial_cost_lambda3"] = 1.0
    return values


def pow2_start(name: str) -> str:
    weights_only = f"{P3}{P3_END}_RRLR"
    family = re.sub(r"(_RLR|_RRLR)?(_FT)?\d?$", "", name)
    if name.startswith("POW2_W2A4Q"):
        return "POW2_W2Q_INIT/params_best.h5"  # the published file: POW2_W2A4Q_INIT, its own result
    if name.startswith("PARAMETRIC_POW2_W2A4Q"):
        return "POW2_W2A4Q_INIT/params_best.h5"
    if name.endswith("_FT4"):
        return "PARAMETRIC_POW2_W2A4Q_B_XMAX_CON_INIT_RRLR/params_best.h5"
    if name.endswith("_FT3"):
        return f"{family}_RRLR_FT/params_best.h5"
    if name.endswith(("_FT", "_FT2")):
        return f"{family}_RRLR/params_best.h5"
    if name.startswith(f"{P3}{P3_END}"):
        return f"{weights_only}/params_best.h5" if name[-1] in "45" else FLOAT_RESULT
    if re.search(r"_WA[MS]Q_.*2$", name):
        return f"{weights_only}/params_best.h5"
    return FLOAT_RESULT


def expected_pow2(name: str) -> dict[str, Any]:
    values = {"initial_learning_rate": learning_rate(name), **quantizers(name), **limits(name)}
    if "INIT" in name:
        values["weightfile"] = pow2_start(name)
    if name.startswith("POW2_") or "CON_INIT" in name:
        values["scale_layer"] = True
    if "XMIN_XMAX_CON_INIT" in name:
        values["w_bitwidth_min"] = 1
        if "a_quantize" in values:
            values["a_bitwidth"] = 4 if name.endswith("_FT4") else 6
    return values


@pytest.mark.parametrize(("path", "names", "count"), [(FP, FP_NAMES, 73), (POW2, POW2_NAMES, 82)])
def test_every_published_name_is_there(path, names, count):
    assert len(names) == len(set(names)) == count + 1
    assert sorted(read_sections(path).names()) == sorted(names)


@pytest.mark.parametrize(
    ("path", "name", "expected"),
    [(FP, name, expected_fp(name)) for name in FP_NAMES] + [(POW2, name, expected_pow2(name)) for name in POW2_NAMES],
)
def test_every_key_of_every_section_has_its_published_value(path, name, expected):
    experiment = attrs.asdict(read_experiment(path, name))
    assert experiment == attrs.asdict(Experiment(name, **expected))


@pytest.mark.parametrize(("path", "groups"), [(FP, 5), (POW2, 8)])
def test_as_many_sections_repeat_others_as_in_the_published_files(path, groups):
    names = read_sections(path).names()
    contents = Counter(attrs.evolve(read_experiment(path, name), name="X") for name in names if name != "DEFAULT")
    assert sum(count > 1 for count in contents.values()) == groups


@pytest.mark.parametrize("path", [FP, POW2])
def test_a_repetition_is_written_as_one(path):
    sections = read_sections(path)
    seen: dict[Experiment, str] = {}
    for name in sections.names():
        content = attrs.evolve(read_experiment(path, name), name="X")
        if content in seen:
            other = sections.own[seen[content]]
            assert list(sections.own[name]) == ["inherit"] or sections.own[name] == other
        seen.setdefault(content, name)


def test_the_slip_of_the_published_file_is_put_right_and_said():
    text = POW2.read_text(encoding="utf-8")
    assert "the slip put right" in text
    for suffix in ("", "_RLR", "_RRLR"):
        experiment = read_experiment(POW2, f"POW2_W2A4Q_INIT{suffix}")
        assert experiment.weightfile == "POW2_W2Q_INIT/params_best.h5"


def test_every_start_is_the_result_of_an_experiment_of_the_same_file():
    for path in (FP, POW2, CFGS / "train_resnet_digits.cfg"):
        names = read_sections(path).names()
        for name in names:
            start = read_experiment(path, name).weightfile
            if start is not None:
                maker = start.rsplit("/", 1)[0]
                assert re.sub("^params_", "", maker) in names and maker != name


@pytest.mark.parametrize("name", ["DEFAULT", "DIGITS_FLOAT", "DIGITS_MIXED", "DIGITS_EXPORT", "DIGITS_POW2"])
def test_digits_need_no_download_and_end_within_minutes(name):
    experiment = read_experiment(CFGS / "train_resnet_digits.cfg", name)
    assert (experiment.arch, experiment.dataset, experiment.data_dir) == ("resnet_digits", "digits", None)
    assert experiment.epochs <= 60
    limited = name in ("DIGITS_MIXED", "DIGITS_EXPORT", "DIGITS_POW2")
    assert (experiment.target_weight_kbytes > 0) == limited
    assert (experiment.target_activation_kbytes > 0) == limited
