"""How a command can end other than well, each with one sentence for the user."""

_LONGEST = 2000  # characters of a sentence; what it cites of a file may be of any length
_NO_MEMORY = (  # in PyTorch's, oneDNN's and C++'s messages
    *("can't allocate memory", "not enough memory", "could not create a memory", "bad_alloc"),
    "CUDA error: out of memory",  # of the driver, which other programs have left none
)
_GPU_FAILURES = ("CUDA error", "CUDA driver error", "cuDNN error", "HIP error")  # how PyTorch's messages begin


def one_line(text: str) -> str:
    """A text of anybody's as one line of some length, which can't steer a terminal."""
    shown = "".join(character if character.isprintable() else " " for character in text)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST // 2]} ... {shown[-_LONGEST // 2 :]}"


class InputError(Exception):
    """Bad input: what is wrong, in which file or node, and what to do. Exit code 2.

    What the message cites of a file can't break it into lines, steer a terminal or flood it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class Stopped(Exception):
    """Stopped by the user, and what is kept. Exit code 130."""


class TrainingFailed(Exception):
    """Training can't go on: why, and what is kept. Exit code 1."""


class OutOfMemory(Exception):
    """The memory is not enough: what to do, and what is kept. Exit code 1."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is a lack of memory: Python's, or the GPU's (torch.OutOfMemoryError) or PyTorch's on the CPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _NO_MEMORY)


def gpu_failure(error: Exception) -> str | None:
    """A sentence for an error of the GPU or its driver, after which this process can't use it; None for all others.

    Known by their words: PyTorch has a class for some of them alone (AcceleratorError, from 2.8 on).
    """
    reason = str(error).partition("\n")[0].strip().rstrip(".")
    if not reason.startswith(_GPU_FAILURES):
        return None
    return (
        f"The GPU has stopped working ({reason}): try again with --device cpu, or once the computer was "
        "restarted; what was finished, such as the last checkpoint, is kept."
    )
