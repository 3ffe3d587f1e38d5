"""Schedulers of one site on processor counts: FCFS, EASY, EASY-SJBF, conservative, selective; compiled, exact, in whole seconds."""

from isthmus.twin.schedulers.simulate import Workload, bounded_slowdown, simulate

__all__ = ["Workload", "bounded_slowdown", "simulate"]
