"""The text of `hyperpod-eks status`: a cluster on one screen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from hyperpod_eks.documents import Json, JsonMapping
from hyperpod_eks.terminal.text import (
    Line,
    Piece,
    asciify,
    brief_digest,
    cells,
    clean,
    cut,
    fold,
    middle,
    pad,
    paint,
    wrap,
)

NODES = 10
"""Maximum nodes to list, those with a problem first."""
SHORTEST = 10
"""Columns to which a name in a table is cut before another one is left out."""
BESIDE = 20
"""Columns that a reason needs beside its resource; else it is below."""
PROBLEMS = 5
"""Maximum resources to list for each step."""

_GOOD = ("inservice", "active", "deployed", "running", "ready", "schedulable", "healthy", "yes")
_BAD = ("fail", "degrad", "error", "unhealthy", "unschedulable", "notfound", "rollingback")
_STATES = {
    "ready": ("✔", "good"),
    "waiting": ("○", "busy"),
    "missing": ("-", "warn"),
    "drifted": ("!", "warn"),
    "failed": ("✘", "bad"),
    "foreign": ("✘", "bad"),
}


def render_status(document: Json, width: int, colour: bool, *, utf8: bool = True) -> str:
    """Return the text of a status document (``hyperpod-eks/status/v1``), lines ended by newlines.

    Every member may be absent or null; its part is then shown as missing or left out. Problems are
    listed, healthy parts are counted. The list ``differences`` is not used: ``steps`` has the same
    facts. Lines are broken at `width` columns; without `utf8` only ASCII is drawn.
    """
    parts = (_cluster, _control_plane, _groups, _nodes, _teams, _steps, _kept)
    blocks = [list(part(document, width)) for part in parts]
    text = "\n\n".join(
        "\n".join(_written(each, colour, utf8) for line in block for each in fold(line, width))
        for block in blocks
        if block
    )
    return f"{text}\n"


def _written(line: Line, colour: bool, utf8: bool) -> str:
    return paint(line if utf8 else asciify(line), colour)


def _cluster(document: Json, width: int) -> Iterator[Line]:
    cluster = document.get("cluster") or {}
    status = clean(cluster.get("status") or "absent")
    # as declared is not ready while EKS itself says what is wrong
    ready = cluster.get("ready") and not (document.get("eks") or {}).get("health")
    if tone(status) == "good":
        status += ", ready" if ready else ", not ready"
    name = Piece(clean(cluster.get("name", "")), "strong")
    yield [_mark("ready" if ready else _worse(status)), name, Piece(f"  {status}")]
    where = [clean(document[key]) for key in ("account", "region") if document.get(key)]
    if where:
        yield [Piece(f"  {' '.join(where)}")]
    if cluster.get("arn"):
        yield [Piece(f"  {clean(cluster['arn'])}", "quiet")]
    if cluster.get("failure"):
        for line in wrap(clean(cluster["failure"]), width - 2, most=5):
            yield [Piece(f"  {line}", "bad")]


def _control_plane(document: Json, width: int) -> Iterator[Line]:
    if eks := document.get("eks"):
        issues = [_issue(issue) for issue in eks.get("health") or ()]
        status = clean(eks.get("status") or "absent")
        version = f"Kubernetes {clean(eks['version'])}" if eks.get("version") else ""
        facts = [*filter(None, (clean(eks.get("name", "")), version, status))]
        yield from _labelled("EKS", "degraded" if issues else status, facts, width)
        yield from _problems(issues, "bad", width)
    if addons := document.get("addons"):
        working = _working(document)
        addons = [a | {"status": "active"} if a["name"] in working else a for a in addons]
        status = _worst(addon.get("status") for addon in addons)
        yield from _labelled("add-ons", status, [_addon(addon) for addon in addons], width)
        for name, why in working.items():
            yield from _problems([f"{clean(name)}: {clean(why)}"], "quiet", width)
        for addon in (addon for addon in addons if addon["name"] not in working):
            issues = [_issue(issue) for issue in addon.get("issues") or ()]
            texts = [f"{clean(addon['name'])}: {issue}" for issue in issues]
            yield from _problems(texts, tone(str(addon.get("status") or "")), width)
    if helm := document.get("helm"):
        status = clean(helm.get("status") or "absent")
        words = f"{clean(helm.get('release', ''))} in {clean(helm.get('namespace', ''))}"
        more = [f"revision {helm['revision']}"] if helm.get("revision") else []
        yield from _labelled("Helm", status, [words, *more, status], width)


def _working(document: Json) -> dict[str, str]:
    """Return the add-ons that are ready though EKS's status of them is another one, and why.

    EKS updates that status rarely, and an add-on without a declared node has nothing to run on.
    """
    rows = {
        str(row.get("name")): row
        for step in document.get("steps") or ()
        if step.get("name") == "addons"
        for row in step.get("resources") or ()
    }
    return {
        str(addon["name"]): str(rows[addon["name"]].get("why") or addon["status"])
        for addon in document.get("addons") or ()
        if tone(str(addon.get("status") or "")) != "good"
        and rows.get(addon["name"], {}).get("state") == "ready"
    }


def _problems(texts: list[str], style: str, width: int) -> Iterator[Line]:
    for text in texts:
        for line in wrap(text, width - 12):
            yield [Piece(" " * 12), Piece(line, style)]


def _groups(document: Json, width: int) -> Iterator[Line]:
    groups = document.get("instance_groups") or ()
    rows = [
        [
            clean(group.get("name", "")),
            clean(group.get("instance_type", "")),
            clean(group.get("status") or "missing"),
            f"{group.get('current', 0)} of {group.get('target', 0)}",
        ]
        for group in groups
    ]
    marks = [
        _mark(row[2] if group.get("current") == group.get("target") else _worse(row[2]))
        for row, group in zip(rows, groups, strict=True)
    ]
    yield from _table(["GROUP", "TYPE", "STATUS", "NODES"], rows, marks, width, "STATUS NODES")


def _nodes(document: Json, width: int) -> Iterator[Line]:
    nodes = sorted(document.get("nodes") or (), key=well)
    listed = nodes if len(nodes) <= NODES else [n for n in nodes if not well(n)][:NODES]
    wide = width >= 120
    rows = [_node(node, wide=wide) for node in listed]
    head = ["NODE", "GROUP", "STATUS", "READY", "HEALTH"]
    marks = [_mark("Running" if well(n) else _worse(str(n.get("status") or ""))) for n in listed]
    head += ["INSTANCE", "TYPE"] if wide else []
    yield from _table(head, rows, marks, width, "STATUS READY")
    rest = nodes[len(listed) :]
    counts = Counter(
        f"{clean(n.get('status') or '-')}{'' if well(n) else ', not ready'}" for n in rest
    )
    if rest:
        words = ", ".join(f"{count} {status}" for status, count in counts.most_common())
        more = f"{len(rest)} more nodes" if listed else f"{len(rest)} nodes"
        yield [
            _mark("Running") if all(map(well, rest)) else _mark("waiting"),
            Piece(f"{more}: {words}"),
        ]


def _node(node: Json, *, wide: bool) -> list[str]:
    name = clean(node.get("name") or node.get("instance_id") or "")
    row = [
        name,
        clean(node.get("instance_group", "")),
        clean(node.get("status") or "-"),
        {"True": "yes", "False": "no"}.get(str(node.get("ready")), "-"),
        clean(node.get("health") or "-"),
    ]
    extra = [clean(node.get("instance_id", "")), clean(node.get("instance_type", ""))]
    return [*row, *extra] if wide else row


def _teams(document: Json, width: int) -> Iterator[Line]:
    """Yield a row for each instance type of each team's quota: what of it is used."""
    rows, marks = [], []
    for team in document.get("teams") or ():
        counts = [str(team.get(name) or 0) for name in ("running", "waiting")]
        problem = str(team.get("problem") or "")
        shares: dict[str, list[Json]] = {}
        for each in team.get("resources") or ():
            shares.setdefault(clean(each.get("instance_type") or ""), []).append(each)
        for number, (type_, each) in enumerate((shares or {"-": []}).items()):
            first = [clean(team.get("team") or ""), *counts] if number == 0 else [""] * 3
            rows.append([*first, type_, _used(each)])
            marks.append(
                _mark("failed" if problem else "active" if counts[1] == "0" else "waiting")
            )
    head = ["TEAM", "RUNNING", "WAITING", "QUOTA", "USED"]
    yield from _table(head, rows, marks, width, "RUNNING WAITING")
    for team in document.get("teams") or ():
        if problem := clean(team.get("problem") or ""):
            yield from _problems([f"{clean(team.get('team') or '')}: {problem}"], "bad", width)


