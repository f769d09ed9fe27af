"""The page of a search with more candidates than a page can hold."""

from __future__ import annotations

from eureka.archive import Archive
from eureka.candidate import Candidate, Status, ask_id, candidate_id
from eureka.designers.base import Ask, DesignContext, Message, Reply
from eureka.report import render
from eureka.report_counts import DETAILED
from eureka.report_data import read_search
from eureka.report_view import candidate_views
from tasks.signals import Signal, SignalTable


def test_a_long_search_shows_the_best_and_the_latest_in_full(tmp_path):
    """Of 400 candidates those in the middle are a line with a way to their folder; the leader's ancestors are whole."""
    archive = Archive(tmp_path / "search.db")
    for generation in range(1, 101):
        for index in range(4):
            name = candidate_id(generation, index)
            parent = "g01_c03" if generation == 50 and index == 0 else None
            fitness = 500.0 if parent else float(generation >= 90) + 0.001 * index
            c = Candidate(
                name, generation, index, parent_id=parent, status=Status.TRAINED, source="x = 1", fitness=fitness
            )
            archive.put_candidate(c)
            context = DesignContext("toy", "", SignalTable([Signal("a", 1, "m", "world", "position", "")]), {})
            archive.add_asks([Ask(ask_id(name, 0), name, 0, (Message("user", f"prompt of {name}"),), context)])
            archive.add_reply(Reply(ask_id(name, 0), f"reply of {name}", "ok", tokens_in=3, tokens_out=4))
    archive.close()
    record = read_search(tmp_path)
    assert {"g50_c00", "g01_c03", "g100_c03"} <= record.choice.detailed
    assert "g30_c00" not in record.choice.detailed
    assert DETAILED // 2 <= len(record.choice.detailed) <= DETAILED + 2
    page = render(record)
    assert "prompt of g50_c00" in page and "reply of g01_c03" in page
    assert "reply of g30_c00" not in page and 'href="candidates/g30_c00/"' in page
    assert sum(view.tokens or 0 for view in candidate_views(record, "")) == 400 * 7
