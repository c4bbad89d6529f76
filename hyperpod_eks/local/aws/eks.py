"""EKS's API: one method for each operation, and what of it goes into the inventory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import moto.eks.urls
from moto.core.responses import ActionResult
from moto.eks.models import eks_backends

from hyperpod_eks.local.aws import eks_access, eks_addons, plugin, wire
from hyperpod_eks.local.aws.eks_clusters import Backend, enabled_logs, of_region
from hyperpod_eks.local.aws.eks_data import ACCESS_POLICIES, CREATABLE, VERSIONS
from hyperpod_eks.local.aws.eks_model import Cluster
from hyperpod_eks.local.aws.sim import principal_of
from hyperpod_eks.local.aws.wire import Refused, page


class Response(wire.Tagging):
    """EKS's answers, one method for each operation."""

    invalid = "InvalidParameterException"

    def __init__(self) -> None:
        super().__init__(service_name="eks")
        self.automated_parameter_parsing = True

    @property
    def backend(self) -> Backend:
        """EKS of the request's region."""
        return of_region(self.region)

    @contextmanager
    def _token(self) -> Iterator[None]:
        """Refuse a client token that came with other members before.

        The API reference calls clientRequestToken an "identifier that you provide to ensure the
        idempotency of the request" and lists no error of its own for a mismatch; of the errors
        that every create lists InvalidParameterException is the one about a member.
        """
        request = self.request()
        key = str(self._get_action()), str(request.get("clientRequestToken") or "")
        if self.backend.tokens.get(key, request) != request:
            text = "clientRequestToken has been used before, with other parameters."
            raise Refused("InvalidParameterException", text)
        yield
        if key[1]:
            self.backend.tokens[key] = request

    # -- clusters --------------------------------------------------------------------------------

    def create_cluster(self) -> ActionResult:
        """Answer CREATING."""
        with self._token():
            cluster = self.backend.create(self.request(), principal_of(self.access_key))
        return ActionResult({"cluster": cluster.document})

    def describe_cluster(self) -> ActionResult:
        """Answer the cluster."""
        return ActionResult({"cluster": self.backend.find(self.request()["name"]).document})

    def list_clusters(self) -> ActionResult:
        """Answer names."""
        names, token = page(sorted(self.backend.clusters), self.request())
        return ActionResult({"clusters": names, "nextToken": token})

    def delete_cluster(self) -> ActionResult:
        """Answer DELETING."""
        return ActionResult({"cluster": self.backend.delete(self.request()["name"]).document})

    def describe_cluster_versions(self) -> ActionResult:
        """Answer the versions that can be created; all with includeAll."""
        request = self.request()
        named = request.get("clusterVersions") or []
        status = request.get("versionStatus")
        found = [
            one
            for name, one in VERSIONS.items()
            if (
                name in named if named else name in CREATABLE or request.get("includeAll") or status
            )
            and (not request.get("defaultOnly") or one["defaultVersion"])
            and status in (None, one["versionStatus"])
            and request.get("status") in (None, one["status"])
        ]
        versions, token = page(found, request)
        return ActionResult({"clusterVersions": versions, "nextToken": token})

    def update_cluster_config(self) -> ActionResult:
        """Answer the update that began."""
        return ActionResult({"update": self.backend.update_config(self.request())})

    def update_cluster_version(self) -> ActionResult:
        """Answer the update that began."""
        return ActionResult({"update": self.backend.update_version(self.request())})

    def associate_encryption_config(self) -> ActionResult:
        """Answer the update that began."""
        return ActionResult({"update": self.backend.associate_encryption(self.request())})

    def describe_update(self) -> ActionResult:
        """Answer an update of the cluster or of an add-on."""
        request = self.request()
        update = self.backend.find(request["name"]).updates.get(request["updateId"])
        if update is None or update.get("addonName") != request.get("addonName"):
            text = f"No update found for ID: {request['updateId']}"
            raise Refused("ResourceNotFoundException", text)
        return ActionResult({"update": update})

    def list_updates(self) -> ActionResult:
        """Answer the ids of the cluster's updates, or of an add-on's."""
        request = self.request()
        updates = self.backend.find(request["name"]).updates.values()
        addon = request.get("addonName")
        ids, token = page([u["id"] for u in updates if u.get("addonName") == addon], request)
        return ActionResult({"updateIds": ids, "nextToken": token})

    # -- add-ons ---------------------------------------------------------------------------------

    def _active(self) -> tuple[Cluster, dict[str, Any]]:
        request = self.request()
        return self.backend.active(request["clusterName"]), request

    def _any(self) -> tuple[Cluster, dict[str, Any]]:
        request = self.request()
        return self.backend.find(request["clusterName"]), request

    def create_addon(self) -> ActionResult:
        """Answer CREATING."""
        with self._token():
            addon = eks_addons.create(*self._active())
        return ActionResult({"addon": addon.document})

    def describe_addon(self) -> ActionResult:
        """Answer the add-on with its health of this moment."""
        cluster, request = self._any()
        addon = eks_addons.find(cluster, request)
        return ActionResult({"addon": eks_addons.describe(cluster, addon)})

    def list_addons(self) -> ActionResult:
        """Answer names."""
        cluster, request = self._any()
        names, token = page(sorted(cluster.addons), request)
        return ActionResult({"addons": names, "nextToken": token})

    def update_addon(self) -> ActionResult:
        """Answer the update that began."""
        return ActionResult({"update": eks_addons.update(*self._active())})

    def delete_addon(self) -> ActionResult:
        """Answer DELETING."""
        return ActionResult({"addon": eks_addons.delete(*self._active()).document})

    def describe_addon_versions(self) -> ActionResult:
        """Answer versions by add-on, newest first."""
        request = self.request()
        addons, token = page(eks_addons.versions(request), request)
        return ActionResult({"addons": addons, "nextToken": token})

    def describe_addon_configuration(self) -> ActionResult:
        """Answer a schema that allows everything."""
        return ActionResult(eks_addons.configuration(self.request()))

    # -- access ----------------------------------------------------------------------------------

    def create_access_entry(self) -> ActionResult:
        """Answer the entry."""
        with self._token():
            entry = eks_access.create_entry(*self._active())
        return ActionResult({"accessEntry": entry.document})

    def describe_access_entry(self) -> ActionResult:
        """Answer the entry."""
        return ActionResult({"accessEntry": eks_access.find_entry(*self._any()).document})

    def update_access_entry(self) -> ActionResult:
        """Answer the entry."""
        return ActionResult({"accessEntry": eks_access.update_entry(*self._active()).document})

    def delete_access_entry(self) -> ActionResult:
        """Answer nothing."""
        eks_access.delete_entry(*self._active())
        return ActionResult({})

    def list_access_entries(self) -> ActionResult:
        """Answer principals, perhaps of one policy only."""
        cluster, request = self._any()
        policy = request.get("associatedPolicyArn")
        found = [
            principal
            for principal, entry in sorted(eks_access.by_entries(cluster).entries.items())
            if policy is None or policy in entry.policies
        ]
        principals, token = page(found, request)
        return ActionResult({"accessEntries": principals, "nextToken": token})

    def list_access_policies(self) -> ActionResult:
        """Answer every access policy that there is."""
        every = [{"name": name, "arn": arn} for name, arn in ACCESS_POLICIES.items()]
        policies, token = page(every, self.request())
        return ActionResult({"accessPolicies": policies, "nextToken": token})

    def associate_access_policy(self) -> ActionResult:
        """Answer the association, which may have been there before."""
        cluster, request = self._active()
        associated = eks_access.associate(cluster, request)
        return ActionResult({**request, "associatedAccessPolicy": associated})

    def disassociate_access_policy(self) -> ActionResult:
        """Answer nothing."""
        eks_access.disassociate(*self._active())
        return ActionResult({})

    def list_associated_access_policies(self) -> ActionResult:
        """Answer the policies of one entry."""
        cluster, request = self._any()
        entry = eks_access.find_entry(cluster, request)
        policies, token = page(entry.policies.values(), request)
        answer = {**request, "associatedAccessPolicies": policies, "nextToken": token}
        return ActionResult(answer)

    # -- pod identities --------------------------------------------------------------------------

    def create_pod_identity_association(self) -> ActionResult:
        """Answer the association."""
        association = eks_access.create_association(*self._active())
        return ActionResult({"association": association.document})

    def describe_pod_identity_association(self) -> ActionResult:
        """Answer the association."""
        association = eks_access.find_association(*self._any())
        return ActionResult({"association": association.document})

    def update_pod_identity_association(self) -> ActionResult:
        """Answer the association."""
        association = eks_access.update_association(*self._active())
        return ActionResult({"association": association.document})

    def delete_pod_identity_association(self) -> ActionResult:
        """Answer what was there."""
        cluster, request = self._active()
        association = eks_access.find_association(cluster, request)
        del cluster.associations[request["associationId"]]
        return ActionResult({"association": association.document})

    def list_pod_identity_associations(self) -> ActionResult:
        """Answer associations, perhaps of one namespace or service account only."""
        cluster, request = self._any()
        found = [
            association.document
            for association in cluster.associations.values()
            if all(
                request.get(member) in (None, association.document[member])
                for member in ("namespace", "serviceAccount")
            )
        ]
        associations, token = page(found, request)
        return ActionResult({"associations": associations, "nextToken": token})

    # -- what nobody creates here ----------------------------------------------------------------

    def _none(self, member: str) -> ActionResult:
        """Answer an empty list of a cluster that is there, as AWS does; inventories ask."""
        self._any()
        return ActionResult({member: []})

    def list_nodegroups(self) -> ActionResult:
        """Answer none: they cannot be created here."""
        return self._none("nodegroups")

    def list_fargate_profiles(self) -> ActionResult:
        """Answer none: they cannot be created here."""
        return self._none("fargateProfileNames")

    def list_identity_provider_configs(self) -> ActionResult:
        """Answer none: they cannot be created here."""
        return self._none("identityProviderConfigs")

    def list_insights(self) -> ActionResult:
        """Answer none: nothing is looked into here."""
        return self._none("insights")

    def list_capabilities(self) -> ActionResult:
        """Answer none: they cannot be created here."""
        return self._none("capabilities")


