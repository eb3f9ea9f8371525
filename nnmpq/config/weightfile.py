"""Where the weights that an experiment starts from are found."""

from __future__ import annotations

import re
from pathlib import Path

from nnmpq.config.errors import ConfigError, did_you_mean
from nnmpq.config.sections import DEFAULT, Sections, read_sections

BEST = "best.h5"
# What the published tool calls the best parameters of experiment NAME, and the name that its .cfg files use.
_RESULT = re.compile(r"(?:.*/)?(?P<folder>[^/]+)/(?:params_best|best)\.h5")


def produced_by(value: str) -> list[str]:
    """Return the experiments that may produce a weightfile, the likeliest first; none for another path.

    Args:
        value: a weightfile as the ``.cfg`` gives it.

    Example:
        >>> produced_by("params_DEFAULT/params_best.h5")
        ['DEFAULT', 'params_DEFAULT']
    """
    match = _RESULT.fullmatch(value.replace("\\", "/"))
    if match is None:
        return []
    folder = match["folder"]
    plain = folder[len("params_") :] if folder.startswith("params_") else folder
    return [plain] if plain == folder else [plain, folder]


def resolve_weightfile(
    value: str, runs_dir: str | Path, *, cfg: str | Path | None = None, name: str | None = None
) -> Path:
    """Find a weightfile.

    Looked for in this order: the path as given, from the current folder; from the folder of the ``.cfg``; and
    where it reads ``NAME/params_best.h5`` or ``params_NAME/params_best.h5``, the best parameters in the run
    folder of NAME.

    Args:
        value: the weightfile as the ``.cfg`` gives it.
        runs_dir: folder of all runs.
        cfg: the ``.cfg`` file, if there is one.
        name: the experiment that starts from it, if known.

    Returns:
        The path of a file that exists.

    Raises:
        ConfigError: there is none, naming where it was looked for and the command that makes it; or it is the
            result of the very experiment that wants to start from it.
    """
    where = f"{cfg}: [{name}] " if cfg is not None and name is not None else ""
    makers = produced_by(value)
    as_given = [Path(value)]
    if cfg is not None and Path(cfg).parent / value not in as_given:
        as_given.append(Path(cfg).parent / value)
    for path in as_given:
        if path.is_file():
            return path
    sections = None if cfg is None else read_sections(cfg)
    if name is not None and makers[:1] == [name]:
        raise ConfigError(f"{where}weightfile = {value}: {_own_result(value, name, sections)}")
    in_runs = [Path(runs_dir) / maker / BEST for maker in makers]
    for path in in_runs:
        if path.is_file():
            return path
    tried = ", ".join(str(path) for path in dict.fromkeys(as_given + in_runs))
    raise ConfigError(f"{where}weightfile = {value}: not found; looked for {tried}; {_remedy(makers, sections)}")


def _own_result(value: str, name: str, sections: Sections | None) -> str:
    """Explain a start from the own result, and name the experiment most like it that can be run before it."""
    reason = f"this is the result of {name} itself, which cannot start from what it has yet to produce"
    if sections is None:
        return reason
    earlier = [other for other in sections.names() if name not in _ancestors(sections, other)]
    near = did_you_mean(name, [other for other in earlier if not other.startswith(DEFAULT)] or earlier)
    return f"{reason}{near}/params_best.h5 (run it first), or --set weightfile=FILE" if near else reason


def _ancestors(sections: Sections, name: str) -> list[str]:
    """Return an experiment and all whose results it starts from, directly or not."""
    line: list[str] = []
    current: str | None = name
    while current is not None and current not in line:
        line.append(current)
        start = sections.raw_values(current).get("weightfile") if current in sections.names() else None
        makers = produced_by(start.text) if start is not None else []
        current = next((maker for maker in makers if maker in sections.names()), None)
    return line


def _remedy(makers: list[str], sections: Sections | None) -> str:
    """Say what makes the missing file."""
    if not makers:
        return "give the path of an .h5 file, or NAME/params_best.h5 for the result of experiment NAME"
    if sections is None:
        return f"the experiment {makers[0]} makes it"
    known = sections.names()
    maker = next((maker for maker in makers if maker in known), None)
    if maker is None:
        return f"no experiment of {sections.path} makes it{did_you_mean(makers[0], known)}/params_best.h5"
    arch = sections.raw_values(maker).get("arch")
    script = "train_mobilenet.py" if arch is not None and arch.text.startswith("mobilenet") else "train_resnet.py"
    return f"make it with: python {script} {maker} --cfg {sections.path}"
