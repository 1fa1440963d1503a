"""Random verbs against a storage and against the plainest model of its contract: all answers are equal.

The verbs draw from few keys, tokens, workers and entry ids, so repeats, stale epochs and rivals are common. On a
real server the runs are few; in memory they are many.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dotmac.tasks.errors import DotmacTasksError
from dotmac.tasks.storage.key_records import Completion
from dotmac.tasks.storage.protocol import StorageProtocol
from dotmac.tasks.storage.records import Adoption, Append, NewSaga, SagaFilter, SagaRecord
from storage.reference import COMPLETED, FAILED, RUNNING, Reference
from storage.stored import LONG, Backend, new_record

KEYS, PRINTS, TOKENS, WORKERS, ENTRIES = ("k1", "k2"), ("p1", "p2"), ("a", "b"), ("w1", "w2"), ("e1", "e2", "e3")
NUMBERS = st.integers(0, 2)
EPOCHS, SEQUENCES = st.integers(0, 3), st.integers(0, 5)
HOWS = st.sampled_from(["keep", "keep", "release", "completed", "parked"])
_from = st.sampled_from
NEWEST = st.none()
"""Stands for the saga's present epoch or next position, which is what an honest sender would say."""

VERBS = st.one_of(
    st.tuples(st.just("create_record"), _from(KEYS), _from(PRINTS)),
    st.tuples(st.just("claim"), _from(KEYS), _from(PRINTS), _from(TOKENS)),
    st.tuples(st.just("renew"), _from(KEYS), _from(TOKENS)),
    st.tuples(st.just("complete"), _from(KEYS), NEWEST | _from(TOKENS), _from([b"1", b"2"])),
    st.tuples(st.just("abandon"), _from(KEYS), _from(TOKENS)),
    st.tuples(
        st.just("create_saga"),
        NUMBERS,
        _from(ENTRIES[:2]),
        NEWEST | _from(WORKERS),
        NEWEST | st.tuples(_from(KEYS), _from(PRINTS), NEWEST | _from(TOKENS)),
    ),
    st.tuples(st.just("append"), NUMBERS, NEWEST | EPOCHS, NEWEST | SEQUENCES, _from(ENTRIES), HOWS),
    st.tuples(st.just("adopt"), NUMBERS, _from(WORKERS), NEWEST | EPOCHS, _from(ENTRIES)),
    st.tuples(st.just("release"), NUMBERS, NEWEST | EPOCHS, st.booleans()),
    st.tuples(st.just("cancel"), NUMBERS, _from(["why", "because"])),
)


class Driven:
    """A storage spoken to in the model's words."""

    def __init__(self, storage: StorageProtocol) -> None:
        self.storage = storage
        self.ids = [storage.new_saga_id() for _ in range(3)]

    async def create_record(self, key: str, print_: str) -> Any:
        created, record = await self.storage.create_record(new_record(key, fingerprint=print_))
        return created, record.status, record.fingerprint

    async def claim(self, key: str, print_: str, token: str) -> Any:
        new = new_record(key, fingerprint=print_)
        verdict = await self.storage.claim_record(new, token=token, owner="o", lease=LONG)
        return verdict.outcome, verdict.record.token

    async def renew(self, key: str, token: str) -> Any:
        assert await self.storage.renew_claim(key, token, LONG) > self.storage.now()

    async def complete(self, key: str, token: str | None, result: bytes) -> Any:
        record = await self.storage.complete_record(Completion(key, token, COMPLETED, result, None, LONG))
        return record.status

    async def abandon(self, key: str, token: str) -> Any:
        await self.storage.abandon_claim(key, token)

    async def create_saga(
        self, number: int, entry_id: str, owner: str | None, key: tuple[str, str, str | None] | None
    ) -> Any:
        new = NewSaga(self.ids[number], "t", "type", RUNNING, 1, entry_id, b"[]", owner=owner)
        if key is not None:
            # The key's partition is the saga's, wherever there are partitions.
            if await self.storage.saga_meta(self.ids[number]) is None:
                self.ids[number] = self.storage.new_saga_id(key[0])
            record = new_record(key[0], fingerprint=key[1])
            new = NewSaga(
                self.ids[number], "t", "type", RUNNING, 1, entry_id, b"[]", owner=owner, key=record, claim_token=key[2]
            )
        creation = await self.storage.create_saga(new)
        linked = creation.record.saga_id if creation.record is not None else None
        met = creation.meta.saga_id if creation.meta is not None else linked
        return creation.created, None if met is None else self.ids.index(met)

    async def append(self, number: int, epoch: int, sequence: int, entry_id: str, how: str) -> Any:
        status = {"completed": COMPLETED, "parked": FAILED}.get(how, RUNNING)
        meta = await self.storage.saga_meta(self.ids[number])
        completion = None
        if how == "completed" and meta is not None and meta.idempotency_key is not None:
            completion = Completion(meta.idempotency_key, None, COMPLETED, b"1", None, LONG)
        line = Append(
            self.ids[number], epoch, sequence, entry_id, b"[]", status, 0, how == "release",
            completion=completion, unless_cancelled=how == "completed",
        )  # fmt: skip
        appended = await self.storage.append(line)
        return "refused" if appended.at is None else "at", appended.cancel

    async def adopt(self, number: int, worker: str, epoch: int, entry_id: str) -> Any:
        meta = await self.storage.saga_meta(self.ids[number])
        previous = None if meta is None else meta.owner  # which the adopter has looked for before
        return _seen(await self.storage.adopt_saga(Adoption(self.ids[number], worker, epoch, entry_id, previous)))

    async def release(self, number: int, epoch: int, due: bool) -> Any:
        await self.storage.release_saga(self.ids[number], epoch, self.storage.now() if due else None)

    async def cancel(self, number: int, reason: str) -> Any:
        meta = await self.storage.request_cancel(self.ids[number], reason)
        return meta.status, meta.cancel


