"""A real federation on this machine: a SuperLink, two SuperNodes with folders of their own."""

from __future__ import annotations

import subprocess

import pytest
from two_nodes import (
    assert_rows_equal,
    check_finished,
    flower_run,
    seconds_to_start,
    simulated,
    start_with_states,
    write_app,
)


@pytest.mark.flower
@pytest.mark.timeout(400)
def test_two_rounds_over_loopback(federation):
    """Each node has a folder that the server never sees; against a simulation that sees both."""
    directory = write_app(federation)
    federation.connect()
    federation.start_link("--insecure")
    for cid in (0, 1):
        federation.start_node(cid, data=federation.folder / str(cid))
    flower_run(federation)
    federation.wait(lambda: directory.state == "finished")
    check_finished(directory, 2)
    assert str(federation.folder / "0") not in (directory.path / "config.yaml").read_text()
    assert_rows_equal(directory.rounds(), simulated(federation, 2))


def make_certificates(folder):
    """Write a certificate authority and a certificate for 127.0.0.1."""
    lines = [
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout ca.key -out ca.crt -subj /CN=ca",
        "openssl req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=me",
        "openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 "
        "-out server.pem -extfile names",
    ]
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    for line in lines:
        subprocess.run(line.split(), cwd=folder, check=True, capture_output=True)


@pytest.mark.slow
@pytest.mark.flower
@pytest.mark.timeout(900)
def test_tls_keys_and_a_node_that_is_killed_and_started_again(federation):
    """After round 1, under another key: Flower refuses the first one until it misses the node.

    The client goes on with the personal head in its folder.
    """
    folder, last = federation.folder, 5
    directory = write_app(federation, rounds=last, timeout=15 + 4 * seconds_to_start(federation))
    make_certificates(folder)
    federation.connect('root-certificates = "../ca.crt"')
    (folder / "home" / "config.toml").write_text(
        f'[superlink.fedlt]\naddress = "127.0.0.1:{federation.port}"\n'
        f'root-certificates = "{folder / "ca.crt"}"\n'
    )
    federation.safe = ["--root-certificates", str(folder / "ca.crt")]
    federation.start_link(
        "--ssl-ca-certfile", "ca.crt", "--ssl-certfile", "server.pem", "--ssl-keyfile",
        "server.key", "--enable-supernode-auth",
    )  # fmt: skip
    keys = [str(folder / f"node{number}.key") for number in range(3)]
    for key in keys:
        line = f"ssh-keygen -q -t ecdsa -b 384 -f {key}".split()
        subprocess.run([*line, "-N", ""], check=True)
        federation.call("flwr", "supernode", "register", f"{key}.pub", "fedlt")
    for cid in (0, 1):
        start_with_states(federation, cid, "--auth-supernode-private-key", keys[cid])
    flower_run(federation)
    rounds = directory.path / "rounds.jsonl"
    federation.wait(lambda: rounds.exists() and rounds.read_text().count("\n") >= 1, 300)
    federation.kill("node1")
    start_with_states(federation, 1, "--auth-supernode-private-key", keys[2])
    federation.wait(lambda: directory.state == "finished", 400)
    check_finished(directory, last)
    lost = directory.result()["faults"]
    assert lost is None or {(cid, kind) for _, cid, kind in lost["log"]} == {(1, "lost")}
    states = sorted(int(path.stem) for path in (folder / "states1").rglob("*.safetensors"))
    assert states[-1] == last
