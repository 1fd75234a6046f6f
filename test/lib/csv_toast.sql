-- Tables with values stored out of line, in every way that they can be.

-- Bytes that no compression makes smaller, and that now and then need quotes.
CREATE FUNCTION noise(seed bigint, len bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$
	SELECT left(string_agg(translate(encode(sha512((seed || '/' || i)::bytea), 'base64'), E'\n=/', CASE WHEN seed % 3 = 0 THEN '", ' ELSE 'xyz' END), ''), len::int)
	FROM generate_series(0, len / 86) i
$$;
CREATE DOMAIN body AS text CHECK (length(VALUE) > 2);

-- sizes around one chunk and many, out of line and not
CREATE TABLE plain_values (id int, v text, w text);
ALTER TABLE plain_values ALTER v SET STORAGE EXTERNAL, ALTER w SET STORAGE EXTERNAL;
INSERT INTO plain_values
	SELECT i, noise(i, 1990 * n + d), CASE WHEN i % 5 = 0 THEN noise(-i, 3000 + i % 7 * 1000) END
	FROM (SELECT row_number() OVER () AS i, n, d FROM generate_series(1, 9) n, generate_series(0, 70) d ORDER BY d, n) s;

-- with no room for a last chunk on a page before
CREATE TABLE ordered (id int, v text);
ALTER TABLE ordered ALTER v SET STORAGE EXTERNAL;
INSERT INTO ordered SELECT i, noise(i, 4000) FROM generate_series(1, 500) i;

CREATE TABLE large_values (id int, v text);
ALTER TABLE large_values ALTER v SET STORAGE EXTERNAL;
INSERT INTO large_values SELECT i, repeat(noise(i, 1234), (2 ^ (i * 0.75))::int) FROM generate_series(1, 20) i;

-- compressed by each method, and of many types
CREATE TABLE packed_values (id int, v text COMPRESSION pglz, w text, d body, j jsonb, js json, t text[], i int[], b bytea, n numeric, x xml);
INSERT INTO packed_values
	SELECT i, repeat(noise(i, 900), 1 + i % 40), repeat(noise(i, 900), 3 + i % 30), noise(i, 300 * (i % 17 + 1)),
		jsonb_build_object('k', noise(i, 5000), 'l', repeat('say "hi", ', i * 10), 'n', i), to_json(noise(i, 4000)),
		ARRAY[noise(i, 2500), NULL, noise(i + 1, 10)], ARRAY(SELECT i * g * 7919 FROM generate_series(1, 900) g),
		decode(md5(i::text) || encode(sha512(i::text::bytea), 'hex') || repeat('ab', i * 20), 'hex') || sha512(i::text::bytea),
		(repeat(i::text, 6000) || '.5')::numeric, ('<a>' || noise(i * 3 + 1, 4000) || '</a>')::xml
	FROM generate_series(1, 120) i;

-- several TOAST tables by turns, one of them in a partition of its own kind
CREATE TABLE parts (id int, v text) PARTITION BY HASH (id);
CREATE TABLE parts_0 PARTITION OF parts FOR VALUES WITH (MODULUS 12, REMAINDER 0);
DO $$BEGIN
	FOR r IN 1..11 LOOP EXECUTE format('CREATE UNLOGGED TABLE parts_%s PARTITION OF parts FOR VALUES WITH (MODULUS 12, REMAINDER %1$s)', r); END LOOP;
END$$;
INSERT INTO parts SELECT i, noise(i, 2100 + i * 37 % 5000) FROM generate_series(1, 900) i;

-- written in another order than they are read, with holes in between
CREATE TABLE changed_values (id int, v text);
ALTER TABLE changed_values ALTER v SET STORAGE EXTERNAL;
INSERT INTO changed_values SELECT i, noise(i, 2100 + i * 37 % 9000) FROM generate_series(1, 600) i;
UPDATE changed_values SET v = noise(id + 1000, 2100 + id * 41 % 5000) WHERE id % 3 = 0;
DELETE FROM changed_values WHERE id % 7 = 0;
VACUUM changed_values;
INSERT INTO changed_values SELECT i, noise(i, 2000 + i * 43 % 5000) FROM generate_series(601, 900) i;
UPDATE changed_values SET id = -id WHERE id % 11 = 0;
BEGIN;
INSERT INTO changed_values SELECT i, noise(i, 5000) FROM generate_series(901, 950) i;
ROLLBACK;
BEGIN;
DELETE FROM changed_values WHERE id % 13 = 0;
UPDATE changed_values SET v = noise(id + 9, 4000) WHERE id % 17 = 0;
ROLLBACK;
INSERT INTO changed_values SELECT i, noise(i, 4000) FROM generate_series(951, 1000) i;

CREATE TABLE composites (id int, v large_values, w plain_values[]);
INSERT INTO composites SELECT id, l, ARRAY(SELECT p FROM plain_values p WHERE p.id % 100 = l.id)
	FROM large_values l WHERE id < 12;

INSERT INTO queries VALUES
	('toast', 'SELECT * FROM plain_values'), ('toast', 'SELECT v FROM plain_values'),
	('toast', 'SELECT w, v FROM plain_values'), ('toast', 'SELECT v, w, v AS x FROM plain_values ORDER BY id DESC'),
	('toast', 'SELECT * FROM plain_values ORDER BY md5(id::text)'), ('toast', 'SELECT v, id FROM large_values'),
	('toast', 'SELECT v FROM packed_values'), ('toast', 'SELECT * FROM packed_values'),
	('toast', 'SELECT * FROM packed_values ORDER BY id DESC'),
	('toast', 'SELECT * FROM ordered'), ('toast', 'SELECT * FROM parts'), ('toast', 'SELECT * FROM parts ORDER BY id'),
	('toast', 'SELECT * FROM changed_values'), ('toast', 'SELECT * FROM changed_values ORDER BY v'),
	('toast', 'SELECT * FROM composites'), ('toast', 'SELECT (v).*, w[1].v FROM composites'),
	('toast', 'SELECT a.v, b.v, a.id FROM plain_values a JOIN changed_values b USING (id) ORDER BY id'),
	('toast', 'SELECT substr(v, 2), upper(w) FROM plain_values'),
	('toast', 'SELECT id / (id - 300) AS v, w FROM plain_values ORDER BY id');
