"""The command line of the training scripts."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from nnmpq.config.arguments import build_parser, parse_arguments
from nnmpq.config.experiment import Experiment

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "train_resnet.py"


def leaves(argv, status, capsys):
    """Run a command line that ends the program; return what it printed."""
    with pytest.raises(SystemExit) as caught:
        parse_arguments(PROGRAM, argv)
    assert caught.value.code == status
    printed = capsys.readouterr()
    return printed.out if status == 0 else printed.err


def test_the_contract_of_the_published_tool():
    arguments = parse_arguments(PROGRAM, ["SOME", "--cfg", "a.cfg"])
    assert (arguments.experiment, arguments.cfg) == ("SOME", "a.cfg")
    assert (arguments.context, arguments.device_id, arguments.type_config) == ("cpu", "0", "float")
    assert (arguments.model_save_path, arguments.monitor_path) == ("runs", None)
    assert (arguments.overrides, arguments.resume, arguments.quiet) == ([], False, False)


def test_every_option_is_taken():
    argv = ["SOME", "--cfg", "a.cfg", "--set", "epochs=3", "--set", "seed=1", "-c", "cudnn", "-d", "1"]
    argv += [
        "-t",
        "mixed_half",
        "-m",
        "monitors",
        "-o",
        "results",
        "--data-dir",
        "DATA",
        "--resume",
        "--quiet",
    ]
    arguments = parse_arguments(PROGRAM, argv)
    assert arguments.overrides == ["epochs=3", "seed=1", "data_dir=DATA"]
    assert (arguments.context, arguments.device_id, arguments.type_config) == ("cudnn", "1", "mixed_half")
    assert (arguments.model_save_path, arguments.monitor_path) == ("results", "monitors")
    assert arguments.resume and arguments.quiet


def test_gpu_stands_for_context_and_device():
    arguments = parse_arguments(PROGRAM, ["--gpu", "2", "SOME", "--cfg", "a.cfg"])
    assert (arguments.context, arguments.device_id) == ("cudnn", "2")


def test_overrides_of_one_call_do_not_reach_the_next():
    parse_arguments(PROGRAM, ["SOME", "--cfg", "a.cfg", "--set", "seed=1", "--data-dir", "D"])
    assert parse_arguments(PROGRAM, ["SOME", "--cfg", "a.cfg"]).overrides == []


def test_without_cfg_the_files_are_listed(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    message = leaves(["SOME"], 2, capsys)
    for file in (ROOT / "cfgs").glob("*.cfg"):
        assert f"--cfg {Path('cfgs') / file.name}" in message
    monkeypatch.chdir(tmp_path)
    assert "--cfg FILE" in leaves(["SOME"], 2, capsys)


def test_without_experiment_the_list_is_offered(capsys):
    assert "--cfg a.cfg --list" in leaves(["--cfg", "a.cfg"], 2, capsys)


def test_list_prints_the_sections(capsys, tmp_path):
    (tmp_path / "a.cfg").write_text("[ONE]\nseed = 1\n[TWO]\nw_quantize = fp\n")
    printed = leaves(["--cfg", str(tmp_path / "a.cfg"), "--list"], 0, capsys)
    assert [line.split()[0] for line in printed.splitlines()] == ["DEFAULT", "ONE", "TWO"]
    assert "no such file" in leaves(["--cfg", str(tmp_path / "b.cfg"), "--list"], 2, capsys)


def test_help_keys_explains_every_key(capsys):
    printed = leaves(["--help-keys"], 0, capsys).splitlines()
    heads = {line.split()[0]: line for line in printed if line.startswith("  ") and not line.startswith("   ")}
    names = {field.name for field in attrs.fields(Experiment)} - {"name"} | {"inherit"}
    assert set(heads) == names
    assert "whole number" in heads["epochs"] and "default 160" in heads["epochs"]
    assert "default 2**-16" in heads["w_xmin_min"]
    for head in heads.values():
        meaning = printed[printed.index(head) + 1]
        assert meaning.startswith("      ") and len(meaning.strip()) > 8


def test_help_is_complete():
    text = build_parser(PROGRAM).format_help()
    options = ["--cfg", "--set", "--list", "--help-keys", "--resume", "--data-dir", "--model-save-path"]
    options += ["--monitor-path", "--quiet", "--context", "--device-id", "--gpu", "--type-config"]
    for option in options:
        assert option in text
    assert "EXPERIMENT" in text and PROGRAM in text


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["-c", "gpu"], "invalid choice: 'gpu'"),
        (["-t", "double"], "invalid choice: 'double'"),
        (["--gpu", "one"], "one: a device is a whole number"),
        (["-d", "-1"], "device"),
        (["--sett", "seed=1"], "unrecognized arguments"),
    ],
)
def test_wrong_options_are_refused(capsys, argv, said):
    assert said in leaves(["SOME", "--cfg", "a.cfg", *argv], 2, capsys)


def test_a_script_may_have_a_file_of_its_own(capsys):
    own = Path("cfgs/own.cfg")
    assert parse_arguments(PROGRAM, ["SOME"], own).cfg == str(own)
    assert parse_arguments(PROGRAM, ["SOME", "--cfg", "a.cfg"], own).cfg == "a.cfg"
    assert "(default: own.cfg)" in " ".join(build_parser(PROGRAM, own).format_help().split())
    assert "which .cfg file?" in leaves(["SOME"], 2, capsys)


@pytest.mark.parametrize(("argv", "workers"), [([], None), (["--workers", "0"], 0), (["--workers", "3"], 3)])
def test_workers_may_be_none_at_all(argv, workers):
    assert parse_arguments(PROGRAM, ["SOME", "--cfg", "a.cfg", *argv]).workers == workers


def test_workers_are_a_whole_number(capsys):
    assert "-1: a whole number from 0 on" in leaves(["SOME", "--cfg", "a.cfg", "--workers=-1"], 2, capsys)
