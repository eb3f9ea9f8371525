#!/usr/bin/env python3
"""Make .venv: Python 3.10 with nnmpq installed in it, editable, at the versions of constraints.txt.

    python3 tools/setup_environment.py [--extras test,lint]

Runs on any Python from 3.6 up, so it uses old syntax only. uv does the work: the one on the PATH, else one
that pip puts into .tools/uv. Where uv cannot be had or fails, a Python 3.10 with venv and pip does the same.
A stamp in .venv records what was installed; with nothing changed the script returns at once.
"""

import argparse
import glob
import hashlib
import json
import os
import shutil
import subprocess
import sys

VERSION = "3.10"
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NO_PYTHON = """
nnmpq needs Python {version} (nnabla 1.39 has no build for later ones), and none could be had:
  - no python{version} is on the PATH, nor in pyenv's folder;
  - {uv}
Do one of these, then run make again:
  - install Python {version}: pyenv install {version}, or an active conda environment with python={version},
    or your system's package (python{version} with python{version}-venv);
  - install uv (pip install uv) on a machine that may download: it fetches Python {version} by itself.
"""


def say(text: str) -> None:
    """Print a line at once, so that it stands before the output of the commands it announces."""
    print("setup: " + text)
    sys.stdout.flush()


def succeeds(command: "list[str]") -> bool:
    """Whether a command runs to a zero exit status; its output is shown."""
    try:
        return subprocess.call(command, cwd=ROOT) == 0
    except OSError:
        return False


def answer(command: "list[str]") -> str:
    """What a command prints, or an empty string when it does not run."""
    try:
        output = subprocess.check_output(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        return output.decode("utf-8", "replace").strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def version_of(python: str) -> str:
    """The version of an interpreter as "3.10"; empty when it does not run (a shim without its Python)."""
    return answer([python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"])


def known_pythons() -> "list[str]":
    """Interpreters worth trying, the likeliest first: on the PATH, at the usual places, in pyenv's folder."""
    pyenv = os.environ.get("PYENV_ROOT") or os.path.join(os.path.expanduser("~"), ".pyenv")
    on_path = [shutil.which(name) for name in ("python" + VERSION, "python3", "python")]
    places = ["/usr/bin/python3", "/usr/local/bin/python3"]
    in_pyenv = sorted(glob.glob(os.path.join(pyenv, "versions", "3.*", "bin", "python3")), reverse=True)
    candidates = on_path[:1] + [sys.executable] + on_path[1:] + places + in_pyenv
    return [path for index, path in enumerate(candidates) if path and path not in candidates[:index]]


def find_python() -> "str | None":
    """The first known interpreter of the wanted version, or None."""
    return next((python for python in known_pythons() if version_of(python) == VERSION), None)


def find_uv() -> "str | None":
    """A uv that runs, or None: from the PATH, from .tools/uv, or put there by the pip of a known Python."""
    folder = os.path.join(ROOT, ".tools", "uv")
    local = os.path.join(folder, "bin", "uv")
    for uv in (shutil.which("uv"), local):
        if uv and answer([uv, "--version"]):
            return uv
    for python in known_pythons():
        if not answer([python, "-m", "pip", "--version"]):
            continue
        # --target keeps clear of the system's own packages, which "externally managed" Pythons protect.
        say("fetching uv into .tools/uv with the pip of " + python)
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if succeeds(command + ["--upgrade", "--target", folder, "uv"]) and answer([local, "--version"]):
            return local
    return None


def install_with_uv(uv: str, environment: str, python: "str | None", requirement: str) -> bool:
    """Make the environment and install into it with uv; False when a step fails."""
    inside = os.path.join(environment, "bin", "python")
    if version_of(inside) != VERSION:
        shutil.rmtree(environment, ignore_errors=True)
        if not succeeds([uv, "venv", "--quiet", "--no-project", "--python", python or VERSION, environment]):
            return False
    return succeeds([uv, "pip", "install", "--python", inside, "-c", "constraints.txt", "-e", requirement])


def install_with_pip(environment: str, python: str, requirement: str) -> bool:
    """Make the environment and install into it with venv and pip; False when a step fails."""
    inside = os.path.join(environment, "bin", "python")
    if version_of(inside) != VERSION or not answer([inside, "-m", "pip", "--version"]):
        if not succeeds([python, "-m", "venv", "--clear", environment]):
            return False
    command = [inside, "-m", "pip", "install", "--disable-pip-version-check", "-c", "constraints.txt"]
    return succeeds(command + ["-e", requirement])


def fingerprint() -> str:
    """A digest of the files that say what the environment holds."""
    digest = hashlib.sha256()
    for name in ("pyproject.toml", "constraints.txt"):
        with open(os.path.join(ROOT, name), "rb") as stream:
            digest.update(stream.read())
    return digest.hexdigest()


def installed_extras(stamp: str, digest: str) -> "set[str]":
    """The extras that the stamp vouches for; an empty set when it is missing or speaks of other files."""
    try:
        with open(stamp) as stream:
            record = json.load(stream)
        return set(record["extras"]) if record["digest"] == digest else set()
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def set_up(environment: str, wanted: "set[str]") -> int:
    """Install nnmpq with the wanted extras unless that was done before; returns the exit status."""
    stamp = os.path.join(environment, "nnmpq-installed.json")
    digest = fingerprint()
    inside = os.path.join(environment, "bin", "python")
    present = installed_extras(stamp, digest)
    if wanted <= present and version_of(inside) == VERSION:
        os.utime(stamp, None)
        return 0
    extras = sorted(wanted | present)
    requirement = f".[{','.join(extras)}]"
    say(f"making {os.path.basename(environment)} with Python {VERSION} and nnmpq{requirement[1:]}")
    python = find_python()
    uv = find_uv()
    done = uv is not None and install_with_uv(uv, environment, python, requirement)
    if not done and python:
        say("uv is not to be had or failed: trying venv and pip of " + python)
        done = install_with_pip(environment, python, requirement)
    if not done and not python and version_of(inside) != VERSION:
        missing = "uv could not download one (see above)." if uv else "uv, which could download one, is not here."
        sys.stderr.write(NO_PYTHON.format(version=VERSION, uv=missing))
        return 1
    if not done:
        sys.stderr.write("setup: the installation failed; the message above says why.\n")
        return 1
    with open(stamp, "w") as stream:
        json.dump({"digest": digest, "extras": extras}, stream)
    return 0


def main(arguments: "list[str] | None" = None) -> int:
    """Read the command line and set up."""
    parser = argparse.ArgumentParser(description="Make .venv for nnmpq.")
    parser.add_argument("--extras", default="test,lint", help="of pyproject.toml (default: %(default)s)")
    parser.add_argument("--environment", default=os.path.join(ROOT, ".venv"), help="folder (default: .venv)")
    options = parser.parse_args(arguments)
    extras = set(name.strip() for name in options.extras.split(",") if name.strip())
    return set_up(os.path.abspath(options.environment), extras)


if __name__ == "__main__":
    sys.exit(main())
