#!/usr/bin/env python3
"""A scripted S3 and STS server: strict, in memory, on loopback, with faults on demand.

    s3_server.py --ready FILE [--host 127.0.0.1] [--port 0] [--control-port 0]
                 [--imds-port 0] [--container-port 0] [--cert FILE --key FILE] [--parent PID]

When all ports are open, FILE is written, one line of JSON:
    {"pid":..., "s3":PORT, "control":PORT, "imds":PORT, "container":PORT}
SIGTERM or SIGINT ends the server; so does the end of the process --parent.
With --cert, the S3 port takes TLS as well as plain HTTP.  It is a proxy too: CONNECT to any
host, and requests for whole URLs, are answered by this server itself, so that a client that
is given it as proxy (and the certificate as authority) can be tested against AWS's own host
names.  Signatures are verified with botocore.  test_s3_server.py tests this server.

Control: POST http://127.0.0.1:CONTROL/<call> with a JSON object of arguments.  The answer is
{"ok":true, ...}, or status 400 and {"ok":false, "error":...}.  Nothing here is signed.

  reset {}                      everything as at the start; stalled requests go on
  configure {setting: value}    region (of STS), virtual_suffixes ["localhost", "s3.test"], min_part_size,
                                max_parts, max_skew (s), etag_style quot|num|plain|bare|empty, opaque_etags,
                                complete_repeat ok|NoSuchUpload, checksums verify|refuse, explain_denied,
                                min_duration (s; of sessions), longest_session (s; STS grants no more, whatever is
                                asked for), expiration_format seconds|millis|nanos, sts_disabled_regions, kms_keys [ARN or id], list_page.  Defaults: as AWS
  add_user {access_key_id, secret_access_key, name?, account?, policy?, known_after?}   -> arn, user_id, account
  add_role {name, trust, account?, policy?, max_session_duration?, known_after?}        -> arn
                                policy and trust are IAM documents as one would paste them into AWS (Allow and Deny,
                                wildcards, String*/Arn*/Bool conditions); no policy: everything is allowed.
                                known_after: seconds until AWS would know it.  A user without a policy may use
                                every bucket, whatever its owner; account defaults to 111122223333
  remove_user {access_key_id}   remove_role {arn}
  set_policy {arn, policy}      of a user, a role and its running sessions, or a bucket (arn:aws:s3:::name)
  set_trust {arn, trust}
  start_session {role, duration?, name?, session_policy?}   -> access_key_id, secret_access_key, session_token, expires
  expire_sessions {}            every session ends now
  secrets {}                    -> secrets: every secret key and session token so far
  add_web_identity {token, issuer, sub, aud?, expires_in?}  for AssumeRoleWithWebIdentity
  set_instance_role {role, duration?, renew?}               what IMDS hands out; renew: seconds before the end
                                from which a new session is made.  role null: 404
  set_container_role {role, path?, authorization?, duration?, renew?}
  clock {offset}                seconds that this server's clock is ahead
  add_bucket {name, region?, owner?, policy?, wrong_region? malformed|redirect, object_lock?, equal_parts?,
              object_ownership? BucketOwnerEnforced|ObjectWriter}       remove_bucket {name}
  put_object {bucket, key, body?, headers?}   delete_object {bucket, key}
  objects {bucket}              -> objects: key, size, etag, headers (metadata, encryption, ...), checksums, part_sizes
  GET /object?bucket=..&key=..  the bytes
  uploads {bucket}              -> uploads that are open: upload_id, key, headers, parts {number: size}
  remove_upload {bucket, upload_id}           as a lifecycle rule does
  log {since?, operation?, service?}          -> log, one entry per request:
                                n, time, seconds, service, operation, method, path, query, host, bucket, key, part,
                                upload_id, headers (selected; never a secret), form (STS), access_key_id, principal,
                                signature valid|invalid|missing|not checked, payload signed|unsigned, canonical_path,
                                addressing, expected_body, body_size, connection, tls, tunnel, faults, worked, status,
                                code, ended (null|reset|closed|"peer: ..."), finished
  clear_log {}                  stats {}      -> in_flight, most_in_flight (by operation), connections (by port)
  wait {operation, count?, finished?, timeout?}             until the log has so many -> seen, reached
  listen {on, service?}         closes a port and its connections, or opens it again with the same number
  add_fault {do, match?, skip?, times?, when?, ...} -> id   clear_faults {}   list_faults {} -> id, name, seen, used
  release {id?}                 ends stalls

A fault acts on requests that match all of "match": operation, service (s3|sts|imds|container), method, bucket,
key (regular expression), part, access_key_id, host; a list means any of these.  The first "skip" matches pass,
then "times" are hit (default 1, null: all).  Operations are S3's and STS's own names, and ImdsToken, ImdsRole,
ImdsCredentials, ContainerCredentials.  "when" is early (headers read), body, before (the work), after (it), answer.
  error {code, status?, message?, fields?, headers?, pad?, close?}      an error of the service.  early: close without
                                reading the body.  after: although the work is done.  pad: bytes of filling
  answer {status, headers?, body?, pad?, close?}            any answer
  close {at?, reset?, forget?}  no (more) answer; at: byte of the body or the answer; reset: RST, else FIN.
                                forget: a repeated Complete is NoSuchUpload
  stall {seconds, at?}          seconds null: until released, or the peer hangs up
  slow_read {rate}              bytes a second      disk_full {bytes, how? InternalError|507|drop}   all bodies together
  trickle {seconds, interval?, then? success|error|truncate|close, code?, declaration_first?}  200, then white space
  truncate {at?, framed?}       the answer is cut; framed: with a Content-Length that hides it
  header {set?, remove?, date_offset?}
Short for these: slow_down internal_error request_timeout bad_digest expired_token early_403 reset lost_reply hold
no_etag error_200 big_error html_error hostile_region redirect wrong_date
"""
import argparse
import json
import os
import signal
import ssl
import sys
import threading
from http.server import ThreadingHTTPServer

