"""How a command can end other than well, each with one sentence for the user."""


class InputError(Exception):
    """Bad input: what is wrong, in which file or node, and what to do. Exit code 2."""


class Stopped(Exception):
    """Stopped by the user, and what is kept. Exit code 130."""


class TrainingFailed(Exception):
    """Training can't go on: why, and what is kept. Exit code 1."""


class OutOfMemory(Exception):
    """The memory is not enough: what to do, and what is kept. Exit code 1."""
