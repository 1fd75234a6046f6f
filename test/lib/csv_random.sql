-- Random rows, the same in each run: everything comes from md5 of a counter.

CREATE FUNCTION bits(i bigint, what text) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
	SELECT ('x' || substr(md5(what || i), 1, 16))::bit(64)::bigint
$$;
CREATE FUNCTION dice(i bigint, what text, sides bigint) RETURNS int LANGUAGE sql IMMUTABLE AS $$
	SELECT ((bits(i, what) & x'7fffffffffffff'::bigint) % sides)::int
$$;

CREATE FUNCTION random_text(i bigint, max int) RETURNS text LANGUAGE sql IMMUTABLE AS $$
	SELECT coalesce(string_agg(p.pieces[1 + dice(i * 1000 + n, 'piece', array_length(p.pieces, 1))], ''), '')
	FROM (SELECT ARRAY['a', 'b', 'word ', 'some more words', '0', '-', '.', ':', ' ', CASE WHEN dice(i, 'rich', 3) = 0 THEN ',' ELSE 'x' END,
		CASE WHEN dice(i, 'rich', 4) = 0 THEN '"' ELSE 'y' END, CASE WHEN dice(i, 'rich', 5) = 0 THEN E'\n' ELSE 'z' END,
		CASE WHEN dice(i, 'rich', 6) = 0 THEN E'\r' ELSE '\' END, '''', ';', '|', E'\t']) p (pieces), generate_series(1, dice(i, 'length', max)) n
$$;

CREATE FUNCTION random_json(i bigint, depth int) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
	kind int := dice(i, 'kind', CASE WHEN depth = 0 THEN 5 ELSE 9 END);
	items int := dice(i, 'items', 6);
BEGIN
	RETURN CASE
		WHEN kind = 0 THEN 'null'
		WHEN kind = 1 THEN to_jsonb(dice(i, 'bool', 2) = 0)
		WHEN kind = 2 THEN to_jsonb(random_text(i, 12))
		WHEN kind = 3 THEN to_jsonb(bits(i, 'n') >> dice(i, 'shift', 64))
		WHEN kind = 4 THEN to_jsonb((bits(i, 'n') >> dice(i, 'shift', 64)) * 10.0 ^ (dice(i, 'scale', 30) - 15))
		WHEN kind IN (5, 6) THEN coalesce((SELECT jsonb_agg(random_json(i * 7 + n, depth - 1)) FROM generate_series(1, items) n), '[]')
		ELSE coalesce((SELECT jsonb_object_agg(random_text(i * 11 + n, 3), random_json(i * 13 + n, depth - 1)) FROM generate_series(1, items) n), '{}')
	END;
END $$;

CREATE TABLE random_rows AS
SELECT i AS id,
	(bits(i, 'int2') >> (48 + dice(i, 's2', 16)))::int2 AS i2,
	(bits(i, 'int4') >> (32 + dice(i, 's4', 32)))::int4 AS i4,
	bits(i, 'int8') >> dice(i, 's8', 64) AS i8,
	(bits(i, 'oid') & 4294967295)::oid AS o,
	dice(i, 'bool', 2) = 0 AS b,
	((bits(i, 'num') >> dice(i, 'sn', 64))::numeric * 10::numeric ^ (dice(i, 'scale', 60) - 30)) AS n,
	round((bits(i, 'cents') >> (14 + dice(i, 'sc', 50)))::numeric / 100, 2)::numeric(15, 2) AS n2,
	round((bits(i, 'cents') >> dice(i, 'sc', 64))::numeric / 1e6, dice(i, 'digits', 12)) AS nd,
	float8_of_bits(bits(i, 'f8')) AS f8,
	(bits(i, 'cents') >> (10 + dice(i, 'sc', 54))) / 100.0::float8 AS f8c,
	((bits(i, 'f8') >> dice(i, 'sf', 64)) * 10.0::float8 ^ (dice(i, 'fs', 40) - 20)) AS f8d,
	(bits(i, 'f8p') >> dice(i, 'sp', 64)) / 10.0::float8 ^ dice(i, 'fp', 20) AS f8p,
	(bits(i, 'f8b') >> (10 + dice(i, 'sb', 54))) / 2.0::float8 ^ dice(i, 'fb', 40) AS f8b,
	float4_of_bits((bits(i, 'f4') & 4294967295)::int8) AS f4,
	((bits(i, 'f4c') >> (40 + dice(i, 'sc', 24))) / 100.0)::float4 AS f4c,
	date '2000-01-01' + dice(i, 'date', 2000000) - 730000 AS d,
	timestamp '2000-01-01' + make_interval(secs => dice(i, 'ts', 2000000000) - 1000000000) + dice(i, 'us', 1000000) * interval '1 microsecond' AS ts,
	timestamptz '2000-01-01 00:00+00' + dice(i, 'tz', 200 * 365 * 86400::bigint / 4) * interval '4 seconds' - interval '100 years'
		+ CASE WHEN dice(i, 'whole', 2) = 0 THEN 0 ELSE dice(i, 'us', 1000000) END * interval '1 microsecond' AS tz,
	timestamptz '0001-01-01 00:00+00' + dice(i, 'far', 2000000000) * interval '160 seconds' AS tzfar,
	md5(i::text)::uuid AS u,
	random_text(i, 30) AS t,
	random_text(i + 500000, 8)::varchar AS vc,
	random_text(i + 900000, 3)::char(60) AS bp,
	random_text(i + 300000, 4)::name AS na,
	CASE WHEN dice(i, 'null', 3) > 0 THEN random_text(i + 700000, 4) END AS nullable,
	random_json(i, 3) AS j,
	ARRAY[i, NULL, bits(i, 'a')] AS arr,
	(SELECT array_agg(CASE WHEN dice(i * 9 + g, 'null', 4) > 0 THEN round((bits(i + g, 'an') >> dice(i + g, 'sa', 64))::numeric / 1000, 3) END)
		FROM generate_series(1, dice(i, 'items', 40)) g) AS narr,
	ARRAY[float8_of_bits(bits(i, 'f8') >> 12), i / 100.0] AS farr, ARRAY[date '2000-01-01' + i::int] AS darr,
	ARRAY[random_text(i, 3), NULL, random_text(i + 1, 4)] AS tarr,
	make_interval(months => dice(i, 'mons', 100) - 50, secs => dice(i, 'secs', 100000) / 7.0::float8) AS iv,
	make_interval(months => dice(i, 'm', 51) - 25, days => dice(i, 'd', 5) - 2, secs => (dice(i, 's', 3) - 1) * dice(i, 'us', 2000000000) / 5554::float8) AS ivs,
	time '00:00' + dice(i, 'us', 2000000000) * interval '43.2 microseconds' AS tm,
	(time '00:00' + dice(i, 'secs', 86400) * interval '1 second') AT TIME ZONE make_interval(secs => dice(i, 'zone', 30 * 3600) - 15 * 3600) AS tmz,
	substr(sha512(i::text::bytea), 1, dice(i, 'len', 65)) AS by
FROM generate_series(1, :rows) i;

-- every second around a change of a zone's offset, and whole days in order
CREATE TABLE zone_edges AS
	SELECT e + s * interval '0.5 seconds' AS v FROM generate_series(-40, 40) s,
		unnest(ARRAY['2024-03-10 07:00+00', '2024-11-03 06:00+00', '2024-03-31 01:00+00', '2024-10-27 01:00+00', '1883-11-18 17:00+00',
		'2037-11-01 06:00+00', '2038-03-14 07:00+00', '2400-03-12 07:00+00', '1919-12-31 23:59+00']::timestamptz[]) e
	UNION ALL
	SELECT timestamptz '1840-01-01 00:00+00' + d * interval '37 hours' FROM generate_series(0, 70000) d
	ORDER BY 1;

INSERT INTO queries VALUES
	('random', 'SELECT * FROM random_rows ORDER BY id'),
	('random', 'SELECT j AS v FROM random_rows ORDER BY id'),
	('random', 'SELECT t AS v FROM random_rows ORDER BY id'),
	('random', 'SELECT nullable AS v, n2, d, tz, i8 FROM random_rows ORDER BY md5(id::text)'),
	('zones', 'SELECT v, v AT TIME ZONE ''UTC'', v::date AS d FROM zone_edges ORDER BY v'),
	('zones', 'SELECT v FROM zone_edges ORDER BY v DESC'),
	('zones', 'SELECT v, tzfar FROM zone_edges, random_rows WHERE id = extract(epoch FROM v)::bigint % 977 ORDER BY md5(v::text)');
