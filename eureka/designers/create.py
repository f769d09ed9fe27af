"""The designer that a configuration asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from eureka.designers.base import Designer, DesignerConfig
from eureka.designers.evolution import EvolutionDesigner
from eureka.designers.key import api_key
from eureka.designers.manual import ManualDesigner
from eureka.designers.openai import OpenAIDesigner
from eureka.designers.replay import ReplayDesigner
from tasks.errors import UserError, did_you_mean

DESIGNERS = ("auto", "openai", "evolution", "manual", "replay")


def resolve(name: str) -> str:
    """The designer that `name` means here and now: "auto" is openai where a key is set, else evolution.

    Raises:
        UserError: there is no such designer.
    """
    if name not in DESIGNERS:
        near = did_you_mean(name, DESIGNERS)
        raise UserError(f"unknown designer {name!r}; expected one of {', '.join(DESIGNERS)}.{near}")
    if name != "auto":
        return name
    return "openai" if api_key() else "evolution"


def create(
    config: DesignerConfig,
    *,
    search_dir: Path,
    tokens_used: int = 0,
    say: Callable[[str], None] = print,
    task_name: str | None = None,
) -> Designer:
    """Builds the configured designer; touches no network and no file.

    Args:
        config: which one, and its settings.
        search_dir: the search's folder, where the manual designer puts its files.
        tokens_used: tokens that a resumed search has spent already.
        say: takes one line for the person at the terminal.
        task_name: name or file of the searched task; replay compares it with the recording's.

    Raises:
        UserError: no such designer, or a setting that cannot work.
    """
    name = resolve(config.designer)
    _check(config)
    if name == "openai":
        return OpenAIDesigner(config, tokens_used=tokens_used)
    if name == "manual":
        return ManualDesigner(config, search_dir=search_dir, say=say)
    if name == "replay":
        return ReplayDesigner(config, task_name=task_name)
    if config.designer == "auto":
        say(
            "OPENAI_API_KEY is not set: rewards are composed by evolution, without an LLM. "
            "Set the key and --model for an LLM, or use --designer manual with any chat window."
        )
    return EvolutionDesigner()


def _check(config: DesignerConfig) -> None:
    """Raises UserError on a setting that cannot work."""
    if config.base_url and ("@" in config.base_url or "?" in config.base_url):
        raise UserError(
            "--base-url holds a user name, password or query, and would be stored with the search: "
            "set OPENAI_BASE_URL instead, which is not."
        )
    positive = {
        "--parallel": config.parallel,
        "--request-timeout-s": config.request_timeout_s,
        "--ask-deadline-s": config.ask_deadline_s,
        "--manual-poll-s": config.manual_poll_s,
        "--manual-settle-s": config.manual_settle_s,
        "--max-tokens-total": config.max_tokens_total,
        "--max-reply-tokens": config.max_reply_tokens,
        "--manual-timeout-s": config.manual_timeout_s,
    }
    for flag, value in positive.items():
        if value is not None and not value > 0:
            raise UserError(f"{flag} is {value}: expected a number above 0.")
    not_negative = {
        "--retries": config.retries,
        "--max-retry-after-s": config.max_retry_after_s,
        "--temperature": config.temperature,
        "--price-in": config.price_in,
        "--price-out": config.price_out,
    }
    for flag, value in not_negative.items():
        if value is not None and not value >= 0:
            raise UserError(f"{flag} is {value}: expected 0 or more.")
