"""What the commands of all rooms have in common: who may read what they write, --domain, and errors in words."""

import os
import sys
from typing import Any

import click

from feature_repo import domains
from feature_repo.settings import Settings, SettingsError
from feature_repo.storage import BusyError, DamagedFile

PRIVATE = 0o077
"""The umask of every process that writes state: only its user may read what it writes."""
EXPECTED = (ValueError, LookupError, FileNotFoundError, ModuleNotFoundError, TimeoutError, BusyError)
"""What our own code raises for a mistake of the user's, with words that say what to do."""
BUGS = (KeyError, IndexError, UnicodeError)
"""Those among them that say nothing to a user, and are a mistake of ours."""


def _existing(_context: click.Context, _parameter: click.Parameter, name: str) -> str:
    domains.load(name)
    return name


domain_option = click.option(
    "--domain",
    default=lambda: Settings().domain,
    callback=_existing,
    show_default="FIRSTMILE_DOMAIN or saas",
    help="The product.",
)


class Room(click.Group):
    """A group of commands that write state.

    Their files are readable by their user only. A damaged or forbidden file ends a command with one line that names
    it, and so does a user's mistake: exit code 1, no traceback.
    """

    def main(self, *args: Any, **options: Any) -> Any:
        """Run the command that the arguments name."""
        try:
            return super().main(*args, **options)
        except EXPECTED as error:
            if isinstance(error, BUGS):
                raise
            click.ClickException(str(error)).show()
            sys.exit(1)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        os.umask(PRIVATE)
        try:
            return super().invoke(ctx)
        except (DamagedFile, PermissionError) as error:
            raise click.ClickException(str(error)) from error
        except (click.ClickException, click.exceptions.Exit, click.Abort, SettingsError):
            raise
        except Exception as error:
            if found := _damaged():
                raise click.ClickException(found) from error
            raise


def _damaged() -> str:
    """What is damaged in the state folders, a line each: SQLite and Arrow do not say which file it is."""
    from feature_repo.intact import faults

    home = Settings().home
    states = [Settings(domain=name) for name in domains.names() if (home / name).is_dir()]
    return "\n".join(line for settings in states for line in faults(settings))
