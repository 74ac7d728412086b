"""The floors of the house: what may import what.

4  train  evaluate  caption  convert/  may import everything below
3  config  checkpoint  init  report ...
2  models/  vision/
1  nn/  losses  optim  sharding  decode/
0  tree  |  file  data/  tasks/      left: arrays, right: files, numpy only
"""

import ast
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOOR = {
    **dict.fromkeys(("train", "evaluate", "caption", "convert"), 4),
    **dict.fromkeys(("match", "plan", "benchmark"), 4),
    **dict.fromkeys(("trained", "writer", "watch", "init"), 3),
    **dict.fromkeys(("annotation", "node", "config", "command"), 3),
    **dict.fromkeys(
        ("checkpoint", "run", "log", "report", "chart", "gallery", "markup"), 3
    ),
    **dict.fromkeys(("models", "vision"), 2),
    **dict.fromkeys(("nn", "losses", "optim", "sharding", "decode"), 1),
    **dict.fromkeys(("tree", "file", "data", "tasks"), 0),
}
LOADING = {"file", "data", "tasks"}  # loader workers must not touch the accelerator
# The arrays' side: what is drawn left of data/ and tasks/.
ARRAYS = {room for room, floor in FLOOR.items() if floor <= 2} - LOADING

ARRAY_PACKAGES = {"jax", "flax", "optax", "chex", "jaxtyping", "numpy"}
HEAVY = {"grain", "tensorflow_datasets", "sklearn", "sentencepiece", "tokenizers"}
IO = {"io", "os", "pathlib", "shutil", "socket", "subprocess", "tempfile", "urllib"}


def modules():
    """{"git_jax.nn.mask": its syntax tree, ...}."""
    found = {}
    for path in sorted((ROOT / "git_jax").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


MODULES = modules()


def is_command(node):
    if isinstance(node, ast.If):
        return ast.unparse(node.test) == "__name__ == '__main__'"
    return isinstance(node, ast.FunctionDef) and node.name == "main"


def imports(tree, *, at_start=False):
    """Names of what a tree imports, or of what importing it imports at once.

    `from a import b` gives a.b where that is a module of ours, else a.
    """
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        if is_command(node):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: import by the full name"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if not (at_start and function):
            waiting += ast.iter_child_nodes(node)


def room(module):
    """git_jax.nn.mask -> nn; None for the package itself and for what is not ours."""
    first, *rest = module.split(".")
    return rest[0] if first == "git_jax" and rest else None


def ours(module, **kwargs):
    return {name for name in imports(MODULES[module], **kwargs) if name in MODULES}


def packages(module, **kwargs):
    return {name.partition(".")[0] for name in imports(MODULES[module], **kwargs)}


everywhere = pytest.mark.parametrize("module", MODULES)


@everywhere
def test_every_room_has_a_floor(module):
    assert room(module) is None or room(module) in FLOOR, (
        f"{module} is new: give its room a floor in FLOOR and in the docstring"
    )


@everywhere
def test_no_floor_imports_a_higher_one(module):
    if room(module) in FLOOR:
        higher = {
            name
            for name in ours(module)
            if room(name) and FLOOR[room(name)] > FLOOR[room(module)]
        }
        assert not higher


def test_there_is_no_cycle():
    def visit(module, way):
        assert module not in way, " -> ".join([*way[way.index(module) :], module])
        if module not in seen:
            for name in sorted(ours(module)):
                visit(name, [*way, module])
            seen.add(module)

    seen = set()
    for module in MODULES:
        visit(module, [])


@everywhere
def test_the_package_imports_no_config_file_and_no_test(module):
    assert not packages(module) & {"configs", "tests"}


@everywhere
def test_data_and_tasks_keep_off_the_accelerator(module):
    if room(module) in LOADING:
        assert not packages(module) & {"jax", "jaxlib", "flax", "optax", "chex"}
        strangers = {name for name in ours(module) if room(name) not in LOADING}
        assert not strangers


@everywhere
def test_what_few_need_is_imported_where_it_is_needed(module):
    if packages(module, at_start=True) & HEAVY:  # fine in what is itself imported late
        users = [other for other in MODULES if module in ours(other, at_start=True)]
        assert not users


@everywhere
def test_only_data_knows_how_data_is_stored(module):
    assert room(module) == "data" or not packages(module) & HEAVY


@everywhere
def test_array_code_needs_the_array_packages_alone(module):
    if room(module) in ARRAYS:
        others = packages(module) - set(sys.stdlib_module_names) - {"git_jax"}
        assert others <= ARRAY_PACKAGES
        strangers = {name for name in ours(module) if room(name) not in ARRAYS}
        assert not strangers


@everywhere
def test_array_code_reads_and_writes_no_file(module):
    if room(module) in ARRAYS:
        assert not packages(module) & IO
        calls = (n for n in ast.walk(MODULES[module]) if isinstance(n, ast.Call))
        names = {call.func.id for call in calls if isinstance(call.func, ast.Name)}
        assert not names & {"open", "print", "input"}


def closure(names):
    """The distributions `names` and all that they need in turn."""
    found, waiting = set(), list(names)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in found:
            continue
        found.add(name)
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # needed on another system only
        for requirement in requirements:
            if "extra ==" not in requirement:
                end = next(
                    (i for i, c in enumerate(requirement) if c in " ;<>=!~[("),
                    len(requirement),
                )
                waiting.append(requirement[:end])
    return found


IMPORT = """
import importlib.abc, sys
blocked = set({blocked!r})

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"{{name}} is out of bounds", name=name)

sys.meta_path.insert(0, Block())
import {module}
"""


def test_the_model_is_imported_with_the_array_packages_alone():
    allowed = closure(ARRAY_PACKAGES)
    blocked = {
        package
        for package, owners in importlib.metadata.packages_distributions().items()
        if not {owner.lower().replace("_", "-") for owner in owners} & allowed
    } - {"git_jax"}
    assert blocked >= HEAVY
    code = IMPORT.format(blocked=sorted(blocked), module="git_jax.models.git")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
