"""Which clock: durations by the monotonic one, since the system's may jump; that is asked only for what people read."""

from __future__ import annotations

import ast

from tests.test_layers import PROJECT, ROOT, tree

SYSTEM_CLOCK = {
    "eureka/archive.py": "when something was noted",
    "eureka/bench.py": "the day in the name of a table",
    "eureka/commands/act.py": "the name of a new folder",
    "eureka/commands/bench.py": "the name of a new folder",
    "eureka/commands/distill.py": "the name of a new folder",
    "eureka/commands/pipeline.py": "the name of a new folder",
    "eureka/search_config.py": "the name of a new folder",
    "eureka/commands/train.py": "the name of a new folder",
    "eureka/designers/chat.py": "an endpoint names a moment to come back at",
    "eureka/designers/manual.py": "files carry the moment of their last change",
}
"""File -> what it asks the system's clock for."""
_OF_TIME = {"time", "time_ns", "localtime", "gmtime", "strftime"}
_OF_DATETIME = {"now", "utcnow", "today"}


def asks_the_system_clock(module: ast.Module) -> list[int]:
    """Lines that do, or that take such a function by its bare name."""
    found = []
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if node.attr in (_OF_TIME if owner == "time" else _OF_DATETIME if owner in ("datetime", "date") else ()):
                found.append(node.lineno)
        if isinstance(node, ast.ImportFrom) and node.module == "time" and _OF_TIME & {name.name for name in node.names}:
            found.append(node.lineno)
    return found


def test_the_system_clock_is_asked_for_moments_alone():
    """A limit, a pause or a heartbeat by it would end or last too long when the clock is set."""
    folders = {name.partition(".")[0] for name in PROJECT["tool"]["setuptools"]["packages"]}
    files = [path.relative_to(ROOT) for folder in sorted(folders) for path in (ROOT / folder).rglob("*.py")]
    found = {str(path) for path in files if asks_the_system_clock(tree(path))}
    assert found == set(SYSTEM_CLOCK)


def test_it_is_seen_in_every_form():
    """Else the test above could not fail."""
    for line in (
        "time.time()",
        "f = time.time_ns",
        "from time import time",
        "datetime.now(UTC)",
        "datetime.date.today()",
    ):
        assert asks_the_system_clock(ast.parse(line)) == [1], line
    for line in ("time.monotonic()", "time.perf_counter()", "from time import monotonic", "row.time", "self.now()"):
        assert asks_the_system_clock(ast.parse(line)) == [], line
