"""The command line: `--config=FILE:NAME --config.model.encoder.depth=6 --workdir=DIR`.

    def define() -> None:
        flags.DEFINE_string("workdir", None, "Where the run is kept.")

    def main(command: Command) -> int | None:
        config = command.config()             # of --config, with its overrides
        train(config, command.flags.workdir)

    if __name__ == "__main__":
        run(main, define)

The flags are absl's. A config file is Python: each public function without parameters
is a variant, `FILE:NAME` calls NAME and `FILE` alone calls `get_config`; a file of
ml_collections' own convention, `get_config(NAME)`, works as well. `FILE` may also be
the `config.json` of a run. What a user can get wrong ends in one line on stderr,
`error: ...`, and exit code 1; a bug of ours ends in its traceback.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib
import importlib.util
import inspect
import pathlib
import sys
import sysconfig
import traceback
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any

import ml_collections
from absl import app, flags
from ml_collections import ConfigDict

from git_jax import config as configs
from git_jax.annotation import CLASS, describe, read
from git_jax.node import Node, check, fields, name_of, short, unknown

# ------------------------------------------------------------------------- overrides


def override(config: ConfigDict, path: str, text: str) -> None:
    """Sets `path` ("model.encoder.depth") of `config` to what `text` means there.

    Raises ValueError naming the legal fields, or the type of the field and the value.
    """
    *way, last = path.replace("[", ".").replace("]", "").split(".")
    holder, parents = config, []
    for depth, part in enumerate(way):
        parents.append((holder, _key(holder, part, way[:depth])))
        holder = holder[parents[-1][1]]
    key = _key(holder, last, way)
    owner, kind = path, _kind(holder, key)
    held = holder[key]
    if isinstance(holder, Node):
        owner, kind = f"{name_of(holder[CLASS])}.{key}", fields(holder[CLASS])[key].kind
    try:
        value = check(owner, read(text, kind), kind)
    except (TypeError, ValueError):
        if not isinstance(held, Node):
            raise ValueError(f"{owner} is {describe(kind)}, not {text!r}") from None
        names = ", ".join(name for name in held if name != CLASS)
        raise ValueError(
            f"{owner} holds a {name_of(held[CLASS])}; set its fields: {names}"
        ) from None
    # A sequence cannot be assigned into: its holder gets another one.
    while isinstance(holder, list | tuple):
        items = [*holder[:key], value, *holder[key + 1 :]]
        value = type(holder)(items)
        holder, key = parents.pop()
    holder[key] = value


def _key(holder: Any, part: str, way: Sequence[str]) -> Any:
    """`part` of a path as a key of `holder`, found at `way`, or ValueError."""
    at = ".".join(way) or "the config"
    if isinstance(holder, list | tuple):
        if part.isdigit() and int(part) < len(holder):
            return int(part)
        raise ValueError(unknown(at, part, range(len(holder)), "item"))
    if not isinstance(holder, ConfigDict):
        raise ValueError(f"{at} is {short(holder)}, which has no field {part!r}")
    if part in holder and part != CLASS:
        return part
    owner = name_of(holder[CLASS]) if isinstance(holder, Node) else at
    raise ValueError(unknown(owner, part, holder))


def _kind(holder: Any, key: Any) -> Any:
    """What an entry of a plain ConfigDict or a sequence may hold: more of the same."""
    plain = isinstance(holder, ConfigDict)
    kind = holder.get_type(key) if plain else type(holder[key])
    return Any if kind is types.NoneType else kind


# ----------------------------------------------------------------------- config files


def load(name: str) -> ConfigDict:
    """The config called `FILE`, `FILE:NAME` or `RUN/config.json`.

    Raises ValueError for a missing file, an unknown variant (naming the legal ones) and
    for whatever goes wrong in the file, with its line.
    """
    path, variant = _split(name)
    if not path.is_file():
        beside = sorted(str(p) for p in path.parent.glob("*.py"))
        there = f"; beside it: {', '.join(beside)}" if beside else ""
        raise ValueError(f"--config={name}: no file {path}{there}")
    if path.suffix == ".json":
        if variant:
            raise ValueError(f"--config={name}: a JSON config has no variants")
        return configs.load(path)
    with _errors_of(path):
        module = _execute(path)
        config = _variant(module, path, variant)()
    if not isinstance(config, ConfigDict):
        raise ValueError(f"--config={name}: a ConfigDict was expected, not {config!r}")
    return config


def _split(name: str) -> tuple[pathlib.Path, str]:
    path, colon, variant = name.rpartition(":")
    if not colon or pathlib.Path(name).is_file():
        return pathlib.Path(name), ""
    return pathlib.Path(path), variant


def _execute(path: pathlib.Path) -> types.ModuleType:
    found = importlib.util.spec_from_file_location(f"__config__.{path.stem}", path)
    if found is None or found.loader is None:
        raise ValueError(f"{path}: a config file is Python (.py) or a run's .json")
    module = importlib.util.module_from_spec(found)
    sys.modules[module.__name__] = module  # dataclasses look their module up there
    found.loader.exec_module(module)
    return module


def _variant(
    module: types.ModuleType, path: pathlib.Path, name: str
) -> Callable[[], ConfigDict]:
    variants = {
        key: value
        for key, value in vars(module).items()
        if inspect.isfunction(value)
        and value.__module__ == module.__name__
        and not key.startswith("_")
        and not _needs_arguments(value)
    }
    get_config = getattr(module, "get_config", None)
    if not name and "get_config" in variants:
        return variants["get_config"]
    if name in variants:
        return variants[name]
    if (
        name
        and inspect.isfunction(get_config)
        and inspect.signature(get_config).parameters
    ):
        return lambda: get_config(name)
    named = sorted(set(variants) - {"get_config"})
    if not name:
        raise ValueError(
            f"{path} has no get_config(): name a variant, as in --config={path}:NAME, "
            f"of {', '.join(named) or 'none'}"
        )
    raise ValueError(unknown(str(path), name, named, "variant"))


def _needs_arguments(function: Callable[..., Any]) -> bool:
    return any(
        p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        for p in inspect.signature(function).parameters.values()
    )


@contextlib.contextmanager
def _errors_of(path: pathlib.Path) -> Any:
    """Turns what the author of the file at `path` did wrong into one ValueError."""
    try:
        yield
    except SyntaxError as error:
        raise ValueError(f"{error.filename}:{error.lineno}: {error.msg}") from error
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f.lineno for f in frames if _same(f.filename, path)]
        innermost = frames[-1].filename
        theirs = _same(innermost, path) or _within(innermost, ml_collections)
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        if not lines or not (theirs or isinstance(error, ValueError | ImportError)):
            raise
        raise ValueError(f"{path}:{lines[-1]}: {kind}{_message(error)}") from error


def _message(error: BaseException) -> str:
    """The innermost message: ConfigDict wraps one error's text in another's."""
    inner = error.args[0] if error.args else ""
    if isinstance(inner, BaseException):
        return _message(inner)
    return " ".join((inner if isinstance(inner, str) else str(error)).split())


def _same(filename: str, path: pathlib.Path) -> bool:
    return pathlib.Path(filename).absolute() == path.absolute()


def _within(filename: str, package: types.ModuleType) -> bool:
    root = pathlib.Path(str(package.__file__)).parent
    return pathlib.Path(filename).is_relative_to(root)


# ------------------------------------------------------------------------ entry points


@dataclasses.dataclass(frozen=True)
class Command:
    """A parsed command line: absl's `flags`, the `arguments` that are no flags, and the
    `overrides` (path, text) of the config in their order."""

    flags: flags.FlagValues
    arguments: list[str]
    overrides: list[tuple[str, str]]

    def refuse_arguments(self) -> None:
        """ValueError where the command line has words that are no flags."""
        if self.arguments:
            raise ValueError(
                f"{' '.join(self.arguments)}: this command takes flags alone, such as "
                f"--config={self.arguments[0]}"
            )

    def config(self) -> ConfigDict:
        """The config of `--config`, overridden and locked."""
        if not self.flags.config:
            raise ValueError(
                "--config is missing: name a file, such as configs/scenes.py:tiny"
            )
        return self.overridden(load(self.flags.config))

    def overridden(self, config: ConfigDict) -> ConfigDict:
        """A copy of a config with what the command line sets of it, locked."""
        config = copy.deepcopy(config)
        for path, text in self.overrides:
            try:
                override(config, path, text)
            except ValueError as error:
                raise ValueError(f"--config.{path}={text}: {error}") from None
        return config.lock()


def parse(
    argv: Sequence[str],
    define: Callable[[], None] | None = None,
    values: flags.FlagValues = flags.FLAGS,
) -> Command:
    """Parses `argv` (the program first) into absl's flags and the config's overrides.

    `define` defines the flags of this command; `--config` is defined here.
    """
    if "config" not in values:
        flags.DEFINE_string(
            "config",
            None,
            "The config: FILE, FILE:VARIANT or RUN/config.json. Any field of it is set "
            "by --config.PATH=VALUE, such as --config.model.encoder.depth=6.",
            flag_values=values,
            module_name=argv[0],  # the program's own, for --help
        )
        flags.DEFINE_list(
            "import",
            [],
            "Modules of your own to import first: those whose classes a saved config "
            "names.",
            flag_values=values,
            module_name=argv[0],
        )
        if define is not None:
            before = set(values)
            define()
            for name in set(values) - before:  # for --help, which tells the program's
                values.register_key_flag_for_module(argv[0], values[name])
    rest, overrides = _take_overrides(argv)
    try:
        arguments = values(rest)
    except flags.Error as error:
        raise ValueError(str(error)) from error
    for name in values["import"].value or ():
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ValueError(f"--import={name}: {error}") from error
    return Command(values, list(arguments[1:]), overrides)


def _take_overrides(
    argv: Sequence[str],
) -> tuple[list[str], list[tuple[str, str]]]:
    """Splits `--config.PATH=VALUE`, `--config.PATH VALUE`, `--config.FLAG` and
    `--noconfig.FLAG` from all else, which is absl's."""
    rest: list[str] = []
    overrides: list[tuple[str, str]] = []
    waiting = list(argv)
    while waiting:
        argument = waiting.pop(0)
        if argument == "--":
            return [*rest, argument, *waiting], overrides
        name, equals, text = argument.partition("=")
        dashes = len(name) - len(name.lstrip("-"))
        name = name.lstrip("-")
        if dashes in (1, 2) and name.startswith("noconfig.") and not equals:
            overrides.append((name.removeprefix("noconfig."), "false"))
        elif dashes not in (1, 2) or not name.startswith("config."):
            rest.append(argument)
        elif equals:
            overrides.append((name.removeprefix("config."), text))
        else:
            follows = bool(waiting) and not waiting[0].startswith("--")
            value = waiting.pop(0) if follows else "true"
            overrides.append((name.removeprefix("config."), value))
    return rest, overrides


