"""docs/settings.md, made from the settings: a table of every variable with its values, default and meaning."""

from feature_repo.settings import Settings, default_of, facts, variable_of

HEAD = """# Settings

This page is made by `python -m feature_repo settings`; change the descriptions in `feature_repo/settings.py`.

Every setting is an environment variable. A file `.env` in the working folder is read as well, with a line
`NAME=value` for each; the environment wins over it, and an option of a command wins over both. An empty variable counts
as not set. All settings are checked together before a command does anything; a variable that begins with `FIRSTMILE_`
and is none of these is warned of, with the nearest name.
"""

PAST = """
## Data of the past

Features, decisions and reports are about a moment, and by default that moment is now. For a past data set start the
clock in its time, with the same value for every command: `FIRSTMILE_NOW=2014-10-29T00:00:00Z python -m serving serve`.
Each process's clock starts there and runs on. It is the clock of decisions, of the times at which events arrive, and of
the correction of senders' clocks. Without it a service over old data scores everybody as long gone.
It says so then, in the reasons of its decisions and in its log.
"""


def page() -> str:
    """The page, Markdown."""
    rows = [f"| `{variable_of(name)}` | {_cell(name)} |" for name in Settings.model_fields]
    return (
        "\n".join([HEAD, "| variable | values | default | meaning |", "|---|---|---|---|", *rows, PAST]).rstrip() + "\n"
    )


def _cell(name: str) -> str:
    default, about = default_of(name), facts(name)
    description = str(Settings.model_fields[name].description)
    secret = " Secret: never shown." if about["secret"] else ""
    return f"{about['expected']} | {f'`{default}`' if default else ''} | {description}{secret}".replace("\n", " ")
