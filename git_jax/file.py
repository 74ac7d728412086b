"""Files that are whole or not there, whenever a run is killed."""

import os
import pathlib


def write(path: str | os.PathLike[str], data: bytes) -> None:
    """All of the file or none of it; what was there stays until then.

    Makes the folder, too. Raises OSError where the file cannot be written.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with open(partial, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
