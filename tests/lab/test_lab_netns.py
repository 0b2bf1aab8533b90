"""The kernel laboratory: its NATs are what they are called, and nothing of it stays."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import textwrap
import threading
import time
from pathlib import Path

import pytest

from ice_punch.errors import InvalidConfiguration
from ice_punch.lab.kernel import (
    KernelInternet,
    LaboratoryError,
    enter,
    leftovers,
    namespaces,
    remove_leftovers,
    run_in,
)
from ice_punch.lab.kernel import internet as laboratory
from ice_punch.lab.kernel.namespaces import ours, tool
from support.commands import runs
from support.netns import ROOT, UdpProbe, needs_netns, python, udp_probes

ONE, TWO = "203.0.113.10", "203.0.113.11"


def host_state() -> tuple[list[str], str, str]:
    """Our namespaces, the host's devices, the host's rules."""
    devices = subprocess.run([tool("ip"), "-br", "link"], capture_output=True, text=True).stdout
    rules = subprocess.run([tool("nft"), "list", "ruleset"], capture_output=True, text=True).stdout
    return ours(pid=os.getpid()), devices, rules


@needs_netns
def test_port_restricted_keeps_its_mapping_and_drops_strangers() -> None:
    with (
        KernelInternet() as net,
        udp_probes((net.peer_a, None), (net.public, ONE), (net.public, ONE), (net.public, TWO)) as (
            inside,
            friend,
            neighbour,
            other,
        ),
    ):
        inside.send(friend.address)
        mapped = friend.source_of_next()
        assert mapped == (net.peer_a.public_address, inside.address[1])
        neighbour.send(mapped)
        other.send(mapped)
        assert inside.hears_nothing()
        friend.send(mapped)
        assert inside.receive() == (b"probe", friend.address)
        inside.send(other.address)
        assert other.source_of_next() == mapped
        neighbour.send(mapped)
        assert inside.hears_nothing()


@needs_netns
def test_an_early_packet_does_not_cost_the_peer_its_port() -> None:
    with (
        KernelInternet() as net,
        udp_probes((net.peer_a, None), (net.peer_b, None), (net.public, None)) as (a, b, server),
    ):
        a.send(server.address)
        b.send(server.address)
        mapped_a, mapped_b = server.source_of_next(), server.source_of_next()
        b.send(mapped_a, b"early")
        assert a.hears_nothing()
        a.send(mapped_b, b"punch")
        assert b.receive() == (b"punch", mapped_a)
        b.send(mapped_a, b"through")
        assert a.receive() == (b"through", mapped_b)


@needs_netns
def test_symmetric_has_another_port_for_every_destination() -> None:
    with KernelInternet(nat_a="symmetric") as net:
        places = [(net.public, ip) for ip in (ONE, TWO) * 4]
        with udp_probes((net.peer_a, None), (net.public, ONE), *places) as (
            inside,
            stranger,
            *servers,
        ):
            ports = set()
            for server in servers:
                inside.send(server.address)
                mapped = server.source_of_next()
                ports.add(mapped[1])
                server.send(mapped)
                assert inside.source_of_next() == server.address
            # Each port is drawn at random, so two of them may meet.
            assert len(ports) >= len(servers) - 1
            inside.send(servers[0].address)
            assert servers[0].source_of_next()[1] in ports
            stranger.send(mapped)
            assert inside.hears_nothing()
            # RFC 4787 section 5: whom the endpoint has sent to may use any mapping of it.
            servers[1].send(mapped)
            assert inside.source_of_next() == servers[1].address


@needs_netns
def test_udp_blocked_drops_in_silence_and_lets_tcp_pass() -> None:
    with (
        KernelInternet(nat_a="udp_blocked") as net,
        udp_probes((net.peer_a, None), (net.public, None)) as (inside, server),
    ):
        inside.socket.connect(server.address)
        for _ in range(3):
            inside.socket.send(b"probe")
            assert inside.hears_nothing(0.05)
        assert server.hears_nothing(0.05)
        with enter(net.public.namespace):
            listener = socket.create_server((ONE, 0))
        with enter(net.peer_a.namespace):
            client = socket.create_connection(listener.getsockname(), timeout=5)
        with listener, client:
            accepted, source = listener.accept()
            accepted.close()
            assert source[0] == net.peer_a.public_address


@needs_netns
def test_full_cone_lets_anyone_in() -> None:
    with (
        KernelInternet(nat_a="full_cone") as net,
        udp_probes((net.peer_a, None), (net.public, ONE), (net.public, TWO)) as (
            inside,
            friend,
            stranger,
        ),
    ):
        inside.send(friend.address)
        mapped = friend.source_of_next()
        stranger.send(mapped)
        assert inside.source_of_next() == stranger.address


@needs_netns
def test_address_restricted_lets_in_whom_this_port_has_talked_to() -> None:
    with KernelInternet(nat_a="address_restricted") as net:
        places = ((net.peer_a, None), (net.public, ONE), (net.public, ONE), (net.public, TWO))
        with udp_probes((net.peer_a, None), *places) as (unused, inside, friend, *others):
            neighbour, stranger = others
            unused.send(stranger.address)
            stranger.source_of_next()
            inside.send(friend.address)
            mapped = friend.source_of_next()
            stranger.send(mapped)
            assert inside.hears_nothing()
            neighbour.send(mapped)
            assert inside.source_of_next() == neighbour.address


@needs_netns
def test_without_nat_the_peer_is_public() -> None:
    with (
        KernelInternet(nat_a="none") as net,
        udp_probes((net.peer_a, None), (net.peer_b, None)) as (a, b),
    ):
        assert net.router_a is None
        assert net.peer_a.lan_address == net.peer_a.public_address == a.address[0]
        b.send(a.address)
        mapped = a.source_of_next()
        assert mapped[0] == net.peer_b.public_address
        a.send(mapped)
        assert b.source_of_next() == a.address


@pytest.mark.alone
@needs_netns
@pytest.mark.parametrize("nat", ["port_restricted", "none"])
def test_a_round_trip_between_the_peers_takes_the_time_asked_for(nat: str) -> None:
    with (
        KernelInternet(nat_a=nat, nat_b=nat, rtt=0.1) as net,
        udp_probes((net.peer_a, None), (net.peer_b, None), (net.public, None)) as (a, b, server),
    ):
        began = time.monotonic()
        a.send(server.address)
        mapped_a = server.source_of_next()
        server.send(mapped_a)
        a.receive()
        assert 0.05 <= time.monotonic() - began < 0.09
        b.send(server.address)
        mapped_b = server.source_of_next()
        a.send(mapped_b)
        time.sleep(0.1)
        b.send(mapped_a)
        while a.receive()[1] != mapped_b:
            pass
        began = time.monotonic()
        a.send(mapped_b, b"ping")
        while b.receive() != (b"ping", mapped_a):
            pass
        b.send(mapped_a, b"pong")
        while a.receive() != (b"pong", mapped_b):
            pass
        assert 0.1 <= time.monotonic() - began < 0.14


@needs_netns
def test_loss_is_the_share_asked_for() -> None:
    with (
        KernelInternet(nat_a="none", loss=0.5, seed=1) as net,
        udp_probes((net.peer_a, None), (net.public, None)) as (a, server),
    ):
        for _ in range(200):
            a.send(server.address)
        arrived = 0
        while not server.hears_nothing(0.3):
            arrived += 1
        assert 60 <= arrived <= 140


@needs_netns
def test_programs_run_in_their_namespace_and_see_one_device() -> None:
    with KernelInternet() as net:
        listed = net.peer_a.run(["ip", "-br", "address"]).stdout.split()
        assert [word.split("@")[0] for word in listed if word[0].isalpha()] == [
            "lo",
            "UNKNOWN",
            "eth0",
            "UP",
        ]
        assert f"{net.peer_a.lan_address}/24" in listed
        command = net.peer_b.command(python("-c", "import os; print(os.getpid())"))
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.communicate(timeout=10)[0].strip() == str(process.pid)
        assert net.public.address == ONE
        assert net.public.public_addresses == (ONE, TWO)


@needs_netns
def test_nothing_stays_behind_and_processes_end_with_their_children() -> None:
    before = host_state()
    nested = "sleep 1000 & exec sleep 1001"
    with KernelInternet(rtt=0.02) as net:
        started_elsewhere = subprocess.Popen(net.public.command(["sleep", "1002"]))
        assert len(ours(pid=os.getpid())) == 5
        direct = net.peer_a.popen(["sh", "-c", nested])
        ignores = "trap '' TERM; echo ready; while :; do sleep 1; done"
        stubborn = net.peer_b.popen(["sh", "-c", ignores], stdout=subprocess.PIPE)
        assert stubborn.stdout.readline() == b"ready\n"
        wait_until(lambda: len(namespaces.pids_in(net.peer_a.namespace)) == 2)
        pids = [*namespaces.pids_in(net.peer_a.namespace), stubborn.pid]
    assert direct.returncode == -signal.SIGTERM
    assert started_elsewhere.wait(timeout=1) == -signal.SIGTERM
    assert stubborn.returncode == -signal.SIGKILL
    assert not any(runs(pid) for pid in pids)
    assert host_state() == before
    net.close()


def wait_until(condition: object, timeout: float = 10.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@needs_netns
def test_an_exception_inside_leaves_nothing() -> None:
    before = host_state()
    with pytest.raises(ZeroDivisionError), KernelInternet():
        raise ZeroDivisionError
    assert host_state() == before


@needs_netns
def test_a_laboratory_that_can_not_be_finished_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = host_state()
    monkeypatch.setattr(laboratory.Router, "rules", "no rule at all")
    with pytest.raises(LaboratoryError, match="syntax error"), KernelInternet(rtt=0.1):
        pass
    assert host_state() == before


@needs_netns
def test_laboratories_stand_side_by_side() -> None:
    with KernelInternet() as one, KernelInternet(nat_a="none") as other:
        assert not set(one.namespaces) & set(other.namespaces)
        with udp_probes((one.peer_a, None), (other.public, None)) as (a, elsewhere):
            a.send(elsewhere.address)
            assert elsewhere.hears_nothing()
    assert ours(pid=os.getpid()) == []


HOLDER = """
    import subprocess, sys, time
    from ice_punch.lab.kernel import KernelInternet
    with KernelInternet(rtt=0.02) as net:
        sleeper = net.peer_a.popen(["sleep", "1000"])
        print(*net.namespaces, sleeper.pid, flush=True)
        time.sleep(1000)
