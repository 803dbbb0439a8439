"""A coordinator that may open few files, and strangers that would have them all."""

import socket
from contextlib import ExitStack
from pathlib import Path

from processes import MAIN, fleet, rows

LIMIT = 256
FEW_FILES = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({LIMIT}, {LIMIT})); {MAIN}"
HALF = b"GET /health HTTP/1.1\r\nHost: x\r\n"


def test_half_requests_of_strangers_end_no_run(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = ["--clients", "2", "--per-round", "2", "--rounds", "100000", "--set", "rounds.heartbeat_s=1"]
    with fleet(tmp_path) as whole, ExitStack() as strangers:
        boss = whole.coordinator(*run, "--out", str(out), program=FEW_FILES)
        client = whole.client("h0..h1", "--pull")

        def closed() -> int:
            return len(rows(out, "rounds")) if (out / "rounds.csv").exists() else 0

        boss.until(lambda: closed() > 1 or None)
        host, _, port = whole.url.removeprefix("http://").rpartition(":")
        for _ in range(LIMIT):
            stranger = strangers.enter_context(socket.create_connection((host, int(port))))
            stranger.send(HALF)
        before = closed()
        boss.until(lambda: closed() > before + 2 or None)
        strangers.close()
        boss.until(lambda: "turned away" in boss.log.read_text() or None)
        boss.process.terminate()
        boss.ends(130)
        client.process.terminate()
        client.ends(0)
