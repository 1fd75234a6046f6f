"""The control channel: POST /name with a JSON object of arguments, JSON back."""
import inspect
import json
import time
import traceback
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

from .state import DEFAULTS, Bucket, StoredObject, check_policy, check_trust


class Control:
    """One method a call; its arguments are the call's."""

    def __init__(self, world, faults, ports):
        self.world, self.faults, self.ports = world, faults, ports

    # --- what exists ----------------------------------------------------------

    def reset(self):
        self.faults.clear()
        self.world.reset()

    def configure(self, **settings):
        unknown = set(settings) - set(DEFAULTS)
        if unknown:
            raise ValueError("unknown settings: %s" % sorted(unknown))
        with self.world.lock:
            self.world.config.update(settings)
        return {"config": self.world.config}

    def add_user(self, access_key_id, secret_access_key, **more):
        with self.world.lock:
            identity = self.world.add_user(access_key_id, secret_access_key, **more)
        return {"arn": identity.arn, "user_id": identity.user_id, "account": identity.account}

    def remove_user(self, access_key_id):
        with self.world.lock:
            del self.world.keys[access_key_id]

    def add_role(self, name, trust, **more):
        with self.world.lock:
            return {"arn": self.world.add_role(name, trust, **more).arn}

    def remove_role(self, arn):
        with self.world.lock:
            del self.world.roles[arn]

    def set_policy(self, arn, policy):
        """Of a user, a role (its sessions too) or a bucket (arn:aws:s3:::name)."""
        check_policy(policy)
        with self.world.lock:
            if arn.startswith("arn:aws:s3:::"):
                self.world.buckets[arn.removeprefix("arn:aws:s3:::")].policy = policy
                return None
            holders = [i for i in self.world.keys.values() if arn in (i.arn, i.role.arn if i.role else None)]
            holders += [r for r in self.world.roles.values() if r.arn == arn]
            if not holders:
                raise ValueError("no such user or role")
            for holder in holders:
                holder.policy = policy
        return None

    def set_trust(self, arn, trust):
        check_trust(trust)
        with self.world.lock:
            self.world.roles[arn].trust = trust

    def start_session(self, role, duration=3600, name="test", session_policy=None):
        """Temporary keys of a role, without asking STS."""
        check_policy(session_policy)
        with self.world.lock:
            identity = self.world.start_session(self.world.roles[role], name, duration, session_policy)
        return {"access_key_id": identity.access_key_id, "secret_access_key": identity.secret,
                "session_token": identity.token, "arn": identity.arn, "expires": identity.expires}

    def expire_sessions(self):
        """Every session ends now."""
        with self.world.lock:
            for identity in self.world.keys.values():
                if identity.expires is not None:
                    identity.expires = min(identity.expires, self.world.now())

    def secrets(self):
        """Every secret key and session token so far, to be looked for where none must be."""
        with self.world.lock:
            return {"secrets": [s for i in self.world.keys.values() for s in (i.secret, i.token) if s]}

    def add_web_identity(self, token, issuer, sub, aud="sts.amazonaws.com", expires_in=None):
        with self.world.lock:
            expires = None if expires_in is None else self.world.now() + expires_in
            self.world.web_tokens[token] = {"issuer": issuer, "sub": sub, "aud": aud, "expires": expires}

    def set_instance_role(self, role=None, duration=21600, renew=0):
        with self.world.lock:
            self.world.instance = role and {"role": self.world.roles[role], "duration": duration, "renew": renew}

    def set_container_role(self, role=None, path="/v2/credentials/test", authorization=None, duration=21600, renew=0):
        with self.world.lock:
            self.world.container = role and {"role": self.world.roles[role], "duration": duration, "renew": renew,
                                             "path": path, "authorization": authorization}

    def clock(self, offset):
        with self.world.lock:
            self.world.clock_offset = float(offset)
        return {"now": self.world.now()}

    # --- buckets and objects --------------------------------------------------

    def add_bucket(self, name, policy=None, **more):
        settings = {"region", "owner", "wrong_region", "object_lock", "object_ownership", "equal_parts"}
        if set(more) - settings or more.get("wrong_region", "malformed") not in ("malformed", "redirect"):
            raise ValueError("a bucket has: name, policy, %s" % ", ".join(sorted(settings)))
        check_policy(policy)
        with self.world.lock:
            self.world.buckets[name] = Bucket(name, policy=policy, **more)

    def remove_bucket(self, name):
        with self.world.lock:
            del self.world.buckets[name]

    def put_object(self, bucket, key, body="", headers=None):
        with self.world.lock:
            self.world.buckets[bucket].objects[key] = StoredObject(
                [body.encode()], "d41d8cd98f00b204e9800998ecf8427e", headers or {}, self.world.now(), {})

    def delete_object(self, bucket, key):
        with self.world.lock:
            del self.world.buckets[bucket].objects[key]

    def objects(self, bucket):
        with self.world.lock:
            return {"objects": [
                {"key": key, "size": stored.size, "etag": stored.etag, "headers": stored.headers,
                 "checksums": stored.checksums, "part_sizes": stored.part_sizes, "modified": stored.modified}
                for key, stored in sorted(self.world.buckets[bucket].objects.items())]}

    def uploads(self, bucket):
        with self.world.lock:
            return {"uploads": [
                {"upload_id": u.id, "key": u.key, "started": u.started, "headers": u.headers,
                 "parts": {n: len(p.data) for n, p in u.parts.items()}}
                for u in self.world.buckets[bucket].uploads.values()]}

    def remove_upload(self, bucket, upload_id):
        """As a lifecycle rule does."""
        with self.world.lock:
            del self.world.buckets[bucket].uploads[upload_id]

    def stored_bytes(self, bucket, key):
        with self.world.lock:
            return b"".join(self.world.buckets[bucket].objects[key].chunks)

    # --- faults ---------------------------------------------------------------

    def add_fault(self, **specification):
        return self.faults.add(specification).describe()

    def clear_faults(self):
        self.faults.clear()

    def release(self, id=None):
        self.faults.release(id)

    def list_faults(self):
        with self.world.lock:
            return {"faults": [fault.describe() for fault in self.faults.set]}

    def listen(self, on, service="s3"):
        self.ports.listen(service, on)

    # --- what happened --------------------------------------------------------

    def log(self, since=0, operation=None, service=None):
        with self.world.lock:
            return {"log": [dict(e) for e in self.world.log[since:]
                            if operation in (None, e["operation"]) and service in (None, e["service"])]}

    def clear_log(self):
        with self.world.lock:
            self.world.log = []
            self.world.most_in_flight = {}

    def stats(self):
        with self.world.lock:
            return {"in_flight": self.world.in_flight, "most_in_flight": self.world.most_in_flight,
                    "connections": {s: {"accepted": p.accepted, "open": len(p.open)} for s, p in self.ports.servers()}}

    def wait(self, operation, count=1, finished=True, timeout=30):
        """Until so many requests of an operation are in the log (and answered, or not)."""
        end = time.monotonic() + timeout
        with self.world.changed:
            while True:
                seen = sum(1 for e in self.world.log
                           if e["operation"] == operation and (e["finished"] or not finished))
                left = end - time.monotonic()
                if seen >= count or left <= 0:
                    return {"seen": seen, "reached": seen >= count}
                self.world.changed.wait(left)


