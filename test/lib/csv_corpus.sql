-- Values of every type, for comparing exports with COPY.  Any database encoding
-- will do; UTF8 adds its own.

CREATE SCHEMA "Odd schema";
CREATE TABLE "Odd schema"."Odd ""table""" (a int, "Ä , b" text);
CREATE TYPE mood AS ENUM ('sad', 'ok, so', 'say "hi"', '\.', '');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN places AS int[];

-- literals of a type, one a row
CREATE TABLE literals (type text, value text);
INSERT INTO literals
SELECT type, unnest(literals) FROM (VALUES
	('bool', '{t,f}'::text[]),
	('int2', '{0,1,-1,9,10,99,100,999,1000,9999,10000,-9999,-10000,32767,-32768}'),
	('int4', '{0,1,-1,9,10,99,100,999,1000,9999,10000,10001,99999,100000,-99999999,99999999,100000000,999999999,1000000000,2147483647,-2147483648}'),
	('int8', '{0,1,-1,42,9999,10000,99999999,100000000,999999999999,1000000000000,-9999999999999999,9999999999999999,10000000000000000,999999999999999999,1000000000000000000,9223372036854775807,-9223372036854775808}'),
	('oid', '{0,1,16384,2147483648,4294967295}'),
	('numeric', '{0,0.0,0.00,-0.01,1,-1,10,100,1000,9999,10000,10000.0000,12345.6789,0.1,0.0001,0.00001,0.00010000,1e-20,-1e-20,1.5e-10,100000000,1e30,-1e30,123456789012345678901234567890.123456789,0.00000000000000000000000000000000000001,NaN,Infinity,-Infinity,9999999999999999.99,99.99,99.9900,3.14159265358979323846,1e131071}'),
	('numeric(15,2)', '{0,0.01,-0.01,1,10.5,99.99,100,9999.99,10000,12345678.9,-12345678.91,9999999999999.99,NaN}'),
	('numeric(8,4)', '{0,0.0001,1234.5678,-1.2,0.1,0.0100}'),
	('numeric(4,-2)', '{0,100,12345,999900}'),
	('float4', '{0,-0,1,-1,0.1,1.5,100,0.01,-12.34,123456,1234567,1e-5,0.0001,1e6,1e10,3.4028235e38,1.17549435e-38,1.4e-45,NaN,Infinity,-Infinity}'),
	('float8', '{0,-0,1,-1,0.1,0.01,0.07,1.005,99.99,-123.45,0.1000000000000000055,1e-4,1e-5,1.2345e-7,123456789.12,1e14,1e15,999999999999999,9999999999999998,1e16,1e17,0.30000000000000004,12345678901234.56,1234567890123.45,9007199254740993,1.7976931348623157e308,2.2250738585072014e-308,4.9e-324,NaN,Infinity,-Infinity}'),
	('money', '{0,1.5,-1.5,1234567.89,92233720368547758.07,-92233720368547758.08}'),
	('date', '{2000-01-01,1999-12-31,1970-01-01,2024-02-29,2023-02-28,1900-03-01,1600-02-29,0001-01-01,9999-12-31,10000-01-01,12345-06-07,5874897-12-31,0001-12-31 BC,4714-11-24 BC,infinity,-infinity}'),
	('time', '{00:00,12:34:56,23:59:59.999999,24:00,01:02:03.5,01:02:03.000001}'),
	('timetz', '{00:00+00,12:34:56.7+05:30,23:59:59.999999-15:59:59,12:00+01:02:03}'),
	('timestamp', '{2000-01-01 00:00,1999-12-31 23:59:59.999999,1999-12-31 23:59:59.5,2024-02-29 12:34:56.789,1970-01-01 00:00:00.000001,0001-01-01 00:00,9999-12-31 23:59:59.999999,10000-01-01 00:00,294276-12-31 23:59:59.999999,0001-12-31 23:59:59.1 BC,4714-11-24 00:00:00 BC,infinity,-infinity}'),
	('timestamptz', '{2000-01-01 00:00+00,1999-12-31 23:59:59.999999+00,2024-03-10 06:59:59.9+00,2024-03-10 07:00+00,2024-11-03 05:59:59+00,2024-11-03 06:00+00,1883-11-18 16:59:59+00,1883-11-18 17:03:57+00,1850-01-01 00:00+00,1937-07-01 00:00+00,1941-10-01 00:00+00,0001-01-01 00:00+00,0001-01-01 20:00+00,9999-12-31 12:00+00,9999-12-31 23:59:59.999999+00,10000-01-01 00:00+00,2100-07-01 00:00+00,294276-12-31 12:00+00,0001-12-31 00:00+00 BC,4714-11-24 12:00+00 BC,infinity,-infinity}'),
	('interval', '{0,1 year,-1 year 2 mons,1 day,-1 day 2 hours,1:02:03.4,-0:00:00.000001,3 years 4 mons 5 days 06:07:08.9,178000000 years,-100 days 100 hours}'),
	('uuid', '{00000000-0000-0000-0000-000000000000,ffffffff-ffff-ffff-ffff-ffffffffffff,123e4567-e89b-12d3-a456-426614174000,0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9}'),
	('bytea', '{"",a,\\x00,\\x000102ff22270a0d2c,"x,y"}'),
	('bit(5)', '{10101,00000}'), ('bit', '{1,0}'), ('varbit', '{"",1,10101010101}'),
	('inet', '{127.0.0.1,10.0.0.0/8,::1,2001:db8::/32,::ffff:1.2.3.4}'),
	('cidr', '{10.0.0.0/8,2001:db8::/32,192.168.1.1/32}'),
	('macaddr', '{08:00:2b:01:02:03}'), ('macaddr8', '{08:00:2b:01:02:03:04:05}'),
	('json', '{"{\"a\": [1, 2,  \"x\\ny\"]}",[],null,"\"q\"",1e400}'),
	('jsonpath', '{"$.a[*] ? (@.b > 1)","$"}'),
	('xml', '{"<a b=\"c\">x, y</a>","text"}'),
	('tsvector', '{"a fat cat","''it''''s'':1A,2B \"q\"",""}'),
	('tsquery', '{"fat & (cat | !rat)","''a b'' <-> c:*A"}'),
	('point', '{"(1,2)","(-1.5,1e-7)","(Infinity,NaN)"}'), ('line', '{"{1,2,3}"}'),
	('lseg', '{"[(1,2),(3,4)]"}'), ('box', '{"(3,4),(1,2)"}'),
	('path', '{"[(1,2),(3,4)]","((1,2),(3,4))"}'), ('polygon', '{"((1,2),(3,4),(5,6.5))"}'),
	('circle', '{"<(1,2),3>"}'),
	('int4range', '{empty,"[1,5)","(,)","[,3)"}'), ('int8range', '{"[1,9223372036854775807)"}'),
	('numrange', '{"[1.5,2.5]","(,1e20)"}'), ('daterange', '{"[2000-01-01,2000-02-01)","[2000-01-01,infinity)"}'),
	('tsrange', '{"[2000-01-01 00:00:00,2000-02-01 12:34:56.7)"}'),
	('tstzrange', '{"[2000-01-01 00:00:00+00,2000-08-01 12:34:56.7+00)"}'),
	('int4multirange', '{"{}","{[1,3),[5,8)}"}'), ('int8multirange', '{"{[1,3)}"}'),
	('nummultirange', '{"{[1.5,3),(7,)}"}'), ('datemultirange', '{"{[2000-01-01,2000-02-01)}"}'),
	('tsmultirange', '{"{[2000-01-01,2000-02-01)}"}'), ('tstzmultirange', '{"{[2000-01-01 00:00+00,2000-08-01 00:00+00)}"}'),
	('pg_lsn', '{0/0,16/B374D848,FFFFFFFF/FFFFFFFF}'),
	('txid_snapshot', '{"10:20:10,14,15","1:1:"}'), ('pg_snapshot', '{"10:20:10,14,15"}'),
	('xid', '{0,3,4294967295}'), ('xid8', '{0,18446744073709551615}'), ('cid', '{0,4294967295}'),
	('tid', '{"(0,1)","(4294967295,65535)"}'),
	('regclass', '{pg_class,pg_catalog.pg_type,"\"Odd schema\".\"Odd \"\"table\"\"\"",0,4000000000}'),
	('regproc', '{now,int4in,0}'), ('regprocedure', '{"abs(integer)","pg_catalog.int4in(cstring)"}'),
	('regoper', '{"pg_catalog.||/"}'), ('regoperator', '{"+(integer,integer)"}'),
	('regtype', '{integer,"character varying[]",pair,"timestamp with time zone"}'), ('regrole', '{postgres,pg_monitor}'),
	('regnamespace', '{pg_catalog,"\"Odd schema\""}'), ('regconfig', '{english,simple}'),
	('regdictionary', '{simple}'), ('regcollation', '{"\"C\"","pg_catalog.\"POSIX\""}'),
	('refcursor', '{c,"a,b"}'), ('aclitem', '{postgres=arwdDxt/postgres,=r/postgres}'),
	('int2vector', '{"","1 2 -3"}'), ('oidvector', '{"1 2 3"}'),
	('mood', '{sad,"ok, so","say \"hi\"",\\.,""}'), ('pair', '{"(1,x)","(,)","(2,\"a, \"\"b\"\"\")"}'),
	('positive', '{1,12345}')) AS l (type, literals);

-- types that are written as text
CREATE TABLE strings (value text);
INSERT INTO strings
SELECT unnest(ARRAY['', ' ', '  padded  ', 'x', 'plain', 'a,b', '"', '""', 'say "hi", you', E'a\nb', E'a\rb', E'\r\n', E'\t',
	E'\t,"\n', '\.', '\.x', 'x\.', ' \.', '\', '\\', '\N', 'NULL', 'null', '''', 'it''s', ';', '|', 'a|b', '1', '0', '-',
	't', 'f', '{}', '{"a":1}', '2000-01-01', E'\x01\x02\x03\x04', E'\x7f',
	repeat('long text without anything ', 40), repeat('x', 5000), repeat('q"', 3000), repeat(E'line\n', 500),
	repeat('a', 15) || ',', repeat('a', 16) || '"', repeat('a', 63) || E'\n', repeat('a', 64) || E'\r']);
