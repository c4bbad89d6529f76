"""The kinds that the server knows: built-in ones, and what CustomResourceDefinitions add."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from .objects import Obj

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
# The real server lists a custom resource's verbs in this order.
CUSTOM_VERBS = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")

# plural, Kind, short names, sub-resources; under their group version. * marks cluster scope.
_BUILTIN = """
v1
  *namespaces             Namespace             ns     status,finalize
  *nodes                  Node                  no     status
  *persistentvolumes      PersistentVolume      pv     status
  pods                    Pod                   po     status,log,eviction,exec
  services                Service               svc    status
  replicationcontrollers  ReplicationController rc     status,scale
  podtemplates            PodTemplate           -      -
  secrets                 Secret                -      -
  configmaps              ConfigMap             cm     -
  serviceaccounts         ServiceAccount        sa     token
  endpoints               Endpoints             ep     -
  events                  Event                 ev     -
  persistentvolumeclaims  PersistentVolumeClaim pvc    status
  resourcequotas          ResourceQuota         quota  status
  limitranges             LimitRange            limits -
apps/v1
  deployments             Deployment            deploy status,scale
  daemonsets              DaemonSet             ds     status
  statefulsets            StatefulSet           sts    status,scale
  replicasets             ReplicaSet            rs     status,scale
  controllerrevisions     ControllerRevision    -      -
batch/v1
  jobs                    Job                   -      status
  cronjobs                CronJob               cj     status
autoscaling/v2
  horizontalpodautoscalers HorizontalPodAutoscaler hpa status
policy/v1
  poddisruptionbudgets    PodDisruptionBudget   pdb    status
networking.k8s.io/v1
  networkpolicies         NetworkPolicy         netpol -
  ingresses               Ingress               ing    status
  *ingressclasses         IngressClass          -      -
  *ipaddresses            IPAddress             ip     -
  *servicecidrs           ServiceCIDR           -      status
rbac.authorization.k8s.io/v1
  roles                   Role                  -      -
  rolebindings            RoleBinding           -      -
  *clusterroles           ClusterRole           -      -
  *clusterrolebindings    ClusterRoleBinding    -      -
storage.k8s.io/v1
  *storageclasses         StorageClass          sc     -
  *csidrivers             CSIDriver             -      -
  *csinodes               CSINode               -      -
  csistoragecapacities    CSIStorageCapacity    -      -
  *volumeattachments      VolumeAttachment      -      status
  *volumeattributesclasses VolumeAttributesClass vac   -
certificates.k8s.io/v1
  *certificatesigningrequests CertificateSigningRequest csr status,approval
flowcontrol.apiserver.k8s.io/v1
  *flowschemas            FlowSchema            -      status
  *prioritylevelconfigurations PriorityLevelConfiguration - status
resource.k8s.io/v1
  *deviceclasses          DeviceClass           -      -
  resourceclaims          ResourceClaim         -      status
  resourceclaimtemplates  ResourceClaimTemplate -      -
  *resourceslices         ResourceSlice         -      -
scheduling.k8s.io/v1
  *priorityclasses        PriorityClass         pc     -
coordination.k8s.io/v1
  leases                  Lease                 -      -
discovery.k8s.io/v1
  endpointslices          EndpointSlice         -      -
events.k8s.io/v1
  events                  Event                 ev     -
node.k8s.io/v1
  *runtimeclasses         RuntimeClass          -      -
admissionregistration.k8s.io/v1
  *mutatingwebhookconfigurations     MutatingWebhookConfiguration     - -
  *validatingwebhookconfigurations   ValidatingWebhookConfiguration   - -
  *validatingadmissionpolicies       ValidatingAdmissionPolicy        - status
  *validatingadmissionpolicybindings ValidatingAdmissionPolicyBinding - -
apiextensions.k8s.io/v1
  *customresourcedefinitions CustomResourceDefinition crd,crds status
apiregistration.k8s.io/v1
  *apiservices            APIService            -      status
authorization.k8s.io/v1
  *selfsubjectaccessreviews SelfSubjectAccessReview - -
  *selfsubjectrulesreviews  SelfSubjectRulesReview  - -
  *subjectaccessreviews     SubjectAccessReview     - -
  localsubjectaccessreviews LocalSubjectAccessReview - -
authentication.k8s.io/v1
  *selfsubjectreviews     SelfSubjectReview     -      -
  *tokenreviews           TokenReview           -      -
