"""An answer cannot be split, by type (T-42, RFC 9112 11.1): mypy refuses bytes in a head that nobody checked.

What is tried: that mypy does refuse them, at every place where something enters a head; and that the types cannot be
had without a check, for they are called, which checks nothing, only in DOORS and for templates that take numbers.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from docs.generate import PROJECT

SERVICE = PROJECT / "service/pyserver"
TYPES = ("FieldName", "FieldValue", "Lines", "Head", "Reason")

# Where a type is called for what is no template with numbers: module and function (or constant), and why that is right.
DOORS = {
    ("http/fields.py", "NO_VALUE"): "nothing",
    ("http/fields.py", "NO_LINES"): "nothing",
    ("http/fields.py", "field_name"): "behind its check",
    ("http/fields.py", "field_value"): "behind its check",
    ("http/fields.py", "field_line"): "a name and a value that were checked",
    ("http/fields.py", "written"): "behind its check",
    ("http/fields.py", "joined_lines"): "lines after lines",
    ("http/response.py", "CONTINUE"): "a constant",
    ("http/response.py", "reason"): "nothing",
    ("http/response.py", "_phrase"): "behind its check",
    ("http/response.py", "head"): "a status line, and lines",
    ("http/response.py", "with_lines"): "lines behind the status line of a head",
}
# Where bytes are formatted into lines, all of those that have a type.
TEMPLATES = {
    ("http/fields.py", b"%b: %b\r\n"),
    ("http/response.py", b"%b%bDate: %b\r\n%b%b\r\n"),
    ("http/response.py", b"HTTP/1.1 %d %b\r\n"),
    ("http/multipart.py", b"\r\n--%b\r\nContent-Type: %b\r\n%b\r\n"),
    ("http/multipart.py", b"\r\n--%b--\r\n"),
}

# -- what mypy refuses ---------------------------------------------------------------------------------

# Each line with `# no` is an error, and no other.
TRIED = """\
import io
from pyserver.clock import Clock
from pyserver.config import Tracing as Options
from pyserver.handlers.cache import Entry
from pyserver.handlers.entries import fields
from pyserver.handlers.listings import Listing
from pyserver.handlers.static import Page
from pyserver.http import cors, dates, fields as types, lifecycle, multipart, ranges, response, validators
from pyserver.worker.tracing import Tracing

raw = io.BytesIO(b"x\\r\\nSet-Cookie: y").read()
text = raw.decode()

name, value = types.field_name(raw), types.field_value(raw)
line = types.field_line(name, value)
date = dates.imf_fixdate(0)
start = response.head(200, (line, cors.named((), raw), ranges.content_range(0, 1, 2)), date, lifecycle.CLOSE)
good = response.Response(200, start, raw).with_lines(types.joined_lines((line, line)))