INSERT INTO literals SELECT type, value FROM strings, unnest(ARRAY['text', 'varchar', 'bpchar']) type;
INSERT INTO literals SELECT type, value FROM strings, unnest(ARRAY['name', 'char(20)', 'varchar(20)', '"char"']) type
	WHERE length(value) <= CASE type WHEN '"char"' THEN 1 ELSE 20 END;

-- arrays of all these have the same values, and NULL
INSERT INTO literals
SELECT 'jsonb', unnest(ARRAY['{}', '[]', '""', '"x"', '"a\"b"', '"\\"', '"\u0001\b\f\n\r\t"', '"\u007f"', '0', '-1', '1e20', '1.50', '1e400', '1e-400',
	'true', 'false', 'null', '[1]', '[[]]', '[{}]', '[1, 2]', '[[5], "x", null]', '{"a": 1}', '{"": ""}', '{"a": {"b": [{"c": null}]}}',
	'{"a,b": "c;d", "q\"q": "\\.", "n\nl": [true, false, -0.010]}', '"\\."', '"' || repeat('x', 4000) || '"', '"' || repeat('q\"', 3000) || '"',
	'[[[[[[[[[[1]]]]]]]]]]', repeat('[', 64) || repeat(']', 64), repeat('[', 65) || repeat(']', 65), repeat('[1, {"a": ', 40) || 'null' || repeat('}]', 40),
	'12345678901234567890.12345678901234567890', '[0.0, 100000, 10000.0001]',
	(SELECT jsonb_object_agg('key ' || i, i * i)::text FROM generate_series(1, 200) i),
	(SELECT jsonb_agg(i)::text FROM generate_series(-100, 100) i)]);

