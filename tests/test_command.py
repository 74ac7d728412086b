"""The command line as a shell sees it: one clear message, or the value meant."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
from absl import flags
from ml_collections import ConfigDict, config_dict

from git_jax import command
from git_jax import config as configs
from git_jax.annotation import fit, read
from git_jax.node import adopt

ROOT = Path(__file__).parents[1]

PARTS = '''
    """Classes of a user: a config names them, a file holds them."""
    from dataclasses import dataclass, field

    @dataclass(frozen=True)
    class Crop:
        size: int = 64
        scale: tuple[float, float] = (0.8, 1.0)
        flip: bool = False
        names: tuple[str, ...] = ()

    @dataclass(frozen=True)
    class Loader:
        text: int = 40
        path: str | None = None
        limit: int | None = 3
        image: Crop = Crop()
        stages: tuple[Crop, ...] = (Crop(1), Crop(2))
        weights: dict[str, float] = field(default_factory=dict)
'''

CONFIG = """
    from ml_collections import ConfigDict
    import parts
    from git_jax.config import spec

    def get_config() -> ConfigDict:
        return ConfigDict({
            "steps": 10, "peak": 1e-3, "on": False, "note": None,
            "loader": spec(parts.Loader), "losses": {"caption": 1.0},
        })

    def big() -> ConfigDict:
        config = get_config()
        config.steps = 1000
        return config

    def misspelt() -> ConfigDict:
        config = get_config()
        config.loader.image.siz = 3
        return config

    def mistyped() -> ConfigDict:
        config = get_config()
        config.steps = "many"
        return config

    def absent() -> ConfigDict:
        config = get_config()
        config.lader.text = 3
        return config

    def unnamed() -> ConfigDict:
        return spec(parts.Lodaer)

    def nothing() -> None:
        return None

    def scaled(factor: int) -> ConfigDict:
        return get_config()

    def _private() -> ConfigDict:
        return get_config()
"""

PROGRAM = """
    import sys
    import jax
    import numpy as np
    from absl import flags
    from git_jax import command, config

    def define() -> None:
        flags.DEFINE_string("workdir", None, "Where the run is kept.")
        flags.DEFINE_integer("times", 1, "How often.", lower_bound=1)
        flags.DEFINE_string("fail", None, "What to fail with.")

    def main(options: command.Command) -> int | None:
        fail = options.flags.fail
        if fail == "value":
            raise ValueError("the picture a.jpg is empty; remove it")
        if fail == "file":
            open("absent.txt")
        if fail == "bug":
            raise TypeError("a bug of ours")
        if fail == "library":
            np.stack([])
        if fail == "compiled":
            jax.jit(lambda x: x + np.zeros(3))(np.zeros(2))
        if fail == "interrupt":
            raise KeyboardInterrupt
        if fail == "code":
            return 3
        loaded = options.config()
        if options.flags.workdir:
            config.save(loaded, f"{options.flags.workdir}/config.json")
        sys.stdout.write(config.dumps(loaded))
        print(options.arguments, options.flags.times, file=sys.stderr)

    if __name__ == "__main__":
        command.run(main, define)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder: parts of their own, a config file and a program."""
    files = {"parts.py": PARTS, "c.py": CONFIG, "program.py": PROGRAM}
    for name, text in files.items():
        (tmp_path / name).write_text(textwrap.dedent(text))
    return tmp_path


@pytest.fixture
def shell(folder: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "program.py", *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


@pytest.fixture
def parsed(folder: Path, monkeypatch: Any) -> Callable[..., ConfigDict]:
    """The config of a command line, without the price of a process."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "parts", raising=False)

    def parse(*arguments: str) -> ConfigDict:
        values = flags.FlagValues()
        return command.parse(["program.py", *arguments], values=values).config()

    return parse


# ---------------------------------------------------------------------------- processes


