"""Mutation tests: deliberate faults in the source, each of which a quick test must detect.

A mutant is one replacement in a copy of the source; ``by`` names the tests that must fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENGINE = "tests/engine"
JOURNAL = "tests/test_manifest.py"
KILLS = "tests/prove/test_kills.py"
LOCKS = "tests/cli/test_s3_state.py"
CLAIM = "tests/cli/test_claim.py"
DATA = "tests/cli/test_storage.py"
MIRROR = "tests/cli/test_mirror_ends.py"
TEAMS = "tests/cli/test_task_governance.py"
SCALING = "tests/cli/test_scaling.py"
VOLUMES = "tests/cli/test_volumes.py"
OPERATORS = "tests/cli/test_operators.py"
SMOKE = "tests/cli/test_smoke.py"
EXISTING = "tests/cli/test_existing_files.py"


@dataclass(frozen=True)
class Mutant:
    """Replace ``old`` by ``new`` in a file of the package."""

    name: str
    file: str
    old: str
    new: str
    by: str = ENGINE
    only: str = ""
    """An expression for pytest's ``-k`` that selects among those tests."""


MUTANTS = (
    Mutant(
        "no intent before a create",
        "engine/apply.py",
        'token = "" if shared else self.manifest.intend(want, self.now, named)',
        'token = ""',
    ),
    Mutant(
        "calls leave before the journal is written",
        "engine/loop.py",
        "        self.manifest.commit()\n        while self.staged:",
        "        while self.staged:",
    ),
    Mutant(
        "an intent stays whose call was not made",
        "engine/loop.py",
        'if task.at_work == "create" and task.fresh:\n                self.manifest.forget(',
        "if False:\n                self.manifest.forget(",
    ),
    Mutant(
        "no record after a create",
        "engine/loop.py",
        'self._record(want, live, "created", born(want, self.references))',
        "pass",
    ),
    Mutant(
        "another token at every try",
        "state/manifest.py",
        "            self._put(want.key, replace(known, since=now))\n"
        "            return known.token\n",
        "            pass\n",
        JOURNAL,
    ),
    Mutant(
        "no fsync of the file",
        "files.py",
        "os.fsync(descriptor)\n        draft",
        "pass\n        draft",
        JOURNAL,
    ),
    Mutant("no fsync of the folder", "files.py", "sync_folder(target.parent)", "pass", JOURNAL),
    Mutant("written in place", "files.py", "draft.replace(target)", "pass", JOURNAL),
    Mutant("no backups", "state/file_store.py", "self._back_up(serial - 1)", "pass", JOURNAL),
    Mutant("the serial stands still", "state/manifest.py", "self.serial += 1", "pass", JOURNAL),
    Mutant(
        "readable by all",
        "state/file_store.py",
        "content, mode=0o600",
        "content, mode=0o644",
        JOURNAL,
    ),
    Mutant(
        "the lock is not taken",
        "state/file_store.py",
        "fcntl.flock(descriptor, how | fcntl.LOCK_NB)",
        "pass",
        JOURNAL,
    ),
    Mutant(
        "a newer version is read all the same",
        "state/manifest.py",
        'if document["schema"] not in (f"{SCHEMA}{each}" for each in range(1, NEWEST + 1)):',
        "if False:",
        JOURNAL,
    ),
    Mutant("no grace", "engine/loop.py", "GRACE = 60.0", "GRACE = 1.0"),
    Mutant(
        "the grace counts from the first try",
        "state/manifest.py",
        "            self._put(want.key, replace(known, since=now))\n",
        "",
    ),
    Mutant("twins are ignored", "resources/compare.py", "    if unused:\n", "    if False:\n"),
    Mutant(
        "no look for a twin after a birth",
        "engine/apply.py",
        "task.want.identity is Identity.NONE and not task.fresh",
        "False",
    ),
    Mutant(
        "what is foreign is taken as ours",
        "resources/compare.py",
        "ours = [x for x in lives if x.owner == lineage or",
        "ours = [x for x in lives if x.owner or",
    ),
    Mutant(
        "what is foreign does not stop the run",
        "engine/apply.py",
        "        if strangers:\n            raise not_owned(strangers)\n",
        "",
    ),
    Mutant(
        "delete takes foreign things too",
        "engine/decide.py",
        "if observation.status is Status.FOREIGN:\n        return Decision(Action.KEEP",
        "if False:\n        return Decision(Action.KEEP",
    ),
    Mutant(
        "delete does not ask what is remembered",
        "engine/destroy.py",
        "every = {want.key: want for want in context.manifest.remembered().values()}",
        "every: dict[str, Resource] = {}",
    ),
    Mutant(
        "delete believes absence at once",
        "engine/destroy.py",
        "if self.hidden(task, doubts=True):",
        "if False:",
    ),
    Mutant(
        "delete does not wait for the users",
        "engine/destroy.py",
        "return not any(user in self.open for user in self.users[task.want.key])",
        "return True",
    ),
    Mutant(
        "create does not wait for what is needed",
        "engine/apply.py",
        "return not any(map(self._is_awaited, task.want.create_requires())) and all(",
        "return all(",
    ),
    Mutant(
        "an unsigned birth is forgotten",
        "engine/loop.py",
        'return not want.signed and record is not None and record.state != "deleted"',
        "return False",
    ),
    Mutant(
        "an intent is struck out whatever the error",
        "engine/loop.py",
        'if verb == "create" and task.fresh and nothing_made:',
        'if verb == "create":',
    ),
    Mutant(
        "a lost answer counts as refused",
        "aws/failures.py",
        'return declined and not about.get("RetryAttempts")',
        "return declined",
    ),
    Mutant(
        "nothing is recorded when it is interrupted",
        "engine/loop.py",
        "        deadline = self.now + seconds\n        while",
        "        deadline = self.now + seconds\n        while False and",
    ),
    Mutant(
        "refusals are never forgiven",
        "engine/loop.py",
        "            task.accepted(verb)\n            task.observation, task.seen",
        "            task.observation, task.seen",
    ),
    Mutant(
        "what cannot be seen yet stops the first look",
        "engine/observe.py",
        "elif classify(result.error) is ErrorKind.PROPAGATION:",
        "elif False:",
    ),
    Mutant(
        "no tag on the VPC",
        "resources/ec2/vpc.py",
        'CidrBlock=self.cidr, TagSpecifications=aws.born_with(self.label, "vpc")',
        "CidrBlock=self.cidr",
        KILLS,
        "CreateVpc",
    ),
    Mutant(
        "no tag on the role",
        "resources/iam.py",
        '            Description=f"hyperpod-eks: {self.label} of the cluster {aws.cluster}",\n'
        "            Tags=aws.pairs(self.label),\n",
        '            Description=f"hyperpod-eks: {self.label} of the cluster {aws.cluster}",\n',
        KILLS,
        "CreateRole",
    ),
    Mutant(
        "the VPC is asked for again by botocore",
        "resources/ec2/vpc.py",
        "aws.ec2_once.create_vpc",
        "aws.ec2.create_vpc",
        "tests/prove/test_faults.py",
        "twice",
    ),
    Mutant(
        "what neither config nor manifest names is left",
        "inventory/untracked.py",
        "    if not found:\n        return list(named)\n",
        "    return list(named)\n",
        "tests/cli/test_remains.py",
        "neither",
    ),
    Mutant(
        "a lock is written without a nonce",
        "state/lease.py",
        '"nonce": secrets.token_hex(16),',
        '"nonce": "",',
        LOCKS,
        "writes_on",
    ),
    Mutant(
        "a lock is released by a delete",
        "state/lease.py",
        '                self._write("released")\n                self._held = False',
        "                self.objects.delete(self.key)\n                self._held = False",
        LOCKS,
        "writes_on",
    ),
    Mutant(
        "a lock lasts from the answer on",
        "state/lease.py",
        "        self._written = began\n",
        "        self._written = clock()\n",
        "tests/test_lease.py",
    ),
    Mutant(
        "a lock lasts until it is taken over",
        "state/lease.py",
        "LASTS = 75.0",
        "LASTS = 110.0",
        "tests/test_lease.py",
    ),
    Mutant(
        "a lock is taken over at once",
        "state/lease.py",
        "if free or clock() - since >= TERM:",
        "if True:",
        LOCKS,
        "taken_over",
    ),
    Mutant(
        "a service that ignores conditions is used",
        "state/lease.py",
        "if first and not tried:",
        "if False:",
        LOCKS,
        "ignores",
    ),
    Mutant(
        "a write has no condition",
        "state/objects.py",
        '{"IfMatch": before.etag} if before else {"IfNoneMatch": "*"}',
        '{} if before else {"IfNoneMatch": "*"}',
        LOCKS,
        "not_overwritten or lost",
    ),
    Mutant(
        "a refused write is not read back",
        "state/objects.py",
        "                if done(now):\n",
        "                if False:\n",
        LOCKS,
        "lost",
    ),
    Mutant(
        "nothing is claimed",
        "engine/apply.py",
        "            self.claim()\n        if decision.action is Action.CREATE:",
        "            pass\n        if decision.action is Action.CREATE:",
        CLAIM,
        "created_first",
    ),
    Mutant(
        "changes are made before the claim",
        "engine/apply.py",
        "if self.context.claim and task.want.key != BUCKET and not self.has_bucket():",
        "if False:",
        CLAIM,
        "created_first",
    ),
    Mutant(
        "the claim is emptied with its bucket",
        "resources/s3.py",
        'if not (i["Key"] == claim and i.get("IsLatest"))',
        "if True",
        CLAIM,
        "created_first",
    ),
    Mutant(
        "a claim of the same manifest's dead run is waited for",
        "state/claim.py",
        "self._lease.look(self.patience, ended=ended)",
        "self._lease.look(self.patience)",
        CLAIM,
        "goes_on_at_once",
    ),
    Mutant(
        "the manifest learns of the claim too late",
        "state/claim.py",
        "        self.manifest.save()\n        while",
        "        while",
        KILLS,
        "claim and PutObject",
    ),
    Mutant(
        "what was read before the claim is believed",
        "engine/loop.py",
        "        if not known:\n",
        "        if False:\n",
        KILLS,
        "claim and CreateBucket",
    ),
    Mutant(
        "a call is sent without a look at the locks",
        "aws/client.py",
        "            self.before_change()\n",
        "            pass\n",
        KILLS,
        "AttachRolePolicy and suspended",
    ),
    Mutant(
        "the locks are not looked at",
        "engine/context.py",
        "        self.manifest.store.check()\n"
        "        if self.claim:\n"
        "            self.claim.check()",
        "        pass",
        KILLS,
        "AttachRolePolicy and suspended",
    ),
    Mutant(
        "data is deleted without consent",
        "engine/decide.py",
        "if (want.data or in_it) and refused and not part:",
        "if False:",
        DATA,
        "keeps_it_and_what",
    ),
    Mutant(
        "consent counts for every file system",
        "engine/decide.py",
        "refused = [each for each in held if each not in consented]",
        "refused = [] if any(each in consented for each in held) else held",
        DATA,
        "consent_is_to_ids",
    ),
    Mutant(
        "metrics are deleted without consent",
        "resources/prometheus.py",
        "data = True",
        "data = False",
        OPERATORS,
        "kept_until",
    ),
    Mutant(
        "logs are deleted without consent",
        "resources/insights_logs.py",
        "data = True",
        "data = False",
        OPERATORS,
        "kept_until",
    ),
    Mutant(
        "a workspace without an address is ready",
        "resources/prometheus.py",
        "state is State.READY and not endpoint",
        "False",
        OPERATORS,
        "one_switch",
    ),
    Mutant(
        "metrics may be written to every workspace",
        "resolve/pod_roles.py",
        '{**statement, "Condition": ours}',
        "statement",
        OPERATORS,
        "and_no_other",
    ),
    Mutant(
        "an add-on does not wait for those that it needs",
        "steps/addons.py",
        "{*ADDON_NEEDS.get(name, ()), *before[-1:]}",
        "{*before[-1:]}",
        OPERATORS,
        "whatever_the_order",
    ),
    Mutant(
        "the inference operator does not know its cluster",
        "steps/addons.py",
        '{"hyperpodClusterArn": link_to(nodes.cluster, "arn")}',
        '{"hyperpodClusterArn": ""}',
        "tests/cli/test_jobs.py",
        "know_the_cluster",
    ),
    Mutant(
        "GPUs in use are divided again without consent",
        "resources/hyperpod/groups.py",
        "setting.endswith(LABEL)",
        "False",
        OPERATORS,
        "another_division",
    ),
    Mutant(
        "data is deleted without a backup",
        "resources/fsx.py",
        '"SkipFinalBackup": skips',
        '"SkipFinalBackup": True',
        DATA,
        "final_backup_also",
    ),
    Mutant(
        "a volume is deleted without a snapshot",
        "resources/volumes.py",
        '        if live.why == "error":',
        "        if True:",
        VOLUMES,
        "asked_for",
    ),
    Mutant(
        "volumes of claims hold no data",
        "resources/volumes.py",
        "    data = True",
        "    data = False",
        VOLUMES,
        "keeps_volumes",
    ),
    Mutant(
        "volumes that nobody listed go with others",
        "engine/destroy.py",
        "and (not want.data or each.id in self.consented)",
        "and True",
        VOLUMES,
        "only_the_volumes",
    ),
    Mutant(
        "a claim goes with the data of its volume",
        "resources/kubernetes.py",
        "replace(live, holds_data=True",
        "replace(live, holds_data=False",
        "tests/cli/test_objects.py",
        "is_kept",
    ),
    Mutant(
        "a failed file system with data is replaced",
        "engine/loop.py",
        "return want.data and not unused",
        "return False",
        DATA,
        "never_ready",
    ),
    Mutant(
        "what kept data is in goes",
        "engine/destroy.py",
        "self.holders.update(dict.fromkeys(ids, observation.want.key))",
        "pass",
        DATA,
        "lost",
    ),
    Mutant(
        "the manifest goes although data is kept",
        "cli/commands/delete.py",
        "_retire(at, data=keeps_data(kept.values()))",
        "_retire(at, data=False)",
        DATA,
        "keeps_it_and_what",
    ),
    Mutant(
        "an index is copied without its images",
        "aws/registry.py",
        'if target.digest(into, each["digest"]) is None:',
        "if False:",
        MIRROR,
    ),
    Mutant(
        "an image is called copied before it is",
        "mirror.py",
        '            above = f"{upstream}',
        '            said(image)\n            above = f"{upstream}',
        MIRROR,
    ),
    Mutant(
        "a group leaves the cluster before its node class",
        "engine/apply.py",
        "[*task.want.needs(), *self._holders(task.want)]",
        "[*task.want.needs()]",
        SCALING,
        "made_ready or leaves_its_pool",
    ),
    Mutant(
        "node pools go after Karpenter",
        "engine/apply.py",
        "if gone and self.has_bucket():",
        "if False:",
        SCALING,
        "pools_go_before",
    ),
    Mutant(
        "what somebody else has set is overwritten unseen",
        "resources/compare.py",
        "if name in want.asks and plain(is_) != past:",
        "if False:",
        TEAMS,
        "somebody_else",
    ),
    Mutant(
        "a team's namespace goes without a question",
        "resources/governance.py",
        'return f"with the namespace {team_namespace(self.team)} and everything in it"',
        'return ""',
        TEAMS,
        "consent_that_names",
    ),
    Mutant(
        "a quota that cannot be deleted is replaced",
        "resources/governance.py",
        '"DeleteFailed": State.STUCK',
        '"DeleteFailed": State.FAILED',
        TEAMS,
        "nothing_but_consent",
    ),
    Mutant(
        "volumes go with the claims of a team",
        "resources/governance.py",
        "            retain_volumes(access, team_namespace(self.team))",
        "            pass",
        TEAMS,
        "consent_that_names",
    ),
    Mutant(
        "a quota that failed at first stays so",
        "engine/apply.py",
        "if self.context.replace_failed or live.holds_nothing:",
        "if self.context.replace_failed:",
        TEAMS,
        "created_again",
    ),
    Mutant(
        "leftovers are ignored",
        "steps/leftovers.py",
        'return interfaces, balancers, Volumes("volumes", cluster=resolved.eks_name)',
        "return ()",
        KILLS,
        "go_last",
    ),
    Mutant(
        "a test does not look for what a killed one has left",
        "smoke/job.py",
        'selector = f"{LABEL}={facts.name}"',
        'selector = f"{LABEL}=nobody"',
        by=SMOKE,
        only="killed",
    ),
    Mutant(
        "sockets count as EFA",
        "smoke/accelerators.py",
        'elif not re.search(r"NET/OFI Selected provider is efa", one.log, re.IGNORECASE):',
        "elif False:",
        by=SMOKE,
        only="sockets",
    ),
    Mutant(
        "a rule for other ports lets NFS in",
        "preflight/storage.py",
        "not (low or 0) <= NFS <= (high or 0)",
        "False",
        EXISTING,
        "way_to",
    ),
    Mutant(
        "a volume gets another access point",
        "steps/storage.py",
        'source="" if one else source_of(document["spec"]["csi"])',
        'source="" if one else source_of(document["spec"]["csi"]).partition("::")[0]',
        EXISTING,
    ),
)


def caught(mutant: Mutant) -> str:
    """Run the tests with the mutant; return "" if they fail, else a description of the problem."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder)
        for name in ("hyperpod_eks", "tests", "lifecycle"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", ".cache"):
            if (ROOT / name).exists():
                (copy / name).symlink_to(ROOT / name)
        source = copy / "hyperpod_eks" / mutant.file
        text = source.read_text()
        if mutant.old not in text:
            return "the source has changed: the fault cannot be put in"
        source.write_text(text.replace(mutant.old, mutant.new))
        words = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", mutant.by]
        words += ["-m", "prove or not prove"]
        words += ["-k", mutant.only] if mutant.only else []
        run = subprocess.run(
            words,
            cwd=copy,
            env=os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        if run.returncode == 1:
            return ""
        return f"pytest ended with {run.returncode}: {run.stdout[-300:]}"


if __name__ == "__main__":
    for each in MUTANTS:
        if not sys.argv[1:] or any(word in each.name for word in sys.argv[1:]):
            print(  # noqa: T201  this is its output
                f"{each.name}: {caught(each) or 'caught'}", flush=True
            )
