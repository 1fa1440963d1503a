"""A small actor kernel on trio: inboxes, questions with answers, and supervisors. It knows nothing of sagas."""

from __future__ import annotations

from dotmac.tasks.actors.child import ChildLife, ChildSpec, Restart, current_child
from dotmac.tasks.actors.failures import Report, log_failure, split_failure
from dotmac.tasks.actors.mailbox import Inbox
from dotmac.tasks.actors.policy import RestartPolicy, Strategy
from dotmac.tasks.actors.questions import Ask, Reply
from dotmac.tasks.actors.reference import ActorRef
from dotmac.tasks.actors.restarts import Backoff, RestartIntensity, RestartWindow, Verdict
from dotmac.tasks.actors.spawned import OnExit
from dotmac.tasks.actors.supervisor import Supervisor

__all__ = [
    "ActorRef",
    "Ask",
    "Backoff",
    "ChildLife",
    "ChildSpec",
    "Inbox",
    "OnExit",
    "Reply",
    "Report",
    "Restart",
    "RestartIntensity",
    "RestartPolicy",
    "RestartWindow",
    "Strategy",
    "Supervisor",
    "Verdict",
    "current_child",
    "log_failure",
    "split_failure",
]