def install() -> None:
    """Take the place of moto's EKS, which knows clusters, node groups and Fargate only."""
    plugin.backend(eks_backends, Backend)
    moto.eks.urls.url_paths.clear()
    plugin.routes(moto.eks.urls, "eks", Response.dispatch)


def inventory(account: str, region: str) -> dict[str, Any]:
    """Return every cluster with its add-ons, entries and pod identities."""
    return {
        name: {
            "Status": cluster.status,
            "Version": cluster.document["version"],
            "RoleArn": cluster.document["roleArn"],
            "VpcConfig": cluster.document["resourcesVpcConfig"],
            "Logging": sorted(enabled_logs(cluster.document["logging"])),
            "AccessConfig": cluster.document["accessConfig"],
            "UpgradePolicy": cluster.document["upgradePolicy"],
            "DeletionProtection": cluster.document["deletionProtection"],
            "EncryptionConfig": cluster.document.get("encryptionConfig", []),
            "Tags": cluster.document["tags"],
            "Addons": {
                each: {
                    "Version": addon.document["addonVersion"],
                    "Status": eks_addons.describe(cluster, addon)["status"],
                    "Configuration": addon.document["configurationValues"],
                    "Tags": addon.document["tags"],
                }
                for each, addon in cluster.addons.items()
            },
            "AccessEntries": {
                principal: {
                    "Type": entry.document["type"],
                    "Groups": entry.document["kubernetesGroups"],
                    "Policies": {arn: p["accessScope"] for arn, p in entry.policies.items()},
                    "Tags": entry.document["tags"],
                }
                for principal, entry in cluster.entries.items()
            },
            "PodIdentityAssociations": {
                f"{one.document['namespace']}/{one.document['serviceAccount']}": {
                    "RoleArn": one.document["roleArn"],
                    "Tags": one.document["tags"],
                }
                for one in cluster.associations.values()
            },
        }
        for name, cluster in of_region(region).clusters.items()
    }
