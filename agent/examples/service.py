#!/usr/bin/env python3
"""A scheduler under Handover's lease. Python's standard library only.

The agent starts it, with `service = "pull"` under [lease] in its config; the environment names socket and instance.
It asks with a long poll, works on a second thread, keeps its own deadline on CLOCK_BOOTTIME, and acknowledges each
record. Silence ends its right to work: nobody has to tell it to stop.
"""
import http.client
import json
import os
import socket
import threading
import time

SOCKET = os.environ["HANDOVER_LEASE_SOCKET"]
INSTANCE = os.environ["HANDOVER_INSTANCE"]
C_UNIT_MS = 200  # the longest unit of work: at most `c_unit` in the agent's config


def boot_ns():
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def our_clock():
    with open("/proc/sys/kernel/random/boot_id") as file:
        boot_id = file.read().strip()
    try:
        return boot_id, os.readlink("/proc/self/ns/time")
    except OSError:
        return boot_id, ""  # a kernel without time namespaces


class UnixConnection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(SOCKET)


def ask(method, path, body=None, timeout=5):
    connection = UnixConnection("agent", timeout=timeout)
    try:
        connection.request(method, path, body=body and json.dumps(body))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


class Right:
    """What we may do. The lock is held for the whole of each unit, so whoever has it knows that none is under way."""

    def __init__(self):
        self.unit = threading.Lock()
        self.token = None  # A5: every process starts stopped
        self.soft = 0
        self.done = 0

    def extend(self, token, soft):
        with self.unit:
            if token != self.token:
                # A3: install the token in the database here, before the first unit (docs/postgresql.md):
                #   SELECT handover.fence_install('billing', token, INSTANCE)
                self.token, self.soft = token, soft
            else:
                self.soft = max(self.soft, soft)  # a deadline never moves back within a turn

    def end(self):
        """A4: returns when no unit is under way, and none will be."""
        with self.unit:
            self.token = None

    def work(self):
        while True:
            with self.unit:
                now = boot_ns()
                if self.token is not None and now < self.soft:  # A1: immediately before each unit
                    unit(now, self.token, self.soft)
                    self.done += 1
            time.sleep(0.02)


def unit(now, token, soft):
    # One transaction that begins with SELECT handover.fence_check('billing', token). Here: a line.
    with open(os.environ["WORK_LOG"], "a") as log:
        log.write(f"{INSTANCE} {now} {token} {soft}\n")
    time.sleep(0.03)


def main():
    right = Right()
    threading.Thread(target=right.work, daemon=True).start()
    clock, seq, same = our_clock(), 0, True
    while True:
        sent = boot_ns()  # before the question: with another clock spans count from here, so it must not wait
        try:
            wait = f"&seq={seq}&wait=20s" if same else ""
            status, body = ask("GET", f"/v1/lease?instance={INSTANCE}{wait}", timeout=25)
            record = json.loads(body) if status == 200 else None
        except (OSError, http.client.HTTPException, ValueError):
            record = None  # the agent is away: what was told before stands until its deadline
        if record is None or record["seq"] <= seq:
            time.sleep(0.1)
            continue
        seq = record["seq"]
        same = (record["boot_id"], record["time_ns"]) == clock
        if record["state"] == "ACTIVE":
            soft = record["soft_deadline_boot_ns"] if same else sent + record["remaining_soft_ms"] * 1_000_000
            right.extend(record["token"], soft)
            state = "STARTED"
        else:  # QUIESCE, STOPPED, FENCED, and whatever a later version may say
            right.end()
            state = "QUIESCED"
        ack = {"v": 1, "token": record["token"], "seq": seq, "state": state,
               "in_flight": 0, "c_unit_ms": C_UNIT_MS, "progress": right.done}
        try:
            ask("POST", f"/v1/ack?instance={INSTANCE}", ack)  # refused (409): a newer record is there, and is read next
        except (OSError, http.client.HTTPException):
            pass


if __name__ == "__main__":
    main()
