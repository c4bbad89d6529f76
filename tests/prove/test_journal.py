"""A lost, truncated or read-only manifest leads to no duplicates and no losses."""

from __future__ import annotations

import pytest

from hyperpod_eks.errors import Usage
from hyperpod_eks.state.file_store import FileStore
from hyperpod_eks.state.manifest import read

from . import oracles
from .host import DELAYS, NAME, Boundary
from .prover import TWO_NODES, Prover


def test_a_lost_journal_is_written_anew_by_the_next_create(prover: Prover) -> None:
    prover.created()
    prover.host.path.unlink()
    prover.host.forget()
    prover.quiet(TWO_NODES)
    oracles.journal_knows(prover.host)
    prover.finish("delete", TWO_NODES)
    oracles.nothing_left(prover.host, prover.before)


def test_a_lost_journal_is_no_obstacle_to_delete(prover: Prover) -> None:
    prover.created()
    prover.host.path.unlink()
    prover.host.forget()
    prover.finish("delete", TWO_NODES)
    oracles.nothing_left(prover.host, prover.before)


def test_a_journal_cut_short_stops_us_and_is_rebuilt_from_names_and_tags(prover: Prover) -> None:
    prover.created()
    host = prover.host
    host.path.write_text(host.path.read_text()[:500])
    with pytest.raises(Usage, match="is broken") as caught:
        prover.finish("create", TWO_NODES)
    assert "adopt" in caught.value.hint
    assert "--rebuild" in caught.value.hint
    read(FileStore(host.path), NAME, broken=True)
    host.forget()
    prover.finish("rebuild", TWO_NODES)
    oracles.journal_knows(host)
    prover.quiet(TWO_NODES)
    prover.finish("delete", TWO_NODES)
    assert host.path.with_name(f"{host.path.name}.broken").exists()
    oracles.nothing_left(host, prover.before)


def test_a_bucket_is_signed_at_birth_so_that_even_a_lost_journal_loses_none(
    prover: Prover,
) -> None:
    prover.begin()
    host = prover.host
    fuse = Boundary("after", "s3:CreateBucket")
    assert host.run("create", fuse=fuse, config=TWO_NODES).dead
    host.path.unlink()
    host.forget()
    host.stack.clock.advance(DELAYS.unseen)  # without a manifest, an invisible VPC is unknown
    prover.finish("create", TWO_NODES)
    oracles.same_shape(host, prover.made)
    prover.finish("delete", TWO_NODES)
    oracles.nothing_left(host, prover.before)
