"""What a cluster does on its own: namespaces end, dependents follow, roles aggregate, pods run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from . import jobs, karpenter, kueue, volumes, workloads
from .clock import Clock, Delays, timestamp
from .errors import ApiError
from .failures import Failing, nothing
from .objects import Obj, deleting, dig, owner_uids, with_metadata
from .resources import Resource
from .selection import selects
from .store import CRD_FINALIZER, FOREGROUND, ORPHAN, Event, Store, Write

_FURNITURE = (("ServiceAccount", "default"), ("ConfigMap", "kube-root-ca.crt"))
_APISERVER = ("Service", "kubernetes")
_EVENT_TTL = 3600.0  # simulated seconds: kube-apiserver's --event-ttl
AGGREGATOR = "clusterrole-aggregation-controller"


class Controllers:
    """Watches a store and brings it towards what its objects ask for.

    Every controller looks at the whole state and makes it right, so it may run once for many
    events. They run one after the other, inside the store's lock, a delay after the event.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        delays: Delays,
        ca_pem: str = "",
        failing: Failing = nothing,
    ) -> None:
        self.recreate_aggregated = False
        self._ca_pem = ca_pem
        self._store = store
        self._clock = clock
        self._delays = delays
        self._volumes = volumes.Volumes(store)
        self._workloads = workloads.Workloads(
            store, self._start_pod, self._end_pod, self._volumes.obstacle, failing
        )
        self._jobs = jobs.Jobs(store, self._later)
        self._kueue = kueue.Kueue(store)
        self._karpenter: karpenter.Karpenter | None = None
        self._scheduled: set[Callable[[], None]] = set()
        self._due: deque[Callable[[], None]] = deque()
        self._waiting: set[Callable[[], None]] = set()  # what is in the queue
        self._running = False
        self._stopped = False
        store.listeners.append(self._notice)
        store.webhooks.append(self._kueue.webhook)

    def stop(self) -> None:
        """Do nothing more, whatever the clock still brings."""
        self._stopped = True

    def wake(self) -> None:
        """Let the controllers of workloads look at everything."""
        with self._store.lock:
            self._wake(self._workloads.reconcile)

    def scale(self, provider: karpenter.Provider | None) -> None:
        """Let Karpenter scale what a provider has, from now on; None ends that."""
        with self._store.lock:
            if provider is None:
                self._karpenter = None
            elif self._karpenter is None:
                self._karpenter = karpenter.Karpenter(self._store, provider, self._later)
            if self._karpenter:
                self._wake(self._karpenter.reconcile)

    def queue(self, *, installed: bool, old: bool) -> None:
        """Install Kueue, an ``old`` one or not, or remove it with every object of its kinds."""
        with self._store.lock:
            if installed:
                self._kueue.install(old=old)
            else:
                self._kueue.remove()
            self._wake(self._kueue.reconcile)

    def catch_up(self) -> None:
        """Do what had to wait for the provider of nodes; nobody may hold the store's lock here."""
        if (scaler := self._karpenter) and scaler.postponed:
            with scaler.provider.lock:
                self._run(scaler.reconcile)

    def _notice(self, event: Event) -> None:
        kind, obj, gone = event.resource.kind, event.obj, event.type == "DELETED"
        just_deleted = deleting(obj) and not (event.before and deleting(event.before))
        if kind == "CustomResourceDefinition":
            self._definition_changed(obj, gone=gone)
        elif kind == "Namespace" and just_deleted:
            self._later(self._delays.namespace, partial(self._empty, obj["metadata"]["name"]))
        elif kind == "ClusterRole":
            if gone and self.recreate_aggregated and obj.get("aggregationRule"):
                self._aggregate(event.resource, obj["metadata"]["name"], [])
            self._wake(self._aggregate_roles)
        elif kind == "Event" and not (gone or event.resource.definition):
            self._later(_EVENT_TTL, partial(self._expire, event.resource, obj))
        if kind in volumes.KINDS:
            self._wake(self._volumes.reconcile)
        if kind in workloads.KINDS:
            self._wake(self._workloads.reconcile)
        if kind in jobs.KINDS:
            self._wake(self._jobs.reconcile)
        ended = gone and kind == "Workload"
        if self._kueue.installed and (ended or kind in kueue.KINDS):
            self._wake(self._kueue.reconcile)
        if self._karpenter and kind in karpenter.KINDS:
            self._wake(self._karpenter.reconcile)
        home = gone and (kind, obj["metadata"]["name"]) in (*_FURNITURE, _APISERVER)
        if home or (kind == "Namespace" and event.type == "ADDED"):
            self._wake(self._furnish_namespaces)
        # An owner that is not there, and perhaps never was, counts as one that has gone.
        orphaned = not gone and not self._store.uids.issuperset(owner_uids(obj))
        if gone or just_deleted or orphaned:
            self._wake(self._collect_garbage)
        if gone and event.resource.namespaced:
            self._finish_namespace(obj["metadata"]["namespace"])
        if gone and event.resource.definition:
            self._wake(self._finish_definitions)

    # --- when to run -----------------------------------------------------------------------------

    def _wake(self, controller: Callable[[], None]) -> None:
        """Run a controller once, soon, however often it is woken until then."""
        if controller not in self._scheduled:
            self._scheduled.add(controller)
            self._later(self._delays.controller, controller)

    def _later(self, delay: float, controller: Callable[[], None]) -> None:
        self._clock.after(delay, partial(self._run, controller))

    def _run(self, controller: Callable[[], None]) -> None:
        """Run a controller now, or after the one that is running and has caused this one."""
        with self.held():
            self._scheduled.discard(controller)
            if controller not in self._waiting:
                self._waiting.add(controller)
                self._due.append(controller)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let many changes be made before anybody reacts to the first: a thousand nodes at once."""
        with self._store.lock:
            if self._running or self._stopped:
                yield
                return
            self._running = True
            try:
                yield
                while self._due:
                    controller = self._due.popleft()
                    self._waiting.discard(controller)
                    controller()
            finally:
                self._running = False

    # --- namespaces, owners, definitions ---------------------------------------------------------

    def _empty(self, namespace: str) -> None:
        """Delete what is in an ending namespace; `_finish_namespace` takes it from there."""
        for resource in self._store.registry:
            if resource.namespaced:
                for obj in self._store.objects(resource, namespace):
                    self._delete(resource, obj)
        self._finish_namespace(namespace)

    def _furnish_namespaces(self) -> None:
        """Give every namespace its default ServiceAccount and the cluster's certificate, and
        `default` the Service of the API server.

        They come a moment after the namespace, and again when deleted: the serviceaccount and the
        root-ca-cert-publisher controllers of kube-controller-manager, and kube-apiserver's
        pkg/controlplane/controller/kubernetesservice.
        """
        builtin = self._store.registry.builtin
        service = builtin(_APISERVER[0])
        if not self._store.find(service, "default", _APISERVER[1]):
            port = {"name": "https", "protocol": "TCP", "port": 443, "targetPort": 443}
            spec = {
                "clusterIP": str(self._store.services[1]),
                "ports": [port],
                "ipFamilyPolicy": "SingleStack",
            }
            marks = {"component": "apiserver", "provider": "kubernetes"}
            named = {"name": _APISERVER[1], "labels": marks}
            self._store.create(service, "default", {"metadata": named, "spec": spec})
        for home in self._store.objects(builtin("Namespace")):
            for kind, name in () if deleting(home) else _FURNITURE:
                resource, where = builtin(kind), home["metadata"]["name"]
                if not self._store.find(resource, where, name):
                    data = {"data": {"ca.crt": self._ca_pem}} if kind == "ConfigMap" else {}
                    self._store.create(resource, where, {"metadata": {"name": name}, **data})

    def _finish_namespace(self, name: str) -> None:
        """Let a deleted namespace go once it is empty."""
        resource = self._store.registry.builtin("Namespace")
        home = self._store.find(resource, "", name)
        namespaced = (r for r in self._store.registry if r.namespaced)
        if home and deleting(home) and not any(self._store.objects(r, name) for r in namespaced):
            self._store.modify(resource, home, {**home, "spec": {**home["spec"], "finalizers": []}})

    def _collect_garbage(self) -> None:
        """Delete what has lost all its owners; finish deletions that wait for dependents."""
        everything = list(self._store.everything())
        alive = {obj["metadata"]["uid"] for _, obj in everything}
        ending, orphaning = (
            {
                obj["metadata"]["uid"]
                for _, obj in everything
                if deleting(obj) and finalizer in (obj["metadata"].get("finalizers") or [])
            }
            for finalizer in (FOREGROUND, ORPHAN)
        )
        for resource, obj in everything:
            owners = set(owner_uids(obj))
            if owners & orphaning:
                left = [r for r in obj["metadata"]["ownerReferences"] if r["uid"] not in orphaning]
                self._store.modify(resource, obj, with_metadata(obj, ownerReferences=left or None))
            elif owners and (not owners & alive or owners & ending):
                self._delete(resource, obj)
        for resource, obj in everything:
            uid = obj["metadata"]["uid"]
            if uid in ending | orphaning and not self._store.dependents(uid):
                self._release(resource, obj, FOREGROUND if uid in ending else ORPHAN)

    def _definition_changed(self, definition: Obj, *, gone: bool) -> None:
        """Serve a new kind at once, as clients expect; end its objects before it ends."""
        name = definition["metadata"]["name"]
        if gone:
            self._store.registry.undefine(name)
            return
        self._store.registry.define(definition)
        if deleting(definition):
            self._wake(self._finish_definitions)
            return
        conditions = [
            ("NamesAccepted", "NoConflicts", "no conflicts found"),
            ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ]
        before = dig(definition, "status", "conditions") or []
        status = {
            "conditions": before
            or [
                {
                    "type": kind,
                    "status": "True",
                    "lastTransitionTime": timestamp(self._clock),
                    "reason": reason,
                    "message": message,
                }
                for kind, reason, message in conditions
            ],
            "acceptedNames": definition["spec"]["names"],
            "storedVersions": definition["status"]["storedVersions"],
        }
        resource = self._store.registry.builtin("CustomResourceDefinition")
        self._store.set_status(resource, definition, status)

    def _finish_definitions(self) -> None:
        """Delete the objects of deleted CustomResourceDefinitions, then let the definitions go."""
        definitions = self._store.registry.builtin("CustomResourceDefinition")
        for definition in self._store.objects(definitions):
            if deleting(definition):
                name = definition["metadata"]["name"]
                kinds = [r for r in self._store.registry if r.definition == name]
                for resource in kinds:
                    for obj in self._store.objects(resource):
                        self._delete(resource, obj)
                if not any(self._store.objects(r) for r in kinds):
                    self._release(definitions, definition, CRD_FINALIZER)

    def _expire(self, resource: Resource, obj: Obj) -> None:
        """Delete an Event that nobody has written since."""
        metadata = obj["metadata"]
        live = self._store.find(resource, metadata["namespace"], metadata["name"])
        if live and live["metadata"]["resourceVersion"] == metadata["resourceVersion"]:
            self._delete(resource, live)

    def _delete(self, resource: Resource, obj: Obj) -> None:
        """Delete an object that may have gone in the meantime."""
        metadata = obj["metadata"]
        uid = {"preconditions": {"uid": metadata["uid"]}}
        try:
            self._store.delete(resource, metadata.get("namespace", ""), metadata["name"], uid)
        except ApiError as error:
            if error.code not in (404, 409):
                raise

    def _release(self, resource: Resource, obj: Obj, finalizer: str) -> None:
        """Take away one of an object's finalizers."""
        metadata = obj["metadata"]
        live = self._store.find(resource, metadata.get("namespace", ""), metadata["name"])
        if live:
            left = [f for f in live["metadata"].get("finalizers") or [] if f != finalizer]
            self._store.modify(resource, live, with_metadata(live, finalizers=left or None))

    # --- aggregated ClusterRoles -----------------------------------------------------------------

    def _aggregate_roles(self) -> None:
        """Give every aggregated ClusterRole the rules of the roles that it selects."""
        resource = self._store.registry.builtin("ClusterRole")
        roles = self._store.objects(resource)
        for role in roles:
            rule = role.get("aggregationRule")
            if not rule:
                continue
            rules: list[Obj] = []
            for selector in rule.get("clusterRoleSelectors") or []:
                for other in roles:
                    if other is not role and selects(selector, other["metadata"].get("labels", {})):
                        rules += [r for r in other.get("rules") or [] if r not in rules]
            if rules != (role.get("rules") or []):
                self._aggregate(resource, role["metadata"]["name"], rules)

    def _aggregate(self, resource: Resource, name: str, rules: list[Obj]) -> None:
        """Apply `rules` by force: from then on `.rules` belongs to the controller, not to helm."""
        body = {"metadata": {"name": name}, "rules": rules}
        how = Write(manager=AGGREGATOR, force=True)
        self._store.patch(resource, "", name, "apply", body, how)

    # --- pods ------------------------------------------------------------------------------------

    def _end_pod(self, namespace: str, name: str, uid: str) -> None:
        """A pod whose containers end by themselves runs for a while."""
        self._later(self._delays.pod_run, partial(self._workloads.end, namespace, name, uid))

    def _start_pod(self, namespace: str, name: str, uid: str) -> None:
        """The kubelet's part: the pod runs a while after it was bound to a ready node."""
        self._later(self._delays.pod_start, partial(self._workloads.run, namespace, name, uid))
