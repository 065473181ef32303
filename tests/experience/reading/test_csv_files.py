"""CSV as spreadsheets, data frames and people write it."""

import codecs
import csv
from pathlib import Path

import pytest

from klimb.experience.importing import ReadLimits, Reject, Row, read_records

TEXT = "prompt,response\r\nIch weiß,größer\r\nb,ÿ\r\n"
ROWS = [{"prompt": "Ich weiß", "response": "größer"}, {"prompt": "b", "response": "ÿ"}]


def records(path: Path, content: bytes | str, **limits: int):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_records(path, ReadLimits(**limits)))


def values(path: Path, content: bytes | str):
    found = records(path, content)
    assert all(isinstance(record, Row) for record in found), found
    return [dict(record.values) for record in found if isinstance(record, Row)]


def rejected(path: Path, content: bytes | str, **limits: int) -> list[tuple[str, str, str]]:
    found = records(path, content, **limits)
    return [(record.place, record.reason, record.detail) for record in found if isinstance(record, Reject)]


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_lines_may_end_in_each_way_and_cells_may_hold_the_others(tmp_path: Path, end: str):
    content = end.join(["a,b", "1,x", '2,"y\nz\r\n\rw"', "", "3,"]) + end
    assert values(tmp_path / "a.csv", content) == [
        {"a": "1", "b": "x"},
        {"a": "2", "b": "y\nz\r\n\rw"},
        {"a": "3", "b": None},
    ]


def test_a_lone_carriage_return_in_a_file_of_line_feeds_does_not_cut_its_row(tmp_path: Path):
    ((place, reason, _),) = rejected(tmp_path / "a.csv", "a,b\n1,x\ry\n2,z\n")
    assert (place, reason) == ("a.csv:2", "not CSV")


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
def test_a_byte_order_mark_says_the_encoding(tmp_path: Path, mark: bytes, encoding: str):
    assert values(tmp_path / "a.csv", mark + TEXT.encode(encoding)) == ROWS


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_an_encoding_of_several_bytes_without_a_mark_is_named(tmp_path: Path, encoding: str):
    with pytest.raises(ValueError, match="looks like UTF-16 or UTF-32 without a byte order mark; save it as UTF-8"):
        records(tmp_path / "a.csv", TEXT.encode(encoding))


def test_broken_utf_16_is_one_error(tmp_path: Path):
    with pytest.raises(ValueError, match="begins like UTF-16 and is broken"):
        records(tmp_path / "a.csv", codecs.BOM_UTF16_LE + "a,b\n1,\ud800x\n".encode("utf-16-le", "surrogatepass"))


def test_western_text_of_one_byte_a_letter_is_named_and_other_rows_are_read(tmp_path: Path):
    content = (TEXT + "c,d\r\n").encode("windows-1252")
    found = records(tmp_path / "a.csv", content)
    assert [type(record) for record in found] == [Reject, Reject, Row]
    (place, reason, detail), _ = rejected(tmp_path / "a.csv", content)
    assert (place, reason) == ("a.csv:2", "not UTF-8")
    assert "it looks like windows-1252 (Latin-1): save the file as UTF-8, or `iconv -f windows-1252" in detail


def test_text_of_another_alphabet_is_not_called_western(tmp_path: Path):
    ((_, _, detail),) = rejected(tmp_path / "a.csv", b"a\n" + "привет мир\n".encode("windows-1251"))
    assert "it is in another code page" in detail and "1252" not in detail


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "a;b\n1;x,y\n"),
        ("a.csv", "a\tb\n1\tx,y\n"),
        ("a.tsv", "a\tb\n1\tx,y\n"),
        ("a.csv", "a|b\n1|x,y\n"),
        ("a.csv", '"a";"b"\n1;"x,y"\n'),
        ("a.csv", 'sep=;\na;b\n1;"x,y"\n'),
        ("a.csv", '"sep=\t"\r\na\tb\r\n1\tx,y\r\n'),
    ],
)
def test_what_parts_the_cells_is_read_off_the_header(tmp_path: Path, name: str, content: str):
    assert values(tmp_path / name, content) == [{"a": "1", "b": "x,y"}]


def test_of_two_ways_to_cut_the_header_the_one_that_fits_the_rows_is_taken(tmp_path: Path):
    assert values(tmp_path / "a.csv", "a,score (1;5)\nx,3\ny,4\n") == [
        {"a": "x", "score (1;5)": "3"},
        {"a": "y", "score (1;5)": "4"},
    ]
    assert values(tmp_path / "b.csv", "a;b, c\n1;2\n") == [{"a": "1", "b, c": "2"}]


@pytest.mark.parametrize("rows", ["1,2;3\n", "1\n"])
def test_a_header_that_can_be_cut_in_two_ways_is_refused_with_the_way_out(tmp_path: Path, rows: str):
    with pytest.raises(ValueError, match=r"can be cut at commas or at semicolons; say which .*`sep=,`"):
        records(tmp_path / "a.csv", "a,b;c\n" + rows)


