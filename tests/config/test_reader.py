"""Reading experiments from files and the command line, and writing them back."""

from __future__ import annotations

import logging
import re

import attrs
import pytest

from nnmpq.config.experiment import Experiment
from nnmpq.config.reader import ConfigError, list_experiments, read_experiment

# As the published files are written: a remark behind a section's name, an empty value, DEFAULT as experiment.
ORIGINAL_STYLE = """[DEFAULT]
num_layers = 20
shortcut_type = 
initial_learning_rate = 0.1

########### FLOAT NETWORK - RETRAINED ###########
[DEFAULT_INIT]
weightfile = params_DEFAULT/params_best.h5
initial_learning_rate = 0.03

[LEARNED_ADAM] #app66/0
weightfile = params_DEFAULT/params_best.h5
optimizer = adam
initial_learning_rate = 0.001
w_quantize = parametric_fp_d_xmax
a_quantize = parametric_fp_d_xmax_relu
a_bitwidth = 6
target_weight_kbytes = 70.1
target_activation_kbytes = 8.1
target_activation_type = max
scale_layer = True


"""  # noqa: W291


@pytest.fixture
def cfg(tmp_path):
    def write(text):
        path = tmp_path / "some.cfg"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refused(path, name, *parts, overrides=()):
    """Check that a reading is refused with every one of these parts in the message."""
    with pytest.raises(ConfigError) as caught:
        read_experiment(path, name, overrides)
    for part in parts:
        assert part in str(caught.value)


def test_a_file_in_the_published_style_is_read_as_it_stands(cfg):
    path = cfg(ORIGINAL_STYLE)
    assert read_experiment(path, "DEFAULT") == Experiment("DEFAULT")
    assert read_experiment(path, "LEARNED_ADAM") == Experiment(
        "LEARNED_ADAM",
        weightfile="params_DEFAULT/params_best.h5",
        optimizer="adam",
        initial_learning_rate=0.001,
        w_quantize="parametric_fp_d_xmax",
        a_quantize="parametric_fp_d_xmax_relu",
        a_bitwidth=6,
        target_weight_kbytes=70.1,
        target_activation_kbytes=8.1,
        scale_layer=True,
    )


@pytest.mark.parametrize(("text", "value"), [("True", True), ("False", False), ("no", False), ("1", True)])
def test_booleans_are_real(cfg, text, value):
    assert read_experiment(cfg(f"[A]\nscale_layer = {text}"), "A").scale_layer is value


def test_numbers_may_be_powers_and_fractions(cfg):
    path = cfg("[A]\nw_stepsize = 2^-4\na_stepsize = 1/8\nw_xmax_max = 2**6\nmilestones = 80,\n  100")
    experiment = read_experiment(path, "A")
    assert (experiment.w_stepsize, experiment.a_stepsize, experiment.w_xmax_max) == (0.0625, 0.125, 64.0)
    assert experiment.milestones == (80, 100)


def test_percent_signs_and_capital_keys_are_no_trouble(cfg):
    experiment = read_experiment(cfg("[A]\nData_Dir = /data/%(x)s/50%"), "A")
    assert experiment.data_dir == "/data/%(x)s/50%"


def test_none_can_be_written(cfg):
    path = cfg("[DEFAULT]\nw_quantize = fp\ntrain_images = 100\n[A]\nw_quantize =\ntrain_images = none")
    experiment = read_experiment(path, "A")
    assert experiment.w_quantize is None and experiment.train_images is None


def test_the_nearest_section_wins(cfg):
    text = """
[DEFAULT]
batch_size = 1
seed = 1
epochs = 101
milestones = 10
[GRAND]
batch_size = 2
seed = 2
epochs = 102
[PARENT]
inherit = GRAND
seed = 3
[CHILD]
inherit = PARENT
weight_decay = 0.5
"""
    child = read_experiment(cfg(text), "CHILD", ["weight_decay=0.25"])
    assert (child.batch_size, child.seed, child.epochs, child.milestones) == (2, 3, 102, (10,))
    assert child.weight_decay == 0.25 and child.name == "CHILD"


def test_a_section_may_only_inherit(cfg):
    path = cfg("[COPY]\ninherit = SOURCE\n[SOURCE]\nseed = 5\n[PLAIN]\ninherit = DEFAULT\n")
    assert attrs.evolve(read_experiment(path, "COPY"), name="SOURCE") == read_experiment(path, "SOURCE")
    assert read_experiment(path, "PLAIN") == Experiment("PLAIN")


