"""What create, status and delete do once their options are read."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import click

from hyperpod_eks import chart as charts
from hyperpod_eks import config as configs
from hyperpod_eks import engine, existing, progress
from hyperpod_eks import helm as helms
from hyperpod_eks import preflight_account as account
from hyperpod_eks.aws import LABEL, Aws, Look, owner, read_only, session, tag
from hyperpod_eks.cli.explain import explaining
from hyperpod_eks.cli.local import use_local
from hyperpod_eks.cli.outputs import values
from hyperpod_eks.cli.speech import speech
from hyperpod_eks.cli.stop import stoppable
from hyperpod_eks.config import Config
from hyperpod_eks.engine import World
from hyperpod_eks.errors import Foreign, NotFound, Remains, Usage
from hyperpod_eks.kubeconfig import forget, own_file
from hyperpod_eks.local import CHART
from hyperpod_eks.manifest import Manifest, locked, read
from hyperpod_eks.orphans import signed
from hyperpod_eks.progress_text import speaks_utf8
from hyperpod_eks.report import Event, Report, What
from hyperpod_eks.resource import Resource, Sight, Verdict
from hyperpod_eks.site import Site, check_plans, lineage, survey
from hyperpod_eks.stack import LISTS, STEPS, ahead, stack
from hyperpod_eks.steps import hyperpod
from hyperpod_eks.steps.helm import prepare

Document = dict[str, Any]


def create(
    tell: Report,
    helm: str | None,
    replace_failed: bool,
    skip: tuple[str, ...],
    yes: bool = False,
    **given: Any,
) -> Document:
    """Make the cluster; the document has its outputs."""
    from hyperpod_eks.cli.preflight import before_create  # noqa: PLC0415  it imports this module

    story = Story(tell)
    with opened("create", given, story, files=True, helm=helm) as at:
        story.once = ("eks/cluster", What.WAITING, partial(prepare, at.config.chart))
        at.world.replace_failed = replace_failed
        at.world.consent = consenting(at.site.name, yes=yes)
        check_plans(at.site, at.world.aws)
        at.manifest.config = at.config.model_dump(mode="json", by_alias=True)
        warnings = at.warn()
        at.world.preflight = before_create(at.world, at.config, at.site, skip, speech().warn)
        engine.create(at.wants, at.world)
        return _result("create", at, story) | {
            "outputs": values(at.manifest),
            "warnings": warnings,
        }


def status(tell: Report, **given: Any) -> Document:
    """Look at everything.  Raises NotFound when there is no such cluster."""
    with opened("status", given, tell, write=False, files=False) as at:
        look = at.world.begun or Look(at.world.aws)
        sights = engine.status(at.wants, at.world)
        if all(s.verdict is Verdict.ABSENT or not s.want.recorded for s in sights):
            raise NotFound(
                f"there is no cluster {at.site.name} in {at.site.region} of account "
                f"{at.site.identity.account}",
                f"Make it: hyperpod-eks create {at.site.name}",
            )
        return _status(at, sights, look)


def delete(tell: Report, yes: bool, keep: str, dry_run: bool, **given: Any) -> Document:
    """Take everything away that is ours, then ask AWS again; with ``dry_run``, only tell."""
    kinds = _kinds_to_keep(keep)
    story = Story(tell)
    with opened("delete", given, story, write=not dry_run, files=False) as at:
        keys = _kept_keys(at, kinds)
        if dry_run:
            return _result("delete", at, story) | {
                "plan": _fates(engine.doomed(at.wants, at.world, keys))
            }
        if at.config.deletion_protection:
            raise Usage(
                f"deletion_protection: the cluster {at.site.name} is protected",
                "Set deletion_protection: false in the config, run create, then delete.",
            )
        _confirm(at.site, yes)
        removed, kept = engine.delete(at.wants, at.world, keys)
        signed = partial(_signed_yet, at, kept)
        remains = engine.remaining(at.wants, at.world, frozenset(kept), removed, signed)
        if remains:
            lines = "\n".join(f"  {key}: {what}" for key, what in remains.items())
            raise Remains(f"AWS still shows:\n{lines}")
        if not kinds:
            at.manifest.retire()
            forget(own_file(at.manifest.path), at.site.arn("eks", f"cluster/{at.site.eks_name}"))
        return _result("delete", at, story) | {
            "removed": removed,
            "kept": kept,
            "remaining": remains,
        }


def _signed_yet(at: Opened, kept: Mapping[str, str], look: Look) -> dict[str, str]:
    """Find what EC2 still has with our tags, declared and remembered or not; by key, its id.

    A config that has changed and a manifest that is lost leave things that nothing else names.
    """
    left = {}
    for method, key in (*LISTS.items(), ("describe_subnets", "Subnets")):
        for item in look.signed(method, key):
            ours = owner(item.get("Tags", ())) == at.world.aws.lineage
            where = f"network/{tag(item.get('Tags', ()), LABEL)}"
            if ours and item.get("State") not in ("deleted", "deleting") and where not in kept:
                left[where] = next(str(item[name]) for name in EC2_IDS if name in item)
    return left


EC2_IDS = (
    "NatGatewayId",
    "VpcEndpointId",
    "AllocationId",
    "RouteTableId",
    "GroupId",
    "SubnetId",
    "InternetGatewayId",
    "VpcId",
)
"""Members that hold an id, the more particular ones first: most items name their VPC too."""


ADOPTABLE = (
    "network/vpc",
    "network/internet-gateway",
    "network/security-group",
    "network/private-subnet-*",
    "network/public-subnet-*",
    "iam/cluster-role",
    "iam/execution-role",
    "s3/bucket",
    "eks/cluster",
)


def adopt(tell: Report, resources: tuple[str, ...], rebuild: bool, **given: Any) -> Document:
    """Write existing resources into the manifest; every one must exist."""
    wanted = dict(_key_and_id(each) for each in resources)
    if not wanted and not rebuild:
        raise Usage("adopt: nothing to adopt", "Give --resource KEY=ID, or --rebuild.")
    with opened("adopt", given, tell, files=False, broken=rebuild) as at:
        for key, id_ in wanted.items():
            known = at.manifest.records.get(key)
            if known and known.origin == "created" and known.state != "deleted":
                raise Foreign(f"{key}: {known.id} was made by create", "Delete the cluster first.")
            at.manifest.adopt(key, id_, at.world.clock.now())
        at.world.aws.adopted = at.manifest.adopted
        wants = stack(replace(at.site, adopted=at.manifest.adopted))
        found = engine.rebuild(wants, at.world)
        missing = [key for key in wanted if key not in {sight.want.key for sight in found}]
        if missing:
            for key in missing:
                at.manifest.forget(key)
            raise NotFound("\n".join(f"{key}: there is no {wanted[key]}" for key in missing))
        at.manifest.save()
        rows = [
            {
                "key": sight.want.key,
                "id": sight.live.id if sight.live else "",
                "origin": at.manifest.records[sight.want.key].origin,
            }
            for sight in found
        ]
        return _result("adopt", at, Story(tell)) | {"resources": rows}


def _key_and_id(text: str) -> tuple[str, str]:
    key, separator, id_ = text.partition("=")
    if not (separator and id_ and any(fnmatch(key, pattern) for pattern in ADOPTABLE)):
        raise Usage(f"--resource: {text!r} is not KEY=ID with a KEY of {', '.join(ADOPTABLE)}")
    return key, id_


def orphans(tell: Report, local: bool, manifests: tuple[Path, ...], **given: Any) -> Document:
    """List what is signed by this tool and stands in no manifest."""
    if local:
        use_local()
    aws = Aws(session(given["region"], given["profile"]), "", {})
    read_only(aws.session)
    identity = aws.identity
    paths = manifests or tuple(sorted(Path().glob("*.hyperpod-eks.json")))
    known = {lineage(identity, read(path).cluster) for path in paths}
    left = [each for each in signed(aws) if each.lineage not in known]
    return {
        "schema": "hyperpod-eks/orphans/v1",
        "command": "orphans",
        "account": identity.account,
        "region": identity.region,
        "orphans": [asdict(each) for each in left],
    }


KEEPABLE = {"bucket": "s3/*", "logs": "*/log-group", "network": "network/*"}


def _kinds_to_keep(keep: str) -> list[str]:
    """Read --keep.  Raises Usage for a word that it does not know."""
    kinds = [kind for kind in keep.replace(" ", "").split(",") if kind]
    for kind in kinds:
        if kind not in KEEPABLE:
            raise Usage(f"--keep: {kind!r} is none of {', '.join(KEEPABLE)}")
    return kinds


def _kept_keys(at: Opened, kinds: list[str]) -> frozenset[str]:
    """Spell out what --keep means: interfaces that services leave are never kept."""
    keys = {*at.manifest.records, *(want.key for want in at.wants)}
    left = {want.key for want in at.wants if want.key == "network/interfaces"}
    wanted = {key for kind in kinds for key in keys if fnmatch(key, KEEPABLE[kind])}
    return frozenset(wanted - left)


def _fates(doomed: list[tuple[Sight, engine.Fate]]) -> list[dict[str, str]]:
    return [
        {
            "key": sight.want.key,
            "id": sight.live.id if sight.live else "",
            "action": "keep" if fate.verb == "keep" else "delete",
            "why": fate.why,
        }
        for sight, fate in doomed
    ]


# --- opening the world


@dataclass
class Opened:
    """Everything that a command works with."""

    config: Config
    site: Site
    wants: list[Resource]
    world: World

    @property
    def manifest(self) -> Manifest:
        """The journal."""
        return self.world.manifest

    def warn(self) -> list[str]:
        """Say what is odd about the config here; return it too."""
        warnings = [*configs.warnings(self.config), *self.site.warnings]
        for warning in warnings:
            speech().warn(warning)
        return warnings


@dataclass
class Story:
    """What happened, kept for the document while it is told."""

    tell: Report
    last: dict[str, Event] = field(default_factory=dict)
    once: tuple[str, What, Callable[[], None]] | None = None
    """What to begin beside the run when this is first told of that resource."""

    def __call__(self, event: Event) -> None:
        """Keep and pass on."""
        self.last[event.key] = event
        if self.once and self.once[:2] == (event.key, event.what):
            threading.Thread(target=self.once[2], daemon=True, name="hyperpod-eks").start()
            self.once = None
        self.tell(event)


@contextmanager
def opened(
    verb: str,
    given: Mapping[str, Any],
    report: Report,
    *,
    write: bool = True,
    files: bool,
    helm: str | None = None,
    broken: bool = False,
) -> Iterator[Opened]:
    """Read config and manifest, ask AWS who and where we are, and declare the stack."""
    with settings(given, write=write, files=files, broken=broken) as (config, manifest):
        aws = Aws(session(config.region, given["profile"]), config.name, config.tags)
        if not write:
            read_only(aws.session)
        world = World(aws, manifest, report, parallelism=given.get("parallelism", 8))
        now = world.clock.now()
        aws.adopted = existing.adopt(aws, config, manifest, now, write=verb == "create")
        if given.get("timeout"):
            world.deadline = world.clock.now() + given["timeout"]
        ours = verb in ("create", "delete")
        with (
            explaining(aws, config.name, config.region, gather=ours),
            stoppable(world.stop, _again(verb, given)),
        ):
            if verb in ("create", "plan"):
                _check_values(config)
            with ThreadPoolExecutor(1) as pool:
                # a wrong helm shall stop a create before it begins; one that has nothing to do
                # needs none
                release = manifest.records.get("helm/release")
                needed = verb == "create" and not (release and release.state == "ready")
                program = pool.submit(helms.find_helm, helm) if needed else None
                if verb == "adopt":  # what is to be adopted must be looked for by its id
                    site = survey(aws, config)
                else:
                    makes = verb == "create" and not manifest.complete
                    world.begun = Look(aws, counting=makes, bare=verb == "delete")
                    name = manifest.adopted.get("eks/cluster") or config.name
                    questions = [*ahead(name, config.name)]
                    if makes:
                        questions += account.ahead()
                    if verb == "status":
                        questions.append(partial(hyperpod.instances, name=config.name))
                    site = survey(aws, config, world.begun, questions)
                helm = str(program.result().binary) if program else helm
            _same_place(manifest, site)
            yield Opened(config, site, stack(site, helm), world)


@contextmanager
def settings(
    given: Mapping[str, Any], *, write: bool, files: bool, broken: bool = False
) -> Iterator[tuple[Config, Manifest]]:
    """Read the config and the manifest that a command is about; nothing is asked of AWS.

    With ``write`` the manifest is locked as long as the context is open; ``files`` and ``broken``
    as `config.load` and `manifest.read` take them.
    """
    if given["local"]:
        use_local()
    if given["profile"]:
        os.environ["AWS_PROFILE"] = given["profile"]  # the kubeconfig's token is made with it too
    overrides = {
        "name": given["name"],
        "region": given["region"],
        "eks.version": given.get("kubernetes_version"),
        "chart.path": given.get("chart"),
        "lifecycle.path": given.get("lifecycle"),
    }
    name, loaded = given["name"], None
    if given["file"] or not name:
        loaded = configs.load(given["file"], overrides, os.environ, files=files)
        name = loaded.name
    path = given["manifest"] or Path(f"{name}.hyperpod-eks.json")
    if not (loaded or broken):  # for what can be no name there shall be no lock file either
        _remembered(read(path, name), overrides, files=False)
    with locked(path, given.get("lock_timeout", 0.0)) if write else nullcontext():
        manifest = read(path, name, broken=broken)
        config = loaded or _remembered(manifest, overrides, files)
        if given["local"] and config.chart.path is None:
            stand_in = config.chart.model_copy(update={"path": CHART})
            config = config.model_copy(update={"chart": stand_in})
        yield config, manifest


def _remembered(manifest: Manifest, overrides: Mapping[str, str | None], files: bool) -> Config:
    """Take the config of the last create, with the flags given now; for none, the minimal one."""
    return configs.load(manifest.config or None, overrides, os.environ, files=files)


def _check_values(config: Config) -> None:
    """Raise Usage for chart values that cannot work together."""
    problems = charts.check_values(config.region, config.chart.values)
    if problems:
        raise Usage("\n".join(f"chart.values: {problem}" for problem in problems))


def _again(verb: str, given: Mapping[str, Any]) -> str:
    """Spell the command that continues."""
    words = ["hyperpod-eks", verb]
    words += [given["name"]] if given["name"] else []
    for name, value in given.items():
        if name in ("name", "output", "parallelism", "lock_timeout") or value in (None, False):
            continue
        flag = f"--{name.replace('_', '-')}"
        words += [flag] if value is True else [flag, str(value)]
    if verb == "delete":
        words.append("--yes")
    return shlex.join(words)


def _same_place(manifest: Manifest, site: Site) -> None:
    """Refuse another account or region than the manifest's; complete a new manifest."""
    here = (site.identity.account, site.region)
    if manifest.account and (manifest.account, manifest.region) != here:
        raise Usage(
            f"{manifest.path} belongs to account {manifest.account}, region {manifest.region}; "
            f"these credentials lead to account {here[0]}, region {here[1]}",
            "Use the right profile and region, or another manifest (--manifest).",
        )
    manifest.account, manifest.region = here
    manifest.lineage = lineage(site.identity, site.name)


