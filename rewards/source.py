"""A reward program's text, its hash and origin; taking exactly one program out of a designer's reply.

Markdown fences are found by a small line scanner; everything about the CODE (does it parse, does it define
the entry point, are two blocks the same program) is decided on the syntax tree. Nothing is executed and
nothing is judged here: what a program may contain is the business of `rewards.check`.
"""

import ast
import functools
import hashlib
import re
import textwrap
import warnings
from dataclasses import dataclass

from tasks.errors import UserError, did_you_mean

ENTRY_POINT = "compute_reward"
"""Name of the one function that a reward program must define."""
MAX_PROGRAM_CHARS = 40_000
"""Longest program accepted. The longest rewards published with Eureka are below 10,000 characters."""
MAX_REPLY_CHARS = 1_000_000
"""Longest reply that is scanned at all: 250,000 tokens, thoughts included."""
MAX_BLOCKS = 8
"""Most different code blocks of one reply that are parsed; those that name the entry point come first."""
MAX_UNPRINTABLE = 0.05
"""Largest share of control characters, lone surrogates and replacement marks in what is still a text."""

_WANTED = f"send one ```python block that defines {ENTRY_POINT}"
_FENCE = re.compile(r"^[ \t>]*(?:(?:[-*+]|\d{1,3}[.)])[ \t]+)?(?P<fence>`{3,}|~{3,})(?P<info>[^`]*)$")
_LATE_FENCE = re.compile(r"^[^`]+(?P<fence>`{3,})[ \t]*(?:py|py3|python|python3)?[ \t]*$", re.IGNORECASE)
_CLOSING_FENCE = re.compile(r"^(?P<fence>`{3,}|~{3,})(?P<rest>.*)$")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff\ufffd]")
_QUOTE = re.compile(r"^[ \t]*>[ \t]?")
_THOUGHT = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
_THOUGHT_END = re.compile(r"\A.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_LINE_END = re.compile(r"\r\n?|\u2028|\u2029|\x85")

EXTRACTION_CODES = {
    "no_code": "E101",
    "several": "E102",
    "no_entry_point": "E103",
    "syntax": "E104",
    "too_long": "E105",
    "truncated": "E106",
    "not_text": "E107",
}
"""Reason of an extraction error -> its stable code beside the R (check) and T (trial) codes."""


class ExtractionError(UserError):
    """No program, or no single program, in a reply.

    `code` is a key of `EXTRACTION_CODES`; `line` counts in the program, 0 when no line is to blame.
    """

    def __init__(self, code: str, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.line = line


class ProgramSyntaxError(UserError):
    """Text that Python cannot parse; `line` is 1-based, 0 when the parser names none."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


@dataclass(frozen=True)
class RewardSource:
    """The text of one reward program and where it came from (a reply, a file, the library)."""

    text: str
    origin: str = ""

    @property
    def sha256(self) -> str:
        """Hex digest of the text without trailing blanks, outer blank lines and foreign line ends."""
        return hashlib.sha256(normalise(self.text).encode("utf-8", "backslashreplace")).hexdigest()


def normalise(text: str) -> str:
    """The text with "\\n" line ends, no trailing blanks, no outer blank lines, one line end at the end."""
    lines = [line.rstrip() for line in _LINE_END.sub("\n", text).split("\n")]
    return "\n".join(lines).strip("\n") + "\n"


def parse(text: str) -> ast.Module:
    """Parse a program. Raises ProgramSyntaxError on whatever the parser refuses, null bytes and depth
    included."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape in a docstring is no error
            return ast.parse(text)
    except SyntaxError as error:
        raise ProgramSyntaxError(f"{type(error).__name__}: {error.msg}", error.lineno or 0) from None
    except (RecursionError, MemoryError):
        raise ProgramSyntaxError("the program is nested too deeply for the parser", 0) from None
    except ValueError as error:  # null bytes, lone surrogates
        raise ProgramSyntaxError(f"the text holds characters that no program can hold ({error})", 0) from None


@functools.lru_cache(maxsize=8)
def parsed(text: str) -> ast.Module:
    """`parse`, remembered for the latest programs; a tree that nobody may change."""
    return parse(text)


def entry_points(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every definition of the entry point at the top level of a program, in order."""
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [node for node in functions if node.name == ENTRY_POINT]


def extract(reply: str) -> RewardSource:
    """Take exactly one reward program out of a reply.

    Parts in <think> tags are ignored. Among fenced blocks the one that defines `compute_reward` is taken,
    with all that stands beside it; identical blocks count once. Without any fence the whole reply must be the
    program.

    Raises ExtractionError with a key of `EXTRACTION_CODES`, whatever comes.
    """
    if not isinstance(reply, str):
        raise ExtractionError("not_text", f"the reply is a {type(reply).__name__}, not a text; {_WANTED}.")
    if len(reply) > MAX_REPLY_CHARS:
        message = f"the reply has {len(reply)} characters; the limit is {MAX_REPLY_CHARS}."
        raise ExtractionError("too_long", message)
    answer = _answer(reply)
    blocks = _unfold(_fenced_blocks(answer))
    if blocks:
        return _from_blocks(blocks)
    if not answer.strip() and reply.strip():
        message = f"the reply ends inside its thoughts, before any code; think less and {_WANTED}."
        raise ExtractionError("truncated", message)
    if len(_UNPRINTABLE.findall(answer)) > MAX_UNPRINTABLE * len(answer):
        raise ExtractionError("not_text", f"the reply is no text: it holds mostly unprintable characters; {_WANTED}.")
    return _from_plain_text(answer)


def reads_as_whole(reply: str) -> bool:
    """Whether a reply holds one program and no fence that is still open; if not, the rest of it may be on its way."""
    try:
        extract(reply)
    except ExtractionError:
        return False
    return all(block.closed for block in _fenced_blocks(_answer(reply)))


def _answer(reply: str) -> str:
    """A reply without its thoughts, with plain line ends."""
    return _without_thoughts(_LINE_END.sub("\n", reply).replace("\ufeff", ""))


def _without_thoughts(text: str) -> str:
    text = _THOUGHT.sub("", text)
    return _THOUGHT_END.sub("", text)  # some servers cut the opening tag off and leave the closing one


@dataclass(frozen=True)
class _Block:
    text: str
    closed: bool


def _fenced_blocks(text: str) -> list[_Block]:
    """Contents of ``` and ~~~ fences of any length, indented, in lists or quotes; the last may lack its
    end."""
    blocks: list[_Block] = []
    fence, content, quoted = "", list[str](), False
    for line in text.split("\n"):
        if not fence:
            match = _FENCE.match(line) or _LATE_FENCE.match(line)
            if match:
                fence, content, quoted = match["fence"], [], line.lstrip().startswith(">")
            continue
        body = _QUOTE.sub("", line) if quoted else line
        closing = _CLOSING_FENCE.match(body.strip())
        if closing and _closes(closing, fence):
            blocks.append(_Block(_dedent(content), True))
            fence = ""
        else:
            content.append(body)
    if fence:
        blocks.append(_Block(_dedent(content), False))
    return [block for block in blocks if block.text.strip()]


def _closes(closing: re.Match[str], fence: str) -> bool:
    """Whether a line ends a block: the same fence alone, or with words after it as in "``` That is all."."""
    rest = closing["rest"]
    words = not rest or (len(closing["fence"]) == len(fence) and rest[0] in " \t")
    return closing["fence"][0] == fence[0] and len(closing["fence"]) >= len(fence) and words


def _dedent(lines: list[str]) -> str:
    return normalise(textwrap.dedent("\n".join(line.rstrip() for line in lines)))


def _unfold(blocks: list[_Block]) -> list[_Block]:
    """Replace a block that is itself Markdown (a long fence around a shorter one) by the blocks inside it."""
    unfolded: list[_Block] = []
    for block in blocks:
        nested = ("```" in block.text or "~~~" in block.text) and ENTRY_POINT in block.text
        inner = _fenced_blocks(block.text) if nested and len(unfolded) < MAX_BLOCKS else []
        unfolded.extend(inner if inner and _try_parse(block.text) is None else [block])
    return unfolded


def _try_parse(text: str) -> ast.Module | None:
    if len(text) > MAX_PROGRAM_CHARS:
        return None
    try:
        return parse(text)
    except ProgramSyntaxError:
        return None


def _worth_parsing(blocks: list[_Block]) -> list[_Block]:
    """The different blocks, those that name the entry point first, at most `MAX_BLOCKS`."""
    different = list({block.text: block for block in blocks}.values())
    return sorted(different, key=lambda block: ENTRY_POINT not in block.text)[:MAX_BLOCKS]


def _from_blocks(blocks: list[_Block]) -> RewardSource:
    programs: dict[str, _Block] = {}  # by syntax tree: a block repeated with other comments counts once
    parsed: list[ast.Module] = []
    broken: list[_Block] = []
    for block in _worth_parsing(blocks):
        tree = _try_parse(block.text)
        if tree is None:
            broken.append(block)
            continue
        parsed.append(tree)
        if entry_points(tree):
            _refuse_two_entry_points(tree)
            programs.setdefault(_fingerprint(tree, block.text), block)
    if len(programs) > 1:
        raise ExtractionError(
            "several",
            f"{len(programs)} code blocks define different versions of {ENTRY_POINT}; "
            "send exactly one program in one block.",
        )
    if programs:
        return RewardSource(_whole(next(iter(programs.values()))))
    suspects = [block for block in broken if ENTRY_POINT in block.text] or ([] if parsed else broken)
    if suspects:
        raise _why_broken(suspects[0])
    raise _no_entry_point(parsed)


def _whole(block: _Block) -> str:
    """The block's text. Raises ExtractionError if it was cut off where what is left is still Python."""
    entry = entry_points(parse(block.text))[0]
    if not block.closed and not any(isinstance(node, ast.Return) for node in ast.walk(entry)):
        message = f"the reply was cut off within {ENTRY_POINT}, before it returns anything; be shorter."
        raise ExtractionError("truncated", message, entry.lineno)
    return block.text


def _fingerprint(tree: ast.Module, text: str) -> str:
    try:
        return ast.dump(tree)
    except RecursionError:  # parsed, but too deep to walk: the text itself still tells programs apart
        return text


def _from_plain_text(answer: str) -> RewardSource:
    if not answer.strip():
        raise ExtractionError("no_code", f"the reply holds no code; {_WANTED}.")
    if "def " not in answer:
        raise ExtractionError("no_code", f"the reply is text without a code block; {_WANTED}.")
    text = normalise(textwrap.dedent(answer))
    tree = _try_parse(text)
    if tree is not None and entry_points(tree):
        _refuse_two_entry_points(tree)
        return RewardSource(text)
    if tree is None and f"def {ENTRY_POINT}" in text:
        error = _why_broken(_Block(text, True))
        message = f"{error.message} Put the program alone in one ```python block."
        raise ExtractionError(error.code, message, error.line)
    if tree is not None and any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in tree.body):
        raise _no_entry_point([tree])
    raise ExtractionError("no_code", f"the reply is text without a code block; {_WANTED}.")


def _refuse_two_entry_points(tree: ast.Module) -> None:
    found = entry_points(tree)
    if len(found) > 1:
        lines = ", ".join(str(node.lineno) for node in found)
        message = f"the program defines {ENTRY_POINT} {len(found)} times (lines {lines}); keep one."
        raise ExtractionError("several", message, found[1].lineno)


def _why_broken(block: _Block) -> ExtractionError:
    if len(block.text) > MAX_PROGRAM_CHARS:
        return ExtractionError(
            "too_long", f"the program has {len(block.text)} characters; the limit is {MAX_PROGRAM_CHARS}."
        )
    cut = "" if block.closed else " The code block has no end: the reply may have been cut off; be shorter."
    try:
        parse(block.text)
    except ProgramSyntaxError as error:
        lines = block.text.split("\n")
        quoted = lines[error.line - 1].strip() if 0 < error.line <= len(lines) else ""
        where = f"line {error.line}: {quoted[:120]!r}" if quoted else f"line {error.line}"
        message = f"the program is not valid Python ({where}): {error.message}.{cut}"
        return ExtractionError("truncated" if cut else "syntax", message, error.line)
    message = f"no function named {ENTRY_POINT} at the top level.{cut}"
    return ExtractionError("truncated" if cut else "no_entry_point", message)


def _no_entry_point(trees: list[ast.Module]) -> ExtractionError:
    body = [node for tree in trees for node in tree.body]
    top = [node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    for node in (node for node in body if isinstance(node, ast.ClassDef)):
        if any(isinstance(item, ast.FunctionDef) and item.name == ENTRY_POINT for item in node.body):
            return ExtractionError(
                "no_entry_point",
                f"{ENTRY_POINT} is a method of class {node.name}; write it as a plain function.",
                node.lineno,
            )
    found = f"found only {', '.join(top[:8])}" if top else "found no function"
    hint = did_you_mean(ENTRY_POINT, top)
    renamed = f" Rename the function to {ENTRY_POINT}." if hint else ""
    message = f"no function named {ENTRY_POINT} at the top level ({found}).{renamed}"
    return ExtractionError("no_entry_point", message)
