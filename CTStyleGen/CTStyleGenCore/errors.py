"""How a command can end other than well, each with one sentence for the user."""

_LONGEST = 2000  # characters of a sentence; what it cites of a file may be of any length


class InputError(Exception):
    """Bad input: what is wrong, in which file or node, and what to do. Exit code 2.

    What the message cites of a file can't break it into lines, steer a terminal or flood it.
    """

    def __init__(self, message: str) -> None:
        shown = "".join(character if character.isprintable() else " " for character in message)
        if len(shown) > _LONGEST:
            shown = f"{shown[: _LONGEST // 2]} ... {shown[-_LONGEST // 2 :]}"
        super().__init__(shown)


class Stopped(Exception):
    """Stopped by the user, and what is kept. Exit code 130."""


class TrainingFailed(Exception):
    """Training can't go on: why, and what is kept. Exit code 1."""


class OutOfMemory(Exception):
    """The memory is not enough: what to do, and what is kept. Exit code 1."""
