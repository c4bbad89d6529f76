"""What the few programs that the stack knows write in a pod: nothing runs.

- A Python script with arguments such as ``resolve=NAME``, ``connect=HOST``, ``write=FOLDER`` and
  ``credentials``, as tests of a network have them, answers each with a line of JSON and waits.
- ``all_reduce_perf`` of NVIDIA's nccl-tests writes NCCL's lines about the network that it uses and
  its table (github.com/NVIDIA/nccl-tests, src/common.cu and doc/PERFORMANCE.md).
- ``nccom-test`` of the AWS Neuron SDK writes its table (AWS Neuron documentation, "nccom-test").
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from .failures import Failing
from .objects import Obj

_ASKED = re.compile(r"(resolve|connect|write)=\S+|credentials")
_SIZES = [1 << n for n in range(20, 35, 2)]
"""Bytes of the messages in the tables."""
_FULL = 480.0
"""Bus bandwidth in GB/s of the largest message between two p5: samples have 437 to 465."""


def words(container: Obj) -> list[str]:
    """The command and the arguments of a container."""
    return [*(container.get("command") or ()), *(container.get("args") or ())]


def _questions(container: Obj) -> list[str]:
    program, *rest = words(container) or [""]
    found = rest[2:] if program.endswith("python3") and rest[:1] == ["-c"] else []
    return found if all(map(_ASKED.fullmatch, found)) else []


def waits(container: Obj) -> bool:
    """Whether a program goes on after it has written."""
    return bool(_questions(container))


def written(container: Obj, failing: Failing) -> list[str]:
    """What a known program writes; nothing for one that is not known."""
    if questions := _questions(container):
        return [*_answers(questions, failing)]
    said = " ".join(words(container))
    if "all_reduce_perf" in said:
        return [*_nccl(failing("nccl"))]
    if "nccom-test" in said:
        return [*_nccom(failing("nccl"))]
    return []


def fails(container: Obj, failing: Failing) -> bool:
    """Whether a known program ends with an error."""
    said = " ".join(words(container))
    known = "all_reduce_perf" in said or "nccom-test" in said
    return known and failing("nccl") == "error"


def _answers(questions: list[str], failing: Failing) -> Iterator[str]:
    for asked in questions:
        wrong = _wrong(asked, failing)
        yield json.dumps({"asked": asked, "ok": not wrong, "says": wrong or "done"})
    yield json.dumps({"asked": "end", "ok": True, "says": ""})


def _wrong(asked: str, failing: Failing) -> str:
    """What Python says if it cannot do what is asked."""
    verb, _, what = asked.partition("=")
    inside = what.endswith(".cluster.local")
    no_name = failing("dns") == "all" or (failing("dns") == "cluster" and inside)
    if verb in ("resolve", "connect") and no_name:
        return "gaierror: [Errno -3] Temporary failure in name resolution"
    if verb == "connect" and failing("egress"):
        return "TimeoutError: timed out"
    if verb == "write" and failing("file-system") == "read-only":
        return f"OSError: [Errno 30] Read-only file system: '{what}/x'"
    if verb == "credentials" and failing("credentials"):
        return "HTTPError: HTTP Error 400: Bad Request"
    return ""


def _nccl(how: str) -> Iterator[str]:
    start = "demo-worker-0:62:116 [0] NCCL INFO"
    if how == "sockets":
        yield f"{start} NET/OFI No eligible providers were found"
        yield f"{start} NET/Socket : Using [0]eth0:10.1.0.9<0>"
        yield f"{start} Using network Socket"
    else:
        yield f"{start} NET/OFI Selected provider is efa, fabric is efa (found 32 nics)"
        yield f"{start} Using network Libfabric"
    if how == "error":
        yield "demo-worker-0: Test NCCL failure common.cu:958 'unhandled system error'"
        return
    full = {"sockets": 4.0, "slow": 93.0}.get(how, _FULL)
    yield "#       size         count      type   redop    root     time   algbw   busbw #wrong"
    yield "#        (B)    (elements)                               (us)  (GB/s)  (GB/s)"
    for size in _SIZES:
        bus = full * size / (size + (1 << 26))
        row = f"{size:>13} {size >> 2:>13}     float     sum      -1"
        yield f"{row} {size / bus / 1000:>9.1f} {bus / 1.875:>7.2f} {bus:>7.2f}      0"
    yield "# Out of bounds values : 0 OK"
    yield f"# Avg bus bandwidth    : {full / 3:.3f}"


def _nccom(how: str) -> Iterator[str]:
    if how == "error":
        yield "CCOM WARN OFI plugin initNet() failed is EFA enabled?"
        return
    yield "    size(B)    count(elems)    type    time(us)    algbw(GB/s)    busbw(GB/s)"
    for size in _SIZES[:8]:
        bus = 60.0 * size / (size + (1 << 24))
        time = size / bus / 1000
        yield f"{size:>11} {size >> 2:>15}    fp32 {time:>11.0f} {bus:>12.2f} {bus:>12.2f}"
    yield "Avg bus bandwidth:    29.8120GB/s"
