"""From a YAML file and dotted overrides to a filled dataclass, and back; what the values may be is checked elsewhere."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from latentsync.errors import ConfigError
from latentsync.published_config import PublishedKeys, living_values, without_attention

logger = logging.getLogger(__name__)

ConfigType = TypeVar("ConfigType")


@dataclass(frozen=True)
class Source:
    """Where the values of a configuration come from."""

    path: Path | str  # the YAML file
    overrides: dict[str, str] = field(default_factory=dict)  # dotted key -> the override that sets it, as it was written

    def of(self, key: str) -> str:
        """What a message about a key begins with: the override that sets it, alone, or the file."""
        if key in self.overrides:
            return f"override '{self.overrides[key]}'"
        return f"{self.path} with overrides" if self.overrides else str(self.path)


def read_config(
    kind: type[ConfigType], published: PublishedKeys, path: Path | str, overrides: Sequence[str] = ()
) -> tuple[ConfigType, Source]:
    """Read a YAML file on top of the defaults of a dataclass, and overrides on top of that.

    Args:
        kind: the dataclass; its fields are sections, which are dataclasses too.
        published: keys of published files that are not fields.
        path: the YAML file; relative paths in it are counted from its folder.
        overrides: dotted settings such as "data.resolution=512"; relative paths in them are counted from the working folder.

    Returns:
        the configuration with absolute paths, not checked yet, and where its values come from.

    Raises:
        ConfigError: the file cannot be read, a key is unknown, a value has the wrong type.
    """
    path = Path(path)
    living = living_keys(kind)
    names = frozenset(living)
    values, dead = living_values(read_yaml(path, [entry.name for entry in fields(kind)]), names, published, str(path))
    values |= without_attention(values, names)
    resolve_paths(values, living, path.absolute().parent, str(path))
    resolve_pictures(values, published.pictures, path.absolute().parent)
    if dead:
        logger.warning("%s: these keys of published files have no effect here: %s", path, ", ".join(dead))
    source = Source(path)
    for override in overrides:  # one by one: a message names the one that is wrong
        where = f"override '{override}'"
        changed, ignored = living_values(read_override(override), names, published, where)
        if ignored:
            raise ConfigError(f"{where}: '{ignored[0]}' has no effect here; leave it out")
        resolve_paths(changed, living, Path.cwd(), where)
        resolve_pictures(changed, published.pictures, Path.cwd())
        values |= changed
        source.overrides.update(dict.fromkeys(changed, override))
    return to_config(kind, values, source), source


def dump(config: Any) -> str:
    """A configuration as YAML that reads back as the same."""
    tree = OmegaConf.to_container(OmegaConf.structured(config))
    return OmegaConf.to_yaml(OmegaConf.create(with_plain_paths(tree)))


def with_plain_paths(value: Any) -> Any:
    """Nested mappings and lists with their paths as strings."""
    if isinstance(value, dict):
        return {key: with_plain_paths(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [with_plain_paths(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def living_keys(kind: type, prefix: str = "") -> dict[str, Any]:
    """Dotted name -> type of every value in a dataclass of dataclasses; a mapping counts by the entries of its default."""
    hints = get_type_hints(kind)
    found: dict[str, Any] = {}
    for entry in fields(kind):
        key = f"{prefix}{entry.name}"
        default = default_of(entry)
        if is_dataclass(default):
            found |= living_keys(type(default), f"{key}.")
        elif isinstance(default, dict):
            found |= {f"{key}.{name}": type(value) for name, value in default.items()}
        else:
            found[key] = hints[entry.name]
    return found


def default_of(entry: Field) -> Any:
    """What a field of a dataclass holds when nobody says anything."""
    return entry.default if entry.default_factory is MISSING else entry.default_factory()


def read_yaml(path: Path, sections: Sequence[str]) -> dict[str, Any]:
    """A YAML file as nested plain mappings; ConfigError says why it cannot be one."""
    try:
        loaded = OmegaConf.load(path)
        tree = OmegaConf.to_container(loaded, resolve=True) if isinstance(loaded, DictConfig) else None
    except OSError as error:
        raise ConfigError(f"{path}: the configuration cannot be read ({error.strerror or 'not a YAML file'}); check the path") from error
    except (YAMLError, UnicodeDecodeError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path}: this is not a valid YAML file ({one_line(error)})") from error
    if not tree:
        raise ConfigError(f"{path}: the configuration holds no sections; it needs at least one of {', '.join(sections)}")
    return tree


def read_override(override: str) -> dict[str, Any]:
    """A dotted setting as nested plain mappings."""
    key, equals, _ = override.partition("=")
    if not equals or not all(key.strip().split(".")):
        raise ConfigError(f"override '{override}': write it as section.key=value, such as data.resolution=512")
    try:
        return OmegaConf.to_container(OmegaConf.from_dotlist([override]), resolve=True)
    except (YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"override '{override}': {one_line(error)}") from error


def resolve_paths(values: dict[str, Any], living: Mapping[str, Any], folder: Path, where: str) -> None:
    """Make the paths among dotted `values` absolute, in place; an empty one is none, other types are left for `to_config` to refuse."""
    for key, value in values.items():
        if living[key] != Path | None or not isinstance(value, str):
            continue
        try:
            values[key] = (folder / Path(value).expanduser()).resolve() if value else None
        except (RuntimeError, ValueError, OSError) as error:
            raise ConfigError(f"{where}: '{key}' is {value!r}, which is no path ({one_line(error)})") from error


def resolve_pictures(values: dict[str, Any], pictures: Mapping[str, tuple[str, ...]], folder: Path) -> None:
    """Make the paths of pictures among dotted `values` absolute, in place; names that may stand for a picture, and other words, stay.

    The path of a published picture, such as "some/folder/mask2.png", becomes its name where no such file is there.
    """
    for key, names in pictures.items():
        value = values.get(key)
        if not isinstance(value, str) or value in names or not (Path(value).suffix or Path(value).name != value):
            continue
        path = (folder / Path(value).expanduser()).resolve()
        values[key] = path.stem if path.stem in names and not path.is_file() else str(path)


def to_config(kind: type[ConfigType], values: Mapping[str, Any], source: Source) -> ConfigType:
    """Dotted values on top of the defaults; a value of the wrong type is a ConfigError."""
    schema = OmegaConf.structured(kind)
    for key, value in values.items():
        try:
            OmegaConf.update(schema, key, value)
        except OmegaConfBaseException as error:
            raise ConfigError(f"{source.of(key)}: '{key}' cannot be {value!r} ({one_line(error)})") from error
    return OmegaConf.to_object(schema)


def one_line(error: Exception) -> str:
    """What a library says is wrong, on one line; with the line of the file where it knows."""
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    if problem and mark:
        return f"line {mark.line + 1}: {problem}"
    return str(error).strip().split("\n")[0].rstrip(".")
