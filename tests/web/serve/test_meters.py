"""Metrics: what Prometheus reads."""

import re

import pytest

from klimb.web.serve.meters import COUNTERS, Meters


def test_a_duration_counts_in_its_bucket_and_in_all_above() -> None:
    meters = Meters()
    for seconds in (0.004, 0.05, 0.06, 100.0):
        meters.observe("klimb_first_token_seconds", seconds)
    text = meters.write()
    assert 'klimb_first_token_seconds_bucket{le="0.005"} 1' in text
    assert 'klimb_first_token_seconds_bucket{le="0.05"} 2' in text
    assert 'klimb_first_token_seconds_bucket{le="60.0"} 3' in text
    assert 'klimb_first_token_seconds_bucket{le="+Inf"} 4' in text
    assert "klimb_first_token_seconds_count 4" in text
    assert re.search(r"klimb_first_token_seconds_sum 100\.11[34]", text)


def test_labels_are_escaped() -> None:
    meters = Meters()
    meters.count("klimb_requests_total", route='a"b\\c\nd', status="200")
    assert r'klimb_requests_total{route="a\"b\\c\nd",status="200"} 1' in meters.write()


def test_every_line_is_one_of_the_text_format() -> None:
    meters = Meters()
    meters.count("klimb_drawn_tokens_total", 3, policy="p")
    line = re.compile(r'# (HELP|TYPE) \w+ .+|\w+(\{\w+="([^"\\]|\\.)*"(,\w+="([^"\\]|\\.)*")*\})? [-+\w.]+')
    for each in meters.write([("klimb_running", {"policy": "p"}, 2.0)]).splitlines():
        assert line.fullmatch(each), each


def test_an_unknown_counter_is_an_error() -> None:
    with pytest.raises(ValueError, match="no such counter"):
        Meters().count("klimb_nothing")
    assert "klimb_feedback_total" in COUNTERS
