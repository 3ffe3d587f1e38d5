"""A figure that differs from hour to hour: a tariff by the hour of the day or week, or a series of hours as they come."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final

from isthmus.domain.errors import Invalid

HOUR: Final = 3600
DAY, WEEK = 24, 168
_MONDAY = 72  # 1970-01-01 was a Thursday


@dataclass(frozen=True, slots=True)
class Hours:
    """With `first_hour`, in hours since 1970 in UTC, the values are those of the hours from then on; outside of them the same hour
    of the nearest day that they hold. Without it they come again and again: 1 (always the same), 24 (the hours of the day) or
    168 (of the week, from Monday 00:00), in UTC."""

    values: tuple[Decimal, ...]
    first_hour: int | None = None

    def __post_init__(self) -> None:
        if not self.values or (self.first_hour is None and len(self.values) not in (1, DAY, WEEK)):
            raise Invalid("hours", f"are {len(self.values)} values.", remedy="Give 1, 24 (a day) or 168 (a week).")

    def at(self, hour: int) -> Decimal:
        """The figure in one hour since 1970."""
        count = len(self.values)
        if self.first_hour is None:
            return self.values[(hour + _MONDAY) % count]
        index = hour - self.first_hour
        if index < 0:
            index = index % DAY if count >= DAY else 0
        elif index >= count:
            index = count - DAY + (index - count) % DAY if count >= DAY else count - 1
        return self.values[index]

    def mean(self, begin: float, seconds: float) -> Decimal:
        """The mean over a time that begins at `begin` (seconds since 1970), each hour weighted by its part; of a time longer than
        ten weeks, of its first ten."""
        if len(self.values) == 1:
            return self.values[0]
        at, end = int(begin), int(begin) + max(1, min(round(seconds), 10 * WEEK * HOUR))
        total, first = Decimal(0), at
        while at < end:
            until = min(end, (at // HOUR + 1) * HOUR)
            total += self.at(at // HOUR) * (until - at)
            at = until
        return total / (end - first)

    @property
    def middle(self) -> Decimal:
        """The mean of all values: what the figure is where no hour is named."""
        return sum(self.values, Decimal(0)) / len(self.values)


def read_hours(text: str) -> Hours:
    """`0.02`, or 24 or 168 of them separated by commas; Invalid when it is neither, or an amount is below 0 or too large."""
    try:
        values = tuple(Decimal(part.strip()) for part in text.split(","))
    except InvalidOperation:
        values = ()
    if not values or not all(value.is_finite() and 0 <= value < Decimal(10) ** 12 for value in values):
        raise Invalid("hours", f"{text[:40]!r} is no amount.", remedy='Write it like "0.02", or 24 or 168 of them.')
    return Hours(values)