CREATE FUNCTION make_tables() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	t record;
	n int := 0;
BEGIN
	FOR t IN SELECT DISTINCT type FROM literals ORDER BY 1 LOOP
		n := n + 1;
		EXECUTE format('CREATE DOMAIN d%s AS %s', n, t.type);
		EXECUTE format('CREATE TABLE t%s (id serial, v %s, d d%1$s, a %2$s[], m %2$s[])', n, t.type);
		EXECUTE (SELECT format('INSERT INTO t%s (v) VALUES ', n) || string_agg(format('(%L::%s)', value, t.type), ', ')
			FROM literals l WHERE l.type = t.type);
		EXECUTE format('INSERT INTO t%s (v) VALUES (NULL)', n);
		EXECUTE format('UPDATE t%s SET d = v, a = ARRAY[v, NULL, v], m = ARRAY[ARRAY[v, NULL], ARRAY[v, v]] WHERE id %% 2 = 1 OR d IS NULL', n);
		EXECUTE format('UPDATE t%s SET a = ''{}'' WHERE v IS NULL', n);
		INSERT INTO queries VALUES ('types', format('SELECT * FROM t%s ORDER BY id', n)),
			('types', format('SELECT v FROM t%s ORDER BY id', n)),
			('composites', format('SELECT t, ROW(v, NULL, id) AS r, d, v FROM t%s t ORDER BY id', n));
	END LOOP;
