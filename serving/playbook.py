"""All that is declared about decisions: policy, rules, experiments and label, checked together and never lost.

policies/, rules/, experiments/ (YAML) ─► Playbook ─► playbooks/<version>.json in the state folder

A receipt names the playbook's version; the document of every version that ever decided is kept, so that a decision can
be made again after the files have changed.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import msgspec

from feature_repo.domain import Domain, Label
from feature_repo.settings import Settings
from serving import policy, rules
from serving.experiments import parsing
from serving.experiments.declared import Experiments
from serving.policy import Policy
from serving.rules import Rules

FOLDER = "playbooks"


class Document(msgspec.Struct, frozen=True):
    """A playbook as it is kept: the content of each part."""

    policy: str
    rules: str
    experiments: str
    label: Label


@dataclass(frozen=True)
class Playbook:
    """What decides."""

    policy: Policy
    rules: Rules
    experiments: Experiments
    label: Label

    @cached_property
    def document(self) -> bytes:
        """All of it as JSON, from which `of` makes an equal one."""
        parts = Document(self.policy.content, self.rules.content, self.experiments.content, self.label)
        return msgspec.json.encode(parts, order="deterministic")

    @cached_property
    def version(self) -> str:
        """12 hex digits of the SHA-256 over the document."""
        return hashlib.sha256(self.document).hexdigest()[:12]

    @classmethod
    def of(cls, document: bytes) -> "Playbook":
        """The playbook of which this is the document.

        Raises:
            ValueError: it is no such document.
        """
        try:
            parts = msgspec.json.decode(document, type=Document)
            return cls(
                Policy.from_content(parts.policy),
                Rules.from_content(parts.rules),
                Experiments.from_content(parts.experiments),
                parts.label,
            )
        except msgspec.DecodeError as e:
            raise ValueError(f"no document of a playbook: {e}") from e


def for_domain(domain: Domain) -> Playbook:
    """What the domain's files declare.

    Raises:
        ValueError: with all that is wrong in the first file that does not fit.
    """
    asked = rules.for_domain(domain)
    shown = policy.for_domain(domain, asked.segments)
    segments = [*policy.segment_names(domain), *asked.segments]
    tried = parsing.for_domain(domain, [e.name for e in shown.elements], segments)
    return Playbook(shown, asked, tried, domain.label)


class Shelf:
    """The playbooks that have decided in a state folder."""

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.state / FOLDER
        self._read: dict[str, Playbook] = {}

    def keep(self, playbook: Playbook) -> None:
        """Have this one for good."""
        file = self._folder / f"{playbook.version}.json"
        if not file.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            temporary = file.with_suffix(".tmp")
            temporary.write_bytes(playbook.document)
            temporary.replace(file)

    def __getitem__(self, version: str) -> Playbook:
        """The playbook of a version.

        Raises:
            KeyError: it is not here.
        """
        if version not in self._read:
            file = self._folder / f"{version}.json"
            if not file.exists():
                raise KeyError(f"{file} is missing")
            self._read[version] = Playbook.of(file.read_bytes())
        return self._read[version]