def _used(shares: Sequence[Json]) -> str:
    """Return the used resources of an instance type, devices first."""
    first = sorted(shares, key=lambda each: each.get("resource") in ("cpu", "memory"))
    words = []
    for each in first:
        name, borrowed = clean(each.get("resource") or ""), _amount(each, "borrowed")
        more = f" ({borrowed} borrowed)" if borrowed != "0" else ""
        words.append(f"{name} {_amount(each, 'used')} of {_amount(each, 'quota')}{more}")
    return ", ".join(words) or "-"


def _amount(share: Json, member: str) -> str:
    """Return a quantity; bytes of memory as GiB."""
    text = clean(str(share.get(member) or 0))
    if share.get("resource") != "memory" or not text.isdecimal() or text == "0":
        return text
    return f"{int(text) / 2**30:.1f}".removesuffix(".0") + "Gi"


def _steps(document: Json, width: int) -> Iterator[Line]:
    steps = {clean(s["name"]): s.get("resources") or () for s in document.get("steps") or ()}
    wrong = {n: [r for r in rs if r.get("state") != "ready"] for n, rs in steps.items()}
    column = max([9, *(cells(name) for name in steps if wrong[name])]) + 1
    for name, resources in steps.items():
        if wrong[name]:
            yield from _trouble(pad(name, column), resources, wrong[name], width)
    good = [name for name in steps if steps[name] and not wrong[name]]
    count = sum(len(steps[name]) for name in good)
    if count:
        what = f"{count} resource{'s' * (count > 1)}"
        exist = "exist" if count > 1 else "exists"
        said = "as declared" if document.get("compared", True) else f"{exist} (not compared)"
        yield [
            _mark("ready"),
            Piece(f"{what} {said}"),
            Piece(f"  {', '.join(good)}", "quiet"),
        ]
    for step, resources in steps.items():
        for each in resources:
            words = _untold(f"{step}/{each.get('name', '')}", each)
            for line in wrap(words, width - 4) if words else ():
                yield [Piece("    "), Piece(line, "quiet")]