from s3server.control import Control, handler_for
from s3server.faults import Faults
from s3server.server import Server
from s3server.state import World


class Ports:
    """The listeners, which can be closed and opened again."""

    def __init__(self, host, numbers, world, faults, tls):
        self.host, self.world, self.faults, self.tls = host, world, faults, tls
        self.numbers, self.running = {}, {}
        for service, number in numbers.items():
            self.numbers[service] = number
            self.listen(service, True)
            self.numbers[service] = self.running[service].server_port

    def listen(self, service, on):
        running = self.running.get(service)
        if on and running is None:
            self.running[service] = Server((self.host, self.numbers[service]), service, self.world, self.faults,
                                           self.tls if service == "s3" else None)
        elif not on and running is not None:
            self.running[service] = None
            running.stop()

    def servers(self):
        return [(service, server) for service, server in self.running.items() if server]


class ControlServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


def parse_arguments():
    parser = argparse.ArgumentParser(description="scripted S3 and STS server for tests")
    parser.add_argument("--ready", required=True, help="file to write when the ports are open")
    parser.add_argument("--host", default="127.0.0.1", choices=("127.0.0.1", "::1"))
    for name in ("port", "control-port", "imds-port", "container-port"):
        parser.add_argument("--" + name, type=int, default=0)
    parser.add_argument("--cert")
    parser.add_argument("--key")
    parser.add_argument("--parent", type=int, help="end when this process has gone")
    return parser.parse_args()


def process_lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def main():
    arguments = parse_arguments()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    tls = None
    if arguments.cert:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(arguments.cert, arguments.key)
    world = World()
    faults = Faults(world)
    ports = Ports(arguments.host, {"s3": arguments.port, "imds": arguments.imds_port,
                                   "container": arguments.container_port}, world, faults, tls)
    control = ControlServer(("127.0.0.1", arguments.control_port), handler_for(Control(world, faults, ports)))
    threading.Thread(target=control.serve_forever, args=(0.05,), daemon=True).start()

    ready = {"pid": os.getpid(), "control": control.server_port, **ports.numbers}
    with open(arguments.ready + ".new", "w") as file:
        file.write(json.dumps(ready) + "\n")
    os.rename(arguments.ready + ".new", arguments.ready)
    while not stop.wait(0.5):
        if arguments.parent and not process_lives(arguments.parent):
            break
    for service in list(ports.numbers):
        ports.listen(service, False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
