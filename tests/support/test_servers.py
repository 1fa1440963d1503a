"""The servers of the tests: they are what they say, and nothing of them stays behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack

import pytest

from support.processes import is_alive, wait_until
from support.servers import DEBIAN_REDIS, ErrorReply, ServerFailed, cluster, needs_debian_redis, sentinel, standalone

pytestmark = pytest.mark.redis


def test_standalone_answers_and_leaves_nothing() -> None:
    with standalone() as server:
        assert server.cli("SET", "key", "välue") == "OK"
        assert server.cli("GET", "key") == "välue"
        with pytest.raises(ErrorReply, match="WRONGTYPE"):
            server.cli("LPUSH", "key", "x")
        pid, folder = server.pid, server.folder
    assert not is_alive(pid)
    assert not folder.exists()


def test_killed_server_restarts_on_its_port_with_its_data() -> None:
    with standalone(aof=True) as server:
        server.cli("SET", "key", "kept")
        url = server.url
        server.kill()
        with pytest.raises(ConnectionRefusedError):
            server.cli("PING")
        server.start()
        assert server.url == url
        assert server.cli("GET", "key") == "kept"
        server.restart()
        assert server.cli("GET", "key") == "kept"


def test_paused_server_accepts_and_answers_when_resumed() -> None:
    with standalone() as server:
        server.pause()
        with socket.create_connection((server.host, server.port)) as connection:
            connection.sendall(b"PING\r\n")
            connection.setblocking(False)
            with pytest.raises(BlockingIOError):
                connection.recv(1)
            connection.setblocking(True)
            server.resume()
            assert connection.recv(7) == b"+PONG\r\n"


def test_unix_socket_is_there_too() -> None:
    with standalone() as server, socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(server.socket))
        connection.sendall(b"PING\r\n")
        assert connection.recv(7) == b"+PONG\r\n"
        assert server.unix_url.startswith("unix:///")


def test_password_and_users() -> None:
    with standalone(password="secret word") as server:  # noqa: S106 - it protects nothing
        assert server.cli("PING") == "PONG"
        assert ":secret%20word@" in server.url
        server.password = None
        with pytest.raises(ErrorReply, match="NOAUTH"):
            server.cli("PING")
    with standalone(acl=["user default off", "user app on >app-word ~app:* +@all"]) as server:
        server.username, server.password = "app", "app-word"
        assert server.cli("SET", "app:key", 1) == "OK"
        with pytest.raises(ErrorReply, match="NOPERM"):
            server.cli("SET", "other", 1)


@needs_debian_redis
def test_tls_of_the_other_binary() -> None:
    with standalone(tls=True, binary=DEBIAN_REDIS) as server:
        assert server.url.startswith("rediss://")
        assert server.cli("PING") == "PONG"
        assert "redis_version:" in server.cli("INFO", "server")


def test_failed_start_shows_the_log() -> None:
    with pytest.raises(ServerFailed, match="no-such-directive"), standalone("no-such-directive yes"):
        pass


def test_killed_starter_leaves_no_server() -> None:
    program = """
import sys, time
from support.servers import standalone, needs_debian_redis
with standalone() as server:
    print(server.pid, server.folder, flush=True)
    time.sleep(600)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with ExitStack() as stack:
        starter = stack.enter_context(
            subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment)
        )
        assert starter.stdout is not None
        pid, folder = starter.stdout.readline().decode().split()
        stack.callback(shutil.rmtree, folder)
        assert is_alive(int(pid))
        starter.send_signal(signal.SIGKILL)
        wait_until(lambda: not is_alive(int(pid)), what="the server is gone")


@pytest.mark.parametrize("replicas", [0, 1])
def test_cluster_is_ready_and_moves_slots(replicas: int) -> None:
    with cluster(3, replicas=replicas) as nodes:
        assert len(nodes.nodes) == 3 * (1 + replicas)
        slot = nodes.slot_of("{tag}a")
        source = nodes.owner_of(slot)
        target = nodes.other_than(source)
        for name in "abc":
            source.cli("SET", f"{{tag}}{name}", name)
        migration = nodes.begin_migration(slot, target)
        assert migration.move(1) == 1
        with pytest.raises(ErrorReply, match=r"TRYAGAIN|ASK"):
            source.cli("MGET", "{tag}a", "{tag}b", "{tag}c")
        assert migration.move(10) == 2
        migration.finish()
        with pytest.raises(ErrorReply, match=f"MOVED {slot} 127.0.0.1:{target.port}"):
            source.cli("GET", "{tag}a")
        assert target.cli("MGET", "{tag}a", "{tag}b", "{tag}c") == ["a", "b", "c"]
        assert nodes.owner_of(slot) is target
        nodes.migrate(slot, source)
        assert source.cli("GET", "{tag}a") == "a"


@needs_debian_redis
def test_cluster_on_the_other_binary() -> None:
    with cluster(3, binary=DEBIAN_REDIS) as nodes:
        assert nodes.owner_of(0) is nodes.primaries[0]


def test_sentinels_follow_an_ordered_failover_and_a_dead_primary() -> None:
    with sentinel() as watched:
        first = watched.primary
        second = watched.failover()
        assert second is not first
        assert second.cli("SET", "key", "value") == "OK"
        watched.wait_ready()
        second.kill()
        assert watched.wait_for_primary(other_than=second) is first
        assert first.cli("GET", "key") == "value"