"""


def hold() -> tuple[subprocess.Popen[str], list[str], int]:
    holder = subprocess.Popen(
        python("-c", textwrap.dedent(HOLDER)),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )
    assert holder.stdout is not None
    with holder.stdout as told:
        *names, sleeper = told.readline().split()
    assert set(names) <= set(ours(pid=holder.pid))
    return holder, names, int(sleeper)


@needs_netns
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
)
def test_a_signal_leaves_nothing(number: signal.Signals, status: int) -> None:
    holder, _, sleeper = hold()
    os.killpg(holder.pid, number)
    assert holder.wait(timeout=20) == status
    assert ours(pid=holder.pid) == []
    assert not runs(sleeper)


@needs_netns
def test_a_second_ctrl_c_does_not_interrupt_the_cleaning() -> None:
    holder, _, _ = hold()
    for _ in range(5):
        os.killpg(holder.pid, signal.SIGINT)
        time.sleep(0.005)
    holder.wait(timeout=20)
    assert ours(pid=holder.pid) == []


@needs_netns
def test_what_a_killed_owner_left_is_found_and_removed() -> None:
    holder, names, sleeper = hold()
    assert not set(names) & set(leftovers())
    holder.kill()
    holder.wait()
    assert set(names) <= set(leftovers())
    assert set(names) <= set(remove_leftovers())
    assert ours(pid=holder.pid) == []
    wait_until(lambda: not runs(sleeper))


@needs_netns
def test_a_program_on_its_way_into_a_namespace_ends_with_it(tmp_path: Path) -> None:
    (tmp_path / "netns").write_text("read line\n")
    with KernelInternet() as net:
        slow = ["ip", "netns", "exec", net.peer_a.namespace, "sleep", "1000"]
        entering = subprocess.Popen(
            slow, executable="/bin/sh", cwd=tmp_path, stdin=subprocess.PIPE, text=True
        )
        wait_until(Path(f"/proc/{entering.pid}/cmdline").read_bytes)
        assert entering.pid not in namespaces.pids_in(net.peer_a.namespace)
    assert entering.wait(timeout=10) == -signal.SIGTERM


@needs_netns
def test_run_in_returns_raises_and_gives_up() -> None:
    def fail() -> None:
        raise KeyError("told so")

    with KernelInternet() as net:
        where = net.peer_a.namespace
        seen = run_in(where, lambda: [name for _, name in socket.if_nameindex()])
        assert sorted(seen) == ["eth0", "lo"]
        assert net.public.call(os.getpid) != os.getpid()
        with pytest.raises(KeyError, match="told so"):
            run_in(where, fail)
        with pytest.raises(TimeoutError):
            run_in(where, lambda: time.sleep(60), timeout=0.1)
        with pytest.raises(LaboratoryError, match="died"):
            run_in(where, lambda: os._exit(3))
        with pytest.raises(LaboratoryError, match="pickled"):
            run_in(where, threading.Lock)
        assert net.peer_a.call(lambda: bytes(1 << 20)) == bytes(1 << 20)


@needs_netns
def test_enter_changes_the_calling_thread_and_changes_back() -> None:
    home = os.readlink("/proc/thread-self/ns/net")
    with KernelInternet() as net:
        with contextlib.suppress(ZeroDivisionError), enter(net.public.namespace):
            assert os.readlink("/proc/thread-self/ns/net") != home
            raise ZeroDivisionError
        assert os.readlink("/proc/thread-self/ns/net") == home
    with pytest.raises(LaboratoryError, match="no namespace"), enter(net.public.namespace):
        pass


@needs_netns
def test_a_probe_is_in_the_namespace_it_was_opened_in() -> None:
    with KernelInternet() as net:
        probe = UdpProbe(net.peer_a)
        assert probe.address[0] == net.peer_a.lan_address
        probe.close()


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidConfiguration, match="port_restricted"):
        KernelInternet(nat_a="carrier_pigeon")


@pytest.mark.parametrize(
    ("what", "reason"),
    [("platform", "need Linux"), ("user", "need root"), ("program", "nft is not installed")],
)
def test_available_says_why_not(what: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = namespaces.tool

    def without_nft(name: str) -> str:
        if name == "nft":
            raise LaboratoryError("the program nft is not installed")
        return found(name)

    if what == "platform":
        monkeypatch.setattr("sys.platform", "darwin")
    else:
        monkeypatch.setattr("sys.platform", "linux")
        monkeypatch.setattr(os, "geteuid", lambda: 0 if what == "program" else 1000)
        monkeypatch.setattr(namespaces, "tool", without_nft)
    told = namespaces.available.__wrapped__()
    assert told is not None
    assert reason in told
