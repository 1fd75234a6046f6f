-- Currents: what they are made of, and what is refused.  Nothing here reaches a
-- server: what is launched has nothing to send.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS s3export;
RESET client_min_messages;
SET TimeZone = 'UTC';
-- A launch asks for files that are in its folder, but not for long.
SET s3export.retry_timeout = 0;
CREATE ROLE regress_s3export_owner;
CREATE ROLE regress_s3export_other;
GRANT EXECUTE ON FUNCTION s3export.create_connector TO regress_s3export_owner;
CREATE SCHEMA regress_s3export;
GRANT USAGE ON SCHEMA regress_s3export TO regress_s3export_owner;
CREATE TABLE regress_s3export.events (id int PRIMARY KEY, payload text);
CREATE TABLE regress_s3export."Odd ""name" (id int);
CREATE TABLE regress_s3export.parted (id int, day date) PARTITION BY RANGE (day);
CREATE TABLE regress_s3export.part PARTITION OF regress_s3export.parted FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE UNLOGGED TABLE regress_s3export.unlogged (id int PRIMARY KEY);
CREATE TEMP TABLE temporary (id int PRIMARY KEY);
CREATE TABLE regress_s3export.half (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE UNLOGGED TABLE regress_s3export.half_part PARTITION OF regress_s3export.half FOR VALUES FROM (0) TO (9);
CREATE VIEW regress_s3export.a_view AS SELECT 1 AS one;
ALTER TABLE regress_s3export.events OWNER TO regress_s3export_owner;

CREATE FUNCTION pg_temp.create_current(name text, tables text[] DEFAULT NULL, operations text[] DEFAULT NULL,
	compression text DEFAULT NULL, max_events_per_file integer DEFAULT NULL, drop_after text DEFAULT NULL,
	folder_path text DEFAULT NULL, kind text DEFAULT 'currents', bucket text DEFAULT 'my-bucket') RETURNS boolean
	LANGUAGE sql AS $$
	SET LOCAL client_min_messages = warning;
	SELECT s3export.create_connector(name, bucket, kind, 'AKIAIOSFODNN7EXAMPLE', 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY',
		folder_path => coalesce(folder_path, name), region => 'us-east-1', validate => false, tables => tables,
		operations => operations, compression => compression, max_events_per_file => max_events_per_file,
		drop_after => drop_after) > 0 $$;
-- Without the warning about max_slot_wal_keep_size.
CREATE FUNCTION pg_temp.launch(name text) RETURNS boolean LANGUAGE sql AS $$
	SET LOCAL client_min_messages = error;
	SELECT s3export.launch(name) > '0/0' $$;
-- Without what differs from server to server.
CREATE FUNCTION pg_temp.events(name text) RETURNS TABLE (event text, detail jsonb, repeats integer) LANGUAGE sql AS $$
	SELECT event, detail - 'position' - 'message' - 'reason', repeats FROM s3export.current_events WHERE connector = name $$;

-- What readers may have missed would be told to S3 with the next delivery: here it is kept back.
CREATE TABLE regress_s3export.gap (number int GENERATED ALWAYS AS IDENTITY, table_name text, reason text);
CREATE FUNCTION regress_s3export.keep_gap() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
	INSERT INTO regress_s3export.gap (table_name, reason) VALUES (NEW.table_name, NEW.reason);
	RETURN NULL;
END $$;
CREATE TRIGGER keep_gap BEFORE INSERT ON s3export.current_gap FOR EACH ROW EXECUTE FUNCTION regress_s3export.keep_gap();

-- defaults, and everything given
SELECT pg_temp.create_current('plain');
SET search_path = regress_s3export;
SELECT pg_temp.create_current('full', '{events, "\"Odd \"\"name\"", regress_s3export.events, parted}', '{truncate, insert, insert}', 'gzip', 7,
	'1 day 12 hours');
RESET search_path;
SELECT name, owner = current_user::regrole AS owned, state, publication, tables, operations, compression, max_events_per_file, drop_after
	FROM s3export.currents ORDER BY name COLLATE "C";
SELECT name, slot_name, active_pid, position, lag_bytes, lag_seconds, last_file, last_delivery_at, events_sent, events_dropped,
	files_sent, bytes_sent, suspended_at, deadline, next_try_at, failures, error_code, launched_at FROM s3export.currents WHERE name = 'plain';
SELECT pubname, pubowner = current_user::regrole AS owned, puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot
	FROM pg_publication WHERE pubname LIKE 's3export%' ORDER BY pubname COLLATE "C";
SELECT connector, event FROM s3export.current_events;

-- where files are, and what they are like
CREATE FUNCTION pg_temp.create_feed(name text, feed text DEFAULT NULL, origin text DEFAULT NULL, header boolean DEFAULT NULL,
	"null" text DEFAULT NULL, force_quote text[] DEFAULT NULL, heartbeat text DEFAULT NULL, kind text DEFAULT 'currents') RETURNS boolean
	LANGUAGE sql AS $$
	SET LOCAL client_min_messages = warning;
	SELECT s3export.create_connector(name, 'my-bucket', kind, 'AKIAIOSFODNN7EXAMPLE', 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY',
		folder_path => name, region => 'us-east-1', validate => false, feed => feed, origin => origin, header => header,
		"null" => "null", force_quote => force_quote, heartbeat => heartbeat) > 0 $$;
SELECT pg_temp.create_feed('feed', 'shop.eu', 'none', false, 'NULL', '{*}', '1 hour');
SELECT uri = format('s3://my-bucket/plain/s3export.%s.%s/', current_database(), connector_id) AS default_uri, origin, header, "null", force_quote,
	heartbeat, last_batch FROM s3export.currents WHERE name = 'plain';
SELECT uri, origin, header, "null", force_quote, heartbeat FROM s3export.currents WHERE name = 'feed';
SELECT s3export.alter_connector('feed', force_quote => '{}', heartbeat => 'infinity');
SELECT s3export.alter_connector('feed', feed => 'shop', origin => 'any', header => true, "null" => '');
SELECT uri, origin, header, "null", force_quote, heartbeat FROM s3export.currents WHERE name = 'feed';
SELECT s3export.drop_connector('feed');
SELECT pg_temp.create_feed('x', feed => '');
SELECT pg_temp.create_feed('x', feed => 'a/b');
SELECT pg_temp.create_feed('x', feed => '..');
SELECT pg_temp.create_feed('x', feed => '{date}');
SELECT pg_temp.create_feed('x', feed => E'a\nb');
SELECT pg_temp.create_feed('x', origin => 'local');
SELECT pg_temp.create_feed('x', "null" => E'a\nb');
SELECT pg_temp.create_feed('x', "null" => 'a"b');
SELECT pg_temp.create_feed('x', force_quote => '{id}');
SELECT pg_temp.create_feed('x', force_quote => '{*,*}');
SELECT pg_temp.create_feed('x', heartbeat => '0');
SELECT pg_temp.create_feed('x', heartbeat => 'often');
SELECT pg_temp.create_feed('x', kind => 'data_export', feed => 'f');
SELECT pg_temp.create_feed('x', kind => 'data_export', origin => 'any');
SELECT pg_temp.create_feed('x', kind => 'data_export', header => true);
SELECT pg_temp.create_feed('x', kind => 'data_export', "null" => '');
SELECT pg_temp.create_feed('x', kind => 'data_export', force_quote => '{*}');
SELECT pg_temp.create_feed('x', kind => 'data_export', heartbeat => '1 day');

-- values that are wrong
SELECT pg_temp.create_current('x', operations => '{}');
SELECT pg_temp.create_current('x', operations => '{insert,NULL}');
SELECT pg_temp.create_current('x', operations => '{upsert}');
SELECT pg_temp.create_current('x', tables => '{NULL}');
SELECT pg_temp.create_current('x', compression => 'rar');
SELECT pg_temp.create_current('x', max_events_per_file => 0);
SELECT pg_temp.create_current('x', max_events_per_file => 10000001);
SELECT pg_temp.create_current('x', drop_after => '0');
SELECT pg_temp.create_current('x', drop_after => '-1 hour');
SELECT pg_temp.create_current('x', drop_after => 'soon');
SELECT pg_temp.create_current('x', drop_after => '2000 years');
-- only for this kind
SELECT pg_temp.create_current('x', kind => 'data_export', tables => '{}');
SELECT pg_temp.create_current('x', kind => 'data_export', operations => '{insert}');
SELECT pg_temp.create_current('x', kind => 'data_export', compression => 'none');
SELECT pg_temp.create_current('x', kind => 'data_export', max_events_per_file => 1);
SELECT pg_temp.create_current('x', kind => 'data_export', drop_after => 'infinity');
-- tables whose changes cannot be sent
SELECT pg_temp.create_current('x', '{nowhere}');
SELECT pg_temp.create_current('x', '{a..b}');
SELECT pg_temp.create_current('x', '{regress_s3export.a_view}');
SELECT pg_temp.create_current('x', '{regress_s3export.unlogged}');
SELECT pg_temp.create_current('x', '{temporary}');
SELECT pg_temp.create_current('x', '{pg_class}');
SELECT pg_temp.create_current('x', '{s3export.connector}');
SELECT pg_temp.create_current('x', '{regress_s3export.half}');
-- updates and deletes need a replica identity, of partitions too
SELECT pg_temp.create_current('x', '{regress_s3export.parted}');
SELECT pg_temp.create_current('x', '{regress_s3export.parted}', '{insert, delete}');
SELECT pg_temp.create_current('x', ARRAY['regress_s3export."Odd ""name"'], '{update}');
ALTER TABLE regress_s3export."Odd ""name" REPLICA IDENTITY FULL;
ALTER TABLE regress_s3export.part REPLICA IDENTITY FULL;
SELECT pg_temp.create_current('identified', ARRAY['regress_s3export."Odd ""name"', 'regress_s3export.parted', 'regress_s3export.events'], '{update}');
ALTER TABLE regress_s3export.events REPLICA IDENTITY NOTHING;
SELECT s3export.alter_connector('identified', operations => '{update, delete}');
SELECT s3export.alter_connector('identified', operations => '{insert, truncate}');
SELECT s3export.alter_connector('identified', tables => '{}', operations => '{update}');
SELECT s3export.alter_connector('identified', tables => '{regress_s3export.events}');
ALTER TABLE regress_s3export.events REPLICA IDENTITY DEFAULT;
SELECT s3export.alter_connector('identified', tables => '{regress_s3export.events}');
SELECT tables, operations FROM s3export.currents WHERE name = 'identified';
-- what PostgreSQL guards from then on
ALTER TABLE regress_s3export.events SET UNLOGGED;
ALTER TABLE regress_s3export.events REPLICA IDENTITY NOTHING;
DELETE FROM regress_s3export.events;
ALTER TABLE regress_s3export.events REPLICA IDENTITY DEFAULT;
DELETE FROM regress_s3export.events;
SELECT s3export.drop_connector('identified');
SELECT count(*) FROM pg_publication WHERE pubname = 's3export_identified';

-- changes: what is not named stays
SELECT s3export.alter_connector('full', drop_after => 'INFINITY');
SELECT s3export.alter_connector('full', max_events_per_file => 10000000, compression => 'none');
SELECT s3export.alter_connector('full', drop_after => NULL, new_name => 'fuller');
SELECT s3export.alter_connector('fuller', tables => '{regress_s3export.part, regress_s3export.events}');
SELECT s3export.alter_connector('fuller', tables => '{regress_s3export.parted}', operations => '{}');
SELECT name, tables, operations, compression, max_events_per_file, drop_after FROM s3export.currents WHERE name = 'fuller';
SELECT pg_temp.create_current('export', kind => 'data_export');
SELECT s3export.alter_connector('export', tables => '{regress_s3export.events}');
-- the view names what is there
ALTER TABLE regress_s3export.events RENAME TO "Renamed";
SELECT tables FROM s3export.currents WHERE name = 'fuller';
ALTER TABLE regress_s3export."Renamed" RENAME TO events;
CREATE TABLE regress_s3export.gone ();
SELECT pg_temp.create_current('gone', '{regress_s3export.gone}', '{insert}');
SELECT tables FROM s3export.currents WHERE name = 'gone';
DROP TABLE regress_s3export.gone;
SELECT tables FROM s3export.currents WHERE name = 'gone';
SELECT s3export.drop_connector('gone');

-- a publication that is there
SET client_min_messages = error;
CREATE PUBLICATION regress_s3export_shop FOR TABLE regress_s3export.events (id) WHERE (id > 5) WITH (publish = 'insert, update');
CREATE PUBLICATION regress_s3export_all FOR ALL TABLES;
CREATE PUBLICATION regress_s3export_unlogged FOR TABLE regress_s3export.half;
RESET client_min_messages;
CREATE FUNCTION pg_temp.create_published(name text, publication text, tables text[] DEFAULT NULL, operations text[] DEFAULT NULL, kind text DEFAULT 'currents')
	RETURNS boolean LANGUAGE sql AS $$
	SET LOCAL client_min_messages = warning;
	SELECT s3export.create_connector(name, 'my-bucket', kind, 'AKIAIOSFODNN7EXAMPLE', 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY',
		folder_path => name, region => 'us-east-1', validate => false, publication => publication, tables => tables, operations => operations) > 0 $$;
SELECT pg_temp.create_published('x', 'nowhere');
SELECT pg_temp.create_published('x', 'regress_s3export_shop', tables => '{regress_s3export.events}');
SELECT pg_temp.create_published('x', 'regress_s3export_shop', operations => '{insert}');
SELECT pg_temp.create_published('x', 'regress_s3export_shop', kind => 'data_export');
SELECT pg_temp.create_published('x', 'regress_s3export_unlogged');
SELECT pg_temp.create_published('shop', 'regress_s3export_shop');
SELECT name, publication, tables, operations FROM s3export.currents WHERE name = 'shop';
SELECT s3export.alter_connector('shop', tables => '{regress_s3export.parted}');
SELECT s3export.alter_connector('shop', operations => '{insert}');
SELECT s3export.alter_connector('shop', publication => 'nowhere');
SELECT s3export.alter_connector('shop', publication => 'regress_s3export_unlogged');
ALTER PUBLICATION regress_s3export_shop RENAME TO regress_s3export_shop2;
SELECT publication, tables FROM s3export.currents WHERE name = 'shop';
SELECT s3export.launch('shop');
SELECT s3export.alter_connector('shop', publication => 'regress_s3export_shop2');
SELECT publication, tables FROM s3export.currents WHERE name = 'shop';
-- of all tables: the extension's own are not among them
SELECT s3export.alter_connector('shop', publication => 'regress_s3export_all');
SELECT tables @> '{regress_s3export.events}' AS has_events, array_to_string(tables, ' ') ~ 's3export\.(connector|current|secret)' AS has_ours,
	array_to_string(tables, ' ') ~ 'unlogged' AS has_unlogged FROM s3export.currents WHERE name = 'shop';
-- its own one is dropped when it gets another, and one that is there is left
SELECT s3export.alter_connector('plain', publication => 'regress_s3export_shop2');
SELECT name, publication FROM s3export.currents WHERE name IN ('plain', 'shop') ORDER BY name;
SELECT pubname FROM pg_publication WHERE pubname ~ 's3export' ORDER BY pubname COLLATE "C";
SELECT s3export.drop_connector(name) FROM unnest('{plain,shop}'::text[]) AS name;
SELECT pubname FROM pg_publication WHERE pubname ~ 's3export' ORDER BY pubname COLLATE "C";
DROP PUBLICATION regress_s3export_all, regress_s3export_shop2, regress_s3export_unlogged;
SELECT pg_temp.create_current('plain');

-- folders: nobody writes inside, or around, those of a current
SELECT pg_temp.create_current('x', folder_path => 'full');
SELECT pg_temp.create_current('x', folder_path => 'full/inside/of');
SELECT pg_temp.create_current('x', folder_path => '');
SELECT pg_temp.create_current('x', folder_path => 'plain/inside', kind => 'data_export');
SELECT pg_temp.create_current('x', folder_path => '', kind => 'data_export');
SELECT pg_temp.create_current('x', folder_path => 'export/inside');
SELECT pg_temp.create_current('inside', folder_path => 'export/inside', kind => 'data_export');
SELECT pg_temp.create_current('beside', folder_path => 'plainer');
SELECT pg_temp.create_current('elsewhere', folder_path => 'plain/inside', bucket => 'other-bucket');
SELECT s3export.alter_connector('elsewhere', bucket => 'my-bucket', validate => false);
SELECT s3export.alter_connector('export', folder_path => 'plain/inside', validate => false);
SELECT s3export.alter_connector('beside', folder_path => 'plain/beside', validate => false);
SELECT s3export.alter_connector('inside', folder_path => 'plain_inside', validate => false);
SELECT s3export.drop_connector(name) FROM unnest('{inside,beside,elsewhere}'::text[]) AS name;

-- owners: of publications and tables, too
SET ROLE regress_s3export_owner;
\set VERBOSITY sqlstate
SELECT pg_temp.create_current('own', '{regress_s3export.events}');
\set VERBOSITY default
RESET ROLE;
DO $$BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO regress_s3export_owner', current_database()); END$$;
SET ROLE regress_s3export_owner;
SELECT pg_temp.create_current('own', '{regress_s3export.events, regress_s3export.parted}');
SELECT pg_temp.create_published('own', 's3export_plain');
SELECT pg_temp.create_current('own', '{regress_s3export.events}');
SELECT pg_temp.create_current('x', folder_path => 'full/x');
SELECT s3export.alter_connector('own', tables => '{regress_s3export.parted}');
SELECT s3export.alter_connector('own', publication => 's3export_plain');
SELECT s3export.add_table('own', 'regress_s3export.parted', copy_existing => false);
SELECT s3export.launch('plain');
SELECT s3export.add_table('plain', 'regress_s3export.events', copy_existing => false);
SELECT s3export.pause('plain');
SELECT s3export.resume('plain');
SELECT s3export.stop('plain');
SELECT s3export.deliver('plain');
RESET ROLE;
-- the publication would have a table that its owner does not own
SELECT s3export.alter_connector('own', tables => '{regress_s3export.parted}');
SELECT s3export.alter_connector('plain', tables => ARRAY['regress_s3export."Odd ""name"']);
SELECT s3export.alter_connector('plain', owner => 'regress_s3export_owner', validate => false);
SELECT s3export.alter_connector('plain', tables => '{regress_s3export.events}');
SELECT s3export.alter_connector('plain', owner => 'regress_s3export_owner', validate => false);
SELECT pubowner::regrole FROM pg_publication WHERE pubname = 's3export_plain';
SELECT s3export.drop_connector('plain');
SELECT pg_temp.create_current('plain');
-- others see nothing; who may use a connector sees it and does not change it
SET ROLE regress_s3export_other;
SELECT count(*) FROM s3export.currents;
SELECT count(*) FROM s3export.current_events;
SELECT * FROM s3export.current;
RESET ROLE;
SELECT s3export.grant_usage('own', 'regress_s3export_other');
SET ROLE regress_s3export_other;
SELECT name, state, tables FROM s3export.currents;
SELECT s3export.launch('own');
SELECT s3export.pause('own');
SELECT s3export.resume('own');
SELECT s3export.stop('own');
SELECT s3export.add_table('own', 'pg_class');
SELECT s3export.deliver('own');
SELECT * FROM s3export.deliver();
RESET ROLE;

-- states: nothing to pause, resume, stop or deliver yet
SELECT s3export.launch(NULL);
SELECT s3export.launch('nowhere');
SELECT s3export.launch('own', NULL);
SELECT s3export.launch('export');
SELECT s3export.pause('export');
SELECT s3export.resume('export');
SELECT s3export.stop('export');
SELECT s3export.deliver('export');
SELECT s3export.add_table('export', 'regress_s3export.events');
SELECT s3export.pause('own');
SELECT s3export.resume('own');
SELECT s3export.stop('own');
SELECT s3export.deliver('own');
SELECT s3export.add_table('own', 'regress_s3export.events');
SELECT s3export.add_table('own', NULL);
SELECT s3export.deliver('own', NULL);
SELECT * FROM s3export.deliver('own', "raise" => false);
SELECT * FROM s3export.deliver();
SELECT * FROM pg_temp.events('own');
-- a publication without tables
\set VERBOSITY terse
SELECT s3export.launch('plain') > '0/0' AS launched;
\set VERBOSITY default
SELECT state, tables FROM s3export.currents WHERE name = 'plain';
SELECT s3export.stop('plain');
-- a slot keeps WAL, and waits for all that have changed something, the caller too
SET ROLE regress_s3export_owner;
SELECT s3export.launch('own');
RESET ROLE;
ALTER ROLE regress_s3export_owner REPLICATION;
SET ROLE regress_s3export_owner;
BEGIN;
INSERT INTO regress_s3export.events VALUES (1, 'before');
SELECT s3export.launch('own');
ROLLBACK;
TRUNCATE regress_s3export.events; -- of its page, so that no row is missed when it joins
SET client_min_messages = error; -- max_slot_wal_keep_size may be limited, or not
SELECT s3export.launch('own') > '0/0' AS launched;
RESET client_min_messages;
SELECT s3export.launch('own');
SELECT state, slot_name LIKE 's3export\_%' AS slot, lag_bytes >= 0 AS lag, lag_seconds >= 0 AS seconds, launched_at IS NOT NULL AS launched,
	failures FROM s3export.currents WHERE name = 'own';
SELECT * FROM pg_temp.events('own');
RESET ROLE;
SELECT count(*) FROM pg_replication_slots WHERE slot_name = (SELECT slot_name FROM s3export.currents WHERE name = 'own')
	AND plugin = 's3export' AND NOT active;
-- delivered while there is nothing: nothing is tried
SELECT * FROM s3export.deliver('own');
SELECT last_delivery_at IS NOT NULL AS delivered, events_sent, files_sent FROM s3export.currents WHERE name = 'own';

-- paused and resumed
SELECT s3export.pause('own');
SELECT s3export.pause('own');
SELECT s3export.launch('own');
SELECT * FROM s3export.deliver('own');
SELECT * FROM s3export.deliver();
SELECT state FROM s3export.currents WHERE name = 'own';
SELECT s3export.resume('own');
SELECT s3export.resume('own');
-- not in a transaction that a delivery would wait for
BEGIN;
SELECT s3export.alter_connector('own', max_events_per_file => 1);
SELECT * FROM s3export.deliver('own');
ROLLBACK;
-- tables come and go, which a delivery sees
SELECT s3export.alter_connector('own', tables => '{}');
SELECT tables FROM s3export.currents WHERE name = 'own';
SELECT s3export.deliver('own');
SELECT s3export.alter_connector('own', tables => '{regress_s3export.events}');
SELECT s3export.alter_connector('own', tables => '{regress_s3export.events}');
SET ROLE regress_s3export_owner;
CREATE SCHEMA regress_s3export_own;
CREATE TABLE regress_s3export_own.more (id int PRIMARY KEY);
SELECT s3export.add_table('own', 'regress_s3export_own.more', copy_existing => false);
SELECT s3export.add_table('own', 'regress_s3export_own.more', copy_existing => false);
SELECT tables FROM s3export.currents WHERE name = 'own';
SELECT s3export.deliver('own');
ALTER TABLE regress_s3export_own.more RENAME TO other;
SELECT s3export.deliver('own');
-- of what a reader of the files would miss the DBA is warned
ALTER TABLE regress_s3export_own.other RENAME TO another;
CREATE TABLE regress_s3export_own.other (id int PRIMARY KEY);
SELECT s3export.deliver('own');
DROP TABLE regress_s3export_own.another;
SELECT s3export.deliver('own');
ALTER PUBLICATION s3export_own ADD TABLE regress_s3export_own.other;
SELECT s3export.deliver('own');
DROP TABLE regress_s3export_own.other;
CREATE TABLE regress_s3export_own.other (id int PRIMARY KEY);
SELECT s3export.deliver('own');
DROP SCHEMA regress_s3export_own CASCADE;
RESET ROLE;
SELECT schema_name, table_name, version, gone_lsn IS NOT NULL AS gone FROM s3export.current_table
	JOIN s3export.connector USING (connector_id) WHERE name = 'own' ORDER BY 1, 2;
SELECT * FROM pg_temp.events('own') WHERE event = 'tables_changed';
SELECT table_name, reason FROM regress_s3export.gap ORDER BY number;
-- another publication takes a stop
SELECT s3export.alter_connector('own', publication => 'another');
-- a publication that is gone
BEGIN;
DROP PUBLICATION s3export_own;
SELECT state, publication, tables, operations FROM s3export.currents WHERE name = 'own';
SELECT s3export.alter_connector('own', tables => '{regress_s3export.events}');
ROLLBACK;
DROP PUBLICATION s3export_own;
SELECT s3export.deliver('own');
SELECT state, failures, error_code, error_message FROM s3export.currents WHERE name = 'own';
SET ROLE regress_s3export_owner;
CREATE PUBLICATION s3export_own FOR TABLE regress_s3export.events;
RESET ROLE;
SELECT state, error FROM s3export.deliver('own');
SELECT state, error FROM s3export.deliver('own');
SELECT state, failures, error_code FROM s3export.currents WHERE name = 'own';
SELECT event, detail, repeats FROM pg_temp.events('own') WHERE event IN ('failed', 'recovered', 'publication_replaced');
SELECT table_name, reason FROM regress_s3export.gap ORDER BY number DESC LIMIT 1;
ALTER PUBLICATION s3export_own RENAME TO s3export_renamed;
SELECT state, error FROM s3export.deliver('own');
SELECT publication, tables FROM s3export.currents WHERE name = 'own';
ALTER PUBLICATION s3export_renamed RENAME TO s3export_own;

-- an owner who has lost REPLICATION, or is gone
ALTER ROLE regress_s3export_owner NOREPLICATION;
SELECT s3export.deliver('own');
ALTER ROLE regress_s3export_owner REPLICATION;
SELECT s3export.deliver('own');
CREATE ROLE regress_s3export_gone REPLICATION;
GRANT EXECUTE ON FUNCTION s3export.create_connector TO regress_s3export_gone;
DO $$BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO regress_s3export_gone', current_database()); END$$;
SET ROLE regress_s3export_gone;
SELECT pg_temp.create_current('orphan');
RESET ROLE;
SELECT pg_temp.launch('orphan');
REASSIGN OWNED BY regress_s3export_gone TO regress_s3export_owner;
DROP OWNED BY regress_s3export_gone;
DROP ROLE regress_s3export_gone;
SELECT state FROM s3export.currents WHERE name = 'orphan';
SELECT s3export.deliver('orphan');
SELECT * FROM s3export.deliver('orphan', "raise" => false);
SELECT s3export.pause('orphan');
SELECT s3export.resume('orphan');
SELECT * FROM pg_temp.events('orphan');
SELECT s3export.alter_connector('orphan', owner => 'regress_s3export_owner', validate => false);
SELECT * FROM s3export.deliver('orphan');
SELECT s3export.drop_connector('orphan');

-- all of them; what a person has decided is no error
SELECT connector, state, events, error FROM s3export.deliver();

-- the slot that is gone
SELECT pg_drop_replication_slot(slot_name) FROM s3export.currents WHERE name = 'own';
SELECT state FROM s3export.currents WHERE name = 'own';
-- rows that were copied from elsewhere
BEGIN;
UPDATE s3export.current_state SET system_identifier = 1;
SELECT state FROM s3export.currents WHERE name = 'own';
SELECT s3export.pause('own');
ROLLBACK;
BEGIN;
UPDATE s3export.current_state SET slot_name = 's3export_1_1';
SELECT state FROM s3export.currents WHERE name = 'own';
SELECT s3export.resume('own');
ROLLBACK;
UPDATE s3export.current_state SET system_identifier = 1;
SELECT state FROM s3export.currents WHERE name = 'own';
SELECT s3export.deliver('own');
SELECT s3export.deliver();
SELECT state, error FROM s3export.deliver("raise" => false) WHERE connector = 'own';
SELECT state FROM s3export.currents WHERE name = 'own';
SELECT * FROM pg_temp.events('own') WHERE event = 'skipped';
SELECT pg_temp.launch('own');
SELECT state FROM s3export.currents WHERE name = 'own';
SELECT pg_drop_replication_slot(slot_name) FROM s3export.currents WHERE name = 'own';
SELECT s3export.pause('own');
SELECT s3export.resume('own');
SELECT pg_temp.launch('own');
SET client_min_messages = warning;
SELECT s3export.pause('own');
RESET client_min_messages;
SELECT pg_drop_replication_slot(slot_name) FROM s3export.currents WHERE name = 'own';
SELECT state FROM s3export.currents WHERE name = 'own';
SELECT s3export.resume('own');
SELECT pg_temp.launch('own');
SELECT pg_drop_replication_slot(slot_name) FROM s3export.currents WHERE name = 'own';
\set VERBOSITY terse
SELECT s3export.deliver('own');
SELECT s3export.deliver('own');
SELECT s3export.deliver();
\set VERBOSITY default
SELECT state FROM s3export.currents WHERE name = 'own';
SELECT event, detail, repeats FROM pg_temp.events('own') OFFSET (SELECT count(*) - 2 FROM pg_temp.events('own'));
SELECT pg_temp.launch('own');
SELECT state FROM s3export.currents WHERE name = 'own';

-- a slot that is given back
SELECT s3export.stop('own');
SELECT state, slot_name, position, lag_bytes, lag_seconds, launched_at IS NOT NULL AS was_launched FROM s3export.currents WHERE name = 'own';
SELECT s3export.stop('own');
SELECT s3export.pause('own');
SELECT s3export.resume('own');
SELECT s3export.deliver('own');
SELECT * FROM s3export.deliver('own', "raise" => false);
SELECT pg_temp.launch('own');

-- the slot goes with the connector, when the transaction commits
CREATE VIEW pg_temp.slots AS SELECT count(*) FROM pg_replication_slots WHERE plugin = 's3export' AND database = current_database();
BEGIN;
SELECT s3export.drop_connector('own');
ROLLBACK;
BEGIN;
SAVEPOINT before_drop;
SELECT s3export.drop_connector('own');
ROLLBACK TO before_drop;
COMMIT;
SELECT count FROM pg_temp.slots;
SELECT state FROM s3export.deliver('own');
BEGIN;
SELECT s3export.drop_connector('own');
PREPARE TRANSACTION 'regress_s3export';
BEGIN;
SELECT s3export.stop('own');
PREPARE TRANSACTION 'regress_s3export';
BEGIN;
SELECT s3export.stop('own');
ROLLBACK;
SELECT count, state FROM pg_temp.slots, s3export.currents WHERE name = 'own';
-- nor does the extension
BEGIN;
DROP EXTENSION s3export CASCADE;
ROLLBACK;
BEGIN;
SAVEPOINT before_drop;
SELECT s3export.drop_connector('own');
RELEASE before_drop;
SELECT count FROM pg_temp.slots;
COMMIT;
SELECT count FROM pg_temp.slots;

-- failures of the network suspend nothing
SELECT s3export.create_connector('unreachable', 'my-bucket', 'currents', 'AKIAIOSFODNN7EXAMPLE', 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY',
	endpoint_url => 'http://127.0.0.1:1', tables => '{regress_s3export.events}', validate => false) > 0 AS created;
SELECT pg_temp.launch('unreachable');
INSERT INTO regress_s3export.events VALUES (2, 'after');
\set VERBOSITY sqlstate
SELECT connector, state, events, files, bytes, events_dropped, error IS NOT NULL AS failed FROM s3export.deliver("raise" => false);
SELECT state, failures, error_code, error_message IS NOT NULL AS has_message, suspended_at, next_try_at > now() AS waits FROM s3export.currents WHERE name = 'unreachable';
-- not tried again yet but by its name
SELECT connector, state, error ~ '^it is not tried again yet after: ' AS waits FROM s3export.deliver("raise" => false);
SELECT * FROM s3export.deliver();
SELECT failures FROM s3export.currents WHERE name = 'unreachable';
SELECT * FROM s3export.deliver('unreachable');
SELECT state, failures, error_code, error_message IS NOT NULL AS has_message, suspended_at, next_try_at > now() AS waits FROM s3export.currents WHERE name = 'unreachable';
SELECT * FROM pg_temp.events('unreachable');
\set VERBOSITY default
SELECT pg_temp.create_current('another');
-- the error at the end
UPDATE s3export.current_state SET next_try_at = now() + interval '1 hour', error_message = 'the reason' WHERE failures > 0;
SELECT s3export.deliver();

-- a suspended one waits for its next try
\set VERBOSITY terse
UPDATE s3export.current_state SET state = 'suspended', suspended_at = now(), next_try_at = now() + interval '100 hours' WHERE state = 'running';
SELECT deadline - suspended_at AS allowed, next_try_at - suspended_at AS pause FROM s3export.currents WHERE name = 'unreachable';
SELECT state, error FROM s3export.deliver("raise" => false) WHERE connector = 'unreachable';
SELECT state, error FROM s3export.deliver('unreachable', "raise" => false);
SELECT state, events_dropped FROM s3export.deliver('unreachable');
\set VERBOSITY default
-- who gives it credentials has it tried at once, and so has who resumes it
SELECT s3export.set_credentials('unreachable', 'AKIAIOSFODNN7EXAMPLE', 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY', validate => false);
SELECT state, suspended_at IS NOT NULL AS suspended, next_try_at FROM s3export.currents WHERE name = 'unreachable';
UPDATE s3export.current_state SET next_try_at = now() + interval '1 hour';
SELECT s3export.resume('unreachable');
SELECT state, suspended_at IS NOT NULL AS suspended, next_try_at FROM s3export.currents WHERE name = 'unreachable';
SELECT s3export.pause('unreachable');
SELECT state, suspended_at, next_try_at, failures, error_code FROM s3export.currents WHERE name = 'unreachable';
-- another base identity has roles tried again
BEGIN;
SELECT s3export.create_connector('assumed', 'my-bucket', 'currents', role_arn => 'arn:aws:iam::123456789012:role/r',
	folder_path => 'assumed', validate => false) > 0 AS created;
INSERT INTO s3export.current_state (connector_id, state, system_identifier, publication_oid, next_try_at)
	SELECT connector_id, 'suspended', 1, 0, now() + interval '1 hour' FROM s3export.connector WHERE name = 'assumed';
SELECT s3export.set_identity('AKIAIOSFODNN7EXAMPLE', 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY');
SELECT state, next_try_at FROM s3export.current_state u JOIN s3export.connector c USING (connector_id) WHERE name = 'assumed';
ROLLBACK;
RESET s3export.retry_timeout;

SELECT s3export.drop_connector(name) FROM unnest('{plain,fuller,export,unreachable,another}'::text[]) AS name;
SELECT count FROM pg_temp.slots;
SELECT count(*) FROM s3export.current;
SELECT count(*) FROM s3export.current_state;
SELECT count(*) FROM s3export.current_table;
SELECT count(*) FROM s3export.current_batch;
SELECT count(*) FROM s3export.current_event;
SELECT count(*) FROM pg_publication WHERE pubname ~ 's3export';
REVOKE EXECUTE ON FUNCTION s3export.create_connector FROM regress_s3export_owner;
DO $$BEGIN EXECUTE format('REVOKE CREATE ON DATABASE %I FROM regress_s3export_owner', current_database()); END$$;
SET client_min_messages = warning;
DROP SCHEMA regress_s3export CASCADE;
DROP ROLE regress_s3export_owner, regress_s3export_other;
