"""Kueue's quotas: what a queue has, uses and may borrow, and which workloads give way.

After https://kueue.sigs.k8s.io/docs/concepts/: "Cluster Queue" (quotas, borrowing, lending,
preemption), "Preemption" (Classic Preemption: candidates and targets), and the API reference of
v1beta2 (ClusterQueueStatus, FairSharingStatus).  Left out: `borrowWithinCohort`, preemption among
queues that all borrow (Fair Sharing), trees of cohorts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import NamedTuple

from .objects import Obj, dig
from .rules import amount

Amounts = defaultdict[tuple[str, str], Decimal]
"""By flavor and resource."""
MOST_SHARE = 2**63 - 1
"""The share of a queue that borrows and has the weight zero."""
IN_QUEUE = "InClusterQueue", "prioritization in the ClusterQueue"
IN_COHORT = "InCohortReclamation", "reclamation within the cohort"
"""Reasons for a preemption, and their words (pkg/scheduler/preemption)."""


class Limit(NamedTuple):
    """A quota: what is the queue's own, and at most borrowed and lent; None for no limit."""

    nominal: Decimal
    borrows: Decimal | None
    lends: Decimal | None

    @property
    def lendable(self) -> Decimal:
        """What others of the cohort can use."""
        return self.nominal if self.lends is None else min(self.nominal, self.lends)


class Used(NamedTuple):
    """A workload with reserved quota."""

    uid: str
    queue: str
    priority: int
    since: str
    """When its quota was reserved."""
    amounts: Amounts


class Quotas:
    """The queues, and what their workloads use."""

    def __init__(self, queues: Iterable[Obj], workloads: Iterable[Obj]) -> None:
        self.queues = {each["metadata"]["name"]: each for each in queues}
        self.limits = {name: dict(_limits(each)) for name, each in self.queues.items()}
        self.workloads = {each.uid: each for each in map(reserved, workloads) if each}

    def used(self, queue: str) -> Amounts:
        """Return what the workloads of a queue use."""
        total: Amounts = defaultdict(Decimal)
        for each in self.workloads.values():
            if each.queue == queue:
                for place, quantity in each.amounts.items():
                    total[place] += quantity
        return total

    def borrowed(self, queue: str) -> Amounts:
        """Return what of it is above the queue's own quota."""
        limits = self.limits[queue]
        above = {
            place: quantity - limits[place].nominal
            for place, quantity in self.used(queue).items()
            if place in limits
        }
        return defaultdict(Decimal, {place: over for place, over in above.items() if over > 0})

    def members(self, queue: str) -> list[str]:
        """Return the other queues of its cohort."""
        cohort = _cohort(self.queues[queue])
        return [
            name
            for name, each in self.queues.items()
            if name != queue and cohort and _cohort(each) == cohort
        ]

    def lack(self, queue: str, flavor: str, asked: Mapping[str, Decimal]) -> str:
        """Return why a flavor has no room for what is asked; empty if it has."""
        used, limits = self.used(queue), self.limits[queue]
        for resource, wanted in asked.items():
            place = flavor, resource
            if place not in limits:
                return f"resource {resource} unavailable in ClusterQueue"
            nominal, borrows, _ = limits[place]
            lent = Decimal(0)
            for name in self.members(queue):
                if theirs := self.limits[name].get(place):
                    kept = theirs.nominal - theirs.lendable
                    lent += theirs.lendable - max(Decimal(0), self.used(name)[place] - kept)
            room = nominal + (lent if borrows is None else min(borrows, lent)) - used[place]
            if wanted > room:
                return (
                    f"insufficient unused quota for {resource} in flavor {flavor},"
                    f" {wanted - room:f} more needed"
                )
        return ""

    def borrows(self, queue: str, flavor: str, asked: Mapping[str, Decimal]) -> bool:
        """Whether a queue would exceed its own quota with what is asked."""
        used, limits = self.used(queue), self.limits[queue]
        return any(
            (flavor, resource) in limits
            and used[flavor, resource] + wanted > limits[flavor, resource].nominal
            for resource, wanted in asked.items()
        )

    def share(self, queue: str) -> int:
        """Return the weighted share of a queue: FairSharingStatus, weightedShare."""
        lendable: defaultdict[str, Decimal] = defaultdict(Decimal)
        above: defaultdict[str, Decimal] = defaultdict(Decimal)
        for name in (queue, *self.members(queue)):
            for (_, resource), limit in self.limits[name].items():
                lendable[resource] += limit.lendable
        for (_, resource), over in self.borrowed(queue).items():
            above[resource] += over
        ratios = [over / lendable[name] for name, over in above.items() if lendable[name]]
        if not ratios:
            return 0
        weight = amount(dig(self.queues[queue], "spec", "fairSharing", "weight") or 1) or Decimal(0)
        return int(max(ratios) * 1000 / weight) if weight else MOST_SHARE

    def targets(
        self, queue: str, priority: int, flavor: str, asked: Mapping[str, Decimal]
    ) -> dict[str, tuple[str, str]]:
        """Return the uids of the workloads that give way, with the reasons; none if all stay."""
        policy = dig(self.queues[queue], "spec", "preemption") or {}
        limits, places = self.limits[queue], {(flavor, resource) for resource in asked}
        if any(place not in limits or asked[place[1]] > limits[place].nominal for place in places):
            return {}  # borrowWithinCohort would allow it
        own, others = self._candidates(queue, priority, policy, places)
        used = self.used(queue)
        ways = [(own, True)]
        if others:
            below = all(used[place] < limits[place].nominal for place in places)
            ways = [([*others, *own], False)] * below + ways
        for candidates, borrowing in ways:
            if found := self._fewest(queue, flavor, asked, candidates, borrowing=borrowing):
                return {x.uid: IN_QUEUE if x.queue == queue else IN_COHORT for x in found}
        return {}

    def _candidates(
        self, queue: str, priority: int, policy: Obj, places: set[tuple[str, str]]
    ) -> tuple[list[Used], list[Used]]:
        """Return the workloads of a queue, and of others, that may give way; best ones first."""
        own, others = [], []
        for each in self.workloads.values():
            lower = each.priority < priority
            if not places & each.amounts.keys():
                continue
            if each.queue == queue:
                if policy.get("withinClusterQueue", "Never") != "Never" and lower:
                    own.append(each)
            elif each.queue in self.members(queue) and places & self.borrowed(each.queue).keys():
                reclaims = policy.get("reclaimWithinCohort", "Never")
                if reclaims == "Any" or (reclaims == "LowerPriority" and lower):
                    others.append(each)
        return _ordered(own), _ordered(others)

    def _fewest(
        self,
        queue: str,
        flavor: str,
        asked: Mapping[str, Decimal],
        candidates: list[Used],
        *,
        borrowing: bool,
    ) -> list[Used]:
        """Return the fewest candidates without which there is room; [] if there is none."""

        def fits() -> bool:
            room = not self.lack(queue, flavor, asked)
            return room and (borrowing or not self.borrows(queue, flavor, asked))

        before, targets = dict(self.workloads), []
        try:
            for each in candidates:
                if each.queue != queue and not self.borrowed(each.queue):
                    continue  # it no longer borrows
                del self.workloads[each.uid]
                targets.append(each)
                if fits():
                    break
            if not fits():
                return []
            for each in targets[-2::-1]:
                self.workloads[each.uid] = each
                if fits():
                    targets.remove(each)
                else:
                    del self.workloads[each.uid]
            return targets
        finally:
            self.workloads = before


