"""HyperPod's Karpenter: nodes for pods that wait, and none for nobody.

As far as public pages say it: the kinds NodePool and NodeClaim (kubernetes-sigs/karpenter,
pkg/apis/crds), HyperpodNodeClass with its conditions (SageMaker developer guide, "Create a
NodeClass"), provisioning, drift, consolidation of empty nodes, and deletion by owner references and
finalizers (Karpenter documentation, "Disruption").
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from threading import RLock
from typing import NamedTuple, Protocol

from . import karpenter_kinds
from .clock import timestamp
from .karpenter_kinds import GROUP, HYPERPOD
from .objects import Obj, deleting, dig, labels, with_metadata
from .resources import Resource
from .selection import expressions
from .store import Store
from .volumes import Volumes
from .workloads import digest, fits, fits_into, is_over, is_ready, owner_reference, requests

KINDS = ("NodePool", "NodeClaim", "HyperpodNodeClass", "Pod", "Node")
POOL, CAPACITY_TYPE = f"{GROUP}/nodepool", f"{GROUP}/capacity-type"
GROUP_NAME = "sagemaker.amazonaws.com/instance-group-name"
TERMINATION = f"{GROUP}/termination"
CLASS_TERMINATION = f"{HYPERPOD}/termination"  # a guess: EC2NodeClass has karpenter.k8s.aws/…
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


class InstanceGroup(NamedTuple):
    """An instance group as a HyperpodNodeClass maps it."""

    types: tuple[str, ...]
    subnets: tuple[Mapping[str, str], ...]
    """With id, zone and zoneId."""
    desired: Mapping[str, str]
    """The labels that the group declares."""
    labels: Mapping[str, str]
    """All labels of its nodes."""
    taints: tuple[Obj, ...]
    capacity: Mapping[str, str]
    nodes: tuple[str, ...]
    """The provider ids of its nodes, those that shut down left out."""


class Provider(Protocol):
    """What HyperPod does for Karpenter."""

    lock: RLock
    """Held during every call: it comes before the store's own lock."""

    def groups(self) -> Mapping[str, InstanceGroup]:
        """Return the groups by name."""

    def add(self, group: str) -> str:
        """Launch a node and return its provider id; "" if HyperPod refuses."""

    def remove(self, provider_id: str) -> None:
        """Terminate a node."""


