"""An HTML page taken apart with the standard library, for tests that read what a person would read."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """A page as a list of elements with their text; fails on tags that are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self.open: list[int] = []
        self.feed(html)
        self.close()
        assert not self.open, [self.elements[index][0] for index in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}, []))
        if tag not in VOID:
            self.open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}, []))

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self.open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        for index in self.open:
            self.elements[index][2].append(data)

    def find(self, tag: str | None = None, **attributes: str) -> list[tuple[dict[str, str], str]]:
        """Elements with these attributes (class: one of its classes), each with its text."""
        found = []
        for name, attrs, text in self.elements:
            same = all(
                v in attrs.get(k, "").split() if k == "class" else attrs.get(k) == v for k, v in attributes.items()
            )
            if tag in (None, name) and same:
                found.append((attrs, re.sub(r"[ \t\n]+", " ", "".join(text)).strip()))
        return found

    def text(self, id: str) -> str:
        """The text of the element with an id."""
        (element,) = self.find(id=id)
        return element[1]


def cells(page: Page, name: str) -> dict[str, str]:
    """Column title -> text of a candidate's row."""
    heads, rows, column = [], {}, None
    inside = None
    for tag, attrs, text in page.elements:
        words = re.sub(r"\s+", " ", "".join(text)).strip()
        if tag == "table":
            inside = attrs.get("id")
        if inside == "candidate-table" and tag == "th" and attrs.get("scope") == "col":
            heads.append(words)
        if tag == "tbody":
            column = 0 if attrs.get("id") == name else None
        if column is not None and column < len(heads) and (tag == "td" or attrs.get("scope") == "row"):
            rows[heads[column]] = words
            column += 1
    return rows
