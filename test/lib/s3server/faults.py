"""Faults on demand: what matches which requests, and what is done to them.

A request passes these points in turn; a fault acts at the one it names ("when"):
    early    the headers are read, the body is not
    body     "at" bytes of the body are read
    before   the body is read, nothing is done yet
    after    the work is done, nothing is answered yet
    answer   the head and "at" bytes of the answer's body are sent (half of it when not given)
See ../s3_server.py for the list.
"""
import re
import time
from dataclasses import dataclass, field
from email.utils import formatdate

from .errors import ServiceError
from .message import Response

MATCH_KEYS = {"operation", "service", "method", "bucket", "key", "part", "access_key_id", "host"}
POINTS = ("early", "body", "before", "after", "answer")

# name: (points allowed, the first one being the default; further arguments with their defaults)
ACTIONS = {
    "error": (("before", "early", "after"), {"code": "InternalError", "status": None, "message": None, "fields": {},
                                             "headers": {}, "pad": 0, "close": False, "linger": 0.2}),
    "answer": (("before", "early", "after"), {"status": 200, "headers": {}, "body": "", "pad": 0, "close": False, "linger": 0.2}),
    "close": (("before", "early", "body", "after", "answer"), {"at": None, "reset": True, "forget": False}),
    "stall": (("before", "early", "body", "after", "answer"), {"at": None, "seconds": None}),
    "slow_read": (("body",), {"rate": 65536}),
    "trickle": (("after",), {"seconds": 2.0, "interval": 0.25, "then": "success", "code": "InternalError",
                             "declaration_first": False}),
    "truncate": (("after",), {"at": None, "framed": False, "reset": False}),
    "header": (("after",), {"set": {}, "remove": [], "date_offset": None}),
    "disk_full": (("body",), {"bytes": 0, "how": "InternalError"}),
}

PRESETS = {
    "slow_down": {"do": "error", "code": "SlowDown"},
    "internal_error": {"do": "error", "code": "InternalError"},
    "request_timeout": {"do": "error", "code": "RequestTimeout", "close": True},
    "bad_digest": {"do": "error", "code": "BadDigest"},
    "expired_token": {"do": "error", "code": "ExpiredToken"},
    "early_403": {"do": "error", "when": "early", "code": "AccessDenied"},
    "reset": {"do": "close"},
    "lost_reply": {"do": "close", "when": "after"},
    "hold": {"do": "stall", "seconds": None},
    "no_etag": {"do": "header", "remove": ["ETag"]},
    "error_200": {"do": "error", "status": 200, "code": "InternalError"},
    "big_error": {"do": "error", "code": "AccessDenied", "pad": 10 * 1024 * 1024},
    "html_error": {"do": "answer", "status": 500, "headers": {"Content-Type": "text/html"},
                   "body": "<html><head><title>500</title></head><body><h1>Internal Server Error</h1></body></html>\n"},
    "hostile_region": {"do": "error", "code": "AuthorizationHeaderMalformed",
                       "message": "The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'evil.com/'",
                       "fields": {"Region": "evil.com/"}, "headers": {"x-amz-bucket-region": "evil.com/"}},
    "redirect": {"do": "answer", "status": 307, "headers": {"Location": "http://169.254.169.254/latest/meta-data/"}},
    "wrong_date": {"do": "header", "date_offset": -86400},
}


class HangUp(Exception):
    """The connection is to be closed without (more of) an answer."""

    def __init__(self, reset):
        super().__init__("reset" if reset else "closed")
        self.reset = reset


@dataclass
class Fault:
    id: int
    name: str
    do: str
    when: str
    match: dict
    skip: int
    times: object
    arguments: dict
    seen: int = 0
    used: int = 0
    received: int = 0                       # disk_full: bytes of bodies so far
    released: bool = False
    extra: dict = field(default_factory=dict)

    def describe(self):
        return {"id": self.id, "name": self.name, "seen": self.seen, "used": self.used}


def make(number, specification):
    given = dict(specification)
    name = given.get("do")
    if name in PRESETS:
        given = {**PRESETS[name], **{k: v for k, v in given.items() if k != "do"}}
    if given.get("do") not in ACTIONS:
        raise ValueError("unknown fault %r" % name)
    points, defaults = ACTIONS[given["do"]]
    match, skip = given.pop("match", {}), given.pop("skip", 0)
    times = given.pop("times", 1 if given["do"] != "disk_full" else None)
    do, when = given.pop("do"), given.pop("when", points[0])
    if when not in points:
        raise ValueError("%s cannot act at %r" % (do, when))
    if set(match) - MATCH_KEYS or set(given) - set(defaults):
        raise ValueError("unknown arguments: %s" % sorted((set(match) - MATCH_KEYS) | (set(given) - set(defaults))))
    return Fault(number, name, do, when, match, skip, times, {**defaults, **given})


def _matches(fault, request, operation, service):
    facts = {"operation": operation, "service": service, "method": request.method, "bucket": request.bucket,
             "part": request.params.get("partNumber"), "host": request.host,
             "access_key_id": request.claimed_key}
    for name, wanted in fault.match.items():
        if name == "key":
            if not re.search(wanted, request.key or ""):
                return False
        elif str(facts[name]) not in [str(w) for w in (wanted if isinstance(wanted, list) else [wanted])]:
            return False
    return True


