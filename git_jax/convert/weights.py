"""Files of weights: what lies in a directory or a file, as arrays by their names.

safetensors needs no torch. A `.bin` or `.pt` does, and is read with `weights_only`, so
that no object in it is ever made but tensors and containers.
"""

import os
import pickle
import shlex
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from git_jax.convert import settings

SAFETENSORS, TORCH = "model.safetensors", "pytorch_model.bin"
ORIGINAL = ("model.pt", "snapshot/model.pt")


class Weights(Mapping[str, np.ndarray]):
    """Arrays by name, each read when it is asked for; types of 16 bits become float32.

    `where` says in words which file or directory they came from.
    """

    def __init__(
        self, where: Path, readers: Mapping[str, Callable[[], np.ndarray]]
    ) -> None:
        self.where, self._readers = where, readers

    def __getitem__(self, name: str) -> np.ndarray:
        array = self._readers[name]()
        if array.dtype.itemsize == 2:
            array = array.astype(np.float32)
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)

    def renamed(self, name: Callable[[str], str]) -> "Weights":
        """The same arrays under other names."""
        return Weights(self.where, {name(k): read for k, read in self._readers.items()})

    def without(self, prefix: str) -> "Weights":
        """The same arrays, their names without a prefix that some of them have."""
        return self.renamed(lambda name: name.removeprefix(prefix))


@contextmanager
def opened(source: Path) -> Iterator[Weights]:
    """The weights in a directory, or in the file that is named.

    A directory holds, in this order of preference, `model.safetensors`, one in shards
    with an index, `pytorch_model.bin` likewise, or the original release's `model.pt`.

    Raises:
        ValueError: naming the file that is missing, cut off or not what it should be.
    """
    with ExitStack() as stack:
        if source.is_file():
            yield Weights(source, _file(source, stack))
            return
        for name in (SAFETENSORS, TORCH):
            if (path := source / name).is_file():
                yield Weights(path, _file(path, stack))
                return
            if (index := source / f"{name}.index.json").is_file():
                yield Weights(index, _shards(index, stack))
                return
        for name in ORIGINAL:
            if (path := source / name).is_file():
                yield Weights(path, _file(path, stack))
                return
        raise ValueError(
            f"{source} holds no weights: neither {SAFETENSORS} nor {TORCH} (nor an "
            f"index of either) nor {ORIGINAL[0]}"
        )


def save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """A safetensors file as torch's users write it."""
    from safetensors.numpy import save_file

    save_file(dict(arrays), path, metadata={"format": "pt"})


def _file(path: Path, stack: ExitStack) -> dict[str, Callable[[], np.ndarray]]:
    if path.suffix == ".safetensors":
        return _safetensors(path, stack)
    return _torch(path)


def _safetensors(path: Path, stack: ExitStack) -> dict[str, Callable[[], np.ndarray]]:
    from safetensors import SafetensorError, safe_open

    try:
        held = stack.enter_context(safe_open(path, framework="np"))
    except SafetensorError as error:
        raise ValueError(
            f"{path} ({path.stat().st_size:,} bytes) is no whole safetensors file "
            f"({error}): copy or download it again"
        ) from None

    def reader(name: str) -> Callable[[], np.ndarray]:
        return lambda: held.get_tensor(name)

    return {name: reader(name) for name in held.keys()}  # noqa: SIM118, no mapping


def torch_for(path: Path) -> Any:
    """The module torch, which a file of its own kind needs.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import torch
    except ImportError:
        raise ValueError(
            f"{path} is a file of torch, which is not here: pip install torch, or take "
            f"{SAFETENSORS} instead"
        ) from None
    return torch


def _torch(path: Path) -> dict[str, Callable[[], np.ndarray]]:
    torch = torch_for(path)
    mapped = zipfile.is_zipfile(path)  # the form before torch 1.6 is not
    program, found = False, {}
    try:
        program = mapped and _is_program(path)
        if not program:
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (
        RuntimeError,
        OSError,
        EOFError,
        pickle.UnpicklingError,
        ValueError,
        zipfile.BadZipFile,
    ) as error:
        reason = " ".join(str(error).split())[:150]
        raise ValueError(
            f"{path} ({path.stat().st_size:,} bytes) cannot be read as weights alone "
            f"({reason}): it is cut off, or holds objects that would have to be run"
        ) from None
    if program:
        raise ValueError(f"{path} {_way_out(path)}")
    for outer in ("model", "state_dict"):  # the original release wraps them
        if isinstance(found, Mapping) and isinstance(found.get(outer), Mapping):
            found = found[outer]

    def reader(tensor: Any) -> Callable[[], np.ndarray]:
        # numpy has no bfloat16 that torch would give.
        return lambda: (
            tensor.float() if tensor.is_floating_point() else tensor
        ).numpy()

    tensors = isinstance(found, Mapping) and all(
        isinstance(value, torch.Tensor) for value in found.values()
    )
    if not tensors:
        raise ValueError(f"{path} holds no tensors by name: it is no file of weights")
    return {str(name): reader(tensor) for name, tensor in found.items()}


def _is_program(path: Path) -> bool:
    """Whether an archive is TorchScript's, as those of OpenAI's CLIP are.

    To load one is to run what it holds.
    """
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _way_out(path: Path) -> str:
    plain = path.with_name(f"{path.stem}.weights.pt")
    code = (
        f"import torch; torch.save(torch.jit.load({str(path)!r}, 'cpu').state_dict(), "
        f"{str(plain)!r})"
    )
    return (
        f"is a TorchScript archive, a program beside its weights, which is not run "
        f"here. If you trust it, take them out and name {plain} instead: python -c "
        f"{shlex.quote(code)}"
    )


def _shards(index: Path, stack: ExitStack) -> dict[str, Callable[[], np.ndarray]]:
    shards = settings.read(index).get("weight_map")
    if not isinstance(shards, dict) or not all(
        isinstance(name, str) for name in shards.values()
    ):
        raise ValueError(f"{index} is no index: weight_map must name a file by array")
    found = {}
    for name in sorted(set(shards.values())):
        path = index.parent / os.path.basename(name)
        if not path.is_file():
            inside = sorted(key for key, file in shards.items() if file == name)
            raise ValueError(
                f"{index} names the shard {name}, which is not there: it holds "
                f"{inside[0]} and {len(inside) - 1} more"
            )
        found[name] = _file(path, stack)
    for key, name in shards.items():
        if key not in found[name]:
            raise ValueError(f"{index} says that {name} holds {key}, which it does not")
    return {key: found[name][key] for key, name in shards.items()}
