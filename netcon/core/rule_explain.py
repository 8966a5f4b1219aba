"""Why a frame passes or not: which rule decided, and what each match said on the way (vl2 §4.2, §4.5, §4.6).

The evaluation is that of `rule_engine` itself; here its entries are wrapped, so that they report what they are asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from netcon.core.rule_engine import CompiledRules, Decision, FilteredFrame, Outcome, Result, filter_inbound, filter_outbound
from netcon.core.rules import Rule


class Step(NamedTuple):
    """One rule that was looked at. `said` of a match: no, yes, never (NOT does not turn it), always; empty if it was not asked
    because its set was false already. Of an action: done, or skipped because its set was false."""

    position: int
    rule: Rule
    said: str


@dataclass(slots=True, frozen=True)
class ListTrace:
    """How one rule list was gone through. `decided`: index of the rule that ended it; None if its end was reached."""

    name: str
    steps: tuple[Step, ...]
    outcome: Outcome
    decided: int | None


@dataclass(slots=True, frozen=True)
class Explanation:
    """`lists`: those that were asked, in order; `decision`: what came of it."""

    lists: tuple[ListTrace, ...]
    decision: Decision


_SAID = ("no", "yes", "never", "always")


class _TracedRules(CompiledRules):
    """A rule list that notes how it is evaluated. The deciding rule is the last one that the evaluation took."""

    __slots__ = ("_name", "_rules", "_steps", "_taken", "traces")

    def __init__(self, name: str, rules: Sequence[Rule], unknown_match: bool, traces: list[ListTrace]) -> None:
        super().__init__(rules, unknown_match)
        self.accepts_all = False  # look at the rules even so
        self._name = name
        self._rules = tuple(rules)
        self._entries = _Entries(self, self._entries)  # type: ignore[assignment]
        self._steps: list[Step] = []
        self._taken = 0
        self.traces = traces

    def note(self, index: int, said: str) -> None:
        self._steps.append(Step(index, self._rules[index], said))

    def took(self, index: int) -> None:
        self._taken = index

    def evaluate(self, frame: FilteredFrame) -> Outcome:
        self._steps = []
        self._taken = -1
        outcome = super().evaluate(frame)
        decided = self._taken if self._taken < len(self._rules) else None
        self.traces.append(ListTrace(self._name, tuple(self._steps), outcome, decided))
        return outcome


class _Entries:
    """The entries of a list; iterating them tells how far the evaluation came."""

    def __init__(self, traced: _TracedRules, entries: Sequence[tuple[Any, Any, Any]]) -> None:
        self._traced = traced
        self._entries = tuple(entries)

    def __iter__(self) -> Iterator[tuple[Any, Any, Any]]:
        holds = True
        for index, entry in enumerate(self._entries):
            self._traced.took(index)
            first, second, third = entry
            if first is None:
                self._traced.note(index, "done" if holds else "skipped")
                holds = True
                yield entry
                continue
            asked: list[int] = []

            def match(frame: FilteredFrame, ask: Any = first, asked: list[int] = asked) -> int:
                asked.append(int(ask(frame)))
                return asked[0]

            yield match, second, third
            self._traced.note(index, _SAID[asked[0]] if asked else "")
            if asked:
                matched = bool(asked[0] ^ bool(second)) if asked[0] <= 1 else asked[0] == 3
                holds = (holds or matched) if third else matched
        self._traced.took(len(self._entries))


def explain(
    rules: Sequence[Rule],
    capabilities: Sequence[tuple[str, Sequence[Rule]]],
    frame: FilteredFrame,
    *,
    unknown_match: bool = False,
    tee: bool = True,
) -> Explanation:
    """Filter `frame` as the engine does, with `capabilities` as (name, rules) in the order of their ids, and tell why."""
    traces: list[ListTrace] = []
    network = _TracedRules("the network's rules", rules, unknown_match, traces)
    held = [_TracedRules(name, entries, unknown_match, traces) for name, entries in capabilities]
    decision = filter_inbound(network, held, frame) if frame.inbound else filter_outbound(network, held, frame, tee=tee)
    return Explanation(tuple(traces), decision)


def decisive(explanation: Explanation) -> ListTrace | None:
    """The list whose rule decided; None if no list said anything, which means drop."""
    last = explanation.lists[-1]
    if last.decided is None or last.outcome.result is Result.NO_MATCH:
        return None
    if len(explanation.lists) > 1 and last.outcome.result is Result.DROP:
        return None  # a capability cannot drop: its DROP means "ask the next" (vl2 §4.5)
    return last