def consenting(name: str, *, yes: bool) -> Callable[[list[str]], None]:
    """Ask before nodes or data go; elsewhere than on a terminal --yes must be given."""

    def consent(lost: list[str]) -> None:
        lines = "\n".join(f"  {line}" for line in lost)
        if yes:
            return
        if not sys.stdin.isatty() or os.environ.get("CI"):
            raise Usage(f"this change of {name} takes something away:\n{lines}", "Give --yes.")
        click.echo(f"This change of {name} takes something away:\n{lines}", err=True)
        if not click.confirm("Go on?", err=True):
            raise Usage("nothing was changed")

    return consent


def _confirm(site: Site, yes: bool) -> None:
    """Ask for the name on a terminal; elsewhere --yes must be given."""
    if yes:
        return
    where = f"account {site.identity.account}, region {site.region}"
    if not sys.stdin.isatty() or os.environ.get("CI"):
        raise Usage(f"delete {site.name} ({where}) asks before it deletes", "Give --yes.")
    click.echo(f"This deletes the cluster {site.name} and all its data ({where}).", err=True)
    if click.prompt("Type the cluster's name to go on", err=True) != site.name:
        raise Usage("that is not the cluster's name; nothing was deleted")


# --- documents


def _result(command: str, at: Opened, story: Story) -> dict[str, Any]:
    steps = []
    for step in STEPS:
        rows = [
            {
                "key": event.key,
                "id": event.id,
                "state": event.what.value,
                "changed": event.changed,
            }
            for event in story.last.values()
            if event.key.startswith(f"{step}/")
        ]
        if rows:
            steps.append({"name": step, "resources": rows})
    changed = any(event.changed for event in story.last.values())
    return {
        "schema": "hyperpod-eks/result/v1",
        "command": command,
        "ok": True,
        "changed": changed,
        "exit_code": 0,
        "cluster": {"name": at.site.name},
        "account": at.site.identity.account,
        "region": at.site.region,
        "partition": at.site.identity.partition,
        "steps": steps,
        "error": None,
    }