def _ordered(candidates: list[Used]) -> list[Used]:
    """Order them by priority, lowest first, then by their age, newest first."""
    newest = sorted(candidates, key=lambda each: (each.since, each.uid), reverse=True)
    return sorted(newest, key=lambda each: each.priority)


def asked_by(workload: Obj) -> dict[str, Decimal]:
    """Return what all pods of a Workload request; without requests, their limits."""
    total: defaultdict[str, Decimal] = defaultdict(Decimal)
    for each in workload["spec"]["podSets"]:
        for container in dig(each["template"], "spec", "containers") or ():
            resources = container.get("resources") or {}
            asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
            for name, quantity in asked.items():
                total[name] += (amount(quantity) or Decimal(0)) * each["count"]
    return {name: value for name, value in total.items() if value > 0}


def reserved(workload: Obj) -> Used | None:
    """Return what a Workload uses; None without reserved quota."""
    status = workload.get("status") or {}
    conditions = {each["type"]: each for each in status.get("conditions") or ()}
    admission = status.get("admission")
    if not admission or (conditions.get("Finished") or {}).get("status") == "True":
        return None
    amounts: Amounts = defaultdict(Decimal)
    for one in admission["podSetAssignments"]:
        for name, flavor in one["flavors"].items():
            amounts[flavor, name] += amount(one["resourceUsage"][name]) or Decimal(0)
    since = (conditions.get("QuotaReserved") or {}).get("lastTransitionTime", "")
    priority = workload["spec"].get("priority") or 0
    return Used(workload["metadata"]["uid"], admission["clusterQueue"], priority, since, amounts)


def _cohort(queue: Obj) -> str:
    """Return the name of a queue's cohort; v1beta1 had another member."""
    return str(dig(queue, "spec", "cohortName") or dig(queue, "spec", "cohort") or "")


def flavors(queue: Obj) -> Iterator[Obj]:
    """Yield the flavors of a queue with their quotas."""
    for group in dig(queue, "spec", "resourceGroups") or ():
        yield from group.get("flavors") or ()


def _limits(queue: Obj) -> Iterator[tuple[tuple[str, str], Limit]]:
    def limit(of: Obj, name: str) -> Decimal | None:
        return amount(of[name]) if of.get(name) is not None else None

    for flavor in flavors(queue):
        for each in flavor.get("resources") or ():
            nominal = amount(each["nominalQuota"]) or Decimal(0)
            limits = Limit(nominal, limit(each, "borrowingLimit"), limit(each, "lendingLimit"))
            yield (flavor["name"], each["name"]), limits