def _kept(document: Json, width: int) -> Iterator[Line]:
    for row in document.get("kept_data") or ():
        first, *rest = wrap(clean(kept_words(row)), width - 2)
        yield [Piece("! ", "warn"), Piece(first)]
        yield from ([Piece("  "), Piece(line)] for line in rest)


def kept_words(row: JsonMapping) -> str:
    """Return what holds data and is kept, and what it costs, from its row in a document.

    >>> row = {"key": "storage/data", "id": "fs-0", "holds": "1200 GiB", "usd_per_month": 174}
    >>> kept_words(row)
    'storage/data (fs-0: 1200 GiB) is kept with its data, and costs about 174.00 USD per month'
    """
    usd = row["usd_per_month"]
    cost = f"about {usd:.2f} USD" if usd is not None else "an unknown price"
    what = f"{row['key']} ({row['id']}: {row['holds']})"
    return f"{what} is kept with its data, and costs {cost} per month"


def _trouble(
    label: str, resources: Sequence[Json], wrong: Sequence[Json], width: int
) -> Iterator[Line]:
    """Yield the lines of a step that is not ready, with its resources that are not."""
    counts = Counter(str(r.get("state")) for r in resources)
    symbol, style = _STATES[max(counts, key=list(_STATES).index)]
    words = ", ".join(f"{counts[state]} {state}" for state in _STATES if counts[state])
    first, *rest = wrap(words, width - 2 - cells(label))
    yield [Piece(f"{symbol} ", style), Piece(label), Piece(first)]
    yield from ([Piece(" " * (2 + cells(label))), Piece(line)] for line in rest)
    if counts == {"missing": len(resources)} and not any(map(why_of, resources)):
        return
    size = max(cells(clean(r.get("name", ""))) for r in wrong[:PROBLEMS])
    indent = 15 + size if width - 15 - size >= BESIDE else 6
    for one in wrong[:PROBLEMS]:
        state = str(one.get("state"))
        name = clean(one.get("name", ""))
        line = [Piece(f"    {state:<8} ", _STATES[state][1]), Piece(name)]
        words_ = [each for text in why_of(one) for each in wrap(text, width - indent)]
        if indent > 6 and words_:
            line = [line[0], Piece(f"{pad(name, size)}  "), Piece(words_.pop(0))]
        yield line
        yield from ([Piece(" " * indent), Piece(text)] for text in words_)
    if len(wrong) > PROBLEMS:
        yield [Piece(f"    … {len(wrong) - PROBLEMS} more", "quiet")]


def _untold(key: str, resource: Json) -> str:
    """Return a sentence about fields that AWS describes otherwise or not at all; "" without any."""
    words = [
        f"AWS accepted {name} {_brief(pair[1])} but returns {_brief(pair[0])}"
        for name, pair in (resource.get("unproven") or {}).items()
    ]
    if unknown := resource.get("unknown"):
        words.append(f"AWS does not return {', '.join(unknown)}")
    return clean(f"{key}: {'; '.join(words)}") if words else ""


def why_of(resource: Json) -> list[str]:
    """Return why a resource of a status document is not ready: its state, and what differs."""
    changes = [
        f"{name}: {_brief(pair[0])} → {_brief(pair[1])}"
        if isinstance(pair, list | tuple) and len(pair) == 2
        else f"{name}: {_brief(pair)}"
        for name, pair in (resource.get("differs") or {}).items()
    ]
    return [clean(text) for text in (resource.get("why"), *changes) if text]