def test_one_command_sets_every_kind_of_field(shell: Any, folder: Path) -> None:
    done = shell(
        "--config=c.py:big",
        "--config.steps=7",
        "--config.on",
        "--config.peak=5e-4",
        "--config.loader.text",
        "24",
        "--config.loader.path=a=b c",
        "--config.loader.limit=none",
        "--config.loader.image.scale=0.5,1",
        "--config.loader.image.flip=true",
        "--config.loader.stages.1.size=9",
        "--config.loader.weights={'a': 1}",
        "--config.losses.caption=2",
        "--workdir=.",
        "--times=2",
        "a.jpg",
        "b.jpg",
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "['a.jpg', 'b.jpg'] 2\n"
    tree = json.loads(done.stdout)
    assert json.loads((folder / "config.json").read_text()) == tree
    loader = tree.pop("loader")
    assert tree == {
        "steps": 7,
        "on": True,
        "peak": 5e-4,
        "note": None,
        "losses": {"caption": 2.0},
    }
    assert loader["text"] == 24 and loader["path"] == "a=b c"
    assert loader["limit"] is None and loader["weights"] == {"a": 1.0}
    assert loader["image"]["scale"] == {"tuple": [0.5, 1.0]} and loader["image"]["flip"]
    assert loader["stages"]["tuple"][1]["size"] == 9


def test_a_run_is_rebuilt_from_its_json_alone(shell: Any, folder: Path) -> None:
    first = shell("--config=c.py", "--config.loader.text=9", "--workdir=.")
    (folder / "c.py").unlink()
    refused = shell("--config=config.json")
    assert refused.returncode == 1 and "--import=parts" in refused.stderr
    again = shell("--config=config.json", "--import=parts", "--config.steps=11")
    want = json.loads(first.stdout) | {"steps": 11}
    assert json.loads(again.stdout) == want and want["loader"]["text"] == 9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=c.py", "--config.loader.image.siz=3"], "Crop has no field 'siz'"),
        (["--config=c.py", "--wrkdir=x"], "flag 'wrkdir'. Did you mean: workdir ?"),
        (["--config=c.py", "--times=0"], "--times=0"),
        (["--config=none.py"], "no file none.py; beside it: c.py, parts.py"),
        (["--fail=value"], "error: the picture a.jpg is empty; remove it"),
        (["--fail=file"], "error: absent.txt: No such file or directory"),
        ([], "--config is missing"),
    ],
)
def test_what_a_user_did_is_one_line(shell: Any, arguments: Any, message: str) -> None:
    done = shell(*arguments)
    assert done.returncode == 1 and done.stdout == ""
    assert message in done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("bug", ["bug", "library", "compiled"])
def test_a_bug_keeps_its_traceback(shell: Any, bug: str) -> None:
    done = shell(f"--fail={bug}")
    assert done.returncode == 1 and "Traceback" in done.stderr


def test_exit_codes(shell: Any) -> None:
    done = shell("--fail=interrupt")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
    assert shell("--fail=code").returncode == 3
    done = shell("--help")
    assert done.returncode == 0
    assert "--config:" in done.stdout and "--workdir:" in done.stdout


def test_the_classes_of_a_config_are_those_of_the_program(folder: Path) -> None:
    program = """
        from dataclasses import dataclass
        from absl import flags
        from ml_collections import ConfigDict
        from git_jax import command, config

        @dataclass(frozen=True)
        class Start:
            step: int = 0

        def get_config() -> ConfigDict:
            import program
            return ConfigDict({"start": config.spec(program.Start)})

        def main(options: command.Command) -> None:
            assert isinstance(config.build(options.config().start), Start)

        def define() -> None:
            flags.DEFINE_string("workdir", None, "Where the run is kept.")

        if __name__ == "__main__":
            command.run(main, define)
    """
    (folder / "program.py").write_text(textwrap.dedent(program))
    done = module(folder, "--config=program.py")
    assert (done.returncode, done.stderr) == (0, "")
    done = module(folder, "--help")  # which tells the flags of the module, too
    assert done.returncode == 0
    assert "--config:" in done.stdout and "--workdir:" in done.stdout


