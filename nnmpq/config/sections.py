"""The sections of a ``.cfg`` file and what each of them takes from the others; values are still text."""

from __future__ import annotations

import configparser
from pathlib import Path

import attrs

from nnmpq.config.errors import ConfigError, did_you_mean

DEFAULT = "DEFAULT"
INHERIT = "inherit"


@attrs.frozen
class Raw:
    """The text of a value and the section that it was written in.

    Args:
        text: what stands behind the ``=``.
        section: name of the section, or "--set" for one from the command line.
    """

    text: str
    section: str


@attrs.frozen
class Sections:
    """A ``.cfg`` file that could be read.

    Args:
        path: the file.
        own: section name to the keys written in that very section.
    """

    path: Path
    own: dict[str, dict[str, str]]

    def names(self) -> list[str]:
        """Return the experiments of the file: DEFAULT, then the sections in the file's order."""
        return [DEFAULT, *(name for name in self.own if name != DEFAULT)]

    def lineage(self, name: str) -> list[str]:
        """Return a section, what it inherits from, what that inherits from, ... and DEFAULT.

        Raises:
            ConfigError: a section is missing, or inherits in a circle.
        """
        if name not in self.names():
            near = did_you_mean(name, self.names())
            raise ConfigError(
                f"{self.path}: no section [{name}] among its {len(self.names())}{near} (--list shows all)"
            )
        self._parent(DEFAULT)
        line = [name]
        while True:
            parent = self._parent(line[-1])
            if parent is None:
                break
            if parent in line:
                circle = " -> ".join([*line, parent])
                raise self.error(line[-1], INHERIT, parent, f"a circle ({circle}); nearest valid: {DEFAULT}")
            line.append(parent)
        return [*line, DEFAULT] if name != DEFAULT else line

    def _parent(self, section: str) -> str | None:
        parent = self.own.get(section, {}).get(INHERIT, "").strip()
        if parent in ("", "none", "None") or (parent == DEFAULT and section != DEFAULT):
            return None
        if section == DEFAULT:
            raise self.error(section, INHERIT, parent, "every section takes from [DEFAULT]; it takes from none")
        if parent not in self.own:
            others = [name for name in self.names() if name != section]
            raise self.error(section, INHERIT, parent, f"no such section{did_you_mean(parent, others)}")
        return parent

    def raw_values(self, name: str) -> dict[str, Raw]:
        """Return every key of a section with what it inherits; the nearest section wins.

        Raises:
            ConfigError: a section is missing, or inherits in a circle.
        """
        values: dict[str, Raw] = {}
        for section in reversed(self.lineage(name)):
            values.update({key: Raw(text, section) for key, text in self.own.get(section, {}).items()})
        values.pop(INHERIT, None)
        return values

    def error(self, section: str, key: str, value: object, reason: str) -> ConfigError:
        """Return the error about a key of the file."""
        return ConfigError(f"{self.path}: [{section}] {key} = {value}: {reason}")


def read_sections(path: str | Path) -> Sections:
    """Read a ``.cfg`` file without interpreting its values.

    Args:
        path: the file; UTF-8 text.

    Raises:
        ConfigError: the file is missing or is no ``.cfg``, or a section or key stands in it twice.
    """
    path = Path(path)
    # [DEFAULT] is read like any section, to tell what a section itself says from what it inherits.
    parser = configparser.ConfigParser(interpolation=None, default_section="\0")
    try:
        parser.read_string(path.read_text(encoding="utf-8-sig"), source=str(path))
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise ConfigError(f"{path}: {reason}{_files_near(path)}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file in UTF-8 ({error})") from error
    except configparser.DuplicateSectionError as error:
        reason = "the section stands twice; rename one"
        raise ConfigError(f"{path}, line {error.lineno}: [{error.section}] {reason}") from error
    except configparser.DuplicateOptionError as error:
        where = f"{path}, line {error.lineno}: [{error.section}] {error.option}"
        raise ConfigError(f"{where}: the key stands twice in this section; remove one") from error
    except configparser.MissingSectionHeaderError as error:
        reason = f"{error.line.strip()!r} stands before the first [SECTION]"
        raise ConfigError(f"{path}, line {error.lineno}: {reason}") from error
    except configparser.ParsingError as error:
        lineno, line = error.errors[0]
        raise ConfigError(f"{path}, line {lineno}: {line} is neither [SECTION] nor key = value") from error
    sections = Sections(path, {name: dict(parser[name]) for name in parser.sections()})
    for section, values in sections.own.items():
        for key, text in values.items():
            _check_continuation(sections, section, key, text)
    return sections


def _check_continuation(sections: Sections, section: str, key: str, text: str) -> None:
    lines = text.split("\n")
    if any(not line.rstrip().endswith(",") for line in lines[:-1]):
        reason = "an indented line continues the value above it; start keys and comments in the first column"
        raise sections.error(section, key, repr(text), reason)


def _files_near(path: Path) -> str:
    folder = path.parent if path.parent.is_dir() else Path("cfgs")
    return did_you_mean(str(path), [str(file) for file in sorted(folder.glob("*.cfg"))])
