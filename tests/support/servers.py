"""Real servers for tests, in one place: `standalone`, `cluster`, `sentinel`, all synchronous context managers.

Session-scoped fixtures can therefore use them. Every server listens on the loopback only, has a folder of its own,
and is killed with the process that started it.
"""

from .clusters import Cluster, Migration, cluster
from .sentinels import Sentinels, sentinel
from .standalone import (
    DEBIAN_REDIS,
    Certificates,
    ErrorReply,
    Server,
    ServerFailed,
    ask,
    needs_debian_redis,
    server_folder,
    standalone,
)

__all__ = [
    "DEBIAN_REDIS",
    "Certificates",
    "Cluster",
    "ErrorReply",
    "Migration",
    "Sentinels",
    "Server",
    "ServerFailed",
    "ask",
    "cluster",
    "needs_debian_redis",
    "sentinel",
    "server_folder",
    "standalone",
]
