"""Floor 2: reward programs as text: extracted from a reply, checked, tried in a child, run and measured."""
