"""Names of the Hugging Face hub: downloaded where there is a network."""

from pathlib import Path

# What a checkpoint is read from; other formats and pictures stay where they are. The
# same weights often lie there twice: torch's are had where there are no others.
WEIGHTS = "model*.safetensors"
FILES = ("*.json", "*.txt", WEIGHTS)
TORCH = "pytorch_model*.bin"


def local(name: str, option: str) -> Path:
    """A directory or file that is here, or a hub's name, downloaded.

    Raises:
        ValueError: it is neither, or the hub cannot be reached.
    """
    path = Path(name)
    if path.exists():
        return path
    parts = name.split("/")
    if len(parts) != 2 or not all(parts) or name.startswith((".", "~")):
        raise ValueError(
            f"{option}={name}: there is no such file or folder, and it is no name of "
            f"the hub, such as microsoft/git-base"
        )
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, allow_patterns=list(FILES)))
        if not any(folder.glob(WEIGHTS)):
            folder = Path(snapshot_download(name, allow_patterns=[*FILES, TORCH]))
        return folder
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{option}={name}: there is no such folder, and it could not be had from "
            f"the hub ({reason}). Where there is a network: hf download {name} "
            f"--local-dir DIR; then name DIR here"
        ) from None