def _arguments_fit(method, arguments):
    try:
        inspect.signature(method).bind(**arguments)
    except TypeError as reason:
        raise ValueError(str(reason))


def handler_for(control):
    class ControlHandler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, format, *args):
            pass

        def reply(self, status, body, content_type="application/json"):
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            url = urlsplit(self.path)
            arguments = {k: v[0] for k, v in parse_qs(url.query, keep_blank_values=True).items()}
            try:
                if url.path != "/object":
                    raise KeyError(url.path)
                self.reply(200, control.stored_bytes(**arguments), "application/octet-stream")
            except (KeyError, TypeError) as reason:
                self.reply(404, json.dumps({"error": "not found: %s" % reason}).encode())

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                name = self.path[1:]
                method = None if name.startswith("_") or name == "stored_bytes" else getattr(Control, name, None)
                if method is None:
                    raise ValueError("unknown call %r" % name)
                arguments = json.loads(body or b"{}")
                method = getattr(control, name)
                _arguments_fit(method, arguments)
                self.reply(200, json.dumps({"ok": True, **(method(**arguments) or {})}).encode())
            except (ValueError, TypeError, KeyError) as reason:
                self.reply(400, json.dumps({"ok": False, "error": "%s: %s" % (type(reason).__name__, reason)}).encode())
            except Exception as reason:
                traceback.print_exc()
                self.reply(500, json.dumps({"ok": False, "error": repr(reason)}).encode())

    return ControlHandler
