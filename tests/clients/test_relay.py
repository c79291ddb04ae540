"""TURN: a client that no datagram reaches gets its results through coturn, and `saccade doctor --network` says which ways
are open and why the others are not."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from coturn import SECRET, Coturn
from netns import Network, need_namespaces
from server import Server, command

WRONG = "some other words"
TOKENS = "a secret of at least thirty-two bytes"
MEDIA_PORT = 8189
# What a strict firewall lets out: neither datagrams, nor connections to the media port, nor one of coturn's two ports.
NO_MEDIA = ("meta l4proto udp", f"tcp dport {MEDIA_PORT}")
ONLY = {
    "tcp": (f"turn:{Network.SERVER}:3478?transport=tcp", "tcp dport 5349"),
    "tls": (f"turns:{Network.SERVER}:5349?transport=tcp", "tcp dport 3478"),
}


@contextmanager
def relayed_network(*dropped: str) -> Iterator[tuple[Network, Coturn]]:
    need_namespaces()
    if shutil.which("turnserver") is None:
        assert os.environ.get("CI") != "true", "coturn is not installed"
        pytest.skip("coturn is not installed")
    with Network() as network, Coturn(network) as coturn:
        if dropped:
            network.drop(*dropped)
        yield network, coturn


def servers(*urls: str, secret: str = SECRET) -> str:
    return json.dumps([{"urls": urls, "secret": secret, "ttl_s": 600}])


def client(network: Network, coturn: Coturn, server: Server, relay: str) -> dict:
    """Runs relayed.py on the client's side, with a token for `alice`."""
    token = command("token", "--sub", "alice", "--can-publish", "--can-view", SACCADE_AUTH__SECRET=TOKENS).stdout.strip()
    folder = Path(__file__).parent
    words = [*network.within("client"), sys.executable, "-B", folder / "relayed.py", server.ws, token, relay]
    paths = os.pathsep.join(map(str, (folder, folder.parent / "data")))
    environment = os.environ | {"SSL_CERT_FILE": str(coturn.certificate), "PYTHONPATH": paths}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{''.join(coturn.said[-20:])}\n{server.said()}"
    return json.loads(done.stdout)


def doctor(network: Network, side: str, ice_servers: str, **environment: str) -> tuple[int, dict[str, dict]]:
    """Exit code and checks by name."""
    words = ["doctor", "--network", "--json", "--media-port", "0"]
    done = command(*words, within=network.within(side), SACCADE_ICE_SERVERS=ice_servers, **environment)
    assert done.stdout, done.stderr
    for secret in (SECRET, WRONG):
        assert secret not in done.stdout + done.stderr
    return done.returncode, {it["name"]: it for it in json.loads(done.stdout)["checks"]}


@pytest.mark.parametrize("way", ONLY)
def test_results_come_through_a_relay_where_nothing_else_gets_through(way: str) -> None:
    url, other = ONLY[way]
    with relayed_network(*NO_MEDIA, other) as (network, coturn):
        server = Server(
            network.within("server"),
            Network.SERVER,
            auth__secret=TOKENS,
            media__port=MEDIA_PORT,
            ice_servers=servers(url),
            session__ice_timeout_ms=6000,
            shutdown__grace_ms=500,
        )
        try:
            before = time.time()
            got = client(network, coturn, server, "turn")
            expiry, subject = got["username"].split(":")
            assert before + 595 <= int(expiry) <= time.time() + 605 and subject == "alice"
            assert got["results"] >= 5 and got["detections"] > 0
            assert got["candidate"] == "relay"
            # Without the relay there is no way.
            assert client(network, coturn, server, "none") == {"error": "ice_timeout"}
            assert SECRET not in server.said()
        finally:
            server.stop()


