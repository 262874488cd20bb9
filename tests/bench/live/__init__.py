"""The live part: how fresh, how fast, how steady, and whether what comes out is right."""

from contextlib import ExitStack
from importlib import import_module

from feature_repo.settings import Settings
from tests.bench import states
from tests.bench.figures import Result
from tests.bench.live.world import Part, World
from tests.bench.options import Options

TITLE = "Live"


def measure(options: Options) -> Result:
    """All parts, or those that were asked for, over the state that the decisions are measured on."""
    return run(options, states.served(options))


def run(options: Options, served: Settings) -> Result:
    """The same over a copy of a state."""
    found = Result(TITLE)
    with ExitStack() as stack:
        world = World(options, served, stack)
        for name in options.parts:
            part = _part(name, world)
            found.checks.extend(part.checks)
            found.tables.extend(part.tables)
            found.notes.extend(part.notes)
            found.rounds.extend(part.rounds)
    return found


def _part(name: str, world: World) -> Part:
    """One part; where something does not come to its end, a note that says so, and the others are measured."""
    try:
        part: Part = import_module(f"tests.bench.live.{name}").measure(world)
    except TimeoutError as error:
        return Part(notes=[f"**`{name}` was not measured: {error}**"])
    return part
