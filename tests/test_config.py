"""Laws of the config: what is kept, what is refused, what comes out of `build`."""

import copy
import functools
import json
import math
import pickle
import random
from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import pytest
from ml_collections import ConfigDict, FieldReference

from git_jax import config as configs
from git_jax.config import REQUIRED, build, spec
from git_jax.node import adopt


class Vit(nn.Module):
    width: int
    depth: int = 2
    mlp: int | None = None
    activation: Callable[..., Any] = nn.gelu
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for _ in range(self.depth):
            x = self.activation(nn.Dense(self.width, dtype=self.dtype)(x))
        return x


class Captioner(nn.Module):
    encoder: nn.Module
    head: Vit | None = None
    mode: Literal["tied", "free"] = "tied"
    rates: Mapping[str, float] = field(default_factory=lambda: {"encoder": 1})

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.encoder(x)


@dataclass(frozen=True)
class Crop:
    size: int = 64
    scale: tuple[float, float] = (0.8, 1)

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size={self.size} must be at least 1")


class Picture(Protocol):
    @property
    def size(self) -> int: ...


@dataclass(frozen=True)
class Loader:
    text: int = 40
    image: Crop = Crop(size=32)
    others: tuple[Crop, ...] = (Crop(1), Crop(2))
    extra: Picture | None = None
    named: dict[str, Crop] = field(default_factory=dict)


@dataclass(frozen=True)
class Tree:
    """Of every kind of value that a config may hold."""

    flag: bool = False
    count: int = 1
    rate: float = 0.1
    name: str = ""
    limit: int | None = None
    pair: tuple[int, float] = (1, 2.0)
    names: tuple[str, ...] = ()
    grid: list[list[int]] = field(default_factory=list)
    weights: dict[str, float] = field(default_factory=dict)
    anything: Any = None
    left: "Tree | None" = None
    rest: tuple["Tree", ...] = ()
    by_name: dict[str, "Tree"] = field(default_factory=dict)


def caption(
    outputs: Any, batch: Any, *, smoothing: float = 0.1, form: str = "published"
) -> tuple[Any, ...]:
    return outputs, batch, smoothing, form


def whole() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "steps": 3,
            "model": spec(Captioner, encoder=spec(Vit, width=8)),
            "losses": {"caption": spec(caption, smoothing=0.2)},
            "loader": spec(Loader, named={"a": Crop(5)}, extra=Crop(6)),
            "shape": (1, (2.0, None), [True]),
            "far": math.inf,
        }
    )


# ------------------------------------------------------------------------- spec, build


def test_a_node_holds_the_class_and_every_field() -> None:
    node = spec(Vit, width=8)
    assert node["class"] is Vit
    held = {k: v for k, v in node.items() if k != "class"}
    assert held == {
        "width": 8,
        "depth": 2,
        "mlp": None,
        "activation": nn.gelu,
        "dtype": jnp.float32,
    }


def test_build_makes_the_objects_inside_out() -> None:
    made = build(whole())
    assert made["model"] == Captioner(encoder=Vit(width=8), rates={"encoder": 1.0})
    assert made["loader"] == Loader(named={"a": Crop(5)}, extra=Crop(6))
    assert made["losses"]["caption"](1, 2) == (1, 2, 0.2, "published")
    assert made["shape"] == (1, (2.0, None), [True])
    with pytest.raises(FrozenInstanceError):
        made["loader"].text = 3
    shapes = jax.eval_shape(
        made["model"].init, jax.random.key(0), jax.ShapeDtypeStruct((1, 4), jnp.float32)
    )
    assert len(shapes["params"]["encoder"]) == 2


def test_defaults_that_are_objects_are_nodes_of_their_own() -> None:
    first, second = spec(Loader), spec(Loader)
    first.image.size = 7
    first.named.b = spec(Crop)
    assert build(first).image == Crop(size=7)
    assert build(second) == Loader()


def test_a_default_made_by_spec_is_built() -> None:
    @dataclass(frozen=True)
    class Holder:
        crop: Any = field(default_factory=lambda: spec(Crop, size=3))
        loss: Any = functools.partial(caption, form="released")

    first, second = spec(Holder), spec(Holder)
    first.crop.size = 4
    first.loss.smoothing = 0.5
    assert build(first).crop == Crop(4) and build(second).crop == Crop(3)
    assert build(first).loss(1, 2) == (1, 2, 0.5, "released")


