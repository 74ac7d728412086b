"""Settings in JSON files: read, and held to the types of their defaults.

held({"depth": 3}, {"depth": 2, "rate": 0.1}, where="a.json")
                                                {"depth": 3, "rate": 0.1}
held({"depth": "3"}, {"depth": 2}, where="a.json")
                                    ValueError: a.json: depth is '3'; it must be int
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import GenericAlias
from typing import Any

from git_jax.annotation import describe, fit


def read(path: Path) -> dict[str, Any]:
    """The settings of a file, by name.

    Raises:
        ValueError: it holds no JSON object.
    """
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:  # no JSON, or no UTF-8
        raise ValueError(f"{path} is no JSON ({error}): copy it again") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} is no JSON object: it needs settings by name")
    return found


def held(
    given: Mapping[str, Any], defaults: Mapping[str, Any], *, where: str
) -> dict[str, Any]:
    """The settings that have defaults, as given or by default.

    A value is of its default's type, an int where a float is wanted and a list where a
    tuple is; where the default is None it is an int or null.

    Raises:
        ValueError: naming the key of a value of another type, below `where`.
    """
    found = dict(defaults)
    for key in defaults.keys() & given.keys():
        kind = _kind(defaults[key])
        try:
            found[key] = fit(given[key], kind)
        except TypeError:
            raise ValueError(
                f"{where}: {key} is {given[key]!r}; it must be {describe(kind)}"
            ) from None
    return found


def _kind(default: Any) -> Any:
    if default is None:
        return int | None
    if isinstance(default, tuple):
        return GenericAlias(tuple, (type(default[0]), ...))
    return type(default)


def nested(given: Mapping[str, Any], key: str, *, where: str) -> Mapping[str, Any]:
    """The settings below a key, none of them where it is not there or null.

    Raises:
        ValueError: what is there are no settings.
    """
    found = given.get(key)
    if not isinstance(found, Mapping | None):
        raise ValueError(f"{where}: {key} is {found!r}, not a set of settings")
    return found or {}
