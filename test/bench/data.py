"""The tables of the benchmark, one at a time, each about a given size as CSV."""
import math

# Paragraphs of 8 KB, from which the wide tables cut their texts; in those of
# "quoted" six words of a hundred are in quotes.
WORDS = """
CREATE UNLOGGED TABLE IF NOT EXISTS paragraphs AS
SELECT p AS id, string_agg(word, ' ' ORDER BY n) AS plain,
       string_agg(CASE WHEN (n * 31 + p) % 100 < 6 THEN '"' || word || '"' ELSE word END, ' '
                  ORDER BY n) AS quoted
  FROM (SELECT p, n, substr(md5(p::text || '/' || n), 1, 3 + (p * 7 + n * 13) % 9) AS word
          FROM generate_series(0, 99) p, generate_series(1, 1200) n) words
 GROUP BY p
"""

TEXT = """
SELECT n AS id, substr(p.{0}, 1 + (n * 37 %% 3000)::int, 4000) AS body
  FROM generate_series(1::bigint, %d) n JOIN paragraphs p ON p.id = n %% 100
"""

# name: (columns with what types alone do not say, query with the number of rows)
TABLES = {
    "accounts": ("", """
SELECT n::int AS aid, ((n - 1) / 100000 + 1)::int AS bid, 0 AS abalance, ''::char(84) AS filler
  FROM generate_series(1::bigint, %d) n
"""),
    "lineitem": ("", """
SELECT n / 4 + 1 AS l_orderkey, (n * 7919 %% 200000 + 1)::int AS l_partkey,
       (n * 104729 %% 10000 + 1)::int AS l_suppkey, (n %% 4 + 1)::int AS l_linenumber,
       (n %% 50 + 1)::numeric(15,2) AS l_quantity,
       ((n * 15485863 %% 10400000 + 90000) / 100.0)::numeric(15,2) AS l_extendedprice,
       (n %% 11 / 100.0)::numeric(15,2) AS l_discount, (n %% 9 / 100.0)::numeric(15,2) AS l_tax,
       (ARRAY['R', 'A', 'N'])[n %% 3 + 1]::char(1) AS l_returnflag,
       (ARRAY['O', 'F'])[n %% 2 + 1]::char(1) AS l_linestatus,
       date '1992-01-02' + (n * 31 %% 2526)::int AS l_shipdate,
       date '1992-01-31' + (n * 37 %% 2465)::int AS l_commitdate,
       date '1992-01-04' + (n * 41 %% 2554)::int AS l_receiptdate,
       (ARRAY['DELIVER IN PERSON', 'COLLECT COD', 'NONE', 'TAKE BACK RETURN'])[n %% 4 + 1]::char(25)
           AS l_shipinstruct,
       (ARRAY['REG AIR', 'AIR', 'RAIL', 'SHIP', 'TRUCK', 'MAIL', 'FOB'])[n %% 7 + 1]::char(10)
           AS l_shipmode,
       left('slyly regular deposits haggle along the ironic', (10 + n %% 34)::int)::varchar(44)
           AS l_comment
  FROM generate_series(1::bigint, %d) n
"""),
    "events": ("", """
SELECT n AS id, md5(n::text)::uuid AS session,
       timestamptz '2025-01-01' + n * interval '10.000117 seconds' AS happened_at,
       '/shop/category-' || n %% 97 || '/item-' || n * 7919 %% 100003 AS path,
       jsonb_build_object('browser', (ARRAY['firefox', 'chrome', 'safari'])[n %% 3 + 1],
                          'screen', jsonb_build_array(1280 + n %% 640, 720 + n %% 360),
                          'ratio', round((n %% 1009) / 7.0, 3), 'new', n %% 5 = 0,
                          'tags', jsonb_build_array('a' || n %% 13, 'b' || n %% 17),
                          'referrer', CASE WHEN n %% 3 = 0 THEN NULL
                                           ELSE 'https://example.com/?q=' || n END) AS properties,
       (n * 15485863 %% 1000003) / 4096.0::float8 AS seconds, n %% 7 <> 0 AS consented,
       CASE WHEN n %% 4 > 0 THEN 'campaign ' || n %% 31 END AS campaign,
       CASE WHEN n %% 3 = 0 THEN (n %% 100000)::int END AS amount,
       CASE n %% 20 WHEN 0 THEN E'said "yes", then left\\nand came back'
                    ELSE 'nothing to remark' END AS note
  FROM generate_series(1::bigint, %d) n
"""),
    "wide": ("ALTER COLUMN body SET STORAGE PLAIN", TEXT.format("plain")),
    "toasted": ("ALTER COLUMN body SET STORAGE EXTERNAL", TEXT.format("plain")),
    "quoted": ("ALTER COLUMN body SET STORAGE PLAIN", TEXT.format("quoted")),
}

DESCRIPTIONS = {
    "accounts": "pgbench_accounts",
    "lineitem": "TPC-H's lineitem",
    "events": "uuid, timestamptz, jsonb, quoted text",
    "wide": "4 KB text, in line",
    "toasted": "4 KB text, TOASTed",
    "quoted": "4 KB text, 6 % of words quoted",
}

# One column of each, again and again.
COLUMN_TYPES = ["(n %% 100000 + {c})::int", "'text {c} ' || n %% 1000",
                "(n %% 1000000 / 100.0)::numeric(12,2)", "date '2026-01-01' + (n %% 1000)::int",
                "(n %% {c} = 0)"]


def fill(session, name, query, rows, alteration=""):
    """A table that no VACUUM has left to do anything for, and that is read once."""
    session.run("DROP TABLE IF EXISTS %s" % name)
    session.run("CREATE UNLOGGED TABLE %s AS %s LIMIT 0" % (name, query % 1))
    if alteration:
        session.run("ALTER TABLE %s %s" % (name, alteration))
    session.run("INSERT INTO %s %s" % (name, query % rows))
    session.run("VACUUM (FREEZE, ANALYZE) %s" % name)
    session.run("CHECKPOINT")
    session.run("COPY %s TO '/dev/null'" % name)


def csv_bytes(session, name, directory):
    """Size as COPY writes it, with a header line."""
    path = "%s/bytes" % directory
    session.run("COPY (SELECT * FROM %s) TO PROGRAM 'wc -c >%s' (FORMAT csv, HEADER)"
                % (name, path))
    with open(path) as file:
        return int(file.read())


def make(session, name, megabytes, directory):
    """Makes one of TABLES; returns its rows and bytes."""
    alteration, query = TABLES[name]
    if "paragraphs" in query:
        session.run(WORDS)
    sample = 2000
    fill(session, name, query, sample, alteration)
    rows = math.ceil(megabytes * 1e6 * sample / csv_bytes(session, name, directory))
    fill(session, name, query, rows, alteration)
    return rows, csv_bytes(session, name, directory)


def make_columns(session, columns, values):
    """A table of so many columns, with so many values in all; returns its rows."""
    query = ("SELECT " + ", ".join(
        "%s AS c%d" % (COLUMN_TYPES[c % len(COLUMN_TYPES)].format(c=c + 1), c)
        for c in range(columns)) + " FROM generate_series(1::bigint, %d) n")
    rows = max(values // columns, 1)
    fill(session, "columns_%d" % columns, query, rows)
    return rows
