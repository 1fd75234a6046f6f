-- Tables as they are after years of use, read by sequential scans and by others.

-- every pattern of NULLs in columns of all lengths and alignments
CREATE TABLE patterns (c "char", i2 int2, i8 int8, t text, b bool, f8 float8, n numeric, i4 int4, nm name, u uuid, s varchar, ts timestamptz);
INSERT INTO patterns
SELECT CASE WHEN i & 1 = 0 THEN 'x'::"char" END, CASE WHEN i & 2 = 0 THEN i END, CASE WHEN i & 4 = 0 THEN -i::int8 END,
	CASE WHEN i & 8 = 0 THEN repeat('t', i % 300) END, CASE WHEN i & 16 = 0 THEN i % 3 = 0 END, CASE WHEN i & 32 = 0 THEN i / 7.0 END,
	CASE WHEN i & 64 = 0 THEN i / 100.0 END, CASE WHEN i & 128 = 0 THEN i END, CASE WHEN i & 256 = 0 THEN ('n' || i)::name END,
	CASE WHEN i & 512 = 0 THEN md5(i::text)::uuid END, CASE WHEN i & 1024 = 0 THEN repeat('"', i % 5) END,
	CASE WHEN i & 2048 = 0 THEN timestamptz '2001-02-03 04:05:06+00' + i * interval '1 hour' END
FROM generate_series(0, 4095) i;

-- columns dropped, and added to rows that were there
CREATE TABLE aged (gone int, a int, dropped text, b text, last int);
INSERT INTO aged SELECT i, i, 'old ' || i, 'b ' || i, i FROM generate_series(1, 1000) i;
ALTER TABLE aged DROP COLUMN gone, DROP COLUMN dropped;
INSERT INTO aged SELECT i, 'b ' || i, i FROM generate_series(1001, 2000) i;
ALTER TABLE aged ADD COLUMN empty text, ADD COLUMN answer int DEFAULT 42, ADD COLUMN word text DEFAULT 'a "default"';
INSERT INTO aged SELECT i, NULL, i, 'e', NULL, 'w' FROM generate_series(2001, 3000) i;
ALTER TABLE aged ADD COLUMN pi numeric DEFAULT 3.14159, DROP COLUMN last;
UPDATE aged SET word = 'updated' WHERE a % 10 = 0;
DELETE FROM aged WHERE a % 7 = 0;
CREATE TABLE added (a int);
INSERT INTO added SELECT generate_series(1, 1000);
ALTER TABLE added ADD COLUMN b text DEFAULT 'missing', ADD COLUMN c int;

-- as many columns as there can be
SELECT format('CREATE TABLE broad (%s)', string_agg(format('c%s %s', i, (ARRAY['bool', 'int2', '"char"', 'text'])[i % 4 + 1]), ', '))
FROM generate_series(1, 1600) i \gexec
INSERT INTO broad (c1, c8, c9, c1599, c1600) SELECT i, i % 2 = 0, i, 'text', i % 3 = 0 FROM generate_series(1, 20) i;
INSERT INTO broad DEFAULT VALUES;
SELECT format('INSERT INTO broad VALUES (%s)', string_agg((ARRAY['true', '7', '''c''', '''t'''])[i % 4 + 1], ', ')) FROM generate_series(1, 1600) i \gexec

-- values out of line, compressed, and both
CREATE TABLE toasted (id int, plain text, external text, main text, extended text, j jsonb, n numeric);
ALTER TABLE toasted ALTER external SET STORAGE EXTERNAL, ALTER main SET STORAGE MAIN;
INSERT INTO toasted
SELECT i, repeat('p', i), repeat('external ' || i, 10 * i), repeat('main "' || i, 10 * i), (SELECT string_agg(md5((i * j)::text), ',') FROM generate_series(1, 100 * i) j),
	jsonb_build_object('k', repeat('v"', 100 * i)), ('1' || repeat('0', i * 50) || '.5')::numeric
FROM generate_series(1, 30) i;

-- dead rows, and pages without a row that is left
CREATE TABLE bloated (id int, t text);
INSERT INTO bloated SELECT i, repeat('x', 100) FROM generate_series(1, 5000) i;
DELETE FROM bloated WHERE id BETWEEN 1000 AND 3000 OR id % 3 = 0;
UPDATE bloated SET t = 'moved' WHERE id % 5 = 0;

CREATE TABLE computed (a int, b int GENERATED ALWAYS AS (a * 2) STORED, c text);
INSERT INTO computed (a, c) SELECT i, 'c' || i FROM generate_series(1, 1000) i;

