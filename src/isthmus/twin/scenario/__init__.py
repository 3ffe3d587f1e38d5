"""Scenarios: sites, links, prices and a workload as data; the twin runs them and answers what-if questions.

`load` is the edge that opens files; `model`, `routes`, `synthetic`, `account`, `run` and `questions` are pure: seeds come in.
"""
