"""The progress bars of the commands: on standard error, and only if that is a terminal."""

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text


class SpeedColumn(ProgressColumn):
    """How much of a task was done in each of the last seconds.

    `unit` is what is counted; by default, the description of the task.
    """

    def __init__(self, unit: str | None = None) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """Write the speed of a task, or nothing while it is not known."""
        return Text(f"{task.speed:.3g} {self._unit or task.description}/s" if task.speed else "")


def bars(*columns: ProgressColumn, console: Console | None = None) -> Progress:
    """Show a bar for each task, between its description and `columns`; it vanishes at the end."""
    console = console or Console(stderr=True)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
