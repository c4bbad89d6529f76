"""One EKS cluster's Kubernetes endpoint, as the rest of the embedded stack handles it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from hyperpod_eks.local.tls import Pki

from . import discovery
from .api import Api, Fault, Identity
from .clock import REALISTIC, Clock, Delays, timestamp
from .controllers import Controllers
from .failures import Failing, nothing
from .karpenter import Provider
from .objects import Obj, with_metadata
from .resources import Registry
from .server import Server
from .store import SERVICES, Store
from .workloads import is_available

_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
# What differs from run to run, or only counts writes.
_VOLATILE = {
    *("uid", "resourceVersion", "generation", "observedGeneration", "managedFields"),
    *("creationTimestamp", "deletionTimestamp", "lastTransitionTime", "lastUpdateTime"),
    *("lastHeartbeatTime", "startTime", "startedAt", "modifiedAt"),  # the last: a label of helm's
}


class Cluster:
    """One EKS cluster's Kubernetes endpoint over TLS on 127.0.0.1, started by its constructor.

    `authenticate` tells whose a bearer token is: None answers 401 Unauthorized, an identity that
    is not `allowed` gets 403 on every object (discovery and questions about itself stay open to
    it, as on EKS). It is called without any lock held. `version` is a Kubernetes minor version
    such as "1.33". The certificate in `pki` must name `host`; clusters may share it. `services`
    is the CIDR of Services' addresses; `failing` says what goes wrong, see `failures`.
    """

    def __init__(
        self,
        clock: Clock,
        authenticate: Callable[[str], Identity | None],
        version: str,
        pki: Pki,
        *,
        delays: Delays = REALISTIC,
        host: str = "127.0.0.1",
        services: str = SERVICES,
        failing: Failing = nothing,
    ) -> None:
        self._kubelet = discovery.version_document(version)["gitVersion"]
        """That of the next node's image."""
        self._store = Store(Registry(), clock, services)
        self._controllers = Controllers(self._store, clock, delays, pki.ca_pem.decode(), failing)
        for name in _NAMESPACES:
            self._create("Namespace", {"metadata": {"name": name}})
        self._api = Api(self._store, version, authenticate, self._controllers.catch_up, failing)
        self._server = Server(self._api, pki.server_context(), host)
        self.url = self._server.url
        self.ca_pem = pki.ca_pem

    def stop(self) -> None:
        """End the endpoint; what the clock still holds for it does nothing any more."""
        self._controllers.stop()
        self._store.close()
        self._server.stop()

    def upgrade(self, version: str) -> None:
        """Serve another Kubernetes version; nodes that are there keep their kubelets."""
        self._api.version = discovery.version_document(version)
        self._kubelet = self._api.version["gitVersion"]

    # --- fault switches --------------------------------------------------------------------------

    @property
    def faults(self) -> list[Fault]:
        """Errors to answer with instead of working; the first that matches a request is used."""
        return self._api.faults

    def wake(self) -> None:
        """Let the controllers look at everything: a switch of `failures` was set, or taken out."""
        self._controllers.wake()

    @property
    def recreate_aggregated(self) -> bool:
        """Whether a deleted aggregated ClusterRole comes back, empty and without its labels.

        So it does on a real cluster, now and then: the aggregation controller writes the rules of
        a role that has just been deleted, and thereby creates it. Helm cannot adopt such a role.
        """
        return self._controllers.recreate_aggregated

    @recreate_aggregated.setter
    def recreate_aggregated(self, wanted: bool) -> None:
        self._controllers.recreate_aggregated = wanted

    # --- nodes -----------------------------------------------------------------------------------

    def at_once(self) -> AbstractContextManager[None]:
        """Let many nodes come or go before the controllers look at them."""
        return self._controllers.held()

    def add_node(
        self,
        name: str,
        labels: Mapping[str, str],
        *,
        ready: bool = False,
        annotations: Mapping[str, str] | None = None,
        taints: Sequence[Mapping[str, str]] = (),
        capacity: Mapping[str, str] | None = None,
        provider_id: str = "",
    ) -> None:
        """A kubelet registers. `taints` have key, effect and perhaps value; `capacity` has
        quantities by resource name ({"nvidia.com/gpu": "8"}), on top of 110 pods.

        Raises ApiError 409 if there is a node of that name.
        """
        amounts = {"pods": "110", **(capacity or {})}
        basic = {
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
        }
        node = {
            "metadata": {
                "name": name,
                "labels": {**basic, **labels},
                "annotations": dict(annotations or {}),
            },
            "spec": {
                **({"providerID": provider_id} if provider_id else {}),
                "taints": [dict(taint) for taint in taints],
            },
            "status": {
                "capacity": amounts,
                "allocatable": amounts,
                "conditions": [self._ready_condition(ready=ready)],
                "addresses": [{"type": "Hostname", "address": name}],
                "nodeInfo": {
                    "kubeletVersion": self._kubelet,
                    "kubeProxyVersion": self._kubelet,
                    "operatingSystem": "linux",
                    "architecture": "amd64",
                },
            },
        }
        self._create("Node", node)

    def renew_node(self, name: str) -> None:
        """Give a node the image of now. Raises ApiError 404 if there is no such node."""
        resource = self._store.registry.builtin("Node")
        with self._store.lock:
            node = self._store.get(resource, "", name)
            versions = dict.fromkeys(("kubeletVersion", "kubeProxyVersion"), self._kubelet)
            about = {**node["status"]["nodeInfo"], **versions}
            self._store.set_status(resource, node, {**node["status"], "nodeInfo": about})

    def set_node_ready(self, name: str, ready: bool = True) -> None:
        """The kubelet reports. Raises ApiError 404 if there is no such node."""
        resource = self._store.registry.builtin("Node")
        with self._store.lock:
            node = self._store.get(resource, "", name)
            status = {**node["status"], "conditions": [self._ready_condition(ready=ready)]}
            self._store.set_status(resource, node, status)

    def remove_node(self, name: str) -> None:
        """The node is gone, and its pods with it. Nothing happens if there is no such node."""
        resource = self._store.registry.builtin("Node")
        with self._store.lock:
            if self._store.find(resource, "", name):
                self._store.delete(resource, "", name)

    def scale(self, provider: Provider | None) -> None:
        """Let Karpenter scale a provider's nodes, or look at them again; None ends that.

        What it has defined stays.
        """
        self._controllers.scale(provider)

    # --- task governance -------------------------------------------------------------------------

    def queue(self, *, installed: bool, old: bool = False) -> None:
        """Install Kueue, an ``old`` one or not, or remove it with every object of its kinds."""
        self._controllers.queue(installed=installed, old=old)

    def catch_up(self) -> None:
        """Do what requests of the manager of add-ons have left to do."""
        self._controllers.catch_up()

    def put(self, kind: str, body: Obj, namespace: str = "") -> None:
        """Write an object as a controller of AWS does; its labels and spec are replaced."""
        resource = self._store.registry.kind(kind)
        if resource is None:
            return  # its definition was deleted
        with self._store.lock:
            live = self._store.find(resource, namespace, body["metadata"]["name"])
            if live is None:
                self._store.create(resource, namespace, body)
                return
            rest = {name: value for name, value in body.items() if name != "metadata"}
            marks = {**(live["metadata"].get("labels") or {}), **body["metadata"].get("labels", {})}
            self._store.modify(resource, live, {**with_metadata(live, labels=marks), **rest})

    def drop(self, kind: str, name: str, namespace: str = "") -> None:
        """Delete an object, if it is there."""
        resource = self._store.registry.kind(kind)
        with self._store.lock:
            if resource is not None and self._store.find(resource, namespace, name):
                self._store.delete(resource, namespace, name)

    # --- questions -------------------------------------------------------------------------------

    def serves(self, group: str, version: str) -> bool:
        """Whether a version of a group is served."""
        return version in self._store.registry.versions().get(group, ())

    def has(self, kind: str, name: str, namespace: str = "") -> bool:
        """Whether an object exists: has("Namespace", "aws-hyperpod")."""
        resource = self._store.registry.kind(kind)
        return resource is not None and self._store.find(resource, namespace, name) is not None

    def deployment_ready(self, namespace: str, name: str) -> bool:
        """Whether a Deployment exists and all the replicas it wants are available."""
        resource = self._store.registry.builtin("Deployment")
        deployment = self._store.find(resource, namespace, name)
        return deployment is not None and is_available(deployment)

    def snapshot(self) -> dict[str, Any]:
        """Every object by "plural.group/namespace/name", sorted, without what differs by run.

        Secrets show the names of their keys, not the values; so does the certificate of this run.
        """
        found = {}
        with self._store.lock:
            for resource, obj in self._store.everything():
                where = (obj["metadata"].get("namespace"), obj["metadata"]["name"])
                key = "/".join(filter(None, (resource.qualified, *where)))
                found[key] = _steady(obj)
        return dict(sorted(found.items()))

    def _create(self, kind: str, body: Obj) -> None:
        self._store.create(self._store.registry.builtin(kind), "", body)

    def _ready_condition(self, *, ready: bool) -> Obj:
        now = timestamp(self._store.clock)
        return {
            "type": "Ready",
            "status": "True" if ready else "False",
            "reason": "KubeletReady" if ready else "KubeletNotReady",
            "message": "kubelet is posting ready status" if ready else "node is not ready",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }


def _steady(obj: Obj) -> Obj:
    if obj["kind"] == "Secret" or obj["metadata"]["name"] == "kube-root-ca.crt":
        obj = {**obj, "data": sorted(obj.get("data") or {})}
    steady: Obj = _without_volatile(obj)
    return steady


def _without_volatile(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_volatile(v) for k, v in value.items() if k not in _VOLATILE}
    if isinstance(value, list):
        return [_without_volatile(v) for v in value]
    return value