class Karpenter:
    """The controllers of Karpenter, as one reconciler.

    ``later`` runs a function after some simulated seconds.
    """

    def __init__(
        self, store: Store, provider: Provider, later: Callable[[float, Callable[[], None]], None]
    ) -> None:
        self.postponed = False
        """Whether a pass waits for the provider's lock."""
        self.provider = provider
        self._store, self._later = store, later
        self._volumes = Volumes(store)
        self._empty: dict[str, datetime] = {}
        """Since when nodes have been empty, by the uid of their claim."""
        definitions = store.registry.builtin("CustomResourceDefinition")
        for body in karpenter_kinds.definitions():
            if not store.find(definitions, "", body["metadata"]["name"]):
                store.create(definitions, "", body)

    def reconcile(self) -> None:
        """Look at everything and do what is missing, once; changes made here wake it again.

        A writer of Kubernetes objects has the store's lock and may not wait for the provider's:
        its pass then follows its answer (`Controllers.catch_up`).
        """
        if not self.provider.lock.acquire(blocking=False):
            self.postponed = True
            return
        try:
            self.postponed = False
            self._reconcile()
        finally:
            self.provider.lock.release()

    def _reconcile(self) -> None:
        if any(self._store.registry.kind(kind) is None for kind in KINDS):
            return  # somebody deleted a definition
        groups = self.provider.groups()
        self._claims(groups)
        classes = {c["metadata"]["name"]: c for c in self._objects("HyperpodNodeClass")}
        ready = {
            name: sorted(set(dig(each, "spec", "instanceGroups") or ()) & set(groups))
            for name, each in classes.items()
            if self._node_class(each, groups) and not deleting(each)
        }
        pools = []
        for pool in sorted(self._objects("NodePool"), key=_by_weight):
            own = dig(pool, "spec", "template", "spec", "nodeClassRef", "name")
            known = self._node_pool(pool, exists=own in classes, ready=own in ready)
            if known and not deleting(pool):
                pools.append((pool, ready[own]))
        self._strays(groups, classes)
        wanted = self._provision(pools, groups)
        self._disrupt(classes, wanted)

    # --- what exists -----------------------------------------------------------------------------

    def _claims(self, groups: Mapping[str, InstanceGroup]) -> None:
        """Register nodes that have come, and finish claims whose nodes have gone."""
        nodes = {n["spec"].get("providerID"): n for n in self._objects("Node")}
        alive = {each for group in groups.values() for each in group.nodes}
        for claim in self._objects("NodeClaim"):
            provider_id = dig(claim, "status", "providerID")
            if provider_id not in alive and provider_id not in nodes:
                self._release(claim, TERMINATION)
                self._delete(claim)
            elif deleting(claim):
                if provider_id in alive:
                    self.provider.remove(provider_id)
            elif node := nodes.get(provider_id):
                self._register(claim, node)

    def _register(self, claim: Obj, node: Obj) -> None:
        """Give a node the labels and taints of its claim, and say so in the claim's status."""
        wanted = {**labels(node), **labels(claim)}
        taints = dig(node, "spec", "taints") or []
        extra = [t for t in dig(claim, "spec", "taints") or [] if t not in taints]
        if not dig(claim, "status", "nodeName") and (extra or wanted != labels(node)):
            spec = {**node["spec"], "taints": [*taints, *extra]} if extra else node["spec"]
            changed = with_metadata({**node, "spec": spec}, labels=wanted)
            node = self._store.modify(self._kind("Node"), node, changed)
        states = {"Launched": True, "Registered": True, "Initialized": is_ready(node)}
        states["Ready"] = all(states.values())
        status = {
            **claim["status"],
            "nodeName": node["metadata"]["name"],
            "conditions": self._conditions(claim, {k: (v, "", k) for k, v in states.items()}),
        }
        self._store.set_status(self._kind("NodeClaim"), claim, status)

    def _node_class(self, node_class: Obj, groups: Mapping[str, InstanceGroup]) -> bool:
        """Write a class's status, and let a deleted one go once no claim needs it.

        Returns whether it is ready.
        """
        name = node_class["metadata"]["name"]
        if deleting(node_class):
            claims = self._objects("NodeClaim")
            if not any(dig(c, "spec", "nodeClassRef", "name") == name for c in claims):
                self._release(node_class, CLASS_TERMINATION)
            return False
        finalizers = node_class["metadata"].get("finalizers") or []
        if CLASS_TERMINATION not in finalizers:
            held = with_metadata(node_class, finalizers=[*finalizers, CLASS_TERMINATION])
            node_class = self._store.modify(self._kind("HyperpodNodeClass"), node_class, held)
        named = dig(node_class, "spec", "instanceGroups") or []
        missing = [each for each in named if each not in groups]
        spread = [
            each
            for each in named
            if each in groups and len({s["zone"] for s in groups[each].subnets}) > 1
        ]
        told = {
            "InstanceGroupReady": (
                not missing,
                f"instance groups {', '.join(missing)} do not exist" if missing else "",
                "InstanceGroupNotFound" if missing else "InstanceGroupReady",
            ),
            "SubnetsReady": (
                not spread,
                f"subnets of {', '.join(spread)} are in several zones" if spread else "",
                "SubnetsNotReady" if spread else "SubnetsReady",
            ),
        }
        bad = [f"{kind}=False" for kind, (good, _, _) in told.items() if not good]
        told["Ready"] = (not bad, ", ".join(bad), "UnhealthyDependents" if bad else "Ready")
        status = {
            "conditions": self._conditions(node_class, told),
            "instanceGroups": [
                {
                    "name": each,
                    "instanceTypes": list(groups[each].types),
                    "subnets": [dict(subnet) for subnet in groups[each].subnets],
                    "desiredLabels": [
                        {"key": k, "value": v} for k, v in groups[each].desired.items()
                    ],
                }
                for each in named
                if each in groups
            ],
        }
        self._store.set_status(self._kind("HyperpodNodeClass"), node_class, status)
        return not bad

    def _node_pool(self, pool: Obj, *, exists: bool, ready: bool) -> bool:
        """Write a pool's status; returns whether it can have nodes."""
        claims = Counter(labels(claim).get(POOL) for claim in self._objects("NodeClaim"))
        why = "" if ready else "NodeClass is not ready" if exists else "NodeClass not found"
        reason = "NodeClassReady" if ready else "NodeClassNotReady"
        told = {"ValidationSucceeded": (True, "", "ValidationSucceeded")}
        told["NodeClassReady"] = (ready, why, reason)
        told["Ready"] = (ready, why and "NodeClassReady=False", "Ready" if ready else reason)
        status = {
            "conditions": self._conditions(pool, told),
            "nodes": (nodes := claims[pool["metadata"]["name"]]),
            "resources": {"nodes": str(nodes)},
        }
        self._store.set_status(self._kind("NodePool"), pool, status)
        return ready

    def _strays(self, groups: Mapping[str, InstanceGroup], classes: Mapping[str, Obj]) -> None:
        """Scale a group down that had nodes before it came to Karpenter ("Create a NodeClass")."""
        claimed = {dig(claim, "status", "providerID") for claim in self._objects("NodeClaim")}
        for each in classes.values():
            for name in () if deleting(each) else dig(each, "spec", "instanceGroups") or ():
                for provider_id in groups[name].nodes if name in groups else ():
                    if provider_id not in claimed:
                        self.provider.remove(provider_id)

    # --- more nodes ------------------------------------------------------------------------------

    def _provision(
        self, pools: Sequence[tuple[Obj, Sequence[str]]], groups: Mapping[str, InstanceGroup]
    ) -> set[str]:
        """Launch nodes for pods that wait; returns the claims (uids) that pods wait for."""
        rooms = list(self._rooms(groups))
        wanted: set[str] = set()
        for pod in self._objects("Pod"):
            if pod["spec"].get("nodeName") or deleting(pod) or is_over(pod):
                continue
            if self._volumes.obstacle(pod):
                continue
            room = next((room for room in rooms if room.takes(pod)), None)
            if room is None:
                room = self._launch(pod, pools, groups)
            if room is None:
                continue
            if room not in rooms:
                rooms.append(room)
            room.used.update(requests(pod["spec"]))
            wanted.add(room.claim)
        return wanted

    def _rooms(self, groups: Mapping[str, InstanceGroup]) -> Iterator[_Room]:
        """Yield the nodes that are ready, and those that claims will bring."""
        used: dict[str, Counter[str]] = {}
        for pod in self._objects("Pod"):
            if (host := pod["spec"].get("nodeName")) and not is_over(pod):
                used.setdefault(host, Counter()).update(requests(pod["spec"]))
        claims = {dig(c, "status", "providerID"): c for c in self._objects("NodeClaim")}
        for node in self._objects("Node"):
            claim = claims.get(node["spec"].get("providerID"))
            if is_ready(node) and not (claim and deleting(claim)):
                uid = claim["metadata"]["uid"] if claim else ""
                yield _Room(node, used.get(node["metadata"]["name"], Counter()), uid)
                claims.pop(node["spec"].get("providerID"), None)
        pools = {pool["metadata"]["name"]: pool for pool in self._objects("NodePool")}
        for claim in claims.values():
            pool, group = pools.get(labels(claim)[POOL]), groups.get(labels(claim)[GROUP_NAME])
            if pool and group and not deleting(claim):
                yield _Room(_node_of(pool, group), Counter(), claim["metadata"]["uid"])

    def _launch(
        self,
        pod: Obj,
        pools: Sequence[tuple[Obj, Sequence[str]]],
        groups: Mapping[str, InstanceGroup],
    ) -> _Room | None:
        """Launch a node on which a pod fits, from the first group that has one."""
        for pool, names in pools:
            required = expressions(dig(pool, "spec", "template", "spec", "requirements"))
            for name in names:
                group = groups[name]
                node = _node_of(pool, group)
                room = _Room(node, Counter(), "")
                fit = all(each.met(labels(node)) for each in required) and room.takes(pod)
                may = fit and self._within_limits(pool, groups, group)
                if may and (provider_id := self.provider.add(name)):
                    return room._replace(claim=self._claim(pool, name, group, provider_id))
        return None

    def _within_limits(
        self, pool: Obj, groups: Mapping[str, InstanceGroup], group: InstanceGroup
    ) -> bool:
        """Whether a pool may have another node of a group (`spec.limits`)."""
        name, total = pool["metadata"]["name"], Counter({"nodes": 1})
        there = [c for c in self._objects("NodeClaim") if labels(c).get(POOL) == name]
        total["nodes"] += len(there)
        amounts = [groups[g].capacity for c in there if (g := labels(c)[GROUP_NAME]) in groups]
        for capacity in (*amounts, group.capacity):
            total.update({k: int(v) for k, v in capacity.items() if v.isdigit()})
        limits = dig(pool, "spec", "limits") or {}
        return all(total[k] <= int(v) for k, v in limits.items() if k in total and str(v).isdigit())

    def _claim(self, pool: Obj, name: str, group: InstanceGroup, provider_id: str) -> str:
        """Note a launched node; returns the uid of the NodeClaim."""
        spec = dig(pool, "spec", "template", "spec") or {}
        own = pool["metadata"]["name"]
        kept = ("nodeClassRef", "requirements", "expireAfter", "taints", "startupTaints")
        body = {
            "metadata": {
                "name": f"{own}-{digest(own, provider_id)[:5]}",
                "labels": {
                    **_pool_labels(pool),
                    CAPACITY_TYPE: group.labels[CAPACITY_TYPE],
                    GROUP_NAME: name,
                },
                "finalizers": [TERMINATION],
                "ownerReferences": [owner_reference(pool)],
            },
            "spec": {each: spec[each] for each in kept if each in spec},
        }
        claim = self._store.create(self._kind("NodeClaim"), "", body)
        status = {"providerID": provider_id, "capacity": dict(group.capacity)}
        self._store.set_status(self._kind("NodeClaim"), claim, status)
        return str(claim["metadata"]["uid"])

    # --- fewer nodes -----------------------------------------------------------------------------

    def _disrupt(self, classes: Mapping[str, Obj], wanted: set[str]) -> None:
        """Delete the claims of groups that left their class, and of nodes that stay empty."""
        busy = {
            pod["spec"].get("nodeName")
            for pod in self._objects("Pod")
            if not is_over(pod) and not _of_daemon_set(pod)
        }
        pools = {pool["metadata"]["name"]: pool for pool in self._objects("NodePool")}
        nodes = {node["metadata"]["name"]: node for node in self._objects("Node")}
        empty: dict[str, datetime] = {}
        now = self._store.clock.now()
        for claim in self._objects("NodeClaim"):
            uid, host = claim["metadata"]["uid"], dig(claim, "status", "nodeName")
            pool = pools.get(labels(claim)[POOL])
            if deleting(claim) or pool is None:
                continue
            own = classes.get(dig(claim, "spec", "nodeClassRef", "name"))
            named = dig(own, "spec", "instanceGroups") or ()
            if own and not deleting(own) and labels(claim)[GROUP_NAME] not in named:
                self._delete(claim)  # it has drifted
                continue
            there = host in nodes and is_ready(nodes[host])
            if not there or host in busy or uid in wanted:
                continue
            empty[uid] = self._empty.get(uid, now)
            after = _seconds(dig(pool, "spec", "disruption", "consolidateAfter") or "0s")
            left = None if after is None else after - (now - empty[uid]).total_seconds()
            if left is not None and left <= 0:
                self._delete(claim)
            elif left is not None and uid not in self._empty:
                self._later(left, self.reconcile)
        self._empty = empty

    # --- the store -------------------------------------------------------------------------------

    def _kind(self, kind: str) -> Resource:
        return self._store.registry.builtin(kind)

    def _objects(self, kind: str) -> list[Obj]:
        return self._store.objects(self._kind(kind))

    def _conditions(self, obj: Obj, told: Mapping[str, tuple[bool, str, str]]) -> list[Obj]:
        """Return conditions by type: whether it is True, message, reason."""
        before = {c["type"]: c for c in dig(obj, "status", "conditions") or []}
        found = []
        for kind, (good, message, reason) in told.items():
            condition = {
                "type": kind,
                "status": "True" if good else "False",
                "reason": reason,
                "message": message,
                "observedGeneration": obj["metadata"].get("generation", 1),
            }
            old = before.get(kind, {})
            same = old.get("status") == condition["status"]
            since = old["lastTransitionTime"] if same else timestamp(self._store.clock)
            found.append({**condition, "lastTransitionTime": since})
        return found

    def _delete(self, obj: Obj) -> None:
        kind = self._kind(obj["kind"])
        if self._store.find(kind, "", obj["metadata"]["name"]):
            self._store.delete(kind, "", obj["metadata"]["name"])

    def _release(self, obj: Obj, finalizer: str) -> None:
        kind = self._kind(obj["kind"])
        if live := self._store.find(kind, "", obj["metadata"]["name"]):
            left = [f for f in live["metadata"].get("finalizers") or [] if f != finalizer]
            self._store.modify(kind, live, with_metadata(live, finalizers=left or None))


