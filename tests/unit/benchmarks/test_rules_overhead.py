"""The measure of the rules runs all of them, on a scene that gives each something to say."""

from __future__ import annotations

from edgecv.benchmarks.lab.steps.rules_overhead import LABELS, rules, rules_overhead, scene
from edgecv.pipelines.loop.step_chain import build_steps
from edgecv.pipelines.steps.rules.options import RuleOptions


def test_all_rules_are_timed_on_a_scene_with_events() -> None:
    measured = rules_overhead(tracks=50, frames=120, rounds=1)
    names = {rule.name for rule in rules() if isinstance(rule, RuleOptions)}
    assert set(measured.each_ms) == names
    assert len(names) == 7
    assert 0 < measured.undisturbed_ms <= measured.p99_ms
    said = set()
    chain = build_steps(rules(), LABELS)
    for result in scene(50, 120):
        for one in chain:
            given = one.step(result)
            assert given is not None
            said |= {event.data.get("rule") for event in given.events}
    assert said >= {"crowd", "dwell", "left_behind", "speed", "appear", "leave"}
