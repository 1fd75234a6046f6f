#!/usr/bin/env python3
"""usage: consumer.py s3://bucket/folder/feed/ DSN [URL of the S3 server]

Keeps a copy of all tables of a feed in another PostgreSQL database, exactly once.  Applies the batches that it has
not applied yet, and ends.  Needs Python 3.9, boto3, which takes the keys of S3 from the environment, and psycopg2.

Each batch is one transaction of the copy, and so is the name of the last batch: whatever ends the program, nothing
is lost, and nothing is applied twice.  A table public.orders becomes "public.orders", with columns of type text.
A table that was dropped stays in the copy.  Names have at most 63 bytes.
"""
import gzip
import json
import re
import sys

import boto3
import psycopg2


class Feed:
    """The objects of a feed."""

    def __init__(self, uri, endpoint_url):
        self.bucket, self.prefix = re.fullmatch("s3://([^/]+)/(.*)", uri).groups()
        self.s3 = boto3.client("s3", endpoint_url=endpoint_url)

    def get(self, path):
        return self.s3.get_object(Bucket=self.bucket, Key=self.prefix + path)["Body"].read()

    def batches_after(self, last):
        """Names are in the order of the commits, so S3 finds the new ones."""
        folder = self.prefix + "_batches/"
        pages = self.s3.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=folder, StartAfter=f"{folder}{last}.json" if last else folder)
        for page in pages:
            yield from (json.loads(self.get(item["Key"][len(self.prefix):])) for item in page.get("Contents", []))

    def events(self, file, schema):
        """The lines of a file, as dictionaries.  For .zst and .lz4 use the modules zstandard and lz4.frame."""
        data = self.get(file["path"])
        data = gzip.decompress(data) if file["path"].endswith(".gz") else data
        names = ["_id", "_op", "_committed_at", *(column["name"] for column in schema["columns"]), "_meta"]
        rows = list(parse_csv(data.decode(), schema["csv"]))[1 if schema["csv"]["header"] else 0:]
        if (len(rows), rows[0][0]) != (file["rows"], file["first_id"]) or any(len(row) != len(names) for row in rows):
            sys.exit(f"{file['path']} is not what its batch and its schema say")
        return [dict(zip(names, row)) for row in rows]


def parse_csv(text, options):
    """Python's csv module cannot tell NULL from the same text in quotes, so NULL from ''."""
    delimiter, quote, escape = (re.escape(options[name]) for name in ("delimiter", "quote", "escape"))
    value = re.compile(f"(?:{quote}((?:[^{quote}{escape}]+|{escape}[{quote}{escape}])*){quote}"
                       f"|([^{delimiter}\n]*))({delimiter}|\n)")
    row = []
    for quoted, plain, end in (match.groups() for match in value.finditer(text)):
        if quoted is not None:
            row.append(re.sub(f"{escape}([{quote}{escape}])", r"\1", quoted))
        else:
            row.append(None if plain == options["null"] else plain)
        if end == "\n":
            yield row
            row = []


def warn(*words):
    print("warning:", *words, file=sys.stderr)


def name(text):
    return '"' + text.replace('"', '""').replace("%", "%%") + '"'


def follow_schema(sql, versions, schema):
    """Gives the copy of a table the name and the columns of its new version.  A column's number outlives its name."""
    table, previous = schema["table"], schema["previous"]
    old = versions.pop(str(previous["version"])) if previous else {"table": None, "version": None, "columns": []}
    for version, other in versions.items():  # one that was dropped, or whose new name is still to come
        if other["table"] == table:
            other["table"] = f"{table} (version {version})"
            sql(f"ALTER TABLE {name(table)} RENAME TO {name(other['table'])}")
    if previous is None:
        sql(f"CREATE TABLE {name(table)} ()")
    elif old["table"] != table:
        sql(f"ALTER TABLE {name(old['table'])} RENAME TO {name(table)}")
    change = f"ALTER TABLE {name(table)}"
    before = {column["number"]: column["name"] for column in old["columns"]}
    after = {column["number"]: column["name"] for column in schema["columns"]}
    for number in before.keys() - after.keys():
        sql(f"{change} DROP COLUMN {name(before.pop(number))}")
    renamed = {number: f"column {number} of version {old['version']}"
               for number in before if before[number] != after[number]}
    for number, between in renamed.items():  # two columns may swap their names
        sql(f"{change} RENAME {name(before[number])} TO {name(between)}")
    for number, between in renamed.items():
        sql(f"{change} RENAME {name(between)} TO {name(after[number])}")
    for column in schema["columns"]:
        if column["number"] not in before:  # the default is for the rows that are there
            sql(f"{change} ADD {name(column['name'])} text DEFAULT %s", column["missing"])
            sql(f"{change} ALTER {name(column['name'])} DROP DEFAULT")
    sql(f"DROP INDEX IF EXISTS {name('key of version ' + str(old['version']))}")
    if schema["key"]:
        sql(f"CREATE INDEX {name('key of version ' + str(schema['version']))} ON {name(table)}"
            f" ({', '.join(map(name, schema['key']))})")
    versions[str(schema["version"])] = schema


