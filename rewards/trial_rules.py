"""The rules that a trial (`rewards.trial`) measures, by code. Apart: whoever only names them needs no tracer."""

TRIAL_RULES = {
    "T201": "the program must run on the sampled signals",
    "T202": "the entry point returns (total, components)",
    "T203": "total and components have shape (N,): one number per world",
    "T204": "total and components are float32",
    "T205": "total and components live on the device of the signals",
    "T206": "total and components are finite",
    "T207": "equal signals give equal rewards",
    "T208": "arguments are not changed",
    "T209": "the reward of a world depends on that world alone",
    "T210": "no tensor becomes a Python number, no shape depends on values, nothing is random",
    "T211": "memory grows in proportion to the number of worlds",
    "T212": "the program must end in time",
    "T213": "the program must not crash its process",
    "T214": "the program is the same computation for every number of worlds",
    "T215": "the program consists of known tensor operators, of bounded size",
    "T216": "the graph that trains gives the program's values",
}
"""Code -> the rule in words."""
