"""A compilation as a short program: named steps, each one SQL statement over the tables of the steps before it.

One statement for everything would compute shared parts again and again, and compiling costs far more than running
for a few users; so the steps are compiled once and run many times.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import ibis
from ibis.expr.types import Table


@dataclass
class Program:
    """Steps in order: (name, expression over unbound tables of earlier names)."""

    steps: list[tuple[str, Table]] = field(default_factory=list)

    def step(self, name: str, expression: Table) -> Table:
        """Add a step; what follows refers to its result by the returned table."""
        self.steps.append((name, expression))
        return ibis.table(expression.schema(), name=name)

    def compiled(self, result: Table) -> "Compiled":
        """DuckDB's SQL of every step, and of the result over them."""
        statements = [(name, ibis.to_sql(step, dialect="duckdb")) for name, step in self.steps]
        return Compiled(statements, ibis.to_sql(result, dialect="duckdb"))


@dataclass(frozen=True)
class Compiled:
    """SQL to run: `steps` make temporary tables, `result` is a query over them."""

    steps: list[tuple[str, str]]
    result: str

    def run(self, execute: Callable[[str], object]) -> str:
        """Make the temporary tables; returns the query that gives the result."""
        for name, sql in self.steps:
            execute(f'create or replace temp table "{name}" as {sql}')
        return self.result

    def statement(self) -> str:
        """All of it as one query: to be prepared once, where the data is small and planning would cost most."""
        parts = [f'"{name}" AS MATERIALIZED ({sql})' for name, sql in self.steps]
        return f"WITH {', '.join([*parts, f'result AS ({self.result})'])} SELECT * FROM result"
