"""Scenarios: sites, links, prices and a workload as data; the twin runs them and answers what-if questions.

`load` is the edge that opens files; `model`, `routes`, `synthetic`, `account`, `run`, `questions`, `fluid` and `buying` are pure: seeds come in.
"""