def test_default_needs_not_be_written(cfg):
    assert read_experiment(cfg("[A]\nseed = 1\n"), "DEFAULT") == Experiment("DEFAULT")


def test_the_last_override_counts(cfg):
    assert read_experiment(cfg("[A]"), "A", ["seed=1", " SEED = 2 "]).seed == 2


def test_values_of_overrides_may_contain_equals_signs(cfg):
    assert read_experiment(cfg("[A]"), "A", ["data_dir=/a=b"]).data_dir == "/a=b"


@pytest.mark.parametrize(
    ("text", "name", "parts"),
    [
        (
            "[A]\nw_quantise = fp",
            "A",
            ["some.cfg", "[A]", "w_quantise = fp", "no such key", "nearest valid: w_quantize"],
        ),
        ("[A]\nepochs = six", "A", ["some.cfg", "[A] epochs = six", "not a whole number"]),
        ("[A]\nepochs = 0", "A", ["some.cfg", "[A] epochs = 0", "nearest valid: 1"]),
        ("[A]\nscale_layer = Treu", "A", ["[A] scale_layer = Treu", "nearest valid: true"]),
        ("[A]\nw_stepsize = 2**x", "A", ["[A] w_stepsize = 2**x", "2**-2"]),
        ("[A]\nw_quantize = fp\nw_bitwidth = 1", "A", ["[A] w_bitwidth = 1", "needs 2 bits"]),
        ("[A]\nw_xmax_min = 500", "A", ["[A] w_xmax_min = 500", "w_xmax_max = 127"]),
        ("[A]\nw_xmax_max = 2**-9", "A", ["[A] w_xmax_min = 0.00390625 (the default)", "w_xmax_max"]),
        ("[ALPHA]\nseed = 1", "ALFA", ["some.cfg", "no section [ALFA]", "nearest valid: ALPHA", "--list"]),
        ("[A]\nseed = 1\n[A]\nseed = 2", "A", ["some.cfg, line 3", "[A]", "stands twice"]),
        ("[A]\nseed = 1\nseed = 2", "A", ["some.cfg, line 3", "[A] seed", "stands twice"]),
        ("[DEFAULT]\nseed = 1\nseed = 2", "A", ["line 3", "[DEFAULT] seed", "stands twice"]),
        ("seed = 1\n[A]", "A", ["some.cfg, line 1", "before the first [SECTION]"]),
        ("[A]\nseed", "A", ["some.cfg, line 2", "neither [SECTION] nor key = value"]),
        ("[A]\nseed = 1\n  epochs = 2", "A", ["[A] seed", "indented line continues"]),
        ("[A]\ninherit = B\n[B]\ninherit = A", "A", ["[B] inherit = A", "a circle (A -> B -> A)"]),
        ("[A]\ninherit = A", "A", ["[A] inherit = A", "a circle (A -> A)"]),
        (
            "[A]\ninherit = BASIS\n[BASE]",
            "A",
            ["[A] inherit = BASIS", "no such section", "nearest valid: BASE"],
        ),
        ("[DEFAULT]\ninherit = A\n[A]", "A", ["[DEFAULT] inherit = A", "takes from none"]),
        ("[A]\nmilestones = 80, 120\nepochs = 100", "A", ["[A] milestones = 80, 120", "never comes"]),
        ("[A]\npolicy = absent.yaml", "A", ["[A] policy = absent.yaml", "no such file"]),
    ],
)
def test_what_is_wrong_in_a_file_is_refused_at_once(cfg, text, name, parts):
    refused(cfg(text), name, *parts)


def test_an_inherited_mistake_is_found_where_it_was_written(cfg):
    path = cfg("[BASE]\nepochs = 0\n[A]\ninherit = BASE")
    refused(path, "A", "[BASE] (taken by [A]) epochs = 0")
    path = cfg("[DEFAULT]\nepoch = 1\n[A]\n")
    refused(path, "A", "[DEFAULT] (taken by [A]) epoch = 1", "nearest valid: epochs")


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("epoch=3", ["--set epoch = 3", "no such key", "nearest valid: epochs"]),
        ("epochs=x", ["--set epochs = x", "not a whole number"]),
        ("epochs=0", ["--set epochs = 0", "nearest valid: 1"]),
        ("w_quantize=fp_relu", ["--set w_quantize = fp_relu", "nearest valid: fp"]),
        ("target_weight_kbytes=5", ["--set target_weight_kbytes = 5", "w_quantize"]),
        ("epochs", ["--set epochs", "write --set KEY=VALUE"]),
        ("=3", ["--set =3", "write --set KEY=VALUE"]),
        ("inherit=B", ["--set inherit=B", "in a file only"]),
        ("name=B", ["--set name = B", "no such key"]),
    ],
)
def test_overrides_are_checked_as_files_are(cfg, override, parts):
    refused(cfg("[A]\n"), "A", *parts, overrides=[override])


