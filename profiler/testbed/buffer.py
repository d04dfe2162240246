"""Buffer: which groups may begin, which are under way, which are finished; what the trainer takes. Does not know Ray.

Admission is a scenario's (`simulator.policies`): groups are numbered as they begin, and so many may have begun beyond
those that the policy was trained on when weights were last synced (synchronous, fully_async), or beyond those that the
trainer has taken (one_step_off). Nothing is dropped for its age: what is finished is trained on, in order of
completion, and its staleness counted.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from profiler.errors import RunError
from profiler.testbed.engine import Finished
from traces.testbed import TestbedPolicy


@dataclass(frozen=True, slots=True)
class AdmissionRule:
    """How far generation may run ahead of the trainer."""

    groups_ahead: int
    opens: Literal["sync", "take"]
    """What moves the count on: a weight sync, or the trainer taking a batch."""

    @classmethod
    def of(cls, policy: TestbedPolicy, groups_per_step: int) -> "AdmissionRule":
        """Return the rule of a policy.

        fully_async: (1 + max_staleness) RL steps of groups, AReaL (arXiv 2505.24298, sec. 5.1).
        """
        if policy.kind == "one_step_off":
            return cls(groups_per_step, "take")
        return cls((1 + (policy.max_staleness or 0)) * groups_per_step, "sync")


@dataclass(frozen=True, slots=True)
class Order:
    """A group that may begin."""

    group_id: int
    attempt: int
    """0, and one more each time that the actor which had it was lost."""
    first_sample_id: int
    """Its samples have consecutive ids, which no other attempt has."""


@dataclass(frozen=True, slots=True)
class Group:
    """A whole group."""

    order: Order
    samples: tuple[Finished, ...]
    """In order of completion."""

    @property
    def version(self) -> int:
        """Policy version that sampled its oldest token."""
        return min(min(sample.versions) for sample in self.samples)


@dataclass(frozen=True, slots=True)
class Taken:
    """What the trainer was given for an RL step."""

    step: int
    groups: tuple[Group, ...]
    num_lost_samples: int
    """Since the start of the run."""
    num_ready: int
    """Groups that stay in the buffer."""


@dataclass(slots=True)
class Buffer:
    """Groups of one run; RL steps count from 1."""

    rule: AdmissionRule
    groups_per_step: int
    group_size: int
    num_lost_samples: int = 0
    """Of groups that were with a rollout actor when it was lost, begun or not; the groups were ordered again."""
    num_late_groups: int = 0
    """Finished groups that came from an actor after it was given up."""
    num_again: int = 0
    """Batches given out again, to a trainer that had lost them with its memory."""
    _num_admitted: int = 0
    _num_counted: int = 0
    """Groups from which admission counts."""
    _next_sample: int = 0
    _under_way: dict[int, Order] = field(default_factory=dict)
    _ready: deque[Group] = field(default_factory=deque)
    _last: Taken | None = None
    _given: set[int] = field(default_factory=set)
    """Ids of all samples that the trainer was given."""

    def admit(self) -> list[Order]:
        """Return the groups that may begin now and had not before."""
        orders = []
        while self._num_admitted < self._num_counted + self.rule.groups_ahead:
            orders.append(self._order(self._num_admitted, 0))
            self._num_admitted += 1
        return orders

    def lose(self) -> list[Order]:
        """The rollout actor is gone with all it had: return every group under way, as new attempts."""
        self.num_lost_samples += len(self._under_way) * self.group_size
        return [self._order(order.group_id, order.attempt + 1) for order in list(self._under_way.values())]

    def add(self, group: Group) -> bool:
        """Take in a finished group; return False, and count it, where it is of an attempt that was given up.

        Raises:
            RunError: The group is not whole.
        """
        if self._under_way.get(group.order.group_id) != group.order:
            self.num_late_groups += 1
            return False
        first = group.order.first_sample_id
        if {sample.request.sample_id for sample in group.samples} != set(range(first, first + self.group_size)):
            raise RunError(f"group {group.order.group_id}: its samples are not those ordered; report this")
        del self._under_way[group.order.group_id]
        self._ready.append(group)
        return True

    def can_take(self, step: int) -> bool:
        """Return whether the batch of an RL step is there."""
        return self._is_again(step) or len(self._ready) >= self.groups_per_step

    def take(self, step: int) -> Taken:
        """Return the groups of an RL step, first come, first served; asked again, the same ones.

        Raises:
            RunError: Steps out of order, or a sample given out for a second step.
        """
        if self._is_again(step):
            assert self._last is not None
            self.num_again += 1
            return self._last
        if step != self._last_step + 1:
            raise RunError(f"RL step {step} is asked for after step {self._last_step}; report this")
        groups = tuple(self._ready.popleft() for _ in range(self.groups_per_step))
        ids = {sample.request.sample_id for group in groups for sample in group.samples}
        if ids & self._given:
            raise RunError(f"sample {min(ids & self._given)} was trained on before; report this")
        self._given |= ids
        self._last = Taken(step, groups, self.num_lost_samples, len(self._ready))
        if self.rule.opens == "take":
            self._num_counted = step * self.groups_per_step
        return self._last

    def synced(self, step: int) -> None:
        """The rollout actor has the policy that RL step `step` made."""
        if self.rule.opens == "sync":
            self._num_counted = max(self._num_counted, step * self.groups_per_step)

    @property
    def num_under_way(self) -> int:
        """Groups admitted and not finished."""
        return len(self._under_way)

    @property
    def num_ready(self) -> int:
        """Groups finished and not taken."""
        return len(self._ready)

    @property
    def num_given_samples(self) -> int:
        """Samples that the trainer was given, each counted once."""
        return len(self._given)

    @property
    def _last_step(self) -> int:
        return self._last.step if self._last else 0

    def _is_again(self, step: int) -> bool:
        return self._last is not None and step == self._last.step

    def _order(self, group_id: int, attempt: int) -> Order:
        order = Order(group_id, attempt, self._next_sample)
        self._next_sample += self.group_size
        self._under_way[group_id] = order
        return order


@dataclass(frozen=True, slots=True)
class Staleness:
    """How old a batch is, in policy versions behind the one that is trained."""

    mean: float
    """Over groups, of their oldest token: what a scenario's report counts."""
    max: float
    sample_mean: float
    """Over samples, of their oldest token."""
    token_mean: float
    num_mixed: int
    """Samples with tokens of several policies."""


def staleness(groups: Sequence[Group], version: int) -> Staleness:
    """Return how old groups are to a policy of this version."""
    of_groups = [version - group.version for group in groups]
    samples = [sample for group in groups for sample in group.samples]
    of_samples = [version - min(sample.versions) for sample in samples]
    of_tokens = [version - each for sample in samples for each in sample.versions]
    return Staleness(
        mean=sum(of_groups) / len(of_groups),
        max=max(of_groups),
        sample_mean=sum(of_samples) / len(of_samples),
        token_mean=sum(of_tokens) / len(of_tokens),
        num_mixed=sum(min(sample.versions) < max(sample.versions) for sample in samples),
    )
