"""What every test starts from: eight virtual devices, and shapes checked in calls."""

import os
import tempfile

# Before jax is imported anywhere: its backends read these once.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8"
    # Tiny programs: compiling them well takes longer than running them.
    + " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)
# What one test has compiled, others and the processes that they start need not.
os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="git_jax-compiled-")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"

import atexit
import shutil

import jaxtyping

atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], True)

# Every annotated array is held to its letters: `[R T D]` of one call agree with each
# other. The hook must be there before the first import of the modules it checks.
jaxtyping.install_import_hook(
    [
        f"git_jax.{room}"
        for room in ("nn", "vision", "models", "decode", "losses", "optim", "train")
    ],
    "beartype.beartype",
)
