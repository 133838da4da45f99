"""A small reader of the text format of metrics (prometheus.io/docs/instrumenting/exposition_formats), for tests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

Labels = frozenset[tuple[str, str]]


@dataclass
class Family:
    """One metric: what it is, and its samples by their labels."""

    kind: str
    text: str
    samples: dict[Labels, float] = field(default_factory=dict)


_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_SAMPLE = re.compile(rf"({_NAME})(?:\{{(.*)\}})? (\S+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')


def read(text: str) -> dict[str, Family]:
    """Read the text format (prometheus.io/docs/instrumenting/exposition_formats), and fail on what is not of it."""
    assert text.endswith("\n")
    families: dict[str, Family] = {}
    helps: dict[str, str] = {}
    for line in text.split("\n")[:-1]:
        if line.startswith("# HELP "):
            name, _, words = line.removeprefix("# HELP ").partition(" ")
            assert name not in helps
            helps[name] = words
        elif line.startswith("# TYPE "):
            name, kind = line.removeprefix("# TYPE ").split(" ")
            assert name not in families
            assert kind in ("gauge", "counter")
            families[name] = Family(kind, helps[name])
        else:
            found = _SAMPLE.fullmatch(line)
            assert found, line
            family = families[found[1]]
            assert found[1] == list(families)[-1], "the samples of a metric stand together"
            labels = _labels(found[2] or "")
            assert labels not in family.samples
            family.samples[labels] = float(found[3])
    assert helps.keys() == families.keys()
    return families


def _labels(text: str) -> Labels:
    found, position = {}, 0
    while position < len(text):
        label = _LABEL.match(text, position)
        assert label, text[position:]
        assert label[1] not in found
        found[label[1]] = re.sub(r"\\(.)", lambda one: {"n": "\n"}.get(one[1], one[1]), label[2])
        position = label.end()
    return frozenset(found.items())


def values(families: Mapping[str, Family], name: str) -> dict[tuple[str, ...], float]:
    """Return the samples of one metric by the values of their labels, in the order of the labels."""
    return {tuple(value for _, value in sorted(labels)): one for labels, one in families[name].samples.items()}