def run(
    main: Callable[[Command], int | None], define: Callable[[], None] | None = None
) -> typing.NoReturn:
    """Parses the command line, calls `main` and exits with what it returns (None: 0).

    A ValueError raised by code of ours, or an error of the system such as a missing
    file, is the user's to mend: one line on stderr and exit code 1. An interrupt exits
    with 130.
    """
    app.define_help_flags()
    if "jax" in sys.modules:
        # It hides its own frames, by which a bug is told from what a user can mend.
        sys.modules["jax"].config.update("jax_traceback_filtering", "off")
    try:
        code = _imported(main)(_parse_or_help(_imported(define) if define else None))
    except KeyboardInterrupt:
        code = 130
    except (ValueError, OSError) as error:
        if not _is_users(error):
            raise
        message = str(error)
        if isinstance(error, OSError) and error.filename is not None:
            message = f"{error.filename}: {error.strerror}"
        print(f"error: {message}", file=sys.stderr)
        code = 1
    sys.exit(code)


def _imported(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of the module as `import` finds it, not of the copy that runs.

    Under `python -m git_jax.train` the module exists twice: a config holds classes of
    `git_jax.train`, of which those of `__main__` are lookalikes.
    """
    found = sys.modules["__main__"].__spec__
    if function.__module__ != "__main__" or found is None:
        return function
    return getattr(importlib.import_module(found.name), function.__name__)


def _parse_or_help(define: Callable[[], None] | None) -> Command:
    try:
        return parse(sys.argv, define)
    except SystemExit:  # absl has printed the help that was asked for, and calls it 1
        sys.exit(0)


def _is_users(error: ValueError | OSError) -> bool:
    """Whether the error was raised on purpose: by the system, or outside libraries.

    A ValueError from within jax or numpy is a bug of ours, whose traceback is wanted.
    """
    if isinstance(error, OSError):
        return error.errno is not None
    innermost = pathlib.Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    if innermost.is_relative_to(pathlib.Path(__file__).parent):
        return True
    libraries = {sysconfig.get_path(key) for key in ("stdlib", "purelib", "platlib")}
    return not any(innermost.is_relative_to(library) for library in libraries)
