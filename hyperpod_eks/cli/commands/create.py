"""``hyperpod-eks create``: create a cluster, or the parts of it that are missing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, cast

from hyperpod_eks.cli import options as shared
from hyperpod_eks.cli.command import define
from hyperpod_eks.cli.commands import plan
from hyperpod_eks.cli.commands.outputs import values
from hyperpod_eks.cli.console import Log, current_console
from hyperpod_eks.cli.documents import called, columns
from hyperpod_eks.cli.options import flag, option
from hyperpod_eks.errors import Locked, NotFound, Usage
from hyperpod_eks.events import EventType
from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    from hyperpod_eks.aws.prices import Cost
    from hyperpod_eks.aws.snapshot import Snapshot
    from hyperpod_eks.cli.opening import Opened
    from hyperpod_eks.cli.recorder import Recorder
    from hyperpod_eks.cli.schemas.runs import Created, Plan, Tested
    from hyperpod_eks.cli.settings import Edit
    from hyperpod_eks.events import Report
    from hyperpod_eks.preflight.inputs import Facts
    from hyperpod_eks.resources.compare import Observation
    from hyperpod_eks.state.manifest import Manifest


CLUSTERS = ("eks/cluster", "hyperpod/cluster")


@frozen
class Options(plan.Options, shared.Change):
    """Options of create."""

    dry_run: bool = flag("--dry-run", help="Show the plan and change nothing; same as plan.")
    helm: str | None = shared.helm()
    test: bool = flag(
        "--test", help="Then run the levels 1 to 3 of test; exit 11 if something does not work."
    )
    run: str = option(
        "--run",
        metavar="ID",
        envvar="HYPERPOD_EKS_RUN",
        default="",
        show_default=False,
        help="Record that this run created the cluster, for delete --if-created-by.",
    )


def create(options: Options, report: Report) -> Created | Plan:
    """Create cluster NAME, or the parts of it that are missing.

    Safe to re-run.  Without a config file it creates a minimal cluster: two ml.m5.2xlarge with
    500 GB each.  Without -f, an existing cluster keeps the config of its last create; if that
    config cannot be found, create changes nothing.
    """
    if options.dry_run:
        return plan.plan(options, report)
    if options.detailed_exitcode:
        raise Usage("--detailed-exitcode needs --dry-run")
    return apply(options, report)


def apply(
    options: shared.Change,
    report: Report,
    edit: Edit | None = None,
    undone: Callable[[BaseException], bool] = lambda error: False,
    look: Callable[[Opened], None] = lambda at: None,
) -> Created:
    """Create or update the cluster; return the document with its outputs.

    ``edit`` changes the config of a cluster that exists.  If ``undone`` returns True for the error
    with which the run ends, the config that it had before is kept again.  ``look`` is called before
    anything changes.
    """
    from hyperpod_eks import engine
    from hyperpod_eks.cli.confirm import consenting
    from hyperpod_eks.cli.opening import opened
    from hyperpod_eks.cli.recorder import Recorder, result
    from hyperpod_eks.session import CREATE

    own = options if isinstance(options, Options) else Options()
    recorder = Recorder(report)
    with opened(CREATE, options, recorder, files=True, helm=own.helm, edit=edit) as at:
        if edit and not at.declared:
            raise no_cluster(at, options)
        look(at)
        at.context.replace_failed = own.replace_failed
        at.context.consent = consenting(at.resolved.name, yes=options.yes)
        warnings = _prepare(at, recorder)
        at.context.preflight = _before_first_change(at, options, own)
        try:
            engine.create(at.wants, at.context)
        except BaseException as error:
            if undone(error):
                _restore(at)
            raise
        done = result("create", at, recorder)
        created: Created = {
            **done,
            "outputs": values(at.manifest),
            "warnings": warnings,
            "cost": _cost(at) if done["changed"] else None,
            "next": f"hyperpod-eks kubeconfig {called(at.resolved.name, options, file=False)}",
        }
        return _tested(created, at, options) if own.test else created


def _tested(created: Created, at: Opened, options: shared.Change) -> Tested:
    """Add the result of the tests to the document; its exit code is theirs."""
    from hyperpod_eks.cli.commands import test
    from hyperpod_eks.smoke.run import USUAL

    facts = test.described_facts(at.context.aws, at.config, options, known=True)
    facts = replace(facts, manifest=at.manifest)
    tested = test.examine(facts, USUAL, options)
    return {**created, "ok": tested["ok"], "exit_code": tested["exit_code"], "test": tested}


def _cost(at: Opened) -> Cost:
    """Return what the cluster costs."""
    from hyperpod_eks.engine import plan as plans

    listed = at.listed.result() if at.listed else plans.listed(at.wants, at.context.aws)
    extended = at.resolved.kubernetes_version in at.resolved.extended_support
    return plans.cost(at.wants, listed, at.resolved.region, extended=extended)


def no_cluster(at: Opened, place: shared.Cluster) -> NotFound:
    """Return the error for a cluster that does not exist."""
    return NotFound(
        f"cluster {at.resolved.name} does not exist in {at.resolved.region} of account "
        f"{at.resolved.identity.account}",
        f"Create it: hyperpod-eks create {called(at.resolved.name, place)}",
    )


def _restore(at: Opened) -> None:
    """Keep the config again that the cluster had before this run; a failure is only a warning."""
    try:
        at.restore()
    except Locked:
        pass  # the run that has it now declares its own
    except Exception as problem:  # noqa: BLE001  the error of the run is what matters
        current_console().warn(f"the config could not be restored: {problem}")


def _prepare(at: Opened, recorder: Recorder) -> list[str]:
    """Check training plans and record the config; return a list to which the run adds warnings.

    Schedules the download of the chart for the time when EKS creates the control plane.
    """
    from hyperpod_eks.aws.transport import ca_bundle
    from hyperpod_eks.resolve.resolved import check_plans
    from hyperpod_eks.steps.helm import prepare

    download = partial(prepare, at.config.chart, ca_bundle(at.context.aws.session))
    recorder.once = ("eks/cluster", EventType.WAITING, download)
    check_plans(at.resolved, at.context.aws)
    at.manifest.config = at.config.document()
    warnings = at.warn()

    def warn(text: str) -> None:
        warnings.append(text)
        current_console().warn(text)

    at.context.warn = warn
    return warnings


def _before_first_change(
    at: Opened, options: shared.Change, own: Options
) -> Callable[[list[Observation]], None]:
    """Return a function that confirms and checks, given observations, before the first change.

    If no resource of the cluster existed, the manifest says that ``--run`` created it, once this
    run has the claim: of two that create it at the same moment, one has.
    """
    from hyperpod_eks.engine import plan as plans
    from hyperpod_eks.helm import runner
    from hyperpod_eks.workers import start

    check = _checks(at, options, own.helm)

    def begin(observations: list[Observation]) -> None:
        from hyperpod_eks.preflight.cluster import require_folders

        require_folders(at.config, observations)
        if at.kept_in and not any(x.live for x in observations if x.want.key in CLUSTERS):
            at.context.warn(
                f"{at.resolved.name} is created with the config in {at.kept_in}, which an earlier"
                " create has left; to use another one, pass it with -f FILE"
            )
        if line := plans.new_administrator(observations, at.context):
            at.context.consent([line])
        check(observations)
        if at.found_helm:
            start(runner.warm)  # while AWS answers the first changes
        at.listed = start(partial(plans.listed, at.wants, at.context.aws))
        _forget_run(at.manifest)
        at.run = own.run if _is_new(at.manifest, observations) else ""

    return begin


def _forget_run(manifest: Manifest) -> None:
    """Forget which run created a cluster that was deleted; its manifest stays with kept data."""
    record = manifest.records.get("hyperpod/cluster")
    if record and record.state == "deleted":
        manifest.run = ""


def _is_new(manifest: Manifest, observations: Sequence[Observation]) -> bool:
    """Whether no resource of the cluster exists in AWS or the manifest; adopted ones aside."""
    mine = [record for record in manifest.records.values() if record.origin == "created"]
    return all(record.state == "deleted" for record in mine) and not any(
        observation.live
        and observation.want.recorded
        and observation.want.key not in manifest.adopted
        for observation in observations
    )


def _checks(
    at: Opened, options: shared.Change, helm: str | None
) -> Callable[[list[Observation]], None]:
    """Return the preflight checks as a function of observations; it raises Blocked for errors.

    If the manifest is incomplete, their calls to AWS start now, beside the first observation.
    Otherwise they are prepared when something is missing after all.
    """
    prepared = cache(partial(_prepared, at, options, helm, at.context.first_snapshot))
    if options.skip or not at.manifest.complete:
        prepared()
    return lambda observations: _check(*prepared(), observations)


def _prepared(
    at: Opened, options: shared.Change, helm: str | None, snapshot: Snapshot | None
) -> tuple[Facts, frozenset[str]]:
    """Return what the checks need, and which are skipped; start calls that are surely needed.

    Raises Usage for a check that does not exist.
    """
    from hyperpod_eks import workers
    from hyperpod_eks.preflight import account
    from hyperpod_eks.preflight import run as checks
    from hyperpod_eks.preflight.cluster import chart_download
    from hyperpod_eks.preflight.inputs import Facts

    skipped = checks.known(options.skip) | checks.AT_LOADING
    if not at.found_helm:  # the manifest has the release, but AWS may have nothing
        skipped -= {"helm"} - checks.known(options.skip)
    facts = Facts(
        at.context.aws,
        at.config,
        at.resolved,
        manifest=at.manifest,
        first_snapshot=snapshot,
        replace_failed=at.context.replace_failed,
        helm=helm,
        called=called(at.resolved.name, options),
    )
    if not at.manifest.complete:
        account.begin(facts, skipped)
        if "chart-download" not in skipped:
            workers.start_all([partial(list, chart_download(facts))])
    return facts, skipped


def _check(facts: Facts, skipped: Collection[str], observations: list[Observation]) -> None:
    """Run the checks: print warnings that are not printed yet, raise Blocked for errors."""
    from hyperpod_eks.preflight import run as checks

    by_key = {observation.want.key: observation for observation in observations}
    found = checks.run(replace(facts, observations=by_key), skipped)
    reported = {"addon-roles"}
    if facts.resolved and facts.resolved.warnings:
        reported.add("kubernetes-version")
    for one in found:
        if one.severity == "warning" and one.id not in reported:
            current_console().warn(f"{one.id}: {one.says}")
    if errors := [one for one in found if one.severity == "error"]:
        raise checks.Blocked(errors)


def text(document: Created | Plan) -> str:
    """Return the text of the document: the cluster's outputs, or the plan."""
    if "outputs" not in document:
        return plan.text(document)
    if "test" not in document:
        return summary(document)
    from hyperpod_eks.cli.commands import test

    return f"{summary(document)}\n{test.text(cast('Tested', document)['test'])}"