def test_doctor_tells_open_ways_from_closed_ones() -> None:
    udp, tcp = f"turn:{Network.SERVER}", ONLY["tcp"][0]
    tls, stun = ONLY["tls"][0], f"stun:{Network.SERVER}"
    ice_servers = json.dumps([*json.loads(servers(udp, tcp, tls)), {"urls": [stun]}])
    with relayed_network(*NO_MEDIA, "tcp dport 5349") as (network, coturn):
        trusting = {"SSL_CERT_FILE": str(coturn.certificate)}
        code, ways = doctor(network, "server", ice_servers, **trusting)
        relays = [ways[it] for it in (f"relay UDP {udp}", f"relay TCP {tcp}", f"relay TLS {tls}")]
        assert [it["status"] for it in relays] == ["ok"] * 3, relays
        assert all("reaches 10.77.1.1:" in it["found"] for it in relays), relays
        assert ways[f"reflexive UDP {Network.SERVER} {stun}"]["status"] == "ok"
        hosts = [ways[f"host {it} {Network.SERVER}"]["status"] for it in ("UDP", "TCP")]
        assert (code, hosts) == (0, ["ok", "ok"])

        start = time.monotonic()
        code, ways = doctor(network, "client", ice_servers, **trusting)
        assert time.monotonic() - start < 12, "all ways are tried at once"
        for name in (f"relay UDP {udp}", f"relay TLS {tls}", f"reflexive UDP {Network.CLIENT} {stun}"):
            # The others' advice names protocol and place.
            assert ways[name]["status"] == "warn" and "no answer in 6 s" in ways[name]["found"], ways[name]
            assert "drops" in ways[name]["advice"] and Network.SERVER in ways[name]["advice"], ways[name]
        open_way = ways[f"relay TCP {tcp}"]
        assert open_way["found"].startswith("works, as 10.77.1.1:"), open_way
        # coturn relays to the server, and not to the client.
        assert "403" in open_way["found"] and "allowed-peer-ip=10.77.1.2" in open_way["advice"], open_way
        assert code == 0


def test_the_relay_is_for_the_server_and_for_nobody_else() -> None:
    url = ONLY["tcp"][0]
    with relayed_network() as (network, _):
        for peer in ("203.0.113.9", Network.CLIENT):
            code, ways = doctor(network, "server", servers(url), SACCADE_MEDIA__ADVERTISE=peer)
            check = ways[f"relay TCP {url}"]
            assert check["found"].startswith("works, as 10.77.1.1:") and code == 0, check
            assert f"does not relay to {peer}: refused with 403" in check["found"], check


def test_doctor_names_what_is_configured_wrongly() -> None:
    with relayed_network() as (network, coturn):
        wrong = servers(ONLY["tcp"][0], secret=WRONG)
        code, ways = doctor(network, "server", wrong)
        [check] = [it for name, it in ways.items() if name.startswith("relay")]
        assert code == 69 and check["status"] == "fail" and "401" in check["found"], check
        assert "static-auth-secret" in check["advice"], check

        refused, nameless = f"turn:{Network.SERVER}:9?transport=tcp", "turn:nowhere.invalid"
        untrusted, plain = ONLY["tls"][0], f"turns:{Network.SERVER}:3478"
        code, ways = doctor(network, "server", servers(refused, nameless, untrusted, plain))
        for url, way, part in [
            (refused, "TCP", "refused: nothing listens there"),
            (nameless, "UDP", "the name nowhere.invalid was not found"),
            (untrusted, "TLS", "signed by nobody whom this machine trusts"),
        ]:
            check = ways[f"relay {way} {url}"]
            assert check["status"] == "fail" and part in check["found"] and check["advice"], check
        assert ways[f"relay TLS {plain}"]["status"] == "fail"
        assert code == 69


def test_doctor_says_what_others_see_and_what_to_advertise() -> None:
    with relayed_network() as (network, _):
        stun = json.dumps([{"urls": [f"stun:{Network.SERVER}"]}])
        name = f"reflexive UDP {Network.CLIENT} stun:{Network.SERVER}"
        code, ways = doctor(network, "client", stun, SACCADE_MEDIA__ADVERTISE="203.0.113.7")
        assert (code, ways[name]["status"]) == (0, "warn"), ways[name]
        assert "203.0.113.7" in ways[name]["found"] and "media.advertise" in ways[name]["advice"], ways[name]
        code, ways = doctor(network, "client", stun, SACCADE_MEDIA__ADVERTISE=Network.CLIENT)
        assert (code, ways[name]["status"]) == (0, "ok"), ways[name]
