"""A training run's losses for TensorBoard, beside its other reports."""

from pathlib import Path
from typing import Any

from .errors import InputError
from .reporting import Report


def also_logged(report: Report, folder: Path) -> Report:
    """``report``, with the losses of progress events written to ``folder`` as TensorBoard logs as well.

    Raises InputError when TensorBoard is not installed, or the folder can't be written to.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(
            "TensorBoard is not installed: leave --tensorboard out, or install it (pip install tensorboard)."
        ) from error
    try:
        writer = SummaryWriter(folder)
    except OSError as error:
        raise InputError(f"The folder {folder} can't be written to: {error.strerror}.") from error

    def told(event: dict[str, Any]) -> None:
        if event["event"] == "progress":
            for name, value in event["losses"].items():
                writer.add_scalar(f"losses/{name}", value, event["done"])
            writer.flush()
        report(event)

    return told
