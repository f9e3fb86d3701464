"""Puts and linearizable ranges through h2load against each server in turn; medians, ratios and CPU."""

import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROUNDS = int(os.environ.get("ROUNDS", "3"))
REQUESTS = int(os.environ.get("REQUESTS", "100000"))
SERVERS = {"etcd": "target/reference/etcd", "quorate": "target/release/quorate"}


def varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def framed(message):
    return b"\0" + len(message).to_bytes(4, "big") + message


WORK = {
    "put": ("/etcdserverpb.KV/Put", framed(field(1, b"key") + field(2, b"v" * 256))),
    "range": ("/etcdserverpb.KV/Range", framed(field(1, b"key"))),
}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Server:
    def __init__(self, binary):
        self.directory = tempfile.mkdtemp(prefix="quorate-speed-")
        self.port, peer = free_port(), free_port()
        url, peer_url = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{peer}"
        self.process = subprocess.Popen(
            [binary, "--name", "m", "--data-dir", self.directory + "/data", "--listen-client-urls", url,
             "--advertise-client-urls", url, "--listen-peer-urls", peer_url,
             "--initial-advertise-peer-urls", peer_url, "--initial-cluster", f"m={peer_url}"],
            stdout=subprocess.DEVNULL, stderr=open(self.directory + "/log", "w"))
        deadline = time.time() + 20
        while time.time() < deadline:
            if self.load("put", 1, 1, 1) is not None:
                return
            time.sleep(0.1)
        sys.exit(f"{binary} does not serve; see {self.directory}/log")

    def load(self, work, requests, connections, streams):
        path, body = WORK[work]
        body_file = self.directory + "/body"
        with open(body_file, "wb") as f:
            f.write(body)
        before = cpu_seconds(self.process.pid)
        out = subprocess.run(
            ["h2load", "-n", str(requests), "-c", str(connections), "-m", str(streams), "-t", "1", "-d", body_file,
             "-H", "content-type: application/grpc", "-H", "te: trailers",
             f"http://127.0.0.1:{self.port}{path}"], capture_output=True, text=True).stdout
        used = cpu_seconds(self.process.pid) - before
        rate = re.search(r"([\d.]+) req/s", out)
        done = re.search(r"(\d+) succeeded", out)
        if not rate or not done or int(done.group(1)) != requests:
            return None
        return float(rate.group(1)), used / requests * 1e6

    def stop(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.directory)


def main():
    results = {(name, work): [] for name in SERVERS for work in WORK}
    for _ in range(ROUNDS):
        for name, binary in SERVERS.items():
            server = Server(binary)
            for work in WORK:
                server.load(work, REQUESTS // 10, 16, 16)
                measured = server.load(work, REQUESTS, 16, 16)
                if measured is None:
                    sys.exit(f"{name}: not all {work} requests succeeded")
                results[name, work].append(measured)
            server.stop()
    print(f"{REQUESTS} requests, 16 connections x 16 streams, medians of {ROUNDS} rounds")
    print(f"{'':8}{'server':10}{'requests/s':>12}{'CPU us':>9}{'rate':>8}{'CPU':>8}")
    good = True
    for work in WORK:
        reference = None
        for name in SERVERS:
            rate = statistics.median(r for r, _ in results[name, work])
            cpu = statistics.median(c for _, c in results[name, work])
            reference = reference or (rate, cpu)
            print(f"{work:8}{name:10}{rate:12.0f}{cpu:9.1f}{rate / reference[0]:7.2f}x{cpu / reference[1]:7.2f}x")
        good = good and rate >= 2 * reference[0] and cpu <= reference[1] / 4
    if "--check" in sys.argv and not good:
        sys.exit("below twice etcd's rate, or above a quarter of its CPU")


main()