class _Room(NamedTuple):
    """A node, or one to come: what its pods ask for, and the uid of its claim ("" for none)."""

    node: Obj
    used: Counter[str]
    claim: str

    def takes(self, pod: Obj) -> bool:
        return fits(pod["spec"], self.node) and fits_into(pod["spec"], self.node, self.used)


def _node_of(pool: Obj, group: InstanceGroup) -> Obj:
    """Return the node that a pool would get from a group."""
    template = dig(pool, "spec", "template") or {}
    extra = dig(template, "spec", "taints") or []
    return {
        "metadata": {"labels": {**group.labels, **_pool_labels(pool)}},
        "spec": {"taints": [*group.taints, *extra]},
        "status": {"allocatable": dict(group.capacity)},
    }


def _pool_labels(pool: Obj) -> dict[str, str]:
    declared = dig(pool, "spec", "template", "metadata", "labels") or {}
    return {**declared, POOL: pool["metadata"]["name"]}


def _by_weight(pool: Obj) -> tuple[int, str]:
    return -(dig(pool, "spec", "weight") or 0), pool["metadata"]["name"]


def _of_daemon_set(pod: Obj) -> bool:
    owners = pod["metadata"].get("ownerReferences") or []
    return any(each.get("kind") == "DaemonSet" for each in owners)


def _seconds(duration: str) -> float | None:
    """Return the seconds of a duration; None for Never."""
    if duration == "Never":
        return None
    return sum(float(n) * _UNITS[unit] for n, unit in re.findall(r"(\d+)([smh])", duration))