class Faults:
    """All that are set, in the order in which they were added."""

    def __init__(self, world):
        self.world = world
        self.set = []
        self.count = 0

    def add(self, specification):
        with self.world.lock:
            self.count += 1
            fault = make(self.count, specification)
            self.set.append(fault)
            return fault

    def clear(self):
        with self.world.changed:
            for fault in self.set:
                fault.released = True
            self.set = []
            self.world.changed.notify_all()

    def release(self, number=None):
        """Ends stalls, one fault's or all."""
        with self.world.changed:
            for fault in self.set:
                if number in (None, fault.id):
                    fault.released = True
            self.world.changed.notify_all()

    def take(self, request, operation, service):
        with self.world.lock:
            taken = []
            for fault in self.set:
                if _matches(fault, request, operation, service):
                    fault.seen += 1
                    if fault.seen > fault.skip and (fault.times is None or fault.used < fault.times):
                        fault.used += 1
                        taken.append(fault)
            return taken


class Run:
    """The faults that one request meets."""

    def __init__(self, taken, handler, request, service):
        self.faults, self.handler, self.request, self.service = taken, handler, request, service
        self.world = handler.world
        self.rate = next((f.arguments["rate"] for f in taken if f.do == "slow_read"), None)
        self.stops = sorted(((self._offset(f, handler.expected_body), i) for i, f in enumerate(taken)
                             if f.when == "body" and f.do in ("close", "stall")))
        self.linger = None

    @staticmethod
    def _offset(fault, length):
        at = fault.arguments["at"]
        return length // 2 if at is None else min(at, length)

    def at_body(self, done):
        """Called when that many bytes of the body are read; how many more may be read at once."""
        while self.stops and self.stops[0][0] <= done:
            fault = self.faults[self.stops.pop(0)[1]]
            if fault.do == "close":
                raise HangUp(fault.arguments["reset"])
            self._stall(fault)
        return self.stops[0][0] - done if self.stops else None

    def received(self, count):
        """Called for each piece of a body; raises when the disk is full."""
        for fault in self.faults:
            if fault.do == "disk_full":
                with self.world.lock:
                    fault.received += count
                    full = fault.received > fault.arguments["bytes"]
                if full and fault.arguments["how"] == "drop":
                    raise HangUp(True)
                fault.extra[self.request.id] = full

    def point(self, name, response=None):
        """Acts at "early", "before" or "after"; the answer to give instead, or None."""
        for fault in self.faults:
            if fault.do == "disk_full" and name == "before" and fault.extra.pop(self.request.id, False):
                how = fault.arguments["how"]
                status = int(how) if str(how).isdecimal() else None
                return self.error("InternalError" if status else how, status=status)
            if fault.when != name:
                continue
            if fault.do == "stall":
                self._stall(fault)
            elif fault.do == "close":
                if fault.arguments["forget"]:
                    self.handler.forget_upload(self.request)
                raise HangUp(fault.arguments["reset"])
            elif fault.do in ("error", "answer"):
                response = self._instead(fault)
                if name != "after":
                    return response
            elif fault.do == "header":
                self._change_headers(fault.arguments, response)
        return response

    def error(self, code, message=None, **more):
        """The service's own form of an error."""
        return self.handler.render_error(ServiceError(code, message, service=self.service, **more), self.service, self.request)

    def _instead(self, fault):
        a = fault.arguments
        if fault.do == "error":
            response = self.error(a["code"], a["message"], fields=a["fields"], headers=a["headers"], status=a["status"])
            if a["pad"]:
                response.body = response.body.replace(b"</Message>", b"x" * a["pad"] + b"</Message>", 1)
        else:
            response = Response(a["status"], a["body"], dict(a["headers"]))
            response.body += b"x" * a["pad"]
        if a["close"] or fault.when == "early":
            response.set("Connection", "close")
        if fault.when == "early":
            self.linger = a["linger"]
        return response

    @staticmethod
    def _change_headers(a, response):
        for name in a["remove"]:
            response.set(name, None)
        for name, value in a["set"].items():
            response.set(name, value)
        if a["date_offset"] is not None:
            response.set("Date", formatdate(time.time() + a["date_offset"], usegmt=True))

    def shape(self, response):
        """How the answer is sent: [(offset, fault)] of what happens within it, and a trickle."""
        length = len(response.body)
        events = sorted(((self._offset(f, length), f.id, f) for f in self.faults if f.when == "answer"), key=lambda e: e[:2])
        trickle = next((f.arguments for f in self.faults if f.do == "trickle"), None)
        for fault in self.faults:
            if fault.do == "truncate":
                at = self._offset(fault, length)
                if fault.arguments["framed"]:
                    response.body = response.body[:at]
                else:
                    events.append((at, fault.id, fault))
        return [(at, f) for at, _, f in events], trickle

    def act_within(self, fault):
        if fault.do == "stall":
            self._stall(fault)
        else:
            raise HangUp(fault.arguments["reset"])

    def _stall(self, fault):
        """Until the time is over, it is released, or the peer has gone."""
        end = None if fault.arguments["seconds"] is None else time.monotonic() + fault.arguments["seconds"]
        generation = self.world.generation
        while end is None or time.monotonic() < end:
            with self.world.changed:
                if fault.released or generation != self.world.generation:
                    return
                self.world.changed.wait(0.02 if end is None else min(0.02, max(0, end - time.monotonic())))
            if self.handler.peer_gone():
                raise ConnectionAbortedError("the peer hung up during a stall")
