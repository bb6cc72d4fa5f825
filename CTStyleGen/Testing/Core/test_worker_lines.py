"""What the warm worker takes from a line, against anything at all, and that its own lines stay apart from chatter."""

import json
import os
from collections.abc import Callable

import pytest
from CTStyleGenCore.worker import LINE_BYTES, BadRequest, lines, parse_request, protocol_stream
from hypothesis import given, settings
from hypothesis import strategies as st

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(["hello", "load", "synthesize", "cancel", "stop"]) | json_values
keys = st.sampled_from(["model", "segmentation", "output", "slices", "seed", "sample"])
almost = st.builds(
    lambda id, name, more: json.dumps({"id": id, "request": name} | more).encode(),
    st.integers() | json_values,
    names,
    st.dictionaries(keys, st.just("/a") | st.integers() | json_values, max_size=6),
)


@settings(max_examples=200, deadline=None)
@given(line=st.binary(max_size=100) | json_values.map(lambda value: json.dumps(value).encode()) | almost)
def test_no_line_does_worse_than_a_bad_request(line: bytes) -> None:
    try:
        request = parse_request(line)
    except BadRequest as error:
        assert str(error) and "\n" not in str(error) and (error.id is None or json.loads(line)["id"] == error.id)
    else:
        told = json.loads(line)
        assert (request.id, request.name) == (told["id"], told["request"])
        assert request.values.items() >= {k: v for k, v in told.items() if k not in ("id", "request")}.items()


def pieces_of(text: bytes, sizes: list[int]) -> Callable[[int], bytes]:
    """A ``read`` that gives ``text`` in pieces of these sizes, then the rest in pieces as large as may be."""
    left, sizes = text, list(sizes)

    def read(most: int) -> bytes:
        nonlocal left
        size = min(sizes.pop(0) if sizes else most, most)
        piece, left = left[:size], left[size:]
        return piece

    return read


@given(
    texts=st.lists(st.binary(max_size=30).map(lambda text: text.replace(b"\n", b"")), max_size=8),
    sizes=st.lists(st.integers(1, 40), max_size=20),
    unfinished=st.sampled_from([b"", b'{"id": 1, "reque']),
)
def test_lines_come_whole_however_they_arrive(texts: list[bytes], sizes: list[int], unfinished: bytes) -> None:
    sent = b"".join(text + b"\n" for text in texts)
    assert list(lines(pieces_of(sent + unfinished, sizes))) == texts


@pytest.mark.parametrize("over", [1, 3 * LINE_BYTES])
def test_a_line_too_long_is_passed_over_and_those_beside_it_are_not(over: int) -> None:
    longest = b"x" * LINE_BYTES
    sent = b"a\n" + longest + b"\n" + longest + b"x" * over + b"\nb\n"
    assert list(lines(pieces_of(sent, []))) == [b"a", longest, None, b"b"]


def test_only_the_protocol_is_on_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    with protocol_stream() as out:
        print("a library's chatter")
        os.write(1, b"a C library's chatter\n")
        out.write(b'{"event": "hello"}\n')
    print("after")
    printed = capfd.readouterr()
    assert printed.out == '{"event": "hello"}\nafter\n'
    assert "a library's chatter" in printed.err and "a C library's chatter" in printed.err
