"""The project's own files: what is committed, how set-up behaves, what the package offers."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import nnmpq

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def setup_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The set-up script as a module that works in an empty project."""
    source = ROOT / "tools" / "setup_environment.py"
    spec = importlib.util.spec_from_file_location("setup_environment", source)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text("# " + name)
    monkeypatch.setattr(module, "ROOT", str(tmp_path))
    return module


class Recorder:
    """Stands in for the commands that set-up runs: notes them, makes the interpreter that they would make."""

    def __init__(self, module: ModuleType, monkeypatch: pytest.MonkeyPatch, fails: tuple[str, ...] = ()) -> None:
        self.commands: list[list[str]] = []
        self.fails = fails
        self.versions: dict[str, str] = {}
        monkeypatch.setattr(module, "succeeds", self.succeeds)
        monkeypatch.setattr(module, "version_of", lambda python: self.versions.get(python, ""))
        monkeypatch.setattr(module, "answer", lambda command: "")

    def succeeds(self, command: list[str]) -> bool:
        self.commands.append(command)
        if any(word in command for word in self.fails):
            return False
        if "venv" in command:
            environment = Path(command[-1])
            environment.mkdir()
            self.versions[str(environment / "bin" / "python")] = "3.10"
        return True


def test_pins_are_names_and_versions_only() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert len(lines) > 30
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*==[A-Za-z0-9.+!]+", line)] == []


def test_every_dependency_is_pinned_at_a_version_it_allows() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    project = (ROOT / "pyproject.toml").read_text()
    table = re.sub("#.*", "", project[project.index("dependencies = [") : project.index("[project.scripts]")])
    requirements = [Requirement(a or b) for a, b in re.findall(r"""'([^']+)'|"([^"]+)\"""", table)]
    assert {"nnabla", "onnx", "pytest", "ruff", "tflite-micro"} <= {need.name for need in requirements}
    for need in requirements:
        pin = pins[canonicalize_name(need.name)]
        assert need.specifier.contains(pin, prereleases=True), f"{need} against {pin}"


def test_installed_versions_are_the_pinned_ones() -> None:
    from importlib.metadata import version

    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    for name in ("nnabla", "numpy", "numba", "attrs", "matplotlib"):
        assert version(name) == pins[name]


def test_no_index_address_and_no_lock_file_is_committed() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    names = [name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]
    assert "pyproject.toml" in names
    assert not [name for name in names if Path(name).name in {"uv.lock", "poetry.lock", "Pipfile.lock"}]
    pattern = re.compile(rb"index-url|find-links|://[^\s\"']*/simple\b")
    own = Path(__file__).relative_to(ROOT).as_posix()
    assert [name for name in names if name != own and pattern.search((ROOT / name).read_bytes())] == []


def test_public_names_load_and_unknown_ones_do_not() -> None:
    for name in nnmpq.__all__:
        assert not isinstance(getattr(nnmpq, name), ModuleType), f"{name} is hidden by a module of that name"
    assert set(nnmpq.__all__) == set(dir(nnmpq))
    with pytest.raises(AttributeError, match="no attribute 'quantise'"):
        _ = nnmpq.quantise


def test_a_light_import_does_not_start_nnabla() -> None:
    code = "import sys, nnmpq; print(nnmpq.__version__, 'nnabla' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert output.stdout.split() == [nnmpq.__version__, "False"]
    assert f'version = "{nnmpq.__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_help_names_every_target() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets is not None
    assert set(re.findall(r"make (\w+)", shown)) >= set(targets.group(1).split())


def test_setup_uses_uv_with_the_pins(setup_script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recorder = Recorder(setup_script, monkeypatch)
    monkeypatch.setattr(setup_script, "find_uv", lambda: "uv")
    assert setup_script.set_up(str(tmp_path / "env"), {"test", "lint"}) == 0
    make, install = recorder.commands
    assert make[:2] == ["uv", "venv"] and make[make.index("--python") + 1] == "3.10"
    assert install[:3] == ["uv", "pip", "install"]
    assert install[install.index("-c") + 1] == "constraints.txt"
    assert install[-2:] == ["-e", ".[lint,test]"]


def test_setup_is_done_once_and_again_when_the_pins_change(
    setup_script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recorder = Recorder(setup_script, monkeypatch)
    monkeypatch.setattr(setup_script, "find_uv", lambda: "uv")
    environment = str(tmp_path / "env")
    assert setup_script.set_up(environment, {"test"}) == 0
    before = len(recorder.commands)
    assert setup_script.set_up(environment, {"test"}) == 0
    assert len(recorder.commands) == before
    (tmp_path / "constraints.txt").write_text("attrs==1")
    assert setup_script.set_up(environment, {"test"}) == 0
    assert len(recorder.commands) == before + 1


def test_setup_adds_extras_and_keeps_those_it_has(
    setup_script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recorder = Recorder(setup_script, monkeypatch)
    monkeypatch.setattr(setup_script, "find_uv", lambda: "uv")
    for extras in ({"test"}, {"onnx"}, {"test"}):
        assert setup_script.set_up(str(tmp_path / "env"), extras) == 0
    installs = [command[-1] for command in recorder.commands if "install" in command]
    assert installs == [".[test]", ".[onnx,test]"]
    stamp = json.loads((tmp_path / "env" / "nnmpq-installed.json").read_text())
    assert stamp["extras"] == ["onnx", "test"]


@pytest.mark.parametrize("uv", [None, "uv"])
def test_setup_falls_back_to_pip_where_uv_is_missing_or_fails(
    setup_script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, uv: str | None
) -> None:
    recorder = Recorder(setup_script, monkeypatch, fails=("uv",))
    monkeypatch.setattr(setup_script, "find_uv", lambda: uv)
    monkeypatch.setattr(setup_script, "find_python", lambda: "/opt/python3.10")
    assert setup_script.set_up(str(tmp_path / "env"), {"test"}) == 0
    make, install = recorder.commands[-2:]
    assert make[:3] == ["/opt/python3.10", "-m", "venv"]
    assert install[1:4] == ["-m", "pip", "install"] and install[-1] == ".[test]"


@pytest.mark.parametrize("uv", [None, "uv"])
def test_setup_says_what_to_do_without_python_310(
    setup_script: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    uv: str | None,
) -> None:
    Recorder(setup_script, monkeypatch, fails=("uv",))
    monkeypatch.setattr(setup_script, "find_uv", lambda: uv)
    assert setup_script.set_up(str(tmp_path / "env"), {"test"}) == 1
    message = capsys.readouterr().err
    assert "Python 3.10" in message and "pyenv install 3.10" in message
    assert not (tmp_path / "env" / "nnmpq-installed.json").exists()


def test_a_shim_without_its_python_is_passed_over(
    setup_script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, body in (("python3.10", "echo no such version >&2; exit 127"), ("python3", "echo 3.10")):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin:/bin")
    monkeypatch.setattr(setup_script.sys, "executable", str(tmp_path / "python3.10"))
    assert setup_script.version_of(str(tmp_path / "python3.10")) == ""
    assert setup_script.find_python() == str(tmp_path / "python3")
