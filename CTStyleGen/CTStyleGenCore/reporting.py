"""What a running command tells: one event at a time, as JSON lines for programs or as a progress bar for people.

Events are dicts with an "event" key: started, progress (done, total, and what else there is to tell), checkpoint, done,
error. docs/worker.md describes them.
"""

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # only people need it
    from tqdm import tqdm

Report = Callable[[dict[str, Any]], None]


def json_lines(event: dict[str, Any]) -> None:
    """Prints the event as one line of JSON on stdout, at once."""
    print(json.dumps(event), flush=True)


class Terminal:
    """Shows progress events as a bar on stderr (left out when stderr is no terminal), and texts as lines."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None

    def __call__(self, event: dict[str, Any]) -> None:
        if event["event"] == "progress":
            self._progress(event)
            return
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if message := event.get("message"):
            print(message, file=sys.stderr)

    def _progress(self, event: dict[str, Any]) -> None:
        from tqdm import tqdm

        if self._bar is not None and self._bar.total != event["total"]:  # the next of several downloads
            self._bar.close()
            self._bar = None
        if self._bar is None:
            unit = event.get("unit", "")
            self._bar = tqdm(
                total=event["total"], initial=event["done"], unit=unit, unit_scale=unit == "B", disable=None
            )
        if losses := event.get("losses"):
            self._bar.set_postfix({name: f"{value:.3g}" for name, value in losses.items()}, refresh=False)
        self._bar.update(event["done"] - self._bar.n)
