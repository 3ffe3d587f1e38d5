"""The stream of Go's math/rand, so that workloads which others resampled from a seed are the same here, draw by draw.

An additive lagged Fibonacci generator, x[n] = x[n-607] + x[n-273] modulo 2**64 (Mitchell and Reeds). Go mixes a seed
with the state reached after 7.8e12 steps from a fixed start; that state is computed here by raising x to that power
modulo the recurrence's polynomial x**607 = x**334 + 1, not copied.
"""

from __future__ import annotations

from collections.abc import MutableSequence
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

LENGTH = 607
TAP = 273
WORD = 2**64 - 1
STEPS = 7_800_000_000_000
MODULUS = 2**31 - 1
T = TypeVar("T")


class GoRandom:
    """Draws as a Go program makes them after rand.Seed(seed); `seed` is not negative."""

    def __init__(self, seed: int) -> None:
        self._state = [int(word) for word in _seeded(seed, 40, 20) ^ _far_state()]
        self._tap = 0
        self._feed = LENGTH - TAP

    def int63(self) -> int:
        """A number below 2**63."""
        self._tap = (self._tap - 1) % LENGTH
        self._feed = (self._feed - 1) % LENGTH
        word = (self._state[self._feed] + self._state[self._tap]) & WORD
        self._state[self._feed] = word
        return word & (2**63 - 1)

    def below(self, limit: int) -> int:
        """A number below `limit`, which is at most 2**31 - 1 (Intn)."""
        if limit & (limit - 1) == 0:
            return (self.int63() >> 32) & (limit - 1)
        last = MODULUS - 2**31 % limit
        number = self.int63() >> 32
        while number > last:
            number = self.int63() >> 32
        return number % limit

    def shuffle(self, items: MutableSequence[T]) -> None:
        """Put the items in random order, in place (Shuffle)."""
        for i in range(len(items) - 1, 0, -1):
            limit = i + 1
            product = (self.int63() >> 31) * limit
            if product % 2**32 < limit:
                while product % 2**32 < (2**32 - limit) % limit:
                    product = (self.int63() >> 31) * limit
            j = product >> 32
            items[i], items[j] = items[j], items[i]

    def permutation(self, size: int) -> list[int]:
        """The numbers below `size` in random order (Perm)."""
        numbers = [0] * size
        for i in range(size):
            j = self.below(i + 1)
            numbers[i] = numbers[j]
            numbers[j] = i
        return numbers


def _seeded(seed: int, high: int, low: int) -> NDArray[np.uint64]:
    number = seed % MODULUS or 89482311
    words: list[int] = []
    for i in range(-20, LENGTH):
        number = 48271 * number % MODULUS
        if i >= 0:
            word = number << high
            number = 48271 * number % MODULUS
            word ^= number << low
            number = 48271 * number % MODULUS
            words.append((word ^ number) & WORD)
    return np.array(words, dtype=np.uint64)


@cache
def _far_state() -> NDArray[np.uint64]:
    # Step n writes slot (333 - n) modulo 607; the start fills the slots of the steps -607 to -1.
    slots = (LENGTH - TAP - 1 - np.arange(LENGTH) + LENGTH) % LENGTH
    sequence = np.zeros(2 * LENGTH, dtype=np.uint64)
    sequence[:LENGTH] = _seeded(1, 20, 10)[slots]
    for i in range(LENGTH, 2 * LENGTH):
        sequence[i] = (int(sequence[i - LENGTH]) + int(sequence[i - TAP])) & WORD
    power = np.zeros(LENGTH, dtype=np.uint64)
    power[0] = 1
    for bit in bin(STEPS)[2:]:
        power = _reduced(_product(power, power))
        if bit == "1":
            power = _reduced(np.concatenate([np.zeros(1, np.uint64), power]))
    far = np.array([(power * sequence[i : i + LENGTH]).sum() for i in range(LENGTH)], dtype=np.uint64)
    state = np.zeros(LENGTH, dtype=np.uint64)
    state[(slots - STEPS) % LENGTH] = far
    return state


def _product(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.uint64]:
    out = np.zeros(len(a) + len(b) - 1, dtype=np.uint64)
    for i in range(len(a)):
        out[i : i + len(b)] += a[i] * b
    return out


def _reduced(polynomial: NDArray[np.uint64]) -> NDArray[np.uint64]:
    words = [int(word) for word in polynomial]
    for i in range(len(words) - 1, LENGTH - 1, -1):
        words[i - LENGTH] = (words[i - LENGTH] + words[i]) & WORD
        words[i - TAP] = (words[i - TAP] + words[i]) & WORD
    return np.array(words[:LENGTH], dtype=np.uint64)