CREATE TABLE parted (a int, b text, c date) PARTITION BY RANGE (a);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (1000);
CREATE TABLE parted_2 (c date, junk int, b text, a int NOT NULL);
ALTER TABLE parted_2 DROP COLUMN junk;
ALTER TABLE parted ATTACH PARTITION parted_2 FOR VALUES FROM (1000) TO (2000);
CREATE TABLE parted_3 (junk int, a int NOT NULL, b text, c date);
ALTER TABLE parted_3 DROP COLUMN junk;
ALTER TABLE parted ATTACH PARTITION parted_3 FOR VALUES FROM (2000) TO (3000);
CREATE TABLE parted_4 PARTITION OF parted FOR VALUES FROM (3000) TO (9000) PARTITION BY LIST (a);
CREATE TABLE parted_5 PARTITION OF parted_4 DEFAULT;
INSERT INTO parted SELECT i, 'row ' || i, date '2020-01-01' + i FROM generate_series(0, 3999) i;
CREATE TABLE parent (a int, b text);
CREATE TABLE child (c int) INHERITS (parent);
CREATE TABLE grandchild () INHERITS (child);
INSERT INTO parent SELECT i, 'parent' FROM generate_series(1, 500) i;
INSERT INTO child SELECT i, 'child', i FROM generate_series(1, 500) i;
INSERT INTO grandchild SELECT i, NULL, i FROM generate_series(1, 500) i;

CREATE UNLOGGED TABLE unlogged AS SELECT * FROM patterns;
CREATE MATERIALIZED VIEW materialized AS SELECT * FROM patterns;
CREATE VIEW seen AS SELECT t, i8 FROM patterns WHERE i4 IS NOT NULL;
CREATE TABLE nothing (a int, b text);
CREATE TABLE no_columns ();
INSERT INTO no_columns SELECT FROM generate_series(1, 500);
CREATE TABLE lost_columns (a int);
INSERT INTO lost_columns SELECT generate_series(1, 500);
ALTER TABLE lost_columns DROP COLUMN a;
CREATE INDEX ON patterns (i4);
CREATE INDEX ON aged (a);
CREATE TABLE one_text (v text);
INSERT INTO one_text SELECT value FROM strings, generate_series(1, 20);
INSERT INTO one_text SELECT NULL FROM generate_series(1, 100);

INSERT INTO queries
SELECT 'tables', 'SELECT * FROM ' || t
FROM unnest('{patterns,aged,added,broad,toasted,bloated,computed,parted,parent,child,unlogged,materialized,seen,nothing,no_columns,lost_columns,one_text}'::text[]) t;
INSERT INTO queries VALUES
	('tables', 'SELECT i2, t, s FROM patterns'), ('tables', 'SELECT s, i2 FROM patterns'), ('tables', 'SELECT t, t AS v FROM patterns'),
	('tables', 'SELECT patterns FROM patterns'), ('tables', 'SELECT ctid, i8 FROM patterns'), ('tables', 'SELECT tableoid, * FROM parent'),
	('tables', 'SELECT FROM patterns'), ('tables', 'SELECT ts FROM patterns'), ('tables', 'SELECT i4 + 1, upper(t) FROM patterns'),
	('tables', 'SELECT * FROM patterns WHERE i4 % 3 = 0'), ('tables', 'SELECT b, s FROM patterns WHERE t LIKE ''t%'' AND NOT b'),
	('tables', 'SELECT i4 * 2 AS v FROM patterns WHERE i4 > (SELECT avg(i4) FROM patterns)'),
	('tables', 'SELECT * FROM patterns p WHERE EXISTS (SELECT FROM aged WHERE a = p.i4)'),
	('tables', 'SELECT i2, (SELECT b FROM aged WHERE a = i4) FROM patterns WHERE random() >= 0'),
	('tables', 'SELECT * FROM patterns WHERE false'), ('tables', 'SELECT * FROM patterns WHERE i4 < 0'),
	('tables', 'SELECT pi, word FROM aged'), ('tables', 'SELECT a, answer FROM aged WHERE answer IS NULL OR pi > 3'),
	('tables', 'SELECT c, a FROM added WHERE b = ''missing'''), ('tables', 'SELECT b, c FROM added'),
	('tables', 'SELECT a, c FROM parted WHERE b LIKE ''%7'''), ('tables', 'SELECT b FROM parent WHERE a > 250'), ('tables', 'SELECT * FROM ONLY parent'),
	('tables', 'SELECT * FROM patterns ORDER BY i8, i4, i2'), ('tables', 'SELECT i4, t FROM patterns WHERE i4 BETWEEN 100 AND 200'),
	('tables', 'SELECT * FROM patterns LIMIT 100'), ('tables', 'SELECT * FROM patterns LIMIT 100 OFFSET 90'),
	('tables', 'SELECT * FROM parent UNION ALL SELECT a, b FROM aged'), ('tables', 'SELECT b FROM parted UNION ALL SELECT b FROM aged WHERE a > 5 UNION ALL VALUES (''x'')'),
	('tables', 'SELECT p.*, q.* FROM aged p JOIN parent q USING (a)'), ('tables', 'SELECT a, count(*) FROM parent GROUP BY a'),
	('tables', 'WITH w AS MATERIALIZED (SELECT * FROM patterns) SELECT * FROM w WHERE i2 > 7'), ('tables', 'SELECT * FROM bloated WHERE ctid >= ''(5,0)'' AND ctid < ''(20,0)'''),
	('tables', 'SELECT * FROM patterns TABLESAMPLE SYSTEM (50) REPEATABLE (1)'), ('tables', 'SELECT DISTINCT i4 FROM patterns'),
	('tables', 'SELECT length(external), external FROM toasted WHERE length(extended) > 1000'), ('tables', 'SELECT DISTINCT ON (b) * FROM parent ORDER BY b, a DESC');
