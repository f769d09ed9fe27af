"""The endpoint's key is nowhere but in the search's own process: an endpoint that repeats it everywhere, a real search
with that endpoint, and a look at every file, every line printed and every child's environment."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from eureka.archive import Archive
from eureka.designers.base import DesignerConfig
from eureka.designers.create import create
from eureka.designers.key import api_key, withheld
from eureka.designers.openai import OpenAIDesigner
from eureka.designers.redaction import Redaction
from eureka.executors.local import without_secrets
from tasks.errors import UserError
from tests.eureka.chat_server import Behaviour, ChatServer, Request, completion, error, html, reply
from tests.eureka.scripted import SLIDER, program

ROOT = Path(__file__).parents[2]
SECRET = "sk-proj-Zq7/x+Very.Secret_0123456789"
PASSWORD = "Passw0rd-of-the-gateway"
OPTIONS = (
    *("--designer", "openai", "--model", "loop-1", "-k", "2", "-n", "1", "--repairs", "2"),
    *("--iterations", "1", "--final-seeds", "0", "--no-video"),
)
RUN = "import sys; from eureka.cli import main; sys.exit(main())"


def parroting() -> tuple[list[Behaviour], Callable[[Request], Behaviour]]:
    """(failures that repeat the key wherever an endpoint can put text, programs that do after them)."""
    starred = f"{SECRET[:10]}****{SECRET[-4:]}"
    escaped = json.dumps({"error": {"message": SECRET}}).replace("/", "\\/").replace("Z", "\\u005a").encode()
    echo = {"X-Echo": SECRET, "Content-Type": "application/json"}
    failures = [
        error(500, SECRET, f"no {SECRET} {starred} {'x' * 240}{SECRET}", headers={"X-Echo": SECRET}),
        replace(html(502), body=f"<p>{SECRET}</p>".encode()),
        Behaviour(503, escaped, echo),
        reply(None, refusal=f"I will not tell {SECRET}"),
        error(429, "rate_limit_exceeded", SECRET, headers={"Retry-After": "0.1", "X-Echo": SECRET}),
        error(400, "x", f"bad key {SECRET}, or {starred}"),
    ]

    def write(request: Request) -> Behaviour:
        good = json.loads(reply(f"Your key is {SECRET}.\n" + program(1.0, "pull")).body)
        return completion(choices=good["choices"], model=f"model of {SECRET}")

    return failures, write


def descendants(pid: int) -> list[int]:
    """The process ids of children, their children and so on."""
    found = [pid]
    for ancestor in found:
        for children in Path(f"/proc/{ancestor}/task").glob("*/children"):
            try:
                found += [int(child) for child in children.read_text().split()]
            except OSError:
                continue  # it ended meanwhile
    return found[1:]


def watch(search: subprocess.Popen, seen: dict[str, bytes]) -> None:
    """Collects command line and environment of every child until the search ends."""
    own = Path(f"/proc/{search.pid}/cmdline").read_bytes()
    while search.poll() is None:
        for pid in descendants(search.pid):
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                environment = Path(f"/proc/{pid}/environ").read_bytes()
                again = Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                continue  # it ended meanwhile
            # Until it has become another program a new process is a copy of its parent.
            if command == again and command not in (own, b"") and environment:
                seen[f"{pid} {command!r}"] = environment
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_the_key_leaves_the_search_nowhere(tmp_path: Path) -> None:
    folder = tmp_path / "search"
    with ChatServer(*parroting(), key=SECRET) as server:
        address = server.base_url.replace("://", f"://me:{PASSWORD}@")
        environment = {
            **os.environ,
            "OPENAI_API_KEY": SECRET,
            "OPENAI_BASE_URL": server.base_url,
            "OTHER_ADDRESS": address,
            "A_COPY": f"Bearer {SECRET}",
            "OPENAI_LOG": "debug",
            "PYTHONPATH": str(ROOT),
        }
        command = [sys.executable, "-c", RUN, "search", str(SLIDER), *OPTIONS, "--out", str(folder)]
        search = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        seen: dict[str, bytes] = {}
        watcher = threading.Thread(target=watch, args=(search, seen))
        watcher.start()
        printed, _ = search.communicate(timeout=900)
        watcher.join()
        assert len(server.requests) >= 8
    assert any(b"rl.worker" in name.encode() for name in seen), f"no training was seen: {printed.decode()}"
    assert (folder / "done").exists(), printed.decode()
    archive = Archive(folder / "search.db", create=False)
    kept = [
        exchange
        for row in archive._db.execute("SELECT DISTINCT ask_id FROM exchanges")
        for exchange in archive.exchanges(row[0])
    ]
    outcomes = {answer.outcome for answer in archive.replies().values()}
    archive.close()
    assert len(kept) >= 8 and any(b"[key]" in exchange.body for exchange in kept), "the endpoint's echo never came"
    assert "ok" in outcomes
    files = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert len(files) > 10
    forms = [SECRET.encode(), base64.b64encode(SECRET.encode()), SECRET[:14].encode(), PASSWORD.encode()]
    for place, held in {**files, "printed": printed, **seen}.items():
        # A password for some proxy is nothing that a library's own processes must not see.
        for form in forms[:-1] if place in seen and "rl.worker" not in place else forms:
            assert form not in held, f"{form!r} is in {place}"


def test_the_key_is_withheld_from_children_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f" {SECRET}\n")
    monkeypatch.setenv("A_COPY", f"Bearer {SECRET}")
    monkeypatch.setenv("NO_COPY", SECRET[:-1])
    before = dict(os.environ)
    with withheld():
        assert api_key() == SECRET
        with withheld():
            assert api_key() == SECRET
        assert before.items() - os.environ.items() == {(n, before[n]) for n in ("OPENAI_API_KEY", "A_COPY")}
        inherited = subprocess.run(
            [sys.executable, "-c", "import os; print(os.environ)"], capture_output=True, text=True
        )
        assert SECRET[:-1] in inherited.stdout and SECRET not in inherited.stdout
    assert dict(os.environ) == before
    monkeypatch.delenv("OPENAI_API_KEY")
    assert api_key() == ""


def test_a_training_gets_no_secret() -> None:
    """Neither by name nor by value, nor as part of an address; what it needs stays."""
    given = {
        "OPENAI_API_KEY": SECRET,
        "OPENAI_BASE_URL": "http://10.0.0.1/v1",
        "HF_TOKEN": "hf_0123456789",
        "A_COPY": f"Bearer {SECRET}",
        "HTTPS_PROXY": f"http://me:{PASSWORD}@proxy:3128",
        "SESSION_TOKEN_DIR": "/home/me",
        "TOKENIZERS_PARALLELISM": "false",
        "HOME": "/home/me",
        "PATH": "/home/me/bin:/usr/bin",
        "CUDA_VISIBLE_DEVICES": "0",
        "NO_PROXY": "localhost:80,a@b",
        "LANG": "false",
    }
    assert without_secrets(given) == {name: given[name] for name in ("HOME", "PATH", "CUDA_VISIBLE_DEVICES", "LANG")}


def test_every_spelling_of_a_key_is_taken_out_and_nothing_else() -> None:
    redaction = Redaction(SECRET, PASSWORD, "short")
    spellings = (
        SECRET,
        json.dumps(SECRET)[1:-1].replace("/", "\\/"),
        "".join(f"\\u{ord(c):04x}" for c in SECRET),
        "".join(f"\\u{ord(c):04X}" for c in SECRET),
        SECRET.replace("/", "%2F").replace("+", "%2b"),
        PASSWORD,
    )
    for spelling in spellings:
        assert redaction.text(f"a {spelling} b") == "a [key] b"
        assert redaction.body(f"a {spelling} b".encode(), 200) == b"a [key] b"
    kept = f"sk-proj-other short {SECRET[:-1]}\udcff"
    assert redaction.text(kept) == kept
    assert redaction.line(f"no {SECRET[:9]}***89 here") == "no [key] here"
    assert redaction.body(b"\xff " + SECRET[:12].encode(), 401) == b"\xff [key]"
    assert Redaction("short").text("short") == "short"


def test_an_address_with_a_password_is_not_stored(tmp_path: Path) -> None:
    for address in (f"http://me:{PASSWORD}@host/v1", f"http://host/v1?key={SECRET}"):
        with pytest.raises(UserError, match="set OPENAI_BASE_URL instead") as refused:
            create(DesignerConfig(designer="openai", model="m", base_url=address), search_dir=tmp_path)
        assert PASSWORD not in str(refused.value) and SECRET not in str(refused.value)


@pytest.mark.parametrize("address", ["http://me:{}@127.0.0.1:9/v1", "me:{}@127.0.0.1:9"])
def test_an_address_is_shown_without_its_password(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", address.format(PASSWORD))
    with pytest.raises(UserError, match="OPENAI_BASE_URL") as refused:
        OpenAIDesigner(DesignerConfig(model="m", retries=0), api_key=SECRET).check()
    assert PASSWORD not in str(refused.value)
