"""HTTP: reads requests, lets faults act on them, and sends what the services answer."""
import os
import secrets
import select
import socket
import ssl
import struct
import threading
import time
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

from . import metadata, s3, sts
from .errors import ServiceError, s3_error_body, sts_error_body
from .faults import HangUp, Run
from .message import Request, Response

PIECE = 256 * 1024


def _reason(status):
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


class Server(ThreadingHTTPServer):
    """One loopback port of one service: "s3" (with STS), "imds" or "container"."""
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    allow_reuse_address = True

    def __init__(self, address, service, world, faults, tls=None):
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.service, self.world, self.faults, self.tls = service, world, faults, tls
        self.accepted, self.open = 0, {}
        super().__init__(address, Handler)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def server_bind(self):
        # HTTPServer would look up the host's name.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.server_address[:2]

    def handle_error(self, request, client_address):
        import traceback
        traceback.print_exc()

    def stop(self):
        """Closes the port and every connection, at once."""
        self.shutdown()
        self.server_close()
        with self.world.lock:
            handlers = list(self.open.values())
        for handler in handlers:
            handler.drop(reset=False)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    # --- connection -----------------------------------------------------------

    def setup(self):
        self.world, self.tunnel, self.dropped = self.server.world, None, False
        self.secure = False
        self.expected_body = 0
        with self.world.lock:
            self.server.accepted += 1
            self.number = self.server.accepted
            self.server.open[self.number] = self
        super().setup()

    def handle(self):
        try:
            if self.begin_tls():
                super().handle()
        except (ConnectionError, ssl.SSLError, TimeoutError):
            pass
        except (OSError, ValueError):
            if not self.dropped:
                raise

    def finish(self):
        with self.world.lock:
            self.server.open.pop(self.number, None)
        try:
            super().finish()
            if self.secure:
                self.connection.close()
        except (OSError, ValueError):
            pass

    def begin_tls(self):
        """TLS when the first byte says so; false when the peer has gone."""
        first = self.connection.recv(1, socket.MSG_PEEK)
        if first == b"\x16":
            if self.server.tls is None:
                return False
            self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)
            self.secure = True
            self.rfile = self.connection.makefile("rb", self.rbufsize)
            self.wfile = self.connection.makefile("wb", self.wbufsize) if self.wbufsize else _Writer(self.connection)
        return first != b""

    def drop(self, reset):
        """Closes the socket under everything that holds it."""
        if self.dropped:
            return
        self.dropped = True
        self.close_connection = True
        try:
            if reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                os.close(self.connection.detach())
            else:
                # Not SSLSocket's: another thread may be reading.
                socket.socket.shutdown(self.connection, socket.SHUT_RDWR)
        except OSError:
            pass

    def peer_gone(self):
        if self.dropped:
            return True
        poll = select.poll()
        poll.register(self.connection.fileno(), select.POLLRDHUP)
        return bool(poll.poll(0))

    def log_message(self, format, *args):
        pass

    def handle_expect_100(self):
        return True                     # sent when the body is wanted

    def do_CONNECT(self):
        """A proxy that leads every name back to this server."""
        self.tunnel = self.path
        self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        self.close_connection = not self.begin_tls()

    # --- requests -------------------------------------------------------------

    def serve(self):
        # http.server joins slashes at the start of a path; a key may begin with one.
        target = self.requestline.split(" ")[1] if self.requestline.count(" ") == 2 else self.path
        request = Request(self.command, target, self.headers, self.world.config["virtual_suffixes"])
        request.secure = self.secure
        self.expected_body = self.read_length(request)
        service = self.classify(request)
        entry = self.log_entry(request, service)
        started, generation = time.monotonic(), self.world.generation
        logged = False
        try:
            if service == "sts":
                request.body = self.read_body(request, None)
                sts.read_form(request)
                entry["form"] = {k: v for k, v in request.form.items() if k != "WebIdentityToken"}
            operation = entry["operation"] = self.operation(service, request)
            taken = self.server.faults.take(request, operation, service)
            entry["faults"] = [fault.name for fault in taken]
            self.world.log_start(entry)
            logged = True
            run = Run(taken, self, request, service)
            response = self.answer(request, service, operation, run, entry)
            # Before the peer can see the outcome: what it then reads in the log is there.
            entry.update(status=response.status, code=response.code)
            self.note(entry, request)
            self.send(response, run)
        except HangUp as how:
            entry["ended"] = str(how)
            self.note(entry, request)
            self.drop(how.reset)
        except (ConnectionError, ssl.SSLError) as reason:
            entry["ended"] = "peer: %s" % reason
            self.close_connection = True
        except (OSError, ValueError):
            if not self.dropped:
                raise
            entry["ended"] = "stopped"
        finally:
            entry["seconds"] = time.monotonic() - started
            if logged:
                self.note(entry, request)
                self.world.log_end(entry, generation)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_OPTIONS = do_PATCH = serve

    def read_length(self, request):
        if request.header("transfer-encoding") is not None:
            self.close_connection = True
            return 0
        text = request.header("content-length")
        if text is not None and text.isdecimal():
            request.content_length = int(text)
        return request.content_length or 0

    def classify(self, request):
        authorization = request.header("authorization") or ""
        request.claimed_key = authorization.partition("Credential=")[2].split("/")[0] or None
        if self.server.service != "s3":
            return self.server.service
        form = request.path == "/" and not request.bucket and (request.method == "POST" or "Action" in request.params)
        return "sts" if request.sts_host or form else "s3"

    @staticmethod
    def operation(service, request):
        return {"s3": s3.identify, "sts": sts.identify, "imds": metadata.identify_imds,
                "container": metadata.identify_container}[service](request)

    def log_entry(self, request, service):
        key = request.key if service == "s3" else None
        return {"time": time.time(), "service": service, "operation": "Unknown", "method": request.method,
                "path": request.raw_path, "query": dict(request.query), "host": request.host,
                "bucket": request.bucket if service == "s3" else None, "key": key, "addressing": request.addressing,
                "part": int(request.params["partNumber"]) if request.params.get("partNumber", "").isdecimal() else None,
                "upload_id": request.params.get("uploadId"), "headers": request.logged_headers(),
                "canonical_path": request.raw_path == quote(request.path, safe="/-_.~", errors="surrogateescape"),
                "expected_body": self.expected_body, "connection": self.number, "tls": self.secure,
                "tunnel": self.tunnel, "access_key_id": request.claimed_key, "signature": "not checked",
                "principal": None, "payload": None, "form": None, "faults": [], "body_size": 0, "seconds": None,
                "worked": False, "status": None, "code": None, "ended": None, "finished": False, "n": None}

    @staticmethod
    def note(entry, request):
        entry.update(signature=request.signature, payload=request.payload, body_size=len(request.body),
                     principal=request.identity.arn if request.identity else None)

    def answer(self, request, service, operation, run, entry):
        response = run.point("early")
        if response is not None:
            self.close_connection = True
            return response
        if service != "sts":
            request.body = self.read_body(request, run)
        else:                           # read already: the action is in it
            run.received(len(request.body))
            run.at_body(len(request.body))
        response = run.point("before")
        if response is not None:
            return response
        try:
            response = self.work(request, service, operation)
        except ServiceError as error:
            response = self.render_error(error, service, request)
        entry["worked"] = response.status < 300
        return run.point("after", response)

    def work(self, request, service, operation):
        if request.header("transfer-encoding") is not None and service == "s3":
            raise ServiceError("NotImplemented", fields={"Header": "Transfer-Encoding"})
        handle = {"s3": s3.handle, "sts": sts.handle, "imds": metadata.handle_imds,
                  "container": metadata.handle_container}[service]
        response = handle(self.world, request, operation)
        response.set("x-amz-request-id" if service == "s3" else "x-amzn-RequestId", request.id)
        return response

    def read_body(self, request, run):
        length = self.expected_body
        if length and (request.header("expect") or "").lower() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = bytearray()
        while True:
            more = min(PIECE, length - len(body))
            if run is not None:
                until = run.at_body(len(body))
                more = more if until is None else min(more, until)
            if more <= 0:
                return bytes(body)
            if run is not None and run.rate:
                more = min(more, max(1, run.rate // 10))
                time.sleep(more / run.rate)
            piece = self.rfile.read(more)
            body += piece
            request.body = body
            if len(piece) < more:
                raise ConnectionAbortedError("hung up after %d of %d bytes of the body" % (len(body), length))
            if run is not None:
                run.received(len(piece))

    def render_error(self, error, service, request):
        headers = dict(error.headers)
        if service in ("imds", "container"):
            response = Response(error.status, '{"code":"%s","message":"%s"}' % (error.code, error.message), headers, error.code)
            response.set("Content-Type", "application/json")
            return response
        if service == "sts":
            response = Response(error.status, sts_error_body(error, request.id), headers, error.code)
            response.set("Content-Type", "text/xml")
            response.set("x-amzn-RequestId", request.id)
            return response
        host_id = secrets.token_urlsafe(42)
        body = s3_error_body(error, request.raw_path, request.id, host_id)
        response = Response(error.status, body, headers, error.code)
        response.set("Content-Type", "application/xml")
        response.set("x-amz-request-id", request.id)
        response.set("x-amz-id-2", host_id)
        return response

    def forget_upload(self, request):
        with self.world.lock:
            bucket = self.world.buckets.get(request.bucket)
            if bucket:
                bucket.forgotten.add(request.params.get("uploadId"))

    # --- answers --------------------------------------------------------------

    def head_of(self, response, length):
        fixed = {"Date": formatdate(self.world.now(), usegmt=True), "Server": "AmazonS3"}
        for name, value in fixed.items():
            if response.header(name) is None:
                response.set(name, value)
        if length is not None and response.header("Content-Length") is None and response.status != 204:
            response.set("Content-Length", length)
        if self.close_connection:
            response.set("Connection", "close")
        lines = ["HTTP/1.1 %d %s" % (response.status, _reason(response.status))]
        lines += ["%s: %s" % item for item in response.headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8")

    def send(self, response, run):
        if (response.header("Connection") or "").lower() == "close":
            self.close_connection = True
        events, trickle = run.shape(response)
        if trickle is not None:
            self.send_trickling(response, trickle, run)
        else:
            # The length is that of the whole, also when a fault sends less of it.
            length = len(response.body)
            body = b"" if self.command == "HEAD" or response.status == 204 else response.body
            self.wfile.write(self.head_of(response, length))
            sent = 0
            for at, fault in events:
                self.wfile.write(body[sent:at])
                sent = max(sent, at)
                run.act_within(fault)
            self.wfile.write(body[sent:])
        if run.linger is not None:
            # The request's body is never read; closing at once would reset
            # the connection and could destroy the answer on its way.
            socket.socket.shutdown(self.connection, socket.SHUT_WR)
            time.sleep(run.linger)

    def chunk(self, data):
        if data:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def send_trickling(self, response, trickle, run):
        """200 at once, white space for a while, the outcome at the end: a slow Complete."""
        body, outcome = response.body, trickle["then"]
        if outcome == "error":
            body = run.error(trickle["code"]).body
        elif outcome == "truncate":
            body = body[:len(body) // 2]
        response.status = 200
        response.set("Transfer-Encoding", "chunked")
        self.wfile.write(self.head_of(response, None))
        if trickle["declaration_first"]:
            declaration, _, body = body.partition(b"\n")
            self.chunk(declaration + b"\n")
        end = time.monotonic() + trickle["seconds"]
        while time.monotonic() < end:
            self.chunk(b" ")
            time.sleep(trickle["interval"])
            if self.peer_gone():
                raise ConnectionAbortedError("the peer hung up during a trickle")
        if outcome == "close":
            raise HangUp(False)
        self.chunk(body)
        self.wfile.write(b"0\r\n\r\n")


class _Writer:
    """Unbuffered writes of all of the data, as socketserver has for plain sockets."""

    def __init__(self, connection):
        self.connection, self.closed = connection, False

    def write(self, data):
        self.connection.sendall(data)
        return len(data)

    def flush(self):
        pass

    def close(self):
        self.closed = True