def module(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "program", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_real_interrupt_is_quiet(folder: Path) -> None:
    (folder / "c.py").write_text(
        "import time\n"
        "def get_config():\n    print('here', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "program.py", "--config=c.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == ""
    assert process.returncode == 130


# ------------------------------------------------------------------------- config files


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "c.py:bigg",
            "c.py has no variant 'bigg'; it has absent, big, misspelt, mistyped, "
            "nothing, unnamed (did you mean 'big'?)",
        ),
        ("c.py:_private", "c.py has no variant '_private'"),
        ("c.py:scaled", "c.py has no variant 'scaled'"),
        ("c.py:spec", "c.py has no variant 'spec'"),
        ("c.py:misspelt", "c.py:19: Crop has no field 'siz'; it has flip, names, sc"),
        ("c.py:mistyped", "c.py:24: TypeError: Could not override field 'steps'"),
        ("c.py:absent", "c.py:29: AttributeError: 'lader' Did you mean \"loader\""),
        ("c.py:unnamed", "c.py:33: AttributeError: module 'parts' has no attribute"),
        ("c.py:nothing", "c.py:nothing: a ConfigDict was expected, not None"),
        ("syntax.py", "syntax.py:2: "),
        ("imports.py", "imports.py:1: ModuleNotFoundError: No module named 'nowhere'"),
        ("names.py", "names.py has no get_config(): name a variant, as in --config="),
        ("notes.txt", "notes.txt: a config file is Python (.py) or a run's .json"),
        ("config.json:big", "a JSON config has no variants"),
        ("", "--config is missing: name a file"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(
    parsed: Any, folder: Path, name: str, message: str
) -> None:
    (folder / "syntax.py").write_text("x = 1\ndef get_config(:\n")
    (folder / "imports.py").write_text("import nowhere\n")
    (folder / "names.py").write_text("def a(): ...\ndef b(): ...\n")
    (folder / "notes.txt").write_text("")
    (folder / "config.json").write_text("{}")
    with pytest.raises(ValueError) as error:
        parsed(f"--config={name}")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_bug_below_a_config_file_is_raised_as_it_is(
    parsed: Any, folder: Path
) -> None:
    (folder / "parts.py").write_text("def f(): return {}['x']\n")
    (folder / "c.py").write_text("import parts\ndef get_config(): return parts.f()\n")
    with pytest.raises(KeyError):
        parsed("--config=c.py")


def test_files_of_ml_collections_convention_work(parsed: Any, folder: Path) -> None:
    (folder / "c.py").write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config(arg='small'):\n    return ConfigDict({'arg': arg})\n"
    )
    assert parsed("--config=c.py").arg == "small"
    assert parsed("--config=c.py:large,wide").arg == "large,wide"


def test_what_a_config_file_defines_cannot_be_saved(parsed: Any, folder: Path) -> None:
    (folder / "c.py").write_text(
        "from ml_collections import ConfigDict\n"
        "from git_jax.config import spec\n"
        "def loss(*, weight: float = 1.0): ...\n"
        "def get_config(): return ConfigDict({'loss': spec(loss)})\n"
    )
    with pytest.raises(ValueError, match="^loss: loss of __config__.c cannot be saved"):
        configs.dumps(parsed("--config=c.py", "--config.loss.weight=2"))


# ---------------------------------------------------------------------------- overrides


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "loder.text=3",
            "the config has no field 'loder'; it has loader, losses, note",
        ),
        (
            "loader.txt=3",
            "Loader has no field 'txt'; it has image, limit, path, stages",
        ),
        (
            "loader.image.x.y=3",
            "Crop has no field 'x'; it has flip, names, scale, size",
        ),
        ("loader.text.x=3", "loader.text is 40, which has no field 'x'"),
        ("loader.text=3.0", "Loader.text is int, not '3.0'"),
        ("loader.text=none", "Loader.text is int, not 'none'"),
        ("loader.text", "Loader.text is int, not 'true'"),
        ("loader.image.flip=yes", "Crop.flip is bool, not 'yes'"),
        ("loader.image.scale=1", "Crop.scale is tuple[float, float], not "),
        (
            "loader.image=3",
            "Loader.image holds a Crop; set its fields: size, scale, fl",
        ),
        ("loader.class=os:system", "Loader has no field 'class'"),
        ("loader.stages.2.size=1", "loader.stages has no item '2'; it has 0, 1"),
        ("loader.weights={'a': 'b'}", "Loader.weights is dict[str, float], not "),
        ("losses.matching=1", "losses has no field 'matching'; it has caption"),
        ("losses=3", "losses is a dict, not '3'"),
        ("peak=fast", "peak is float, not 'fast'"),
        ("=3", "the config has no field ''"),
    ],
)
def test_a_wrong_override_names_field_and_type(
    parsed: Any, override: str, message: str
) -> None:
    with pytest.raises(ValueError) as error:
        parsed("--config=c.py", f"--config.{override}")
    assert message in str(error.value)
    assert str(error.value).startswith(f"--config.{override}")