END $$;
SELECT make_tables();

-- what has no literals comes from the catalogs
INSERT INTO queries VALUES
	('catalogs', 'SELECT * FROM pg_class ORDER BY oid'), ('catalogs', 'SELECT * FROM pg_type ORDER BY oid'),
	('catalogs', 'SELECT * FROM pg_proc ORDER BY oid'), ('catalogs', 'SELECT ev_action FROM pg_rewrite ORDER BY oid'),
	('catalogs', 'SELECT * FROM pg_attribute ORDER BY attrelid, attnum');

-- every built-in type that can be a column has values above
CREATE VIEW types_without_values AS
SELECT t.oid::regtype FROM pg_type t
WHERE t.oid < 16384 AND t.typtype IN ('b', 'r', 'm') AND t.typelem = 0 AND t.typnamespace = 'pg_catalog'::regnamespace
	-- without an input function, or seen in the catalogs
	AND t.typname NOT IN ('pg_node_tree', 'pg_ndistinct', 'pg_dependencies', 'pg_mcv_list', 'gtsvector',
		'pg_brin_bloom_summary', 'pg_brin_minmax_multi_summary', 'pg_ddl_command')
	AND t.oid NOT IN (SELECT type::regtype FROM literals);

-- text

CREATE TABLE edges AS
	SELECT row_number() OVER () AS id, v FROM (
		SELECT repeat('a', p) || c || repeat('b', len - p - 1) AS v
		FROM generate_series(1, 100) len, generate_series(0, 99) p, unnest(ARRAY[',', '"', E'\n', E'\r', '\', ';']) c
		WHERE p < len AND (p < 3 OR len - p < 4 OR p % 15 IN (0, 1) OR p % 16 IN (0, 15))) s;
INSERT INTO queries VALUES
	('text', 'SELECT value AS v FROM strings'), ('text', 'SELECT value AS v, value AS w FROM strings'),
	('text', 'SELECT v FROM edges ORDER BY id'), ('text', 'SELECT v, id FROM edges ORDER BY id'),
	('text', 'SELECT NULL AS v'), ('text', 'SELECT NULL AS v, NULL'), ('text', 'SELECT '''' AS v'),
	('text', 'SELECT value::varchar AS v, value::bpchar, left(value, 10)::name FROM strings'),
	('text', 'SELECT value AS v, value::text COLLATE "C" FROM strings WHERE value > ''m''');

-- shapes
SET check_function_bodies = off;
INSERT INTO queries VALUES
	('shapes', 'SELECT'), ('shapes', 'SELECT FROM strings'), ('shapes', 'SELECT 1 AS v WHERE false'),
	('shapes', 'SELECT WHERE false'), ('shapes', 'VALUES (1, ''a''), (2, NULL)'), ('shapes', 'TABLE strings'),
	('shapes', 'SELECT 1 AS ",", 2 AS """", 3 AS "a b", 4 AS "\.", 6 AS "x", 7 AS "NULL", 8 AS "1", 9 AS v, 10 AS v2'),
	('shapes', 'SELECT 1 AS "\."'), ('shapes', 'SELECT ''\.'' AS "x ""y"", z"'), ('shapes', 'SELECT 1 AS v, 2 AS v'),
	('shapes', 'SELECT ' || (SELECT string_agg(format('%s AS c%s', CASE i % 3 WHEN 0 THEN i::text WHEN 1 THEN 'NULL' ELSE quote_literal('x,' || i) END, i), ', ') FROM generate_series(1, 1600) i) || ', 1 AS v'),
	('shapes', 'SELECT ' || (SELECT string_agg(format('%s AS c%s', CASE i % 3 WHEN 0 THEN i::text WHEN 1 THEN 'NULL' ELSE quote_literal('x,' || i) END, i), ', ') FROM generate_series(1, 1599) i) || ', 1 AS v FROM generate_series(1, 20)'),
	('text', 'SELECT ''[2:3]={1,2}''::int[] AS v, ''{}''::numeric[], ''{NULL}''::bool[], ''{1}''::int8[], ''{3,1}''::positive[], ''{4,NULL}''::places, ''{{1},{2}}''::places, ''{1.5}''::numeric[]'),
	('text', 'SELECT ''{NULL}''::numeric[] AS v'), ('text', 'SELECT ''{}''::int[] AS v'), ('text', 'SELECT ''{1,NaN,2}''::numeric[] AS v, ''{1}''::int[]'),
	('text', 'SELECT array_agg(i * 1.5) AS v, array_agg(i), sum(i) FROM generate_series(1, 100000) i'),
	('shapes', 'SELECT g AS v, repeat(''w'', g * 37 % 1000) FROM generate_series(1, 3000) g'),
	('shapes', 'SELECT repeat(''x'', 262144 - 20 + g) AS v, g FROM generate_series(0, 40) g'),
	('shapes', 'SELECT repeat(''"'', 131072 - 20 + g) AS v, g FROM generate_series(0, 40) g'),
	('shapes', 'SELECT 1/(g - 500) AS v FROM generate_series(1, 1000) g'),
	('shapes', 'SELECT set_config(''datestyle'', CASE g % 3 WHEN 0 THEN ''German'' WHEN 1 THEN ''ISO, DMY'' ELSE ''SQL, MDY'' END, true) AS v, date ''2000-01-01'' + g, timestamp ''2000-02-29 12:00'' + g * interval ''1 hour'', timestamptz ''2000-02-29 12:00+00'' + g * interval ''1 hour'' FROM generate_series(1, 10) g'),
	('shapes', 'SELECT set_config(''timezone'', CASE g % 3 WHEN 0 THEN ''Asia/Kolkata'' WHEN 1 THEN ''America/New_York'' ELSE ''UTC'' END, true) AS v, timestamptz ''2000-02-29 12:00+00'' + g * interval ''1 month'' FROM generate_series(1, 10) g'),
	('shapes', 'SELECT set_config(''extra_float_digits'', (g % 4)::text, true) AS v, g / 3.0::float8, g / 7.0::float4 FROM generate_series(1, 10) g'),
	('large', 'SELECT repeat(''x'', 20000000) AS v'),
	('large', 'SELECT 1 AS a, repeat(''say "hi", '', 2000000) AS v, 2 AS b FROM generate_series(1, 2)'),
	('large', 'SELECT CASE WHEN g % 5 = 0 THEN repeat(E''l\n'', 1000000) ELSE ''small'' END AS v, g FROM generate_series(1, 20) g'),
	('large', 'SELECT jsonb_build_object(''k'', repeat(''say "hi", '', 2000000)) AS v');

-- the options themselves
INSERT INTO options (name, delimiter, quote, escape, nul, force_quote, encoding) VALUES
	('e long delimiter', ',,', NULL, NULL, NULL, NULL, NULL), ('e no delimiter', '', NULL, NULL, NULL, NULL, NULL),
	('e line delimiter', E'\n', NULL, NULL, NULL, NULL, NULL), ('e cr delimiter', E'\r', NULL, NULL, NULL, NULL, NULL),
	('e delimiter is quote', '"', NULL, NULL, NULL, NULL, NULL), ('e long quote', NULL, '""', NULL, NULL, NULL, NULL),
	('e no quote', NULL, '', NULL, NULL, NULL, NULL), ('e long escape', NULL, NULL, '\\', NULL, NULL, NULL),
	('e no escape', NULL, NULL, '', NULL, NULL, NULL), ('e delimiter in null', NULL, NULL, NULL, 'a,b', NULL, NULL),
	('e quote in null', NULL, NULL, NULL, '"', NULL, NULL), ('e line in null', NULL, NULL, NULL, E'\n', NULL, NULL),
	('e cr in null', NULL, NULL, NULL, E'\r', NULL, NULL), ('e unknown column', NULL, NULL, NULL, NULL, '{v,nope}', NULL),
	('e column twice', NULL, NULL, NULL, NULL, '{v,v}', NULL), ('e star and column', NULL, NULL, NULL, NULL, '{*,v}', NULL),
	('e unknown encoding', NULL, NULL, NULL, NULL, NULL, 'UTF-42'), ('e no encoding', NULL, NULL, NULL, NULL, NULL, ''),
	('e case matters', NULL, NULL, NULL, NULL, '{V}', NULL), ('e nothing', NULL, NULL, NULL, NULL, '{v}', 'utf-8');
