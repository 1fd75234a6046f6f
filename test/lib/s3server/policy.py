"""IAM policy documents: identity, session and trust policies.

Only what is understood is accepted: check() refuses a document with any
element or operator that evaluate() would have to ignore.
"""
import re

_STATEMENT_KEYS = {"Sid", "Effect", "Action", "Resource", "Principal", "Condition"}


def _list(value):
    return value if isinstance(value, list) else [value]


def like(pattern, value, ignore_case=False):
    """IAM's wildcards: * is any run of characters, ? is one; ${*}, ${?} and ${$} are those characters."""
    tokens = re.findall(r"\$\{[*?$]\}|.", pattern, re.DOTALL)
    expression = "".join({"*": ".*", "?": "."}.get(t) or re.escape(t[2] if len(t) > 1 else t) for t in tokens)
    return re.fullmatch(expression, value, re.DOTALL | (re.IGNORECASE if ignore_case else 0)) is not None


_OPERATORS = {
    "StringEquals": lambda wanted, value: wanted == value,
    "StringNotEquals": lambda wanted, value: wanted != value,
    "StringEqualsIgnoreCase": lambda wanted, value: wanted.lower() == value.lower(),
    "StringLike": like,
    "StringNotLike": lambda wanted, value: not like(wanted, value),
    "ArnEquals": like,
    "ArnLike": like,
    "Bool": lambda wanted, value: str(wanted).lower() == value.lower(),
}


def check(document, trust=False):
    """Raises ValueError for a document that is not right, or not understood here."""
    if not isinstance(document, dict) or "Statement" not in document:
        raise ValueError("a policy is an object with a Statement")
    if set(document) - {"Version", "Id", "Statement"}:
        raise ValueError("unknown elements in the policy: %s" % sorted(document))
    if document.get("Version", "2012-10-17") != "2012-10-17":
        raise ValueError("the policy's Version is not 2012-10-17")
    for statement in _list(document["Statement"]):
        if not isinstance(statement, dict) or set(statement) - _STATEMENT_KEYS:
            raise ValueError("not a statement, or unknown elements in it: %r" % (statement,))
        if statement.get("Effect") not in ("Allow", "Deny") or not statement.get("Action"):
            raise ValueError("a statement needs an Effect and an Action")
        if not re.fullmatch(r"[0-9A-Za-z]*", statement.get("Sid", "")):
            raise ValueError("a Sid has letters and digits only")
        if trust != ("Principal" in statement) or trust == ("Resource" in statement):
            raise ValueError("a trust policy names a Principal, any other policy a Resource")
        for resource in _list(statement.get("Resource", [])):
            if resource != "*" and not resource.startswith("arn:aws"):
                raise ValueError("a Resource is * or an ARN, not %r" % resource)
            if "${" in re.sub(r"\$\{[*?$]\}", "", resource):
                raise ValueError("variables are not understood here: %r" % resource)
        for operator, tests in statement.get("Condition", {}).items():
            if operator.removesuffix("IfExists") not in _OPERATORS or not isinstance(tests, dict):
                raise ValueError("unknown condition %r" % operator)


def _condition_holds(statement, context):
    for operator, tests in statement.get("Condition", {}).items():
        name = operator.removesuffix("IfExists")
        test, negated = _OPERATORS[name], "Not" in name
        for key, wanted in tests.items():
            values = [v for k, v in context.items() if k.lower() == key.lower()]
            if not values:
                if negated or operator.endswith("IfExists"):
                    continue
                return False
            outcomes = [test(w, values[0]) for w in _list(wanted)]
            if not (all(outcomes) if negated else any(outcomes)):
                return False
    return True


def _principal_named(statement, principals):
    """How the statement names one of the principals: exactly, by account, or not at all."""
    wanted = statement["Principal"]
    if wanted == "*":
        return "exact"
    how = None
    for kind, names in wanted.items():
        for name in _list(names):
            if name == "*" or (kind, name) in principals["exact"]:
                return "exact"
            if (kind, name) in principals["account"]:
                how = "account"
    return how


def evaluate(document, action, resource, context):
    """"allow", "deny", or None when nothing in the document applies."""
    verdict = None
    for statement in _list(document["Statement"]):
        if (any(like(a, action, True) for a in _list(statement["Action"]))
                and any(like(r, resource) for r in _list(statement["Resource"]))
                and _condition_holds(statement, context)):
            if statement["Effect"] == "Deny":
                return "deny"
            verdict = "allow"
    return verdict


def trusts(document, action, principals, context):
    """"exact" or "account": how the trust policy lets one of the principals in; None: not."""
    verdict = None
    for statement in _list(document["Statement"]):
        how = _principal_named(statement, principals)
        if (how and any(like(a, action, True) for a in _list(statement["Action"]))
                and _condition_holds(statement, context)):
            if statement["Effect"] == "Deny":
                return None
            if verdict != "exact":
                verdict = how
    return verdict