def test_functions_of_libraries_are_nodes_too() -> None:
    adam = build(spec(optax.adamw, learning_rate=1e-3, b2=0.98))()
    assert isinstance(adam, optax.GradientTransformation)


def test_operands_of_a_function_are_left_to_its_caller() -> None:
    assert list(spec(caption)) == ["class", "smoothing", "form"]
    assert build(spec(caption, batch=7))(1) == (1, 7, 0.1, "published")


def test_extra_is_what_only_the_program_knows() -> None:
    assert build(spec(Vit), width=4).width == 4
    with pytest.raises(ValueError, match="Vit has no field 'widht'.*mean 'width'"):
        build(spec(Vit, width=1), widht=4)
    assert build(spec(Vit, width=1), name="tower").name == "tower"


def test_what_is_required_is_named_by_its_full_path() -> None:
    config = whole()
    config.model.encoder = spec(Vit)
    config.loader.others = (spec(Crop), spec(Crop))
    assert config.model.encoder.width is REQUIRED
    with pytest.raises(ValueError, match=r"^model\.encoder\.width must be given"):
        build(config)
    with pytest.raises(ValueError, match=r"^Captioner\.encoder\.width must be given"):
        build(config.model)


def test_a_constructor_that_refuses_is_named_by_its_path() -> None:
    config = whole()
    config.loader.others[1].size = 0
    with pytest.raises(ValueError, match=r"^loader\.others\.1: size=0 must be at"):
        build(config)


def test_references_between_fields_hold() -> None:
    config = whole()
    config.model.encoder.width = config.get_ref("steps")
    config.steps = 16
    assert build(config)["model"].encoder.width == 16
    with pytest.raises(ValueError, match="Vit.width is int, not"):
        config.model.encoder.width = FieldReference("wide")


# ----------------------------------------------------------------------------- refusals


def test_a_misspelt_field_is_refused_with_the_legal_names() -> None:
    legal = "Vit has no field 'dept'; it has activation, depth, dtype, mlp, width"
    for wrong in (
        lambda: spec(Vit, dept=3),
        lambda: setattr(whole().model.encoder, "dept", 3),
        lambda: whole().model.encoder.update({"dept": 3}),
    ):
        with pytest.raises(ValueError) as error:
            wrong()
        assert str(error.value) == f"{legal} (did you mean 'depth'?)"
    with pytest.raises(AttributeError, match="Vit has no field 'dept'"):
        _ = whole().model.encoder.dept


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model.encoder.depth", "6", "Vit.depth is int, not '6'"),
        ("model.encoder.depth", 6.0, "Vit.depth is int, not 6.0"),
        ("model.encoder.depth", True, "Vit.depth is int, not True"),
        ("model.encoder.depth", None, "Vit.depth is int, not None"),
        ("model.encoder.mlp", "x", "Vit.mlp is int | None, not 'x'"),
        ("model.encoder.activation", 3, "Vit.activation is Callable[..., Any], not 3"),
        ("model.encoder", spec(Crop), "Captioner.encoder is Module, not a Crop node"),
        ("model.encoder", spec(caption), "Captioner.encoder is Module, not a caption"),
        ("model.mode", "tide", "Captioner.mode is one of 'tied', 'free', not 'tide'"),
        ("model.rates", {"a": "b"}, "Captioner.rates is Mapping[str, float], not {"),
        ("loader.image", 3, "Loader.image is Crop, not 3"),
        ("loader.image.scale", (1, 2, 3), "Crop.scale is tuple[float, float], not (1"),
        ("loader.others", (Crop(), 3), "Loader.others is tuple["),
        ("model.class", Vit, "the class of a Captioner node cannot change"),
    ],
)
def test_a_mistyped_value_names_field_value_and_type(
    path: Any, value: Any, message: Any
) -> None:
    config = whole()
    holder, _, name = path.rpartition(".")
    with pytest.raises(ValueError) as error:
        config[holder][name] = value
    assert message in str(error.value)
    assert configs.difference(config, whole()) == []


def test_an_entry_spoilt_later_is_refused_at_build() -> None:
    config = whole()
    config.loader.named.a = spec(Vit, width=1)
    with pytest.raises(ValueError, match="^loader.named is dict"):
        build(config)


def test_numbers_and_sequences_take_the_annotated_type() -> None:
    node = spec(Crop, scale=[1, 2])
    assert node.scale == (1.0, 2.0) and type(node.scale[0]) is float
    node = spec(Captioner, encoder=spec(Vit), rates={"a": 2})
    assert type(node.rates.a) is float


