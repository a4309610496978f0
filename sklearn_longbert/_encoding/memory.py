"""Measure free memory and the memory of a pass, and handle errors when it is not enough."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

import psutil
import torch
from torch import Tensor

CGROUPS = Path("/sys/fs/cgroup")
PROCESS_CGROUPS = Path("/proc/self/cgroup")
# Upper limits of micro_batch_tokens="auto", for an encoder pass and for the graphs that are kept.
# Longer passes keep a GPU busy, but exceed a CPU's caches. Longer graphs would spare very long
# texts a part of their second pass, at the cost of gigabytes.
PASS_TOKENS = {"cpu": 2048, "other": 32768}
GRAPH_TOKENS = {"cpu": 16384, "other": 65536}
MEMORY_SHARE = 0.5  # share of free memory for graphs; the rest is for temporary tensors

HOLD_TENSORS = {"sklearn_longbert", "skorch", "torch", "transformers"}  # packages to clear

UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def pass_tokens(micro_batch_tokens: int | str, device: torch.device) -> int:
    """Return the most tokens of an encoder pass, with "auto" resolved for the device."""
    if isinstance(micro_batch_tokens, str):
        return PASS_TOKENS.get(device.type, PASS_TOKENS["other"])
    return micro_batch_tokens


def auto_limits(bytes_per_token: float, reserved: int, device: torch.device) -> tuple[int, int]:
    """Return the most tokens of an encoder pass and of the kept graphs, by the memory now free.

    The limit of a pass is a power of two. It decides how sums are rounded, and so it should not
    change with every byte of free memory.

    Parameters
    ----------
    bytes_per_token : float
        Bytes of a graph for each token.
    reserved : int
        Bytes that will be needed for other things.
    device : torch.device
    """
    free = max(MEMORY_SHARE * free_memory(device) - reserved, 0)
    most = GRAPH_TOKENS.get(device.type, GRAPH_TOKENS["other"])
    graph_tokens = max(int(min(free / bytes_per_token, most)), 1)
    return min(pass_tokens("auto", device), 2 ** (graph_tokens.bit_length() - 1)), graph_tokens


def free_memory(device: torch.device) -> int:
    """Return how many bytes this process can still allocate on `device`.

    On a CPU it is what the machine has available, or what the control groups of the process
    (those of a container, say) have left, whichever is less.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + cached
    return min([psutil.virtual_memory().available, *_cgroups_left()])


def _cgroups_left() -> Iterator[int]:
    """Yield the bytes that are left in each control group of the process that has a limit.

    This is our own code because psutil knows the memory of the machine, and not the limit of a
    container.
    """
    if not PROCESS_CGROUPS.is_file():
        return
    for line in PROCESS_CGROUPS.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            root, limit, usage, cache = CGROUPS, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root, limit, usage = (
                CGROUPS / "memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
            )
            cache = "total_inactive_file"
        else:
            continue
        group = root / path.lstrip("/")
        for folder in [group, *group.parents][: len(group.relative_to(root).parts) + 1]:
            # without these files, or access to them, no limit is known
            with suppress(OSError, ValueError):
                most = int((folder / limit).read_text())  # "max" if unlimited, which is no int
                used = int((folder / usage).read_text()) - _statistic(folder, cache)
                yield max(most - used, 0)


def _statistic(folder: Path, name: str) -> int:
    for line in (folder / "memory.stat").read_text().splitlines():
        key, value = line.split()
        if key == name:
            return int(value)
    return 0


def graph_bytes(forward: Callable[[], Tensor]) -> int:
    """Return how many bytes autograd keeps of a forward pass, weights included."""
    sizes: dict[int, int] = {}

    def see(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor):
        output = forward()  # kept alive until all is counted, so that no address is reused
    total = sum(sizes.values())
    del output
    return total


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocation failed, on a GPU or, where memory is limited, on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    phrases = ("out of memory", "DefaultCPUAllocator: can't allocate memory", "ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in phrases)


def requested_bytes(error: BaseException) -> int | None:
    """Return how many bytes could not be allocated, None if the message does not say."""
    found = re.search(r"[Tt]ried to allocate ([\d.]+) (\w+)", str(error))
    if found is None or found[2] not in UNITS:
        return None
    return int(float(found[1]) * UNITS[found[2]])


def too_large(
    error: BaseException, n_tokens: int, device: torch.device, precision: str
) -> MemoryError:
    """Return the error to raise when `error` shows that not even a single chunk fits."""
    requested = requested_bytes(error)
    missing = ""
    if requested is not None:
        free = free_memory(device)
        missing = (
            f": of {requested} bytes more, {max(requested - free, 0)} were missing ({free} were "
            f"free, perhaps not in one piece)"
        )
    narrower = "" if precision == "bfloat16" else "precision='bfloat16' or "
    return MemoryError(
        f"A chunk of {n_tokens} tokens, alone in its micro-batch, does not fit into the memory of "
        f"{device}{missing}. Lower chunk_size, pass "
        f"{narrower}a smaller model_name, or free memory that other programs hold."
    )


@contextmanager
def own_modes(device: torch.device) -> Iterator[None]:
    """Shut out the modes of the caller, and let errors keep no tensors alive.

    Under the caller's inference mode weights could not be trained, without gradients neither, and
    under the caller's autocast logits would be narrow.
    """
    with (
        free_on_error(),
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device.type, enabled=False),
    ):
        yield


@contextmanager
def free_on_error() -> Iterator[None]:
    """Keep errors that pass through here from holding tensors in memory.

    A traceback holds the variables of its frames, and a notebook holds the last traceback: the
    graphs of a failed step would stay until the next error. Frames of the caller's own code, such
    as a callback, are left as they are, for the debugger.
    """
    try:
        yield
    except BaseException as error:
        _clear_chain(error, set())
        raise


def _clear_chain(error: BaseException | None, seen: set[int]) -> None:
    """Clear the frames of an error and of its causes, which may form a cycle."""
    if error is not None and id(error) not in seen:
        seen.add(id(error))
        _clear_frames(error.__traceback__)
        _clear_chain(error.__cause__, seen)
        _clear_chain(error.__context__, seen)


def _clear_frames(traceback: TracebackType | None) -> None:
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_globals.get("__name__", "").partition(".")[0] in HOLD_TENSORS:
            with suppress(RuntimeError):  # a running frame cannot be cleared
                frame.clear()
        traceback = traceback.tb_next
