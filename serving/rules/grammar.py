"""The conditions of a rules file, read and resolved: every word is looked up in the domain's catalogue.

sessions > 5                        a feature: > >= < <= == != (is, is not: the same as == and !=)
plan in free, pro                   one of several values;  plan not in free, pro
role is null                        role is not null
since_last_event > 3 days           an elapsed feature, as a duration or in seconds
score >= 0.7                        the model's score
time in newcomer > 2 hours          how long another rule segment has held
{segment: newcomer}                 another rule segment, or an engagement segment
{persona: builder}                  a discovered persona
{trait: role is designer}           the last value of a trait
{event: Project Published, at least: 2, within: 7 days}
{all: [...]}  {any: [...]}  {not: ...}
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any as Anything
from typing import cast, get_args

from serving.rules.catalogue import Catalogue, Undeclared
from serving.rules.conditions import (
    All,
    Any,
    Compare,
    Condition,
    Elapsed,
    Engagement,
    In,
    Not,
    Null,
    OneOf,
    Operator,
    Order,
    Persona,
    Scalar,
    Score,
    TimeIn,
)
from serving.yaml_file import Entry, Findings, duration_us, hint

FORMS = ("all", "any", "not", "segment", "persona", "trait", "event")
TIME_IN = re.compile(r"time in (\S+)\s+(>=|<=|==|!=|>|<)\s*(.+)")
NULL = re.compile(r"(\S+) is (not )?null")
ONE_OF = re.compile(r"(\S+) (not )?in (.+)")
COMPARISON = re.compile(r"([^\s<>=!]+)\s*(>=|<=|==|!=|>|<| is not | is )\s*([^\s<>=!].*)")
Nothing = Anything
"""Always None: a finding was noted in the place of a condition, a name or a value."""
WORDS = {"is": "==", "is not": "!="}
NUMBER = re.compile(r"[-+]?\d+(\.\d+)?([eE][-+]?\d+)?")
EXAMPLE = "write a condition such as `sessions > 5`, `role is null` or {any: [...]}"


@dataclass(frozen=True)
class Grammar:
    """Reads conditions. segments: the rule segments of the file."""

    catalogue: Catalogue
    segments: tuple[str, ...]
    findings: Findings

    def condition(self, entry: Entry) -> Condition | None:
        """A condition, or None with findings."""
        if entry.node.id == "scalar":
            text = entry.text(self.findings)
            return None if text is None else self._line(text, entry)
        if entry.node.id == "sequence":
            return self._wrong(entry, f"{entry.path} is a list", "say `all:` or `any:` before it")
        pairs = entry.mapping(self.findings, known=(*FORMS, "at least", "within"), what="condition")
        forms = [name for name in pairs if name in FORMS]
        if len(forms) != 1:
            if pairs:
                self._wrong(entry, f"{entry.path} has {len(forms)} conditions", f"give one of {', '.join(FORMS)}")
            return None
        if forms[0] != "event" and len(pairs) > 1:
            return self._wrong(entry, f"{entry.path} counts something that is no event", "keep them for `event:`")
        return self._form(forms[0], pairs)

    def _form(self, form: str, pairs: dict[str, Entry]) -> Condition | None:
        entry = pairs[form]
        if form in ("all", "any"):
            return self._parts(entry, All if form == "all" else Any)
        if form == "not":
            part = self.condition(entry)
            return None if part is None else Not(part)
        if form == "event":
            return self._event(entry, pairs)
        text = entry.text(self.findings)
        if text is None:
            return None
        if form == "persona":
            return Persona(text)
        return self._segment(text, entry) if form == "segment" else self._trait(text, entry)

    def _parts(self, entry: Entry, whole: Callable[[tuple[Condition, ...]], Condition]) -> Condition | None:
        items = entry.items(self.findings)
        if entry.node.id == "sequence" and not items:
            return self._wrong(entry, f"{entry.path} is empty", "list at least one condition")
        parts = [self.condition(item) for item in items]
        known = tuple(p for p in parts if p is not None)
        return whole(known) if known and len(known) == len(parts) else None

    def _line(self, text: str, entry: Entry) -> Condition | None:
        if found := TIME_IN.fullmatch(text):
            return self._time_in(found[1], found[2], found[3], entry)
        if found := NULL.fullmatch(text):
            name = self._feature(found[1], entry)
            return None if name is None else Null(self.catalogue.elapsed.get(name, name), not found[2])
        if found := ONE_OF.fullmatch(text):
            return self._one_of(found[1], bool(found[2]), found[3], entry)
        if found := COMPARISON.fullmatch(text):
            op = cast(Operator, WORDS.get(found[2].strip(), found[2].strip()))
            return self._comparison(found[1], op, found[3], entry)
        return self._wrong(entry, f"{entry.path} is {text!r}, which is no condition", EXAMPLE)

    def _comparison(self, name: str, op: Operator, text: str, entry: Entry) -> Condition | None:
        if name == "score":
            return self._score(op, text, entry)
        if self._feature(name, entry) is None:
            return None
        if name in self.catalogue.elapsed:
            return self._elapsed(name, op, text, entry)
        if self.catalogue.types[name] == "string" and op in get_args(Order):
            return self._wrong(entry, f"{name} is text, and `{op}` orders numbers", "use ==, != or in")
        value = self._value(name, text, entry)
        return None if value is None else Compare(name, op, value)

    def _one_of(self, name: str, negated: bool, text: str, entry: Entry) -> Condition | None:
        if self._feature(name, entry) is None:
            return None
        if name in self.catalogue.elapsed:
            return self._wrong(entry, f"{name} passes any value within a microsecond", "use > >= < or <=")
        listed = [v.strip() for v in text.strip("[]").split(",")]
        values = [self._value(name, v, entry) for v in listed]
        known = tuple(v for v in values if v is not None)
        if len(known) < len(values):
            return None
        if negated:
            return All(tuple(Compare(name, "!=", v) for v in known))
        return OneOf(name, known)

    def _elapsed(self, name: str, op: Operator, text: str, entry: Entry) -> Condition | None:
        if op not in get_args(Order):
            return self._wrong(entry, f"{name} passes any value within a microsecond", "use > >= < or <=")
        us = _elapsed_us(text)
        if us is None:
            return self._wrong(
                entry, f"{name} is compared with {text!r}", "write a duration such as `3 days`, or seconds"
            )
        return Elapsed(name, self.catalogue.elapsed[name], cast(Order, op), us)

    def _score(self, op: Operator, text: str, entry: Entry) -> Condition | None:
        if not NUMBER.fullmatch(text):
            return self._wrong(entry, f"score is compared with {text!r}", "write a number from 0 to 1")
        return Score(op, float(text))

    def _time_in(self, name: str, op: str, text: str, entry: Entry) -> Condition | None:
        if name not in self.segments:
            known = "; the time in an engagement segment is not kept" if name in self.catalogue.engagement else ""
            return self._wrong(entry, f"{name!r} is no rule segment{known}", hint(name, self.segments))
        if op not in get_args(Order):
            return self._wrong(entry, "a time passes any value within a microsecond", "use > >= < or <=")
        us = duration_us(text)
        if us is None:
            return self._wrong(entry, f"the time in {name} is compared with {text!r}", "write one such as `2 hours`")
        return TimeIn(name, cast(Order, op), us)

    def _segment(self, name: str, entry: Entry) -> Condition | None:
        if name in self.segments:
            return In(name)
        if name in self.catalogue.engagement:
            return Engagement(name)
        known = (*self.segments, *self.catalogue.engagement)
        return self._wrong(entry, f"segment {name!r} is not known", hint(name, known))

    def _trait(self, text: str, entry: Entry) -> Condition | None:
        name, _, rest = text.partition(" ")
        if name not in self.catalogue.traits:
            return self._wrong(entry, f"trait {name!r} is not known", hint(name, tuple(self.catalogue.traits)))
        try:
            return self._line(f"{self.catalogue.trait(name)} {rest}", entry)
        except Undeclared as e:
            return self._wrong(entry, f"no feature holds the last value of trait {name!r}", f"declare {e}")

    def _event(self, entry: Entry, pairs: dict[str, Entry]) -> Condition | None:
        name = entry.text(self.findings)
        at_least = pairs["at least"].integer(self.findings, 1) if "at least" in pairs else 1
        within = pairs["within"].duration(self.findings) if "within" in pairs else None
        if name is None or at_least is None or ("within" in pairs and within is None):
            return None
        if name not in self.catalogue.domain.events:
            known = tuple(self.catalogue.domain.events)
            return self._wrong(entry, f"event {name!r} is not known", hint(name, known))
        try:
            return self.catalogue.event(name, at_least, within)
        except Undeclared as e:
            return self._wrong(entry, f"no feature counts event {name!r} like that", f"declare {e}")

    def _feature(self, name: str, entry: Entry) -> str | None:
        known = (*self.catalogue.types, *self.catalogue.elapsed)
        if name in known:
            return name
        return self._wrong(entry, f"feature {name!r} is not known", hint(name, (*known, "score")))

    def _value(self, name: str, text: str, entry: Entry) -> Scalar | None:
        quoted, number = re.fullmatch(r"(['\"])(.*)\1", text), _number(text)
        if self.catalogue.types[name] == "string":
            if number is not None:
                return self._wrong(entry, f"{name} is text, and {text} is a number", f'write "{text}" in quotes')
            return quoted[2] if quoted else text
        if number is None and self.catalogue.units[name] == "ms" and (us := duration_us(text)) is not None:
            return us // 1000
        if number is None:
            return self._wrong(entry, f"{name} is a number, and {text!r} is none", "compare it with a number")
        return number

    def _wrong(self, entry: Entry, wrong: str, todo: str) -> Nothing:
        self.findings.add(entry.line, wrong, todo)
        return None


def _number(text: str) -> int | float | None:
    if not NUMBER.fullmatch(text):
        return None
    return float(text) if re.search("[.eE]", text) else int(text)


def _elapsed_us(text: str) -> int | None:
    if NUMBER.fullmatch(text):
        return round(float(text) * 1_000_000)
    return duration_us(text)