@pytest.mark.parametrize("target", [3, "Vit", spec(Crop)])
def test_spec_takes_classes_and_functions(target: Any) -> None:
    with pytest.raises(ValueError, match="takes a class or a function"):
        spec(target)


# --------------------------------------------------------------------------------- JSON


def random_tree(rng: random.Random, depth: int) -> Tree:
    def number() -> float:
        size = 10.0 ** rng.randint(-300, 300)
        return rng.choice([rng.uniform(-1, 1), size, -0.0, 3.0])

    def value(deep: int) -> Any:
        kinds: list[Callable[[], Any]] = [
            lambda: rng.randint(-(2**70), 2**70),
            number,
            lambda: rng.choice(["", "none", "tuple", "1", "æ\n\"'", "True"]),
            lambda: rng.choice([None, True, False, math.inf, -math.inf]),
            lambda: rng.choice([jnp.bfloat16, nn.relu, caption, Crop, math.inf]),
        ]
        if deep:
            kinds += [
                lambda: tuple(value(deep - 1) for _ in range(rng.randint(0, 3))),
                lambda: [value(deep - 1) for _ in range(rng.randint(0, 3))],
                lambda: {
                    rng.choice(["tuple", "dict", "object", "float", "a b", "x"]): value(
                        deep - 1
                    )
                    for _ in range(rng.randint(0, 2))
                },
            ]
        return rng.choice(kinds)()

    def some(most: int) -> range:
        return range(rng.randint(0, most) if depth else 0)

    return Tree(
        flag=rng.random() < 0.5,
        count=rng.randint(-9, 9),
        rate=number(),
        name=rng.choice(["", "a", "class"]),
        limit=rng.choice([None, 0, 7]),
        pair=(rng.randint(0, 9), number()),
        names=tuple(rng.choice("ab") for _ in some(3)),
        grid=[[rng.randint(0, 9)] for _ in some(3)],
        weights={rng.choice("ab"): number() for _ in some(2)},
        anything=value(2),
        left=random_tree(rng, depth - 1) if depth and rng.random() < 0.5 else None,
        rest=tuple(random_tree(rng, depth - 1) for _ in some(2)),
        by_name={rng.choice(["tuple", "b"]): random_tree(rng, 0) for _ in some(1)},
    )


@pytest.mark.parametrize("seed", range(40))
def test_any_tree_survives_spec_json_and_build(seed: int) -> None:
    made = random_tree(random.Random(seed), 2)
    config = ConfigDict({"tree": adopt(made)})
    again = configs.loads(configs.dumps(config))
    assert build(config)["tree"] == made == build(again)["tree"]
    # repr tells 1 from 1.0 and True, (,) from [], -0.0 from 0.0.
    assert repr(build(again)["tree"]) == repr(build(config)["tree"])
    assert again == config.lock()
    assert configs.dumps(again) == configs.dumps(config)
    assert configs.difference(config, again) == []


def test_a_saved_config_is_the_config(tmp_path: Path) -> None:
    config = whole()
    configs.save(config, tmp_path / "config.json")
    again = configs.load(tmp_path / "config.json")
    assert again == config.lock()
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    tree = json.loads((tmp_path / "config.json").read_text())
    assert tree["steps"] == 3
    assert tree["model"]["encoder"]["class"] == f"{__name__}:Vit"
    assert tree["model"]["encoder"]["mlp"] is None
    assert tree["model"]["encoder"]["activation"] == {"object": "jax.nn:gelu"}


def test_the_types_of_empty_fields_are_known_after_loading() -> None:
    again = configs.loads(configs.dumps(whole()))
    with pytest.raises(ValueError, match=r"Vit.mlp is int | None"):
        again.model.encoder.mlp = "x"
    again.model.encoder.mlp = 3
    with pytest.raises(KeyError, match="locked"):
        again["stesp"] = 3


def test_a_required_field_stays_required() -> None:
    again = configs.loads(configs.dumps(ConfigDict({"m": spec(Vit)})))
    assert again.m.width is REQUIRED


def test_copies_are_equal_and_apart() -> None:
    config = whole()
    for other in (
        copy.deepcopy(config),
        pickle.loads(pickle.dumps(config)),
        config.copy_and_resolve_references(),
    ):
        assert other == config
        with pytest.raises(ValueError, match="did you mean 'depth'"):
            other.model.encoder.dept = 1
        other.model.encoder.depth = 9
        assert config.model.encoder.depth == 2


