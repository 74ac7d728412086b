"""What every test starts from: eight virtual devices, and shapes checked in calls."""

import os

# Before jax is imported anywhere: its backends read these once.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8"
    # Tiny programs: compiling them well takes longer than running them.
    + " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)

import jaxtyping

# Every annotated array is held to its letters: `[R T D]` of one call agree with each
# other. The hook must be there before the first import of the modules it checks.
jaxtyping.install_import_hook(
    [
        f"git_jax.{room}"
        for room in ("nn", "vision", "models", "decode", "losses", "optim", "train")
    ],
    "beartype.beartype",
)
