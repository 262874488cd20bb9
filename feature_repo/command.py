"""What the commands of all rooms have in common: who may read what they write, and errors in words."""

import os
from typing import Any

import click

from feature_repo.domains import names
from feature_repo.settings import Settings
from feature_repo.storage import DamagedFile

PRIVATE = 0o077
"""The umask of every process that writes state: only its user may read what it writes."""


class Room(click.Group):
    """A group of commands that write state.

    Their files are readable by their user only. A damaged or forbidden file ends a command with one line that names it.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        os.umask(PRIVATE)
        try:
            return super().invoke(ctx)
        except (DamagedFile, PermissionError) as error:
            raise click.ClickException(str(error)) from error
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if found := _damaged():
                raise click.ClickException(found) from error
            raise


def _damaged() -> str:
    """What is damaged in the state folders, a line each: SQLite and Arrow do not say which file it is."""
    from feature_repo.intact import faults

    home = Settings().home
    states = [Settings(domain=name) for name in names() if (home / name).is_dir()]
    return "\n".join(line for settings in states for line in faults(settings))
