"""Where the weights that an experiment starts from are looked for, and what is said without them."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnmpq.config.errors import ConfigError
from nnmpq.config.reader import read_experiment, resolve_weightfile
from nnmpq.config.weightfile import produced_by

PUBLISHED = Path(__file__).resolve().parents[2] / "cfgs" / "train_resnet_quant_pow2.cfg"
# The sections of the published file that start from a result which the first of them has yet to make.
CIRCULAR = """[DEFAULT]
initial_learning_rate = 0.1
[DEFAULT_INIT]
weightfile = params_DEFAULT/params_best.h5
[POW2_W2Q_INIT]
weightfile = params_DEFAULT/params_best.h5
w_quantize = pow2
[POW2_W2A4Q_INIT]
weightfile = POW2_W2A4Q_INIT/params_best.h5
w_quantize = pow2
a_quantize = pow2_relu
[POW2_W2A4Q_INIT_RLR]
weightfile = POW2_W2A4Q_INIT/params_best.h5
w_quantize = pow2
a_quantize = pow2_relu
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty current folder with a .cfg in a folder beside the runs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cfgs").mkdir()
    (tmp_path / "cfgs" / "pow2.cfg").write_text(CIRCULAR, encoding="utf-8")
    return tmp_path


def make(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


CFG = Path("cfgs") / "pow2.cfg"
RUNS = Path("runs")


@pytest.mark.parametrize(
    ("value", "makers"),
    [
        ("params_DEFAULT/params_best.h5", ["DEFAULT", "params_DEFAULT"]),
        ("A_B/params_best.h5", ["A_B"]),
        ("A_B/best.h5", ["A_B"]),
        ("elsewhere/A_B/params_best.h5", ["A_B"]),
        ("A_B\\params_best.h5", ["A_B"]),
        ("A_B/other.h5", []),
        ("best.h5", []),
    ],
)
def test_results_are_known_by_their_names(value, makers):
    assert produced_by(value) == makers


@pytest.mark.parametrize("value", ["params_DEFAULT/params_best.h5", "DEFAULT/params_best.h5", "DEFAULT/best.h5"])
def test_the_result_of_a_run_is_found_under_the_published_names(place, value):
    best = make(place / "runs" / "DEFAULT" / "best.h5")
    assert resolve_weightfile(value, RUNS, cfg=CFG, name="DEFAULT_INIT").resolve() == best
    assert resolve_weightfile(value, place / "runs") == best


def test_a_path_as_written_goes_first(place):
    make(place / "runs" / "DEFAULT" / "best.h5")
    beside = make(place / "cfgs" / "params_DEFAULT" / "params_best.h5")
    value = "params_DEFAULT/params_best.h5"
    assert resolve_weightfile(value, RUNS, cfg=CFG).resolve() == beside
    here = make(place / "params_DEFAULT" / "params_best.h5")
    assert resolve_weightfile(value, RUNS, cfg=CFG).resolve() == here
    assert resolve_weightfile(str(here), RUNS, cfg=CFG) == here


def test_an_experiment_may_itself_be_called_params(place):
    best = make(place / "runs" / "params_X" / "best.h5")
    assert resolve_weightfile("params_X/params_best.h5", RUNS).resolve() == best


def test_a_missing_result_names_the_places_and_the_command(place):
    with pytest.raises(ConfigError) as caught:
        resolve_weightfile("params_DEFAULT/params_best.h5", RUNS, cfg=CFG, name="DEFAULT_INIT")
    message = str(caught.value)
    assert f"{CFG}: [DEFAULT_INIT] weightfile = params_DEFAULT/params_best.h5: not found" in message
    for path in (
        Path("params_DEFAULT/params_best.h5"),
        Path("cfgs/params_DEFAULT/params_best.h5"),
        RUNS / "DEFAULT" / "best.h5",
    ):
        assert str(path) in message
    assert f"python train_resnet.py DEFAULT --cfg {CFG}" in message


def test_a_mobilenet_is_made_by_its_own_script(tmp_path):
    path = tmp_path / "nets.cfg"
    path.write_text("[SMALL]\narch = mobilenet_v2\n[LARGE]\ninherit = SMALL\n[OTHER]\narch = resnet\n")
    for maker, script in (("LARGE", "train_mobilenet.py"), ("OTHER", "train_resnet.py")):
        with pytest.raises(ConfigError, match=rf"make it with: python {script} {maker} --cfg"):
            resolve_weightfile(f"{maker}/best.h5", RUNS, cfg=path, name="X")


def test_a_result_of_no_experiment_names_the_nearest(place):
    with pytest.raises(ConfigError, match="no experiment of .* makes it; nearest valid: DEFAULT_INIT/params_best"):
        resolve_weightfile("DEFAULT_INTI/params_best.h5", RUNS, cfg=CFG)


def test_another_missing_path_says_what_can_be_given(place):
    with pytest.raises(ConfigError, match="mine.h5.*NAME/params_best.h5"):
        resolve_weightfile("mine.h5", RUNS, cfg=CFG)
    with pytest.raises(ConfigError, match="the experiment OTHER makes it"):
        resolve_weightfile("OTHER/best.h5", RUNS)


def test_a_folder_is_no_weightfile(place):
    (place / "runs" / "DEFAULT" / "best.h5").mkdir(parents=True)
    with pytest.raises(ConfigError, match="not found"):
        resolve_weightfile("DEFAULT/best.h5", RUNS, cfg=CFG)


@pytest.mark.parametrize("exists", [False, True])
def test_no_experiment_starts_from_its_own_result(place, exists):
    if exists:
        make(place / "runs" / "POW2_W2A4Q_INIT" / "best.h5")
    experiment = read_experiment(CFG, "POW2_W2A4Q_INIT")
    assert experiment.weightfile is not None
    with pytest.raises(ConfigError) as caught:
        resolve_weightfile(experiment.weightfile, RUNS, cfg=CFG, name=experiment.name)
    message = str(caught.value)
    assert f"{CFG}: [POW2_W2A4Q_INIT] weightfile = POW2_W2A4Q_INIT/params_best.h5" in message
    assert "the result of POW2_W2A4Q_INIT itself" in message
    # Not POW2_W2A4Q_INIT_RLR, though its name is nearer: that one in turn starts from this one.
    assert "nearest valid: POW2_W2Q_INIT/params_best.h5" in message
    assert "--set weightfile=" in message


def test_a_named_copy_of_the_own_result_is_taken(place):
    copy = make(place / "POW2_W2A4Q_INIT" / "params_best.h5")
    value = "POW2_W2A4Q_INIT/params_best.h5"
    assert resolve_weightfile(value, RUNS, cfg=CFG, name="POW2_W2A4Q_INIT").resolve() == copy


def test_our_file_has_no_such_circle(place):
    for suffix in ("", "_RLR", "_RRLR"):
        experiment = read_experiment(PUBLISHED, f"POW2_W2A4Q_INIT{suffix}")
        with pytest.raises(ConfigError, match="train_resnet.py POW2_W2Q_INIT --cfg"):
            resolve_weightfile(str(experiment.weightfile), RUNS, cfg=PUBLISHED, name=experiment.name)