def _seen(record: SagaRecord | None) -> Any:
    if record is None:
        return None
    meta = record.meta
    assert [line.sequence for line in record.journal] == list(range(meta.length))
    return meta.status, meta.owner, meta.epoch, meta.cancel, tuple(line.entry_id for line in record.journal)


async def _compare(driven: Driven, model: Reference) -> None:
    """Everything that can be looked at is as the model has it."""
    storage, ids = driven.storage, driven.ids
    for number, saga_id in enumerate(ids):
        assert _seen(await storage.load_saga(saga_id)) == model.look(number)
    for key in KEYS:
        stored, record = await storage.get_record(key), model.records.get(key)
        assert (stored is None) == (record is None)
        if stored is not None and record is not None:
            assert (stored.status, stored.token, stored.fingerprint) == (record.status, record.token, record.print)
            assert stored.saga_id == (None if record.saga is None else ids[record.saga])
            assert (None if stored.result is None else bytes(stored.result)) == record.result
    assert {ids.index(saga.saga_id) for saga in await storage.due_sagas(10)} == model.due()
    for worker in WORKERS:
        owned = {ids.index(saga.saga_id) for saga in await storage.orphaned_sagas(worker, 10)}
        assert owned == model.owned(worker)
        assert {ids.index(saga_id) for saga_id in (await storage.renew_worker(worker, LONG)).cancels} == model.cancels(
            worker
        )
    for status in (RUNNING, COMPLETED, FAILED):
        listed = (await storage.list_sagas(SagaFilter(status=status), 10)).sagas
        assert {ids.index(meta.saga_id) for meta in listed} == {
            number for number, saga in model.sagas.items() if saga.status is status
        }


def _filled_in(model: Reference, verb: tuple[Any, ...]) -> tuple[Any, ...]:
    """The verb with the present epoch and the next position where it leaves them open."""
    name, *arguments = verb
    saga = model.sagas.get(arguments[0]) if name in ("append", "adopt", "release") else None
    epoch, length = (saga.epoch, len(saga.journal)) if saga is not None else (0, 0)
    place = {"append": 1, "adopt": 2, "release": 1}.get(name)
    if place is not None and arguments[place] is None:
        arguments[place] = epoch
    if name == "append" and arguments[2] is None:
        arguments[2] = length
    return tuple(arguments)


async def _answer(call: Callable[..., Awaitable[Any]], arguments: tuple[Any, ...]) -> Any:
    try:
        return await call(*arguments)
    except DotmacTasksError as error:
        return type(error)


async def _run(backend: Backend, verbs: list[tuple[Any, ...]]) -> None:
    storage, model = backend.make(), Reference()
    async with storage.opened():
        driven = Driven(storage)
        for worker in WORKERS:
            await storage.register_worker(worker, LONG, {})
        for verb in verbs:
            arguments = _filled_in(model, verb)
            expected = getattr(model, verb[0])(*arguments)
            answer = await _answer(getattr(driven, verb[0]), arguments)
            assert answer == expected, (verb[0], arguments)
            await _compare(driven, model)


def test_a_storage_answers_as_the_contract_has_it(bare_backend: Backend) -> None:
    @settings(max_examples=bare_backend.examples)
    @given(st.lists(VERBS, max_size=40))
    def run(verbs: list[tuple[Any, ...]]) -> None:
        bare_backend.run(partial(_run, bare_backend, verbs))

    run()
