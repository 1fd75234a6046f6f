-- Currents: what they are made of, and what is refused.  Nothing here reaches a
-- server: what is launched has nothing to send.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS s3export;
RESET client_min_messages;
SET TimeZone = 'UTC';
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

-- defaults, and everything given
SELECT pg_temp.create_current('plain');
SET search_path = regress_s3export;
SELECT pg_temp.create_current('full', '{events, "\"Odd \"\"name\"", regress_s3export.events, parted}', '{truncate, insert, insert}', 'gzip', 7,
	'1 day 12 hours');
RESET search_path;
SELECT name, owner = current_user::regrole AS owned, state, tables, operations, compression, max_events_per_file, drop_after
	FROM s3export.currents ORDER BY name COLLATE "C";
SELECT name, slot_name, active_pid, position, lag_bytes, lag_seconds, last_file, last_delivery_at, events_sent, events_dropped,
	files_sent, bytes_sent, suspended_at, deadline, next_try_at, failures, error_code, launched_at FROM s3export.currents WHERE name = 'plain';
SELECT connector, event FROM s3export.current_events;

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
SELECT pg_temp.create_current('x', '{regress_s3export.parted, regress_s3export.part}');
-- updates and deletes need a replica identity, of partitions too
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
SELECT s3export.drop_connector('identified');

-- changes: what is not named stays
SELECT s3export.alter_connector('full', drop_after => 'INFINITY');
SELECT s3export.alter_connector('full', max_events_per_file => 10000000, compression => 'none');
SELECT s3export.alter_connector('full', drop_after => NULL, new_name => 'fuller');
SELECT s3export.alter_connector('fuller', tables => '{regress_s3export.part, regress_s3export.events}');
SELECT s3export.alter_connector('fuller', tables => '{regress_s3export.parted}', operations => '{}');
SELECT name, tables, operations, compression, max_events_per_file, drop_after FROM s3export.currents WHERE name = 'fuller';
SELECT pg_temp.create_current('export', kind => 'data_export');
SELECT s3export.alter_connector('export', tables => '{regress_s3export.events}');
-- the view names what is there, and a table that is gone by its OID
ALTER TABLE regress_s3export.events RENAME TO "Renamed";
SELECT tables FROM s3export.currents WHERE name = 'fuller';
ALTER TABLE regress_s3export."Renamed" RENAME TO events;
CREATE TABLE regress_s3export.gone ();
SELECT pg_temp.create_current('gone', '{regress_s3export.gone}');
DROP TABLE regress_s3export.gone;
SELECT tables[1] ~ '^\d+$' AS by_oid FROM s3export.currents WHERE name = 'gone';
SELECT s3export.launch('gone');
SELECT s3export.drop_connector('gone');

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

-- owners: of the tables, too
SET ROLE regress_s3export_owner;
SELECT pg_temp.create_current('own', '{regress_s3export.events, regress_s3export.parted}');
SELECT pg_temp.create_current('own', '{regress_s3export.events}');
SELECT pg_temp.create_current('x', folder_path => 'full/x');
SELECT s3export.alter_connector('own', tables => '{regress_s3export.parted}');
SELECT s3export.launch('plain');
SELECT s3export.pause('plain');
SELECT s3export.resume('plain');
SELECT s3export.deliver('plain');
RESET ROLE;
SELECT s3export.alter_connector('own', tables => '{regress_s3export.parted}');
SELECT s3export.alter_connector('plain', tables => '{regress_s3export.parted}');
SELECT s3export.alter_connector('plain', owner => 'regress_s3export_owner', validate => false);
SELECT s3export.alter_connector('plain', tables => '{regress_s3export.events}');
SELECT s3export.alter_connector('plain', owner => 'regress_s3export_owner', validate => false);
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
SELECT s3export.deliver('own');
SELECT * FROM s3export.deliver();
RESET ROLE;

-- states: nothing to pause, resume or deliver yet
SELECT s3export.launch(NULL);
SELECT s3export.launch('nowhere');
SELECT s3export.launch('own', NULL);
SELECT s3export.launch('export');
SELECT s3export.pause('export');
SELECT s3export.resume('export');
SELECT s3export.deliver('export');
SELECT s3export.launch('plain');
SELECT s3export.pause('own');
SELECT s3export.resume('own');
SELECT s3export.deliver('own');
SELECT * FROM s3export.deliver();
-- a slot keeps the log, and waits for all that have changed something, the caller too
SET ROLE regress_s3export_owner;
SELECT s3export.launch('own');
RESET ROLE;
ALTER ROLE regress_s3export_owner REPLICATION;
SET ROLE regress_s3export_owner;
BEGIN;
INSERT INTO regress_s3export.events VALUES (1, 'before');
SELECT s3export.launch('own');
ROLLBACK;
SELECT s3export.launch('own') > '0/0' AS launched;
SELECT s3export.launch('own');
SELECT state, slot_name LIKE 's3export\_%' AS slot, lag_bytes >= 0 AS lag, lag_seconds >= 0 AS seconds, launched_at IS NOT NULL AS launched,
	failures FROM s3export.currents WHERE name = 'own';
SELECT connector, event, detail - 'position' AS detail FROM s3export.current_events;
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
-- tables come and go; a version of their columns is never used twice
SELECT s3export.alter_connector('own', tables => '{}');
SELECT removed_lsn IS NOT NULL AS removed FROM s3export.current_table JOIN s3export.connector USING (connector_id) WHERE name = 'own';
SELECT s3export.alter_connector('own', tables => '{regress_s3export.events}');
SELECT s3export.alter_connector('own', tables => '{regress_s3export.events}');
SELECT removed_lsn IS NOT NULL AS removed FROM s3export.current_table JOIN s3export.connector USING (connector_id) WHERE name = 'own';
SELECT event, detail - 'position' AS detail FROM s3export.current_events WHERE connector = 'own';