def _brief(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return (
        "none"
        if value in (None, "")
        else str(value).lower()
        if isinstance(value, bool)
        else brief_digest(str(value))
    )


def _labelled(label: str, status: str, words: Sequence[str], width: int) -> Iterator[Line]:
    """Yield a label with a list of words, in as many lines as necessary."""
    lines: list[str] = []
    for word in words:
        if lines and cells(lines[-1]) + cells(word) + 2 <= width - 13:
            lines[-1] += f", {word}"
        else:
            if lines:
                lines[-1] += ","
            lines.append(word)
    for number, line in enumerate(lines):
        first = [_mark(status), Piece(pad(label, 10))] if number == 0 else [Piece(" " * 12)]
        yield [*first, Piece(line)]


def _table(
    head: list[str], rows: list[list[str]], marks: list[Piece], width: int, whole: str
) -> Iterator[Line]:
    """Yield a table that fits the width: names are cut, and columns at the end left out.

    ``whole`` names the columns that are neither.
    """
    if not rows:
        return
    sizes = _sizes(head, rows, width - 2, whole.split())

    names = zip(*rows, strict=True)
    columns = [
        _fitted(texts, size, ends=number == 0)
        for number, (texts, size) in enumerate(zip(names, sizes, strict=True))
        if size
    ]
    titles = [pad(title, size) for title, size in zip(head, sizes, strict=True) if size]
    yield [Piece(f"  {'  '.join(titles)}", "quiet")]
    for mark, row in zip(marks, zip(*columns, strict=True), strict=True):
        yield [mark, Piece("  ".join(row))]


def _fitted(texts: Sequence[str], size: int, *, ends: bool) -> list[str]:
    """Cut texts to `size` columns so that different ones stay different, if that is possible.

    With ``ends``, their ends are kept, as names of nodes differ there, else their begins; and if
    that is not enough, both.

    >>> _fitted(["node-1", "node-2"], 4, ends=True)
    ['…e-1', '…e-2']
    >>> _fitted(["gpu 0 of 1, cpu 0 of 4", "-"], 9, ends=False)
    ['gpu 0 of…', '-        ']
    """
    short = [cut(text[::-1], size)[::-1] if ends else cut(text, size) for text in texts]
    inside = [middle(text, size) for text in texts]
    best = max((short, inside), key=lambda each: len({*each}))
    return [pad(text, size) for text in best]


def _sizes(head: list[str], rows: list[list[str]], room: int, whole: Sequence[str]) -> list[int]:
    """Return the width of each column of a table; 0 for one that is left out."""
    natural = [max(cells(row[n]) for row in [head, *rows]) for n in range(len(head))]
    names = [n for n, title in enumerate(head) if title not in whole]
    while True:
        sizes = [size if n in names or head[n] in whole else 0 for n, size in enumerate(natural)]
        shown = sum(1 for size in sizes if size)
        over = sum(sizes) + 2 * (shown - 1) - room
        least = SHORTEST if names[1:] else 4
        while over > 0 and max(sizes[n] for n in names) > least:
            longest = max(names, key=lambda n: sizes[n])
            sizes[longest] -= 1
            over -= 1
        if over <= 0 or not names[1:]:
            return sizes
        names.pop()


def well(node: Json) -> bool:
    """Whether a node of a status document runs, and is ready and healthy as far as is known."""
    return (
        node.get("ready") is not False
        and tone(str(node.get("status") or "")) == "good"
        and (not node.get("health") or tone(str(node["health"])) == "good")
    )


def tone(status: str) -> str:
    """Return what a status means: good, busy or bad."""
    plain = status.lower().replace(" ", "").replace("_", "")
    if any(word in plain for word in _BAD):
        return "bad"
    return "good" if plain in _GOOD else "busy"


def _mark(status: str) -> Piece:
    symbol = {"good": "✔", "bad": "✘", "busy": "○"}[tone(status)]
    return Piece(f"{symbol} ", tone(status))


def _worse(status: str) -> str:
    """Return `status`, or "waiting" if `status` claims to be healthy."""
    return "waiting" if tone(status) == "good" else status


def _worst(statuses: Iterable[str]) -> str:
    tones = [tone(str(status or "")) for status in statuses]
    return "failed" if "bad" in tones else "waiting" if "busy" in tones else "active"


def _issue(issue: object) -> str:
    if isinstance(issue, Mapping):
        return clean(": ".join(str(issue[k]) for k in ("code", "message") if issue.get(k)))
    return clean(issue)


def _addon(addon: Json) -> str:
    status, version = clean(addon.get("status") or "absent"), clean(addon.get("version") or "")
    words = [clean(addon["name"]), version.partition("-eksbuild")[0]]
    return " ".join(filter(None, [*words, "" if tone(status) == "good" else status]))
