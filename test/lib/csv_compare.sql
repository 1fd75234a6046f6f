-- Compares CSV with what COPY writes.  Needs csv_probe(), and :dir, a directory
-- that the server may write to.

CREATE TABLE options (
	name text PRIMARY KEY,
	header bool NOT NULL DEFAULT false,
	delimiter text, quote text, escape text, nul text,
	force_quote text[], encoding text,
	block_size int NOT NULL DEFAULT 262144);

CREATE FUNCTION copy_options(o options) RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(', ', 'FORMAT csv', 'HEADER ' || o.header,
		'DELIMITER ' || quote_literal(o.delimiter), 'QUOTE ' || quote_literal(o.quote),
		'ESCAPE ' || quote_literal(o.escape), 'NULL ' || quote_literal(o.nul),
		'FORCE_QUOTE ' || CASE WHEN o.force_quote = '{*}' THEN '*' ELSE
			(SELECT '(' || string_agg(quote_ident(c), ', ') || ')' FROM unnest(o.force_quote) c) END,
		'ENCODING ' || quote_literal(coalesce(o.encoding, 'UTF8')))
$$;

-- Where two files differ first, with what comes before and after in each.
CREATE FUNCTION first_difference(a bytea, b bytea) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	lo int := 0;
	hi int := least(length(a), length(b));
	mid int;
BEGIN
	WHILE lo < hi LOOP
		mid := (lo + hi + 1) / 2;
		IF substr(a, 1, mid) = substr(b, 1, mid) THEN lo := mid; ELSE hi := mid - 1; END IF;
	END LOOP;
	RETURN format(E'at byte %s of %s (COPY) and %s\n  COPY: %s\n  ours: %s', lo, length(a), length(b),
		encode(substr(a, greatest(lo - 40, 1), 120), 'escape'),
		encode(substr(b, greatest(lo - 40, 1), 120), 'escape'));
END $$;

-- "what" describes how bytes or errors differ, and is NULL if they do not.
CREATE FUNCTION difference(query text, o options, OUT what text, OUT failed bool) LANGUAGE plpgsql AS $$
DECLARE
	dir text := current_setting('probe.dir');
	theirs bytea;
	ours bytea;
	their_error text;
	our_error text;
BEGIN
	BEGIN
		EXECUTE format('COPY (%s) TO %L (%s)', query, dir || '/copy.csv', copy_options(o));
		theirs := pg_read_binary_file(dir || '/copy.csv');
	EXCEPTION WHEN OTHERS THEN
		their_error := SQLSTATE || ' ' || SQLERRM;
	END;
	BEGIN
		PERFORM csv_probe(query, dir || '/probe.csv', o.header, o.delimiter, o.quote, o.escape,
			o.nul, o.force_quote, o.encoding, o.block_size);
		ours := pg_read_binary_file(dir || '/probe.csv');
	EXCEPTION WHEN OTHERS THEN
		our_error := SQLSTATE || ' ' || SQLERRM;
	END;
	IF their_error IS DISTINCT FROM our_error THEN
		what := format(E'errors differ\n  COPY: %s\n  ours: %s', their_error, our_error);
	ELSIF theirs IS DISTINCT FROM ours THEN
		what := first_difference(theirs, ours);
	END IF;
	failed := their_error IS NOT NULL;
	what := E'query: ' || query || E'\noptions: ' || o.name || ': ' || copy_options(o)
		|| ', block_size ' || o.block_size || E'\n' || what;
END $$;

CREATE TABLE queries (set text, query text);

-- How many comparisons were made, how many of them met the same error twice, how
-- many what a difference; and the first of these.
CREATE FUNCTION compare(sets text[], names text) RETURNS text LANGUAGE sql AS $$
	SELECT format('%s compared, %s failed alike, %s differ', count(*),
		count(*) FILTER (WHERE failed AND what IS NULL), count(what)) || coalesce(E'\n' || min(what), '')
	FROM queries q, options o, difference(q.query, o)
	WHERE q.set = ANY (sets) AND o.name LIKE names
$$;

-- Options that need no encoding but the database's.
INSERT INTO options (name) VALUES ('plain');
INSERT INTO options (name, header, delimiter, quote, escape, nul, force_quote, block_size) VALUES
	('o header', true, NULL, NULL, NULL, NULL, NULL, 64),
	('o semicolon', true, ';', NULL, NULL, NULL, NULL, 1000),
	('o tab', false, E'\t', NULL, NULL, '\N', NULL, 8192),
	('o pipe', false, '|', '''', NULL, 'NULL', NULL, 65536),
	('o backslash', true, NULL, NULL, '\', NULL, NULL, 64),
	('o apostrophe', true, NULL, '''', '"', '""', NULL, 333),
	('o all', true, NULL, NULL, NULL, NULL, '{*}', 1),
	('o all escaped', false, '.', NULL, '\', 'x', '{*}', 262144),
	('o some', true, NULL, NULL, NULL, '1', '{v}', 262144),
	('o null t', false, NULL, NULL, NULL, 't', NULL, 262144),
	('o null braces', false, NULL, NULL, NULL, '{}', NULL, 262144),
	('o null 0', false, NULL, NULL, NULL, '0', '{v}', 262144),
	('o null null', false, NULL, NULL, NULL, 'null', NULL, 262144),
	('o null date', false, NULL, NULL, NULL, '2000-01-01', NULL, 262144),
	('o null long', true, NULL, NULL, NULL, repeat('<no value> ', 30), NULL, 100),
	('o digit', true, '1', NULL, NULL, NULL, NULL, 262144),
	('o minus', false, '-', NULL, NULL, '', NULL, 262144),
	('o colon', false, ':', NULL, NULL, '', NULL, 262144),
	('o blank', false, ' ', NULL, NULL, '', '{v}', 262144),
	('o dot', false, '.', NULL, NULL, '', NULL, 262144),
	('o plus', false, '+', NULL, NULL, '', NULL, 262144),
	('o letter e', true, 'e', 'a', NULL, '', NULL, 262144),
	('o letter t', false, 't', 'f', 'n', '', NULL, 262144),
	('o brace', false, '{', '[', ']', '', NULL, 262144),
	('o backslashes', true, '\', '"', NULL, '', NULL, 262144),
	('o quote 0', false, NULL, '0', NULL, '', NULL, 262144),
	('o quote -', false, NULL, '-', '2', '', '{*}', 262144),
	('o quote :', false, NULL, ':', ' ', '', NULL, 262144),
	('o quote ,', false, '"', ',', NULL, '', NULL, 262144),
	('o escape 0', false, NULL, NULL, '0', '', '{*}', 262144),
	('o escape ,', false, ';', NULL, ',', '', NULL, 262144),
	('o escape u', false, NULL, NULL, 'u', '', NULL, 262144),
	('o control', false, E'\x01', E'\x02', E'\x03', E'\x04', NULL, 262144);