def test_a_missing_file_names_the_nearest(cfg, tmp_path):
    cfg("[A]")
    refused(tmp_path / "sone.cfg", "A", "sone.cfg: no such file", f"nearest valid: {tmp_path / 'some.cfg'}")
    refused(tmp_path / "absent" / "x.cfg", "A", "no such file")


def test_what_is_no_text_file_is_refused(tmp_path):
    (tmp_path / "binary.cfg").write_bytes(b"[A]\nseed = \xff\xfe")
    refused(tmp_path / "binary.cfg", "A", "binary.cfg", "not a text file")
    refused(tmp_path, "A", str(tmp_path), "directory")


def test_a_name_that_is_no_folder_name_is_refused(cfg):
    refused(cfg("[a/b]"), "a/b", "[a/b] name = a/b", "also names a folder")


def test_a_policy_is_found_beside_the_file(cfg, tmp_path):
    (tmp_path / "mine.yaml").write_text("")
    assert read_experiment(cfg("[A]\npolicy = mine.yaml"), "A").policy == str(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    ("text", "overrides", "milestones"),
    [
        ("[A]", ["epochs=6"], (3, 5)),
        ("[A]\nepochs = 160\nmilestones = 80, 120", ["epochs=6"], (3, 5)),
        ("[A]\nepochs = 100\nmilestones = 10", ["epochs=50"], (5,)),
        ("[A]\nmilestones = 40", ["epochs=80"], (20,)),
        ("[A]\nepochs = 30", ["epochs=60"], (30, 45)),
        ("[A]", ["epochs=6", "milestones=2"], (2,)),
        ("[A]\nepochs = 30", [], (15, 23)),
        ("[A]\nepochs = 0\nmilestones = 1", ["epochs=8"], ()),
    ],
)
def test_shortened_runs_keep_their_shape(cfg, caplog, text, overrides, milestones):
    with caplog.at_level(logging.INFO, logger="nnmpq"):
        assert read_experiment(cfg(text), "A", overrides).milestones == milestones
    said = [record.getMessage() for record in caplog.records]
    moved = bool(overrides) and len(overrides) == 1
    assert len(said) == moved
    if moved and milestones:
        assert re.search(rf"A: epochs = \d+.*epochs: {', '.join(map(str, milestones))}$", said[0])


def test_the_list_shows_every_experiment_even_a_wrong_one(cfg):
    text = ORIGINAL_STYLE + "[WRONG]\nepochs = 0\n"
    lines = list_experiments(cfg(text)).splitlines()
    assert [line.split()[0] for line in lines] == ["DEFAULT", "DEFAULT_INIT", "LEARNED_ADAM", "WRONG"]
    assert "parametric_fp_d_xmax_relu 6 bit" in lines[2] and "weights <= 70.1 KiB" in lines[2]
    assert "activations (max) <= 8.1 KiB" in lines[2]
    assert "error" in lines[3] and "epochs = 0" in lines[3]


def test_the_list_shows_what_waits_for_a_policy(cfg, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "[FOUND]\nepochs = 7\n[TRAIN]\npolicy = runs/FOUND/policy.yaml\n[BAD]\ninherit = TRAIN\nepochs = 0\n"
    path = cfg(text)
    lines = {line.split()[0]: line for line in list_experiments(path).splitlines()}
    assert lines["TRAIN"].endswith("resnet lr 0.1, waits for policy runs/FOUND/policy.yaml")
    assert "error" in lines["BAD"] and "epochs = 0" in lines["BAD"] and "waits" not in lines["FOUND"]
    # To run it is another matter, and once it is there nothing waits.
    with pytest.raises(ConfigError, match="no such file"):
        read_experiment(path, "TRAIN")
    (tmp_path / "runs" / "FOUND").mkdir(parents=True)
    (tmp_path / "runs" / "FOUND" / "policy.yaml").touch()
    assert "TRAIN    resnet lr 0.1, policy runs/FOUND/policy.yaml" in list_experiments(path).splitlines()