def edited(edit: Callable[[dict[str, Any]], Any]) -> str:
    tree = json.loads(configs.dumps(whole()))
    edit(tree)
    return json.dumps(tree)


def test_json_of_an_older_version() -> None:
    again = configs.loads(edited(lambda tree: tree["model"]["encoder"].pop("depth")))
    assert again == whole().lock()
    with pytest.raises(ValueError) as error:
        newer = edited(lambda tree: tree["model"]["encoder"].update(heads=3))
        configs.loads(newer, "F")
    assert "F: model.encoder: Vit has no field 'heads'" in str(error.value)
    assert "activation, depth, dtype, mlp, width" in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("os:system", "may be named in a config"),
        ("builtins:exec", "may be named in a config"),
        ("subprocess:Popen", "may be named in a config"),
        ("__main__:Vit", "may be named in a config"),
        ("antigravity:geohash", "may be named in a config"),
        ("git_jax.config:os.system", "is defined elsewhere, as posix:system"),
        ("git_jax.config:json.load", "is defined elsewhere, as json:load"),
        ("git_jax.config:nothing", "git_jax.config defines no class or function"),
        ("git_jax.config:REQUIRED", "defines no class or function"),
        ("git_jax.nowhere:x", "No module named 'git_jax.nowhere'"),
        ("numpy:memmap", "neither a dataclass nor"),
        ("Vit", "not of the form module:name"),
    ],
)
def test_json_names_no_code_of_others(name: Any, message: Any) -> None:
    with pytest.raises(ValueError, match=message):
        configs.loads(edited(lambda tree: tree["model"].update({"class": name})))


def test_what_is_no_config_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with pytest.raises(ValueError, match="config.json: there is no config"):
        configs.load(path)
    for content in (b"", b"[]", b'{"a": ', b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="config.json: not a config"):
            configs.load(path)


@pytest.mark.parametrize(
    "value", [object(), 3j, {1: 2}, {1, 2}, b"x", lambda: 0, jnp.zeros(2), Crop(3)]
)
def test_what_json_cannot_keep_is_named_by_its_path(value: Any, tmp_path: Path) -> None:
    config = ConfigDict({"a": ConfigDict()})
    config.a.b = value
    with pytest.raises(ValueError, match=r"^a\.b"):
        configs.save(config, tmp_path / "config.json")
    assert not list(tmp_path.iterdir())


# --------------------------------------------------------------------- difference, show


def test_difference_names_every_path_and_both_values() -> None:
    before, after = whole(), whole()
    after.steps = 9
    after.model.encoder.depth = 4
    after.loader.image = spec(Crop, size=64)
    after.losses.other = spec(caption)
    after.loader.others = (Crop(1), Crop(3))
    assert sorted(configs.difference(before, after)) == [
        "loader.image.size: 32 -> 64",
        "loader.others.1.size: 2 -> 3",
        "losses.other: <absent> -> a caption node",
        "model.encoder.depth: 2 -> 4",
        "steps: 3 -> 9",
    ]
    harmless = ("steps", "model.encoder", "lo*")
    assert configs.difference(before, after, harmless=harmless) == []
    after = whole()
    after.model.encoder = spec(nn.Dense, features=3)
    assert configs.difference(before, after) == [
        "model.encoder: a Vit node -> a Dense node"
    ]


def test_difference_tells_types_apart() -> None:
    for a, b in ((1, 1.0), (1, True), ((1,), [1]), (None, "None"), (0.0, -0.0)):
        assert configs.difference(ConfigDict({"x": a}), ConfigDict({"x": b}))
    nan = [ConfigDict({"x": float("nan")}) for _ in range(2)]
    assert not configs.difference(*nan)


def test_show_is_a_tree_for_people() -> None:
    shown = configs.show(ConfigDict({"loader": spec(Loader), "far": math.inf}))
    assert shown.splitlines() == [
        "far = inf",
        "loader: Loader",
        "  text = 40",
        "  image: Crop",
        "    size = 32",
        "    scale = (0.8, 1.0)",
        "  others",
        "    0: Crop",
        "      size = 1",
        "      scale = (0.8, 1.0)",
        "    1: Crop",
        "      size = 2",
        "      scale = (0.8, 1.0)",
        "  extra = None",
        "  named = {}",
    ]
