"""The tool as real processes against the stack, with real signals and a real lock."""

from __future__ import annotations

import re
import shlex
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hyperpod_eks.local.aws.sim import Fault

from . import oracles
from .prover import Prover
from .shell import FOREVER, SLOWLY, Shell, running


@pytest.fixture
def shell(prover: Prover, helm: str, tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(prover, helm, tmp_path)
    with running(shell.stack):
        yield shell
    if shell.process:
        shell.process.kill()
        shell.process.communicate()


@pytest.mark.prove
def test_kill_nine_thrice(shell: Shell) -> None:
    shell.killed("create", 30, after=True)
    shell.killed("create", 5, after=True)
    shell.killed("delete", 6, after=False)
    shell.is_deleted()


@pytest.mark.prove
def test_of_two_creates_one_works_and_the_other_exits_4(shell: Shell) -> None:
    with shell.held_at(eks_create=FOREVER):
        first = shell.start(shell.words("create"))
        shell.until("eks:CreateCluster")
        began = time.monotonic()
        second = shell.start(shell.words("create"))
        _, errors = second.communicate(timeout=60)
        assert second.returncode == 4, errors
        assert f"process {first.pid} on " in errors
        assert time.monotonic() - began < 10
        first.kill()
        first.communicate()
    shell.release()
    shell.run(shell.words("create"))
    oracles.same_shape(shell.prover.host, shell.prover.made)
    shell.is_deleted()


WAITS = {
    "EKS": ("INT", "eks:CreateCluster", {"eks_create": FOREVER}),
    "a NAT gateway": ("TERM", "ec2:CreateNatGateway", {"nat_create": FOREVER}),
    "nodes": ("HUP", "sagemaker:CreateCluster", {"hyperpod_provision": FOREVER}),
    "a NAT gateway again": ("INT", "ec2:CreateNatGateway", {"nat_create": FOREVER}),
    "an endpoint": ("INT", "ec2:CreateVpcEndpoint", {"endpoint_create": FOREVER}),
    "a role that is not known yet": ("INT", "iam:AttachRolePolicy", {"iam": FOREVER}),
    "an access entry": ("INT", "eks:AssociateAccessPolicy", {"access_entry": FOREVER}),
    "an add-on": ("INT", "eks:CreateAddon", {"addon": FOREVER}),
    "HyperPod": ("INT", "sagemaker:CreateCluster", {"hyperpod_create": FOREVER}),
    "nodes to be provided": ("INT", "sagemaker:CreateCluster", {"hyperpod_provision": FOREVER}),
    "lifecycle scripts": ("INT", "sagemaker:CreateCluster", {"hyperpod_lifecycle": FOREVER}),
    "nodes to be ready": ("INT", "sagemaker:CreateCluster", {"node_ready": FOREVER}),
}  # fmt: skip
TROUBLES = {
    "what is not to be seen yet": Fault("ec2", "CreateVpc", kind="lag", seconds=FOREVER, count=1),
    "AWS, which is throttling": Fault("ec2", "CreateSubnet", "Throttling", count=10**6),
    "another operation": Fault(
        "iam", "AttachRolePolicy", "ConcurrentModification", 409, count=10**6
    ),
}


@pytest.mark.parametrize(
    "wait", [pytest.param(x, marks=[pytest.mark.prove] * (x != "EKS")) for x in WAITS]
)
def test_a_signal_at_a_wait_stops_and_the_printed_command_continues(
    shell: Shell, wait: str
) -> None:
    name, call, delays = WAITS[wait]
    with shell.held_at(**delays):
        stopped(shell, f"SIG{name}", call)


@pytest.mark.prove
@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_signal_while_trouble_is_waited_out(shell: Shell, trouble: str) -> None:
    fault = replace(TROUBLES[trouble])
    shell.stack.faults.append(fault)
    stopped(shell, "SIGINT", f"{fault.service}:{fault.operation}")


def stopped(shell: Shell, name: str, call: str) -> None:
    """Run create, stop it soon after a call, and run the command that it prints to continue."""
    number = signal.Signals[name]
    process = shell.start(shell.words("create"))
    shell.until(call)
    time.sleep(1)  # during the wait; any later time would do
    began = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - began < 5
    assert process.returncode == 128 + number, errors
    printed = re.search(r"^To continue: hyperpod-eks (.*)$", errors, re.MULTILINE)
    assert printed, errors
    shell.stack.sim.delays = SLOWLY
    shell.release()
    shell.run(shlex.split(printed[1]))
    oracles.same_shape(shell.prover.host, shell.prover.made)
    oracles.journal_knows(shell.prover.host)
    shell.is_deleted()


@pytest.mark.prove
def test_a_full_disk_stops_it_and_a_freed_one_lets_it_go_on(shell: Shell) -> None:
    # preflight detects a nearly full disk; here it fills later
    process = shell.start([*shell.words("create"), "--skip", "folders"], room=8)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    assert "cannot write the manifest" in errors
    assert "Free some disk" in errors
    assert "Traceback" not in errors
    made = [call for call in shell.stack.calls if call.mutating]
    assert made, "it was full too early to prove anything"
    shell.ends_well()


@pytest.mark.prove
def test_a_second_signal_leaves_at_once(shell: Shell) -> None:
    shell.stack.faults.append(Fault("ec2", "CreateSubnet", kind="delay", seconds=2.5))
    process = shell.start(shell.words("create"))
    shell.until("ec2:CreateVpc")
    time.sleep(0.7)  # during the call that does not answer
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - began < 1.5
    time.sleep(2.5)  # the call in flight takes effect
    shell.is_deleted()
