"""What the server knows: keys, roles, buckets, objects, uploads, the log.

One lock guards all of it.  The clock is the machine's plus an offset, so that a
test can move it.
"""
import base64
import secrets
import threading
import time
from dataclasses import dataclass, field

from . import policy

DEFAULTS = {
    "region": "us-east-1",              # of STS on hosts that are not AWS's
    "virtual_suffixes": ["localhost", "s3.test"],
    "min_part_size": 5 * 1024 * 1024,
    "max_parts": 10000,
    "max_skew": 900,                    # seconds
    "etag_style": "quot",               # in XML: quot, num, plain, bare, empty (Complete only)
    "opaque_etags": False,              # not MD5s, and with characters that XML must escape
    "complete_repeat": "ok",            # or NoSuchUpload
    "checksums": "verify",              # or refuse
    "explain_denied": True,             # AWS's long AccessDenied texts
    "min_duration": 900,                # of role sessions
    "longest_session": None,            # seconds; longer ones are granted so much
    "expiration_format": "seconds",     # millis, nanos
    "sts_disabled_regions": [],
    "kms_keys": [],                     # ARNs, key ids and aliases that exist
    "list_page": 1000,
}


@dataclass
class Identity:
    """Whoever signs: a user, or a session of a role."""
    access_key_id: str
    secret: str
    arn: str
    user_id: str
    account: str
    policy: object = None               # None: everything is allowed
    token: str = None                   # None: long-term keys, which have none
    expires: float = None
    session_policy: object = None
    role: object = None
    known_at: float = 0


@dataclass
class Role:
    arn: str
    name: str
    account: str
    trust: dict
    policy: object = None
    max_session_duration: int = 3600
    known_at: float = 0
    role_id: str = field(default_factory=lambda: "AROA" + secrets.token_hex(8).upper())


@dataclass
class Part:
    data: bytes
    etag: str
    modified: float
    checksums: dict


@dataclass
class StoredObject:
    chunks: list
    etag: str
    headers: dict                       # as given: metadata, encryption, type, tags, ...
    modified: float
    checksums: dict
    part_sizes: list = None

    @property
    def size(self):
        return sum(len(c) for c in self.chunks)


@dataclass
class Upload:
    id: str
    key: str
    headers: dict
    started: float
    algorithm: str = None
    checksum_type: str = None
    parts: dict = field(default_factory=dict)


@dataclass
class Bucket:
    name: str
    region: str = "us-east-1"
    owner: str = "111122223333"
    wrong_region: str = "malformed"     # or "redirect": 301 PermanentRedirect
    object_lock: bool = False
    object_ownership: str = "BucketOwnerEnforced"
    equal_parts: bool = False           # R2's rule
    policy: object = None               # explicit denials; None: no bucket policy
    objects: dict = field(default_factory=dict)
    uploads: dict = field(default_factory=dict)
    completed: dict = field(default_factory=dict)   # upload id -> (key, answer's fields)
    forgotten: set = field(default_factory=set)     # uploads whose repeat is NoSuchUpload


def _random_id(prefix):
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    return prefix + "".join(secrets.choice(alphabet) for _ in range(16))


class World:
    def __init__(self):
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.generation = 0
        self.log = []
        self.reset()

    def reset(self):
        with self.changed:
            self.config = dict(DEFAULTS)
            self.clock_offset = 0.0
            self.keys, self.roles, self.buckets = {}, {}, {}
            self.web_tokens = {}
            self.instance = None        # what IMDS hands out
            self.container = None       # what the container endpoint hands out
            self.imds_tokens = {}
            self.log = []
            self.in_flight, self.most_in_flight = {}, {}
            self.generation += 1        # lets stalls of an earlier test end
            self.changed.notify_all()

    def now(self):
        return time.time() + self.clock_offset

    # --- keys, roles, buckets -------------------------------------------------

    def add_user(self, access_key_id, secret_access_key, name="exporter", account="111122223333",
                 policy=None, known_after=0):
        check_policy(policy)
        identity = Identity(access_key_id, secret_access_key, "arn:aws:iam::%s:user/%s" % (account, name),
                            _random_id("AIDA"), account, policy, known_at=self.now() + known_after)
        self.keys[access_key_id] = identity
        return identity

    def add_role(self, name, trust, account="111122223333", policy=None,
                 max_session_duration=3600, known_after=0):
        check_policy(policy)
        check_trust(trust)
        role = Role("arn:aws:iam::%s:role/%s" % (account, name), name.rsplit("/", 1)[-1], account, trust,
                    policy, max_session_duration, self.now() + known_after)
        self.roles[role.arn] = role
        return role

    def start_session(self, role, session_name, duration, session_policy=None):
        """Temporary keys of a role."""
        identity = Identity(
            _random_id("ASIA"), base64.b64encode(secrets.token_bytes(30)).decode(),
            "arn:aws:sts::%s:assumed-role/%s/%s" % (role.account, role.name, session_name),
            "%s:%s" % (role.role_id, session_name), role.account, role.policy,
            "IQoJ" + base64.b64encode(b"\xfb\xff" + secrets.token_bytes(280)).decode() + "==",
            self.now() + duration, session_policy, role)
        with self.lock:
            self.keys[identity.access_key_id] = identity
        return identity

    def find_key(self, access_key_id):
        with self.lock:
            identity = self.keys.get(access_key_id)
            return identity if identity and identity.known_at <= self.now() else None

    # --- log ------------------------------------------------------------------

    def log_start(self, entry):
        with self.changed:
            entry["n"] = len(self.log)
            self.log.append(entry)
            operation = entry["operation"]
            count = self.in_flight[operation] = self.in_flight.get(operation, 0) + 1
            self.most_in_flight[operation] = max(count, self.most_in_flight.get(operation, 0))
            self.changed.notify_all()

    def log_end(self, entry, generation):
        with self.changed:
            entry["finished"] = True
            if generation == self.generation:
                self.in_flight[entry["operation"]] -= 1
            self.changed.notify_all()


def check_policy(document):
    if document is not None:
        policy.check(document)


def check_trust(document):
    policy.check(document, trust=True)


def allowed(identity, action, resource, context, bucket=None):
    """None when allowed, else why not, in AWS's words."""
    context = {"aws:PrincipalArn": identity.role.arn if identity.role else identity.arn, **context}
    for kind, document in (("an identity-based", identity.policy), ("a session", identity.session_policy),
                           ("a resource-based", bucket.policy if bucket else None)):
        if document is None:
            continue
        verdict = policy.evaluate(document, action, resource, context)
        if verdict == "deny":
            return "with an explicit deny in %s policy" % kind
        if verdict is None and kind != "a resource-based":
            return "because no %s policy allows the %s action" % (kind.split()[-1], action)
    return None
