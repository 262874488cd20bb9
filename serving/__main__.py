"""`python -m serving`: the serving room as a command."""

import click

from feature_repo.command import Room
from serving.commands import build, decide, erase, experiments, export, policy, replay, revoke_key, serve, user_hash
from serving.rules.commands import rules
from serving.segments.channels.command import webhooks
from serving.segments.commands import segments


@click.group(cls=Room, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Decide how each person's onboarding goes on: over HTTP, or here and now.

    \b
    python -m serving serve
    python -m serving decide u-1842
    """


for command in (
    serve, build, decide, policy, rules, segments, experiments, export, erase, replay, revoke_key, webhooks, user_hash
):  # fmt: skip
    main.add_command(command)

if __name__ == "__main__":
    main(prog_name="python -m serving")