def summary(document: Created) -> str:
    """Return the outputs of a cluster as text."""
    outputs = document["outputs"]
    done = "is ready" if document["changed"] else "is up to date; no changes"
    rows = [
        (name.replace("_", " "), " ".join(value) if isinstance(value, list) else value)
        for name, value in outputs.items()
        if value and name != "kubeconfig_command"  # the AWS CLI's; ours has --local and --profile
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    return "\n".join([f"cluster {document['cluster']['name']} {done}", *lines])


def then(options: shared.Change, document: Created | Plan) -> Iterator[str]:
    """Yield what the cluster costs, and the commands that use, show and delete it."""
    from hyperpod_eks.terminal.plan import price

    if "outputs" not in document:
        return
    if cost := document["cost"]:
        yield f"{price(cost)}, {cost['usd_per_month']:,.0f} per month"
    it = called(document["cluster"]["name"], options, file=False)
    yield from columns(
        (
            ("To use it with kubectl", document["next"]),
            ("To test whether it works", f"hyperpod-eks test {it}"),
            ("To see its state", f"hyperpod-eks status {it}"),
            ("To delete it", f"hyperpod-eks delete {it}"),
        )
    )


command = define(
    "create",
    Options,
    create,
    text,
    """
    hyperpod-eks create demo                       two nodes in the default region
    hyperpod-eks create -f cluster.yaml            create the cluster; re-run to complete it
    hyperpod-eks create -f cluster.yaml --dry-run  show the plan, change nothing
    hyperpod-eks create demo -o json > result.json
    hyperpod-eks create demo --query outputs.vpc_id
    hyperpod-eks create -f cluster.yaml --run "$CI_JOB_ID"
    """,
    then=then,
    log=lambda options: Log.IF_IT_FAILS if options.dry_run else Log.KEPT,
)