def _status(at: Opened, sights: list[Sight], look: Look) -> Document:
    """Everything in one document: hyperpod-eks/status/v1."""
    states = {
        Verdict.ABSENT: "missing",
        Verdict.FOREIGN: "foreign",
        Verdict.TWINS: "drifted",
        Verdict.BUSY: "waiting",
        Verdict.FAILED: "failed",
        Verdict.DRIFTED: "drifted",
        Verdict.MATCHES: "ready",
    }
    by_key = {s.want.key: s for s in sights}

    def about(key: str) -> Mapping[str, Any]:
        sight = by_key.get(key)
        return sight.live.attributes if sight and sight.live else {}

    differences = [
        {"key": s.want.key, "field": name, "is": as_json(a), "declared": as_json(b)}
        for s in sights
        for name, (a, b) in s.differs.items()
    ]
    records = at.manifest.records
    differences += [
        {"key": key, "field": "id", "is": None, "declared": record.id}
        for key, record in records.items()
        if record.state == "ready" and key in by_key and by_key[key].verdict is Verdict.ABSENT
    ]
    cluster, control = about("hyperpod/cluster"), about("eks/cluster")
    cluster_sight = by_key["hyperpod/cluster"]
    return {
        "schema": "hyperpod-eks/status/v1",
        "cluster": {
            "name": at.site.name,
            "arn": cluster_sight.live.arn if cluster_sight.live else "",
            "status": cluster.get("status", "absent"),
            "failure": cluster.get("failure", ""),
            "ready": all(s.verdict is Verdict.MATCHES for s in sights),
        },
        "account": at.site.identity.account,
        "region": at.site.region,
        "eks": {
            "name": at.site.name,
            "version": control.get("version", ""),
            "status": control.get("status", "absent"),
            "health": control.get("issues", []),
            "endpoint": control.get("endpoint", ""),
        },
        "addons": [
            {
                "name": s.want.label,
                "version": about(s.want.key).get("version", ""),
                "status": about(s.want.key).get("status", "absent"),
                "issues": about(s.want.key).get("issues", []),
            }
            for s in sights
            if s.want.step == "addons"
        ],
        "helm": dict(about("helm/release")),
        "instance_groups": cluster.get("groups", []),
        "nodes": hyperpod.node_rows(look, at.site.name, about("hyperpod/nodes").get("nodes", [])),
        "steps": [
            {
                "name": step,
                "resources": [
                    {
                        "name": s.want.label,
                        "id": s.live.id if s.live else "",
                        "arn": s.live.arn if s.live else "",
                        "state": states[s.verdict],
                        "why": s.live.why if s.live else "",
                        "differs": {k: [as_json(a), as_json(b)] for k, (a, b) in s.differs.items()},
                    }
                    for s in sights
                    if s.want.step == step
                ],
            }
            for step in STEPS
        ],
        "differences": differences,
    }