def test_a_column_alone_has_no_delimiter(tmp_path: Path):
    assert values(tmp_path / "a.csv", "prompt\na\n\nb; c\n") == [{"prompt": "a"}, {"prompt": "b; c"}]


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        (" a , b", ["a", "b"]),
        (",a", ["", "a"]),  # the index of a data frame
        ("a,,", ["a", "column 2", "column 3"]),
        ('"a\nb",c', ["a\nb", "c"]),
    ],
)
def test_names_of_the_header(tmp_path: Path, header: str, columns: list[str]):
    (row,) = records(tmp_path / "a.csv", f"{header}\n{','.join('x' * len(columns))}\n")
    assert isinstance(row, Row) and list(row.values) == columns


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b,a\n1,2,3\n", "a.csv: the column 'a' is there twice"),
        ("a, a\n1,2\n", "the column 'a' is there twice"),
        (",,\n1,2,3\n", "this one has no name"),
        ("a,b\0c\n1,2\n", "NUL bytes in the first line"),
        ("\na\rb,c\n1,2\n", "its first line is not CSV"),
    ],
)
def test_a_header_that_names_no_columns_is_an_error(tmp_path: Path, content: str, message: str):
    with pytest.raises(ValueError, match=message):
        records(tmp_path / "a.csv", content)


def test_a_file_of_nothing_has_no_rows(tmp_path: Path):
    assert [records(tmp_path / "a.csv", content) for content in ("", "\n \n", "a,b\n", "\ufeff")] == [[]] * 4


def test_blank_lines_before_the_header_and_between_rows_are_passed_over_and_counted(tmp_path: Path):
    found = records(tmp_path / "a.csv", "\n\na,b\n\n1,2\n   \n3,4\n")
    assert [record.place for record in found] == ["a.csv:5", "a.csv:7"]


def test_the_place_of_a_row_is_the_line_where_it_begins(tmp_path: Path):
    content = 'a,b\n1,"x\n\ny"\n2,3,4\n"p\nq",r\n5\n'
    found = records(tmp_path / "a.csv", content)
    assert [record.place for record in found] == ["a.csv:2", "a.csv:5", "a.csv:6", "a.csv:8"]
    assert [type(record) for record in found] == [Row, Reject, Row, Reject]


def test_a_quote_that_never_closes_names_its_lines_and_keeps_what_it_swallowed(tmp_path: Path):
    found = records(tmp_path / "a.csv", 'a,b\n1,2\n"3,4\n5,6\n')
    last = found[-1]
    assert isinstance(last, Reject) and len(found) == 2
    assert (last.place, last.reason, last.text) == ("a.csv:3", "not CSV", '"3,4\n5,6\n')
    assert "a quote that opens in line 3 is never closed: lines 3 to 4 are one record" in last.detail


def test_a_record_is_bounded_however_many_lines_a_quote_swallows(tmp_path: Path):
    content = 'a,b\n1,2\n"3,' + "x\n" * 5000
    with pytest.raises(ValueError, match="line 3: a record of more than 1000 bytes; a quote"):
        records(tmp_path / "a.csv", content, max_line_bytes=1000)


def test_a_cell_longer_than_python_reads_by_itself_is_read(tmp_path: Path):
    long = "text " * 40_000
    csv.field_size_limit(131_072)  # what it is in a new process
    assert values(tmp_path / "a.csv", f"a,b\n1,{long}\n") == [{"a": "1", "b": long}]


def test_a_nul_byte_rejects_its_row_alone(tmp_path: Path):
    ((place, reason, detail),) = rejected(tmp_path / "a.csv", "a,b\n1,2\n3,\0\n5,6\n")
    assert (place, reason) == ("a.csv:3", "a NUL byte") and "line 3" in detail


def test_csv_cells_may_hold_commas_quotes_and_lines(tmp_path: Path):
    content = '\ufeffprompt,response\r\n"a, ""b""\nc",d\u2028e\r\n,x\r\n'.encode()
    first, second = records(tmp_path / "a.csv", content)
    assert isinstance(first, Row) and isinstance(second, Row)
    assert first.values == {"prompt": 'a, "b"\nc', "response": "d\u2028e"}
    assert second.values == {"prompt": None, "response": "x"}
    assert first.is_text


@pytest.mark.parametrize(
    ("line", "reason"), [(b"1,2,3", "wrong number of cells"), (b"1,\xff", "not UTF-8"), (b'1,"a"b', "not CSV")]
)
def test_a_broken_csv_row_is_rejected_and_the_next_one_is_read(tmp_path: Path, line: bytes, reason: str):
    broken, good = records(tmp_path / "a.csv", b"a,b\n" + line + b"\n3,4\n")
    assert isinstance(broken, Reject) and broken.reason == reason and broken.place == "a.csv:2"
    assert isinstance(good, Row) and good.values == {"a": "3", "b": "4"}


@pytest.mark.parametrize(
    "content",
    ['{"a": 1, "b": 2}\n', '[{"a": 1}, {"a": 2}]\n', '{"a": {"b": 1}, "c": {"b": 1}}\n', '[\n{"a": 1}\n]\n', "{\r\n"],
)
def test_json_under_the_name_of_a_table_is_told(tmp_path: Path, content: str):
    with pytest.raises(ValueError, match=r"begins like JSON and not like a table; let its name end in .jsonl or .json"):
        values(tmp_path / "a.csv", content)


@pytest.mark.parametrize("header", ["[a],b", "{a},b", '"{""a"": 1}",b'])
def test_brackets_in_a_name_make_no_json(tmp_path: Path, header: str):
    assert len(values(tmp_path / "a.csv", f"{header}\n1,2\n")) == 1
