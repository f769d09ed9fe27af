"""Who writes rewards: an LLM over HTTP, evolution, a person with a chat window, or a recording."""