-- a copy of the rows elsewhere is paused: its slot is not there
BEGIN;
UPDATE s3export.current SET database = 1;
SELECT state, tables FROM s3export.currents WHERE name = 'own';
UPDATE s3export.current SET database = (SELECT oid FROM pg_database WHERE datname = current_database()), timeline = 77;
SELECT state, tables FROM s3export.currents WHERE name = 'own';
ROLLBACK;
-- the slot that is gone
SELECT pg_drop_replication_slot(slot_name) FROM s3export.currents WHERE name = 'own';
SELECT state FROM s3export.currents WHERE name = 'own';
SELECT s3export.pause('own');
SELECT s3export.resume('own');
SELECT s3export.launch('own') > '0/0' AS launched;
SELECT s3export.pause('own');
SELECT pg_drop_replication_slot(slot_name) FROM s3export.currents WHERE name = 'own';
SELECT s3export.resume('own');
SELECT s3export.launch('own') > '0/0' AS launched;
SELECT pg_drop_replication_slot(slot_name) FROM s3export.currents WHERE name = 'own';
\set VERBOSITY terse
SELECT s3export.deliver('own');
SELECT s3export.deliver('own');
\set VERBOSITY default
SELECT state FROM s3export.currents WHERE name = 'own';
SELECT s3export.launch('own') > '0/0' AS launched;
SELECT state FROM s3export.currents WHERE name = 'own';

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
SAVEPOINT before_drop;
SELECT s3export.drop_connector('own');
RELEASE before_drop;
SELECT count FROM pg_temp.slots;
COMMIT;
SELECT count FROM pg_temp.slots;

-- failures of the network suspend nothing
SELECT s3export.create_connector('unreachable', 'my-bucket', 'currents', 'AKIAIOSFODNN7EXAMPLE', 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY',
	endpoint_url => 'http://127.0.0.1:1', tables => '{regress_s3export.events}', validate => false) > 0 AS created;
SET s3export.retry_timeout = 0;
SELECT s3export.launch('unreachable') > '0/0' AS launched;
INSERT INTO regress_s3export.events VALUES (2, 'after');
\set VERBOSITY sqlstate
SELECT connector, state, events, files, bytes, events_dropped, error IS NOT NULL AS failed FROM s3export.deliver();
SELECT * FROM s3export.deliver('unreachable');
SELECT state, failures, error_code, error_message IS NOT NULL AS has_message, suspended_at, next_try_at FROM s3export.currents WHERE name = 'unreachable';
SELECT event, detail ->> 'state' AS state, detail ->> 'code' AS code, detail ? 'message' AS has_message FROM s3export.current_events;
-- a suspended one waits for its next try
\set VERBOSITY terse
UPDATE s3export.current SET state = 'suspended', suspended_at = now(), next_try_at = now() + interval '100 hours' WHERE state = 'running';
SELECT deadline - suspended_at AS allowed, next_try_at - suspended_at AS pause FROM s3export.currents WHERE name = 'unreachable';
SELECT count(*) FROM s3export.deliver();
SELECT state, events_dropped FROM s3export.deliver('unreachable');
\set VERBOSITY default
-- who gives it credentials has it tried at once, and so has who resumes it
SELECT s3export.set_credentials('unreachable', 'AKIAIOSFODNN7EXAMPLE', 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY', validate => false);
SELECT state, suspended_at IS NOT NULL AS suspended, next_try_at FROM s3export.currents WHERE name = 'unreachable';
UPDATE s3export.current SET next_try_at = now() + interval '1 hour';
SELECT s3export.resume('unreachable');
SELECT state, suspended_at IS NOT NULL AS suspended, next_try_at FROM s3export.currents WHERE name = 'unreachable';
SELECT s3export.pause('unreachable');
SELECT state, suspended_at, next_try_at, failures, error_code FROM s3export.currents WHERE name = 'unreachable';
-- another base identity has roles tried again
BEGIN;
SELECT s3export.create_connector('assumed', 'my-bucket', 'currents', role_arn => 'arn:aws:iam::123456789012:role/r',
	folder_path => 'assumed', validate => false) > 0 AS created;
UPDATE s3export.current u SET state = 'suspended', next_try_at = now() + interval '1 hour'
	FROM s3export.connector c WHERE c.connector_id = u.connector_id AND c.name = 'assumed';
SELECT s3export.set_identity('AKIAIOSFODNN7EXAMPLE', 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY');
SELECT state, next_try_at FROM s3export.current u JOIN s3export.connector c USING (connector_id) WHERE name = 'assumed';
ROLLBACK;
RESET s3export.retry_timeout;

SELECT s3export.drop_connector(name) FROM unnest('{plain,fuller,export,unreachable}'::text[]) AS name;
SELECT count FROM pg_temp.slots;
SELECT count(*) FROM s3export.current;
SELECT count(*) FROM s3export.current_table;
SELECT count(*) FROM s3export.current_event;
REVOKE EXECUTE ON FUNCTION s3export.create_connector FROM regress_s3export_owner;
SET client_min_messages = warning;
DROP SCHEMA regress_s3export CASCADE;
DROP ROLE regress_s3export_owner, regress_s3export_other;
