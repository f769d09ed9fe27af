"""Numbers, programs and diffs as a person reads them: text in, escaped HTML or plain text out.

Everything a language model wrote passes through `markupsafe.escape` before it becomes markup.
"""

from __future__ import annotations

import builtins
import difflib
import io
import keyword
import math
import token
import tokenize

from markupsafe import Markup, escape

DASH = "–"
MINUS = "−"
BUILTINS = frozenset(dir(builtins))


def decimals(value: float, digits: int = 3) -> int:
    """Decimal places that show `digits` significant digits of a finite value (4.12 -> 2, 0.0123 -> 4, 1234 -> 0)."""
    if value == 0 or not math.isfinite(value):
        return 0
    return max(0, digits - 1 - math.floor(math.log10(abs(value))))


def format_number(value: float | None, digits: int = 3, places: int | None = None) -> str:
    """A number with `digits` significant digits, or with `places` decimals.

    None is a dash (there is no such number), NaN is "NaN": the one is never shown as the other.
    """
    if value is None:
        return DASH
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else MINUS + "∞"
    if value == 0:
        return "0"
    if (places is None and abs(value) < 1e-4) or abs(value) >= 1e9:
        return f"{value:.{digits - 1}e}".replace("e-0", "e-").replace("e+0", "e").replace("-", MINUS)
    text = f"{value:,.{decimals(value, digits) if places is None else places}f}"
    return text.replace("-", MINUS)


def format_spread(value: float | None, spread: float | None, digits: int = 3) -> str:
    """ "4.12 ± 0.08": the spread with the decimals of the value, unless that would make it nought."""
    text = format_number(value, digits)
    if value is None or spread is None or not math.isfinite(value):
        return text
    if not math.isfinite(spread):
        return f"{text} ± {format_number(spread)}"
    places = min(decimals(value, digits), decimals(spread, digits)) if spread else decimals(value, digits)
    if spread and round(spread, places) == 0:
        places = decimals(spread, 1)
    return f"{text} ± {format_number(spread, places=places)}"


def format_count(value: float | None) -> str:
    """A whole number with thousands separators, or a dash."""
    return DASH if value is None else f"{int(value):,}"


def format_seconds(seconds: float | None) -> str:
    """A duration: "0.42 s", "42 s", "3 min 05 s", "1 h 12 min"."""
    if seconds is None or not math.isfinite(seconds):
        return format_number(seconds)
    if seconds < 59.5:
        return f"{format_number(seconds, 2)} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def highlight(source: str) -> Markup:
    """Python source as one `<span class="line">` per line, tokens in classes k, s, c, n, d, b; all text escaped.

    Source that Python cannot tokenise is shown plain from the place where it gives up.
    """
    lines = source.splitlines()
    classes = [[""] * len(line) for line in lines]
    previous = ""
    try:
        for found in tokenize.generate_tokens(io.StringIO("\n".join(lines) + "\n").readline):
            kind = _token_class(found, previous)
            previous = found.string
            if kind:
                _paint(classes, found.start, found.end, kind)
    except (tokenize.TokenError, SyntaxError):
        pass  # a refused program may be no Python at all: what was painted so far stays
    return Markup("").join(_line(text, kinds) for text, kinds in zip(lines, classes, strict=True))


def _token_class(found: tokenize.TokenInfo, previous: str) -> str:
    if found.type == token.STRING or token.tok_name[found.type].startswith("FSTRING"):
        return "s"
    if found.type == token.COMMENT:
        return "c"
    if found.type == token.NUMBER:
        return "n"
    if found.type != token.NAME:
        return ""
    if previous in ("def", "class"):
        return "d"
    if keyword.iskeyword(found.string):
        return "k"
    return "b" if found.string in BUILTINS and previous != "." else ""


def _paint(classes: list[list[str]], start: tuple[int, int], end: tuple[int, int], kind: str) -> None:
    for row in range(start[0], min(end[0], len(classes)) + 1):
        line = classes[row - 1]
        first = start[1] if row == start[0] else 0
        last = end[1] if row == end[0] else len(line)
        line[first:last] = [kind] * len(line[first:last])


def _line(text: str, kinds: list[str]) -> Markup:
    parts = [Markup('<span class="line">')]
    start = 0
    for stop in range(1, len(text) + 1):
        if stop == len(text) or kinds[stop] != kinds[start]:
            piece = escape(text[start:stop])
            parts.append(Markup('<i class="{}">{}</i>').format(kinds[start], piece) if kinds[start] else piece)
            start = stop
    parts.append(Markup("\n</span>"))
    return Markup("").join(parts)


def unified_diff(old: str, new: str, old_name: str, new_name: str) -> list[tuple[str, str]]:
    """The unified diff as (kind, line): kind is "head", "hunk", "add", "del" or "same"; [] for equal texts."""
    found = difflib.unified_diff(old.splitlines(), new.splitlines(), old_name, new_name, lineterm="")
    rows: list[tuple[str, str]] = []
    for position, line in enumerate(found):
        if position < 2:
            kind = "head"
        elif line.startswith("@@"):
            kind = "hunk"
        else:
            kind = {"+": "add", "-": "del"}.get(line[:1], "same")
        rows.append((kind, line))
    return rows


def diff_size(rows: list[tuple[str, str]]) -> tuple[int, int]:
    """Lines added and lines removed by a diff of `unified_diff`."""
    return sum(kind == "add" for kind, _ in rows), sum(kind == "del" for kind, _ in rows)