types.field_line(raw, value)  # no
types.field_line(name, raw)  # no
types.field_line(value, value)  # no
types.field_line(name, text)  # no
types.field_line(name, b"even a constant")  # no
types.joined_lines((line, raw))  # no
response.head(200, (raw,), date, lifecycle.CLOSE)  # no
response.head(200, (line + raw,), date, lifecycle.CLOSE)  # no
response.head(200, (line + line,), date, lifecycle.CLOSE)  # no
response.head(200, (b"X: %b" % raw,), date, lifecycle.CLOSE)  # no
response.head(200, (value,), date, lifecycle.CLOSE)  # no
response.head(200, (), raw, lifecycle.CLOSE)  # no
response.head(200, (), date, raw)  # no
response.head(text, (), date, lifecycle.CLOSE)  # no
response.error_response(404, date=date, connection=lifecycle.CLOSE, fields=(raw,))  # no
response.error_response(404, date=raw, connection=lifecycle.CLOSE)  # no
response.Response(200, raw)  # no
response.Response(200, start + raw)  # no
response.Response(200, line)  # no
good.with_lines(raw)  # no
good.wire = raw  # no
response.PHRASES[413] = response.reason(200)  # no
reason: response.Reason = raw  # no
entry = Entry(raw, raw, (0, 0, 0, 0, 0), None)
entry.fields = line
entry.fields = raw  # no
entry.fields += raw  # no
entry.added = raw  # no
entry.kept = raw  # no
entry.unchanged = raw  # no
entry.validators = raw  # no
entry.etag = raw  # no
entry.etag = validators.entity_tag(0, 0, raw, strong=True)
entry.media_type = raw  # no
fields(raw, line, line)  # no
fields(value, raw, line)  # no
Page(404, (raw,))  # no
Listing(raw, raw, raw, raw)  # no
multipart.content_type(raw)  # no
multipart.parts((), 0, raw, value)  # no
multipart.parts((), 0, value, raw)  # no
tracing = Tracing(Options())
tracing.lines(tracing.identity(raw), 0.0, None)
tracing.lines(raw, 0.0, None)  # no
"""


def test_mypy_refuses_what_was_not_checked(tmp_path: Path) -> None:
    path = tmp_path / "tried.py"
    path.write_text(TRIED)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", path],
        cwd=PROJECT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    refused = {int(number) for number in re.findall(r"^.*?tried\.py:(\d+): error:", done.stdout, re.MULTILINE)}
    wanted = {number for number, line in enumerate(TRIED.splitlines(), 1) if line.endswith("# no")}
    assert refused == wanted, done.stdout + done.stderr


# -- that there is no other way -------------------------------------------------------------------------------


def calls(service: Path) -> Iterator[tuple[str, str, ast.Call]]:
    """Every call of a type: the module, the function or constant it is in, and the call."""
    for path in sorted(service.rglob("*.py")):
        module = str(path.relative_to(service))

        def walk(node: ast.AST, where: str, module: str = module) -> Iterator[tuple[str, str, ast.Call]]:
            if isinstance(node, ast.FunctionDef):
                where = node.name
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                where = where or node.target.id
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in TYPES:
                yield module, where, node
            for child in ast.iter_child_nodes(node):
                yield from walk(child, where)

        yield from walk(ast.parse(path.read_text("utf-8")), "")


def takes_numbers_only(call: ast.Call) -> bool:
    """Tell whether what is called is a template of whole lines, or of a value, with conversions of numbers."""
    (argument,), kind = call.args, ast.unparse(call.func).rpartition(".")[2]
    if (
        kind not in ("FieldValue", "Lines")
        or not isinstance(argument, ast.BinOp)
        or not isinstance(argument.op, ast.Mod)
    ):
        return False
    template = argument.left.value if isinstance(argument.left, ast.Constant) else None
    if not isinstance(template, bytes):
        return False
    plain = re.sub(rb"%(?:d|\.3f)", b"0", template)
    whole = rb"(?:[A-Za-z-]+: [ -~]*\r\n)+" if kind == "Lines" else rb"[ -~]*"
    return b"%" not in plain and re.fullmatch(whole, plain) is not None


def templates(service: Path) -> Iterator[tuple[str, bytes]]:
    """Every template for lines that takes bytes, and every beginning of a line that bytes could be appended to."""
    for path in sorted(service.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant):
                text = node.value.encode() if isinstance(node.value, str) else node.value
                if isinstance(text, bytes) and (
                    (b"%b" in text and b"\r\n" in text)
                    or re.fullmatch(rb"(?:.*\n)?[A-Z][A-Za-z]*-[A-Za-z-]+: ", text, re.DOTALL)
                    or re.search(rb"[A-Za-z]: [^\n]*(?:\{.*\}|%s)\r\n", text)
                ):
                    yield str(path.relative_to(service)), text


def test_the_types_are_made_behind_checks_and_of_numbers_only() -> None:
    assert {(module, where) for module, where, call in calls(SERVICE) if not takes_numbers_only(call)} == set(DOORS)


def test_lines_that_are_written_down_are_constants() -> None:
    """They may be several, so what others say may not be among them."""
    passed = [
        call.args[0]
        for path in SERVICE.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(call, ast.Call) and ast.unparse(call.func) in ("written", "fields.written")
    ]
    assert len(passed) > 3
    assert [ast.unparse(each) for each in passed if not isinstance(each, ast.Constant)] == []


def test_the_types_go_by_their_names() -> None:
    """Where one is called it is seen by its name: it has no other, and nobody passes it on to be called."""
    for path in SERVICE.rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        imported = [each for each in ast.walk(tree) if isinstance(each, ast.alias)]
        renamed = [each.asname for each in imported if each.name in (*TYPES, "written") and each.asname]
        handed = [
            ast.unparse(argument)
            for call in ast.walk(tree)
            if isinstance(call, ast.Call)
            for argument in call.args
            if isinstance(argument, (ast.Name, ast.Attribute)) and ast.unparse(argument).rpartition(".")[2] in TYPES
        ]
        assert not renamed, path
        assert not handed, path


def test_bytes_are_formatted_into_lines_only_where_they_have_types() -> None:
    assert set(templates(SERVICE)) == TEMPLATES


def test_no_cast_and_no_exception_from_the_rules_of_types_goes_round_them() -> None:
    for path in SERVICE.rglob("*.py"):
        text = path.read_text("utf-8")
        assert not re.search(rf"cast\(\s*\W*(?:\w+\.)*(?:{'|'.join(TYPES)})\b", text), path
        assert not (re.search(r"type: ignore", text) and re.search(r"pyserver\.http\.(?:fields|response)", text)), path


@pytest.mark.parametrize(
    "code",
    [
        'Lines(b"X: %b\\r\\n" % value)',
        'fields.Lines(b"X: %d" % value)',
        'Lines(b"X: %d\\r\\n\\r\\nY: %d\\r\\n" % (1, 2))',
        "FieldValue(value)",
        'FieldValue(b"%d" % 1 + value)',
        'FieldValue(b"a\\n%d" % 1)',
        "response.Head(value)",
        'Head(b"HTTP/1.1 %d\\r\\n" % 200)',
    ],
)
def test_a_way_round_the_checks_is_found(tmp_path: Path, code: str) -> None:
    (tmp_path / "module.py").write_text(f"made = {code}\n")
    assert [takes_numbers_only(call) for _, _, call in calls(tmp_path)] == [False]


@pytest.mark.parametrize(
    "code",
    ['b"X-Name: %b\\r\\n" % value', 'b"X-Name: " + value', '"X-Name: {}\\r\\n".format(value)', '"X: %s\\r\\n" % value'],
)
def test_a_new_template_is_found(tmp_path: Path, code: str) -> None:
    (tmp_path / "module.py").write_text(f"line = {code}\n")
    assert len(list(templates(tmp_path))) == 1
