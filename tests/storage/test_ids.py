"""Ids of sagas: never twice, not even in a process that was forked."""

from __future__ import annotations

import subprocess
import sys

from dotmac.tasks.storage.ids import any_partition, make_saga_id, partition_of_saga

FORKED = """
import os
from dotmac.tasks.storage.ids import make_saga_id
make_saga_id(0.0, 0)
child = os.fork()
if child:
    os.waitpid(child, 0)  # so that their lines do not mix
print(*(make_saga_id(0.0, 0) for _ in range(100)), sep="\\n", flush=True)
"""


def test_no_id_is_made_twice_and_each_names_its_partition() -> None:
    made = [make_saga_id(1.5, number % 16) for number in range(2000)]
    assert len(set(made)) == len(made)
    assert [partition_of_saga(saga_id, 16) for saga_id in made] == [number % 16 for number in range(2000)]
    assert all(len(saga_id) == len(made[0]) and saga_id.startswith("000000005dc-") for saga_id in made)


def test_a_forked_process_makes_other_ids_than_its_parent() -> None:
    made = subprocess.run([sys.executable, "-c", FORKED], check=True, capture_output=True, text=True).stdout.split()
    assert len(made) == len(set(made)) == 200


def test_every_partition_gets_its_share() -> None:
    assert {any_partition(4) for _ in range(400)} == {0, 1, 2, 3}