def as_json(value: object) -> Any:
    """Sets and tuples as JSON."""
    if isinstance(value, frozenset | set):
        return sorted(map(str, value))
    if isinstance(value, list | tuple):
        return [as_json(each) for each in value]
    if isinstance(value, Mapping):
        return {str(key): as_json(each) for key, each in value.items()}
    return value


# --- documents as text


def text(document: Document) -> str:
    """Write a document for people."""
    if "plan" in document:
        return _doomed(document)
    writers = {
        "create": _created,
        "delete": _deleted,
        "adopt": _adopted,
        "orphans": _orphans,
    }
    return writers.get(document.get("command", ""), _view)(document)


def _created(document: dict[str, Any]) -> str:
    """A short block for people."""
    outputs = document["outputs"]
    done = "is ready" if document["changed"] else "is as declared; nothing was changed"
    rows = [
        (name.replace("_", " "), " ".join(value) if isinstance(value, list) else value)
        for name, value in outputs.items()
        if value
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    return "\n".join([f"cluster {document['cluster']['name']} {done}", *lines])


def _deleted(document: dict[str, Any]) -> str:
    # a role that the whole account shares was never the cluster's
    kept = [f"kept {k}: {why}" for k, why in document["kept"].items() if "shared by" not in why]
    gone = len(document["removed"])
    first = f"{gone} resources deleted" if gone else "already gone"
    rest = "nothing else remains" if kept else "nothing remains"
    return "\n".join([*kept, f"cluster {document['cluster']['name']}: {first}; {rest}"])


def _doomed(document: dict[str, Any]) -> str:
    rows = document["plan"]
    if not rows:
        return f"cluster {document['cluster']['name']}: nothing is there to delete"
    width = max(len(row["key"]) for row in rows)
    lines = []
    for row in rows:
        why = f" ({row['why']})" if row["why"] else ""
        lines.append(f"{row['action']:<6} {row['key']:<{width}} {row['id']}{why}".rstrip())
    return "\n".join(lines)


def _adopted(document: dict[str, Any]) -> str:
    rows = document["resources"]
    width = max((len(row["key"]) for row in rows), default=0)
    lines = [f"{row['origin']:<8} {row['key']:<{width}} {row['id']}" for row in rows]
    return "\n".join([*lines, f"{len(rows)} resources are in the manifest"])


def _orphans(document: dict[str, Any]) -> str:
    rows = document["orphans"]
    if not rows:
        return f"no orphans in {document['region']} of account {document['account']}"
    names = sorted({row["cluster"] for row in rows})
    lines = [f"{row['cluster']}  {row['kind']}  {row['id']}" for row in rows]
    hints = [f"To delete them: hyperpod-eks delete {name}" for name in names]
    return "\n".join([*lines, *hints])


def _view(document: dict[str, Any]) -> str:
    return progress.render_status(
        document,
        shutil.get_terminal_size((100, 24)).columns,
        progress.wants_colour(sys.stdout, os.environ),
        utf8=speaks_utf8(sys.stdout),
    )
