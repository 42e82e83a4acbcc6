"""What /metrics prints is read back by a parser written from the format's own description."""

import math
import re

import pytest

from levada.keeper.metrics import Family, render

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(rf"^({NAME})(?:\{{(.*)\}})? (\S+)$")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(?:,|$)')
UNESCAPED = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}


def parse(text):
    """Return {name: (type, help, {labels: value})}; raise on anything the format forbids."""
    assert text == "" or text.endswith("\n")
    families, current = {}, None
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name, _, help_text = line[7:].partition(" ")
            assert name not in families, f"{name} comes twice"
            families[name] = [None, help_text, {}]
        elif line.startswith("# TYPE "):
            name, _, kind = line[7:].partition(" ")
            assert not families[name][2], "TYPE after a sample"
            assert kind in ("counter", "gauge")
            families[name][0] = kind
            current = name
        else:
            name, labels, value = SAMPLE.match(line).groups()
            assert name == current, "samples of one family stand together"
            key = frozenset(parse_labels(labels or "").items())
            assert key not in families[name][2], "one sample per set of labels"
            families[name][2][key] = float(value)
    return families


def parse_labels(text):
    labels, at = {}, 0
    while at < len(text):
        match = LABEL.match(text, at)
        assert match, f"not a label: {text[at:]}"
        labels[match[1]] = re.sub(r"\\.", lambda escape: UNESCAPED[escape[0]], match[2])
        at = match.end()
    return labels


def one(samples, help_text="Help.", kind="gauge"):
    return parse(render([Family("levada_x", kind, help_text, samples)]))["levada_x"]


def test_a_family_has_help_type_and_its_samples():
    kind, help_text, samples = one((({"store": "a"}, 1.0), ({"store": "b"}, 2.5)))
    assert (kind, help_text) == ("gauge", "Help.")
    assert samples == {frozenset({("store", "a")}): 1.0, frozenset({("store", "b")}): 2.5}


@pytest.mark.parametrize("text", ['quo"te', "back\\slash", "new\nline", "\\n", "žluť", "a,b}"])
def test_label_values_survive_whatever_they_hold(text):
    assert list(one((({"store": text}, 1.0),))[2]) == [frozenset({("store", text)})]


def test_help_stays_on_its_line():
    assert one((({}, 1.0),), "two\nlines \\ here")[1] == "two\\nlines \\\\ here"


def test_numbers_keep_their_digits():
    text = render(
        [
            Family("levada_big", "counter", "Big.", (({}, 12_345_678_901_234),)),
            Family("levada_small", "gauge", "Small.", (({}, 0.1 + 0.2),)),
        ]
    )
    assert "levada_big 12345678901234\n" in text
    assert f"levada_small {0.1 + 0.2!r}\n" in text


def test_what_is_no_number_is_spelled_as_the_format_spells_it():
    samples = one((({"v": "nan"}, math.nan), ({"v": "inf"}, math.inf), ({"v": "-"}, -math.inf)))[2]
    assert math.isnan(samples[frozenset({("v", "nan")})])
    text = render([Family("levada_x", "gauge", "X.", (({}, math.inf),))])
    assert text.endswith("levada_x +Inf\n")


def test_a_family_without_samples_is_left_out():
    assert render([Family("levada_x", "gauge", "X.", ())]) == ""
