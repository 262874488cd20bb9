"""A decision in words, all of it: made only where it is asked for.

receipt, placed ─► sentences, rules that hold, what would change it, variants, what was dropped, data that was used
"""

from collections.abc import Mapping

from feature_repo.domain import Domain
from serving.decide import Model, Placed, Receipt
from serving.playbook import Playbook
from serving.rules import Facts, Rules
from serving.rules.compiled import reason, test
from serving.rules.facts import Scene
from serving.times import rfc3339
from serving.why.answers import Change, DataUsed, Explanation, RuleHeld
from serving.why.counterfactual import Counterfactual, Searcher
from serving.why.sentences import sentences
from serving.why.words import Words


class Explainer:
    """Explains decisions about the people of a domain."""

    def __init__(self, domain: Domain) -> None:
        self.domain, self.searcher, self.words = domain, Searcher(domain), Words(domain)

    def explain(
        self,
        receipt: Receipt,
        placed: Placed,
        model: Model | None,
        playbook: Playbook,
        effects: Mapping[str, float] | None,
    ) -> Explanation:
        """model: the one that decided. effects: of the features on the score (contributions.py); None: not known."""
        titles = {e.name: e.title for e in playbook.policy.elements}
        return Explanation(
            sentences=self._sentences(receipt, effects),
            rules=_held(receipt, placed, playbook.rules),
            counterfactual=self._change(self.better(receipt, model)),
            rule_within_reach=self._change(self._rule(receipt, placed, model, playbook.rules)),
            variants=[v.why for v in receipt.variants],
            dropped=[f"{titles.get(d.element, d.element)} ({d.element}): {d.detail}" for d in receipt.dropped],
            data=DataUsed(
                rfc3339(receipt.event_us) if receipt.event_us is not None else None,
                self.used(receipt, model, playbook.rules),
            ),
        )

    def used(self, receipt: Receipt, model: Model | None, rules: Rules) -> dict[str, str]:
        """The features that the model or a rule reads, in words with their values."""
        if receipt.features is None:
            return {}
        read = {*rules.needs, *(getattr(model, "inputs", model.features) if model else ())}
        values = {f: v for f, v in receipt.features.items() if f in read}
        return {f: self.words.with_value(f, v, receipt.at_us) for f, v in values.items()}

    def better(self, receipt: Receipt, model: Model | None) -> Counterfactual | None:
        """What leads to a better engagement segment."""
        if model is None or receipt.features is None or receipt.score is None or receipt.segment is None:
            return None
        return self.searcher.engagement(model, receipt.features, receipt.segment, receipt.at_us)

    def _rule(self, receipt: Receipt, placed: Placed, model: Model | None, rules: Rules) -> Counterfactual | None:
        if receipt.features is None or placed.step is None:
            return None
        facts = Facts(receipt.features, receipt.at_us, receipt.score, receipt.segment, receipt.persona)
        return self.searcher.rule(rules, placed.step.state, facts, model)

    def _change(self, found: Counterfactual | None) -> Change | None:
        if found is None:
            return None
        alone = [self.words.name(f) for f in found.alone]
        return Change(found.segment, found.source, self.searcher.words(found), alone)

    def _sentences(self, receipt: Receipt, effects: Mapping[str, float] | None) -> list[str]:
        label = self.domain.label
        if receipt.situation.opted_out:
            return ["This person opted out: nothing about them is looked at."]
        if receipt.features is None:
            unread = "What is known about this person could not be read"
            return [f"{'Nothing is known about this person' if receipt.unavailable is None else unread}."]
        if label.done and receipt.segment == label.done_segment:
            return [f"It has happened already that this person {label.doc}."]
        if effects is None:
            return ["How much each thing counted cannot be told of this decision."]
        return sentences(self.domain, effects, receipt.features, receipt.at_us)


def _held(receipt: Receipt, placed: Placed, rules: Rules) -> list[RuleHeld]:
    """The rule segments that hold, each with the conditions that keep it."""
    if placed.step is None or receipt.features is None:
        return []
    since = placed.step.state.held
    scene = Scene(receipt.features, receipt.at_us, receipt.score, receipt.segment, receipt.persona, since)
    return [
        RuleHeld(name, rules.why(name), _because(rules, name, scene), rfc3339(since[name])) for name in placed.step.held
    ]


def _because(rules: Rules, name: str, scene: Scene) -> str:
    """Why it holds: what it is entered by, or, where that no longer holds, that it is not left."""
    segment = rules.declared[name]
    return reason(segment.enter if test(segment.enter)(scene) else segment.leave, scene)