def test_later_overrides_win_and_forms_agree(parsed: Any) -> None:
    config = parsed(
        "-config.steps=1",
        "--config=c.py",
        "--config.steps",
        "2",
        "--noconfig.on",
        "--config.loader.stages[0].size=5",
        "--config.note=[1, 'a']",
        "--config.loader.limit",
        "-4",
    )
    assert (config.steps, config.on, config.note) == (2, False, [1, "a"])
    assert config.loader.stages[0].size == 5 and config.loader.limit == -4
    assert config.is_locked


def test_what_follows_two_dashes_is_left_alone(parsed: Any, folder: Path) -> None:
    line = ["program.py", "--config=c.py", "--", "--config.steps=3"]
    options = command.parse(line, values=flags.FlagValues())
    assert options.arguments == ["--config.steps=3"] and options.config().steps == 10


def test_a_placeholder_has_its_type(parsed: Any, folder: Path) -> None:
    config = ConfigDict({"limit": config_dict.placeholder(int)})
    command.override(config, "limit", "3")
    assert config.limit == 3
    with pytest.raises(ValueError, match="limit is int, not 'x'"):
        command.override(config, "limit", "x")


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("3", int, 3),
        ("-1", int, -1),
        ("1_000", int, 1000),
        ("3", float, 3.0),
        ("inf", float, float("inf")),
        ("3", str, "3"),
        ("none", str, "none"),
        ("none", str | None, None),
        ("None", int | None, None),
        ("3", int | str, 3),
        ("3", str | int, 3),
        ("a", int | str, "a"),
        ("0", bool, False),
        ("TRUE", bool, True),
        ("pre", Literal["pre", "post"], "pre"),
        ("2", Literal[1, 2], 2),
        ("1,2", tuple[int, ...], (1, 2)),
        ("(1, 2)", tuple[int, ...], (1, 2)),
        ("[1]", tuple[int, ...], (1,)),
        ("1", tuple[int, ...], (1,)),
        ("", tuple[int, ...], ()),
        ("()", tuple[int, ...], ()),
        ("cross, self", tuple[str, ...], ("cross", "self")),
        ("(cross,self)", tuple[str, ...], ("cross", "self")),
        ("'a,b','c'", tuple[str, ...], ("a,b", "c")),
        ("((1, 2), (3,))", tuple[tuple[int, ...], ...], ((1, 2), (3,))),
        ("1,2", list[float], [1.0, 2.0]),
        ("none", tuple[int, ...] | None, None),
        ("1,2", tuple[int, ...] | None, (1, 2)),
        ("{'a': 1}", Mapping[str, float], {"a": 1.0}),
        ("3", Any, 3),
        ("true", Any, True),
        ("plain text", Any, "plain text"),
        ("git_jax.config:dumps", Callable[..., Any], configs.dumps),
    ],
)
def test_text_means_what_the_annotation_wants(text: str, kind: Any, value: Any) -> None:
    found = fit(adopt(read(text, kind)), kind)
    found = found.to_dict() if isinstance(found, ConfigDict) else found
    assert found == value and repr(found) == repr(value)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("x", int),
        ("1.5", int),
        ("", int),
        ("x", float),
        ("maybe", bool),
        ("x", Literal["pre"]),
        ("a,b", tuple[int, ...]),
        ("1,2,3", tuple[int, int]),
        ("x", int | None),
        ("x", dict[str, int]),
        ("os:system", Callable[..., Any]),
    ],
)
def test_text_that_means_nothing_is_refused(text: str, kind: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        fit(adopt(read(text, kind)), kind)