"""
SELF_REVIEWS = ("SelfSubjectAccessReview", "SelfSubjectRulesReview", "SelfSubjectReview")
"""Questions that every user may ask about itself."""
REVIEWS = (*SELF_REVIEWS, "SubjectAccessReview", "LocalSubjectAccessReview", "TokenReview")
"""Questions: posted, answered, never stored."""
# What `kubectl get all` lists, by the category that each kind's registry strategy names.
_IN_ALL = {
    *("Pod", "Service", "Deployment", "DaemonSet", "StatefulSet", "ReplicaSet", "Job", "CronJob"),
    "HorizontalPodAutoscaler",
}


@dataclass(frozen=True)
class Resource:
    """One kind of object in one version of its API group ("" is the core group)."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    singular: str
    short_names: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    verbs: tuple[str, ...] = VERBS
    definition: str = ""
    """The name of the CustomResourceDefinition that brought it; "" for a built-in kind."""
    categories: tuple[str, ...] = ()
    schema: Obj = field(default_factory=dict, compare=False)
    """A custom resource's `openAPIV3Schema`."""
    selectable: tuple[str, ...] = ()
    """The paths of a custom resource's `selectableFields`."""

    @property
    def group_version(self) -> str:
        """As in `apiVersion`: apps/v1, or v1 for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """As in messages: deployments.apps, or pods for the core group."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


class Registry:
    """The kinds served at this moment. Readers need no lock: a change swaps the whole tuple."""

    def __init__(self) -> None:
        self._all: tuple[Resource, ...] = tuple(_builtin())

    def __iter__(self) -> Iterator[Resource]:
        return iter(self._all)

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        """The resource at /apis/<group>/<version>/<plural>, or None."""
        wanted = (group, version, plural)
        return next((r for r in self._all if (r.group, r.version, r.plural) == wanted), None)

    def kind(self, kind: str) -> Resource | None:
        """The first resource of that kind, or None: built-in kinds come before custom ones."""
        return next((r for r in self._all if r.kind == kind), None)

    def builtin(self, kind: str) -> Resource:
        """The built-in resource of that kind, which exists."""
        found = self.kind(kind)
        assert found is not None, kind
        return found

    def of(self, group: str, version: str) -> list[Resource]:
        """Every resource of one group version."""
        return [r for r in self._all if (r.group, r.version) == (group, version)]

    def versions(self) -> dict[str, list[str]]:
        """Every group with its versions, in the order in which they came."""
        groups: dict[str, dict[str, None]] = {}
        for resource in self._all:
            groups.setdefault(resource.group, {})[resource.version] = None
        return {group: list(versions) for group, versions in groups.items()}

    def define(self, definition: Obj) -> None:
        """Serve what a CustomResourceDefinition says, in place of what it said before."""
        added = _custom(definition)
        name = definition["metadata"]["name"]
        self._all = (*(r for r in self._all if r.definition != name), *added)

    def undefine(self, name: str) -> None:
        """Serve no more what the CustomResourceDefinition `name` brought."""
        self._all = tuple(r for r in self._all if r.definition != name)


def _builtin() -> Iterator[Resource]:
    group = version = ""
    for line in _BUILTIN.strip().splitlines():
        if not line.startswith(" "):
            group, _, version = line.rpartition("/")
            continue
        plural, kind, *lists = line.split()
        short_names, subresources = (() if v == "-" else tuple(v.split(",")) for v in lists)
        yield Resource(
            group,
            version,
            plural.lstrip("*"),
            kind,
            not plural.startswith("*"),
            kind.lower(),
            short_names,
            subresources,
            ("create",) if kind in REVIEWS else VERBS,
            categories=("all",) if kind in _IN_ALL else (),
        )


def _custom(definition: Obj) -> list[Resource]:
    spec, names = definition["spec"], definition["spec"]["names"]
    return [
        Resource(
            spec["group"],
            version["name"],
            names["plural"],
            names["kind"],
            spec["scope"] == "Namespaced",
            names["singular"],
            tuple(names.get("shortNames") or ()),
            tuple(version.get("subresources") or ()),
            CUSTOM_VERBS,
            definition["metadata"]["name"],
            tuple(names.get("categories") or ()),
            (version.get("schema") or {}).get("openAPIV3Schema") or {},
            tuple(f["jsonPath"].lstrip(".") for f in version.get("selectableFields") or ()),
        )
        for version in spec["versions"]
        if version.get("served")
    ]
