"""DBOS Transact as a peer: a workflow of steps, each recorded in its database before the next one begins."""

from __future__ import annotations

from benchmarks.peers.driving import STEPS, main, measure, slow_step, stand_by
from dbos import DBOS, DBOSConfig


@DBOS.step()
async def echo(payload: str) -> str:
    """A step that does nothing."""
    return payload


@DBOS.workflow()
async def workflow(payload: str) -> None:
    """Steps that do nothing."""
    for _ in range(STEPS):
        await echo(payload)


@DBOS.step()
async def slow(number: int) -> None:
    """A step that takes its time."""
    await slow_step(number)


@DBOS.workflow()
async def slow_workflow() -> None:
    """Steps that take their time."""
    for number in range(1, STEPS + 1):
        await slow(number)


def launch(url: str, name: str) -> None:
    """Open the database."""
    DBOS(
        config=DBOSConfig(
            name="peer", system_database_url=url, executor_id=name, application_version="1", log_level="ERROR"
        )
    )
    DBOS.launch()


async def measured(url: str, seconds: float, payload: str) -> None:
    """Measure it."""
    launch(url, "only")
    await measure(lambda: workflow(payload), seconds)
    DBOS.destroy()


async def served(url: str, name: str) -> None:
    """Be a worker."""
    launch(url, name)
    await stand_by(lambda: DBOS.start_workflow_async(slow_workflow))


if __name__ == "__main__":
    main(measured, served)