def apply(sql, schema, event):
    """Does to the copy what was done to the table; returns how many rows it has changed."""
    table, op, meta = name(schema["table"]), event["_op"], json.loads(event["_meta"] or "{}")
    row = {column["name"]: event[column["name"]] for column in schema["columns"]}
    for column, value in meta.get("bytes", {}).items():
        row[column] = "\\x" + value  # no valid text: the copy has its bytes, in hex
    if "unsent" in meta:
        warn(event["_id"], table, "is without values of", meta["unsent"])
    key = meta.get("old_key") or {column: row[column] for column in schema["key"] or row}
    key = {column: "\\x" + value["bytes"] if isinstance(value, dict) else value for column, value in key.items()}
    where = " AND ".join(name(column) + (" = %s" if schema["key"] else " IS NOT DISTINCT FROM %s") for column in key)
    if op in ("insert", "copy") and not row:
        return sql(f"INSERT INTO {table} DEFAULT VALUES")
    if op in ("insert", "copy"):
        return sql(f"INSERT INTO {table} ({', '.join(map(name, row))}) VALUES ({', '.join(['%s'] * len(row))})",
                   *row.values())
    if op == "update":
        for column in meta.get("unchanged", []):
            del row[column]
        return sql(f"UPDATE {table} SET {', '.join(name(column) + ' = %s' for column in row)} WHERE {where}",
                   *row.values(), *key.values())
    if op == "delete":  # one row: without a key there may be more that are like it
        return sql(f"DELETE FROM {table} WHERE ctid = (SELECT ctid FROM {table} WHERE {where} LIMIT 1)", *key.values())
    if op in ("truncate", "snapshot"):
        sql(f"TRUNCATE {table}")
    return 1  # alter: follow_schema() has done it


def main(uri, dsn, endpoint_url=None):
    feed, db = Feed(uri, endpoint_url), psycopg2.connect(dsn)
    cursor = db.cursor()

    def sql(statement, *values):
        cursor.execute(statement, values)
        return cursor.rowcount

    with db:  # one consumer at a time; the lock is the session's
        sql("SELECT pg_advisory_lock(hashtext(%s))", uri)
        sql("CREATE TABLE IF NOT EXISTS consumer_position (feed text PRIMARY KEY, batch text, instead text, versions json)")
        sql("SELECT batch, instead, versions FROM consumer_position WHERE feed = %s", uri)
        last, instead, versions = cursor.fetchone() or (None, None, {})
    for batch in feed.batches_after(last):
        if batch["previous"] not in (last, instead):
            sys.exit(f"batch {batch['batch']} follows {batch['previous']}, but the last one applied is {last}")
        for gap in batch["gaps"]:
            warn(f"{batch['batch']}: {gap['table'] or 'all tables'}: {gap['reason']}")
        with db:  # a transaction
            for file in batch["files"]:
                schema = versions.get(str(file["version"]))
                if schema is None:
                    schema = json.loads(feed.get(file["schema"]))
                    follow_schema(sql, versions, schema)
                for event in feed.events(file, schema):
                    if apply(sql, schema, event) != 1:
                        warn(f"{event['_id']}: {schema['table']}: no row to {event['_op']}")
            # A crash may come between a copy, which begins nowhere, and its record.
            last, instead = batch["batch"], batch["previous"] if batch["from_lsn"] is None else batch["batch"]
            sql("INSERT INTO consumer_position VALUES (%s, %s, %s, %s) ON CONFLICT (feed) DO UPDATE SET batch = excluded.batch,"
                " instead = excluded.instead, versions = excluded.versions", uri, last, instead, json.dumps(versions))


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) in (3, 4) else sys.exit(__doc__)
