-- Who may do what with a connector, by whichever way it is tried.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS s3export;
RESET client_min_messages;
CREATE ROLE regress_s3export_alice;
CREATE ROLE regress_s3export_bob;
CREATE ROLE regress_s3export_carol;
CREATE ROLE regress_s3export_team;
CREATE ROLE regress_s3export_member IN ROLE regress_s3export_alice;
CREATE ROLE regress_s3export_teammate IN ROLE regress_s3export_team;
CREATE ROLE regress_s3export_reader IN ROLE pg_read_all_data;
CREATE ROLE regress_s3export_writer IN ROLE pg_write_all_data;
CREATE ROLE regress_s3export_both IN ROLE pg_read_all_data, pg_write_all_data;

CREATE FUNCTION pg_temp.sqlstate_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	RETURN sqlstate;
END $$;

-- what PUBLIC may execute, and what has to be granted
SELECT p.oid::regproc AS function, has_function_privilege('public', p.oid, 'EXECUTE') AS public
	FROM pg_proc p WHERE pronamespace = 's3export'::regnamespace
	AND proname IN ('create_connector', 'alter_connector', 'drop_connector', 'set_credentials', 'set_identity', 'adopt',
		'grant_usage', 'revoke_usage', 'test_credentials', 'refuse_direct_writes', 'identity', 'iam_policy', 'trust_policy',
		'launch', 'add_table', 'pause', 'resume', 'stop', 'deliver')
	ORDER BY proname COLLATE "C";
SELECT relname FROM pg_class
	WHERE relnamespace = 's3export'::regnamespace AND relname IN ('connector', 'credential', 'secret', 'connector_grant',
		'base_identity', 'external_id', 'installation', 'connectors', 'connector_connector_id_seq', 'credential_credential_id_seq',
		'current', 'current_state', 'current_table', 'current_batch', 'current_event', 'current_event_event_id_seq', 'current_gap',
		'current_gap_gap_id_seq', 'currents', 'current_events')
	AND CASE relkind WHEN 'S' THEN has_sequence_privilege('public', oid, 'USAGE, SELECT, UPDATE')
		ELSE has_table_privilege('public', oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER') END
	ORDER BY relname COLLATE "C";
SET ROLE regress_s3export_alice;
SELECT s3export.create_connector('alice', 'my-bucket', role_arn => 'arn:aws:iam::123456789012:role/r', validate => false);
SELECT * FROM s3export.test_credentials(bucket => 'my-bucket', role_arn => 'arn:aws:iam::123456789012:role/r');
SELECT s3export.set_identity('AKIAIOSFODNN7EXAMPLE', 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY');
RESET ROLE;
GRANT EXECUTE ON FUNCTION s3export.create_connector, s3export.set_identity TO regress_s3export_alice, regress_s3export_bob;

-- who may create one owns it; EXECUTE alone does not set the base identity
SET ROLE regress_s3export_alice;
SELECT s3export.create_connector('alice', 'my-bucket', access_key_id => 'AKIAIOSFODNN7EXAMPLE',
	secret_access_key => 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY', validate => false) > 0 AS created;
SELECT s3export.set_identity('AKIAIOSFODNN7EXAMPLE', 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY');
SELECT name, owner, access_key_id, credentials_missing FROM s3export.connectors;

-- servers other than AWS's are the superuser's to allow
SELECT s3export.create_connector('elsewhere', 'my-bucket', access_key_id => 'AKIAIOSFODNN7EXAMPLE',
	secret_access_key => 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY', endpoint_url => 'https://s3.example.com', validate => false);
SELECT s3export.create_connector('elsewhere', 'my-bucket', role_arn => 'arn:aws:iam::123456789012:role/r',
	folder_path => 'x', sts_endpoint_url => 'http://sts.example.com', validate => false);
SELECT s3export.alter_connector('alice', endpoint_url => 'http://127.0.0.1', validate => false);
SELECT s3export.alter_connector('alice', sts_endpoint_url => 'http://127.0.0.1', validate => false);
SET s3export.allowed_endpoints = '*';
RESET ROLE;
SET s3export.allowed_endpoints = 'nonsense, http://localhost:9000,HTTPS://S3.example.com:443/ ';
SET s3export.allowed_sts_endpoints = 'http://localhost:9000';
SET ROLE regress_s3export_alice;
SELECT s3export.create_connector('elsewhere', 'my-bucket', access_key_id => 'AKIAIOSFODNN7EXAMPLE',
	secret_access_key => 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY', endpoint_url => 'https://s3.example.com',
	sts_endpoint_url => 'http://localhost:9000/', validate => false) > 0 AS created;
SELECT s3export.alter_connector('elsewhere', endpoint_url => 'http://s3.example.com', validate => false);
-- whoever may name a store may not have it see the base identity
SELECT s3export.create_connector('roles', 'my-bucket', role_arn => 'arn:aws:iam::123456789012:role/r', endpoint_url => 'https://s3.example.com', validate => false);
SELECT s3export.create_connector('roles', 'my-bucket', role_arn => 'arn:aws:iam::123456789012:role/r', sts_endpoint_url => 'https://s3.example.com', validate => false);
SELECT s3export.set_credentials('elsewhere', role_arn => 'arn:aws:iam::123456789012:role/r', validate => false);
SELECT s3export.alter_connector('elsewhere', sts_endpoint_url => '', validate => false);
SELECT s3export.alter_connector('elsewhere', sts_endpoint_url => 'https://s3.example.com', validate => false);
SELECT s3export.identity(sts_endpoint_url => 'https://s3.example.com');
RESET ROLE;
SET s3export.allowed_endpoints = '*';
SET ROLE regress_s3export_alice;
SELECT s3export.alter_connector('elsewhere', endpoint_url => 'http://127.0.0.1', validate => false);
RESET ROLE;
RESET s3export.allowed_endpoints;
RESET s3export.allowed_sts_endpoints;
SET ROLE regress_s3export_alice;
-- what a superuser has allowed stays while other properties change
SELECT s3export.alter_connector('elsewhere', folder_path => 'y', validate => false);
SELECT s3export.drop_connector('elsewhere');

-- another role: sees nothing, may nothing
SET ROLE regress_s3export_bob;
SELECT count(*) FROM s3export.connectors;
SELECT * FROM s3export.test_credentials('alice');
SELECT s3export.alter_connector('alice', new_name => 'bob', validate => false);
SELECT s3export.alter_connector('alice', owner => 'regress_s3export_bob', validate => false);
SELECT s3export.set_credentials('alice', role_arn => 'arn:aws:iam::123456789012:role/r', validate => false);
SELECT s3export.grant_usage('alice', 'regress_s3export_bob');
SELECT s3export.revoke_usage('alice', 'regress_s3export_bob');
SELECT s3export.drop_connector('alice');
SELECT s3export.drop_connector('alice', if_exists => true);
-- a name and a place that are taken: whose the place is stays unsaid
SELECT s3export.create_connector('alice', 'other-bucket', role_arn => 'arn:aws:iam::123456789012:role/r', validate => false);
SELECT s3export.create_connector('bob', 'my-bucket', role_arn => 'arn:aws:iam::123456789012:role/r', folder_path => 'alice', validate => false);
-- the tables themselves
SELECT * FROM s3export.connector;
SELECT * FROM s3export.credential;
SELECT * FROM s3export.secret;
SELECT * FROM s3export.connector_grant;
SELECT * FROM s3export.base_identity;
SELECT * FROM s3export.external_id;
SELECT * FROM s3export.installation;
INSERT INTO s3export.connector_grant SELECT connector_id, 'regress_s3export_bob' FROM s3export.connectors;
UPDATE s3export.connectors SET owner = 'regress_s3export_bob';
SELECT nextval('s3export.credential_credential_id_seq');
COPY s3export.secret TO STDOUT;
CREATE TABLE s3export.mine ();
-- a function of the caller's own does not run as the tables' owner, nor see other rows
CREATE FUNCTION pg_temp.leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS
	$$ BEGIN RAISE NOTICE 'saw %', $1; RETURN true; END $$;
SELECT name FROM s3export.connectors WHERE pg_temp.leak(name);
DROP FUNCTION pg_temp.leak(text);
-- each of these with the right code
SELECT pg_temp.sqlstate_of(statement), statement FROM unnest(ARRAY[
	$$SELECT s3export.test_credentials('alice')$$,
	$$SELECT s3export.alter_connector('alice', new_name => 'mine', validate => false)$$,
	$$SELECT s3export.alter_connector('alice', owner => current_user::regrole, validate => false)$$,
	$$SELECT s3export.set_credentials('alice', role_arn => 'arn:aws:iam::123456789012:role/r', validate => false)$$,
	$$SELECT s3export.grant_usage('alice', current_user::regrole)$$,
	$$SELECT s3export.revoke_usage('alice', current_user::regrole)$$,
	$$SELECT s3export.drop_connector('alice')$$,
	$$SELECT s3export.launch('alice')$$,
	$$SELECT s3export.pause('alice')$$,
	$$SELECT s3export.resume('alice')$$,
	$$SELECT s3export.deliver('alice')$$,
	$$SELECT s3export.set_identity('AKIAIOSFODNN7EXAMPLE', 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY')$$,
	$$SELECT s3export.test_credentials(bucket => 'my-bucket', endpoint_url => 'http://localhost', role_arn => 'arn:aws:iam::123456789012:role/r')$$,
	$$SELECT * FROM s3export.secret$$,
	$$SELECT * FROM s3export.credential$$,
	$$UPDATE s3export.connector SET owner = current_user::regrole$$,
	$$ALTER TABLE s3export.secret DISABLE ROW LEVEL SECURITY$$]) AS statement;

-- a grantee: may use, and no more
SET ROLE regress_s3export_alice;
SELECT s3export.grant_usage('alice', 'regress_s3export_team');
SET ROLE regress_s3export_teammate;
SELECT name, owner, access_key_id FROM s3export.connectors;
SELECT * FROM s3export.test_credentials('alice');
SELECT s3export.alter_connector('alice', new_name => 'mine', validate => false);
SELECT s3export.set_credentials('alice', role_arn => 'arn:aws:iam::123456789012:role/r', validate => false);
SELECT s3export.grant_usage('alice', 'regress_s3export_bob');
SELECT s3export.revoke_usage('alice', 'regress_s3export_team');
SELECT s3export.drop_connector('alice');
-- each of these with the right code
SELECT pg_temp.sqlstate_of(statement), statement FROM unnest(ARRAY[
	$$SELECT s3export.test_credentials('alice')$$,
	$$SELECT s3export.alter_connector('alice', new_name => 'mine', validate => false)$$,
	$$SELECT s3export.alter_connector('alice', owner => current_user::regrole, validate => false)$$,
	$$SELECT s3export.set_credentials('alice', role_arn => 'arn:aws:iam::123456789012:role/r', validate => false)$$,
	$$SELECT s3export.grant_usage('alice', current_user::regrole)$$,
	$$SELECT s3export.revoke_usage('alice', current_user::regrole)$$,
	$$SELECT s3export.drop_connector('alice')$$,
	$$SELECT s3export.launch('alice')$$,
	$$SELECT s3export.pause('alice')$$,
	$$SELECT s3export.resume('alice')$$,
	$$SELECT s3export.deliver('alice')$$,
	$$SELECT s3export.set_identity('AKIAIOSFODNN7EXAMPLE', 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY')$$,
	$$SELECT s3export.test_credentials(bucket => 'my-bucket', endpoint_url => 'http://localhost', role_arn => 'arn:aws:iam::123456789012:role/r')$$,
	$$SELECT * FROM s3export.secret$$,
	$$SELECT * FROM s3export.credential$$,
	$$UPDATE s3export.connector SET owner = current_user::regrole$$,
	$$ALTER TABLE s3export.secret DISABLE ROW LEVEL SECURITY$$]) AS statement;
RESET ROLE;
GRANT EXECUTE ON FUNCTION s3export.create_connector TO regress_s3export_teammate;
SET ROLE regress_s3export_teammate;
SELECT s3export.create_connector('mate', 'my-bucket', role_arn => 'arn:aws:iam::123456789012:role/r', folder_path => 'alice', validate => false);
SET ROLE regress_s3export_alice;
SELECT s3export.revoke_usage('alice', 'regress_s3export_team');
SET ROLE regress_s3export_teammate;
SELECT count(*) FROM s3export.connectors;

-- a member of the owner: all that the owner may
SET ROLE regress_s3export_member;
SELECT s3export.alter_connector('alice', new_name => 'members', validate => false);
SELECT s3export.grant_usage('members', 'regress_s3export_team');
SELECT s3export.revoke_usage('members', 'regress_s3export_team');
SELECT s3export.set_credentials('members', 'AKIAI44QH8DHBEXAMPLE', 'je7MtGbClwBF/2Zp9Utk/h3yCo8nvbEXAMPLEKEY', validate => false);
SELECT name, owner, access_key_id FROM s3export.connectors;

-- a new owner: rights on both roles are needed
SELECT s3export.alter_connector('members', owner => 'regress_s3export_bob', validate => false);
SELECT pg_temp.sqlstate_of($$SELECT s3export.alter_connector('members', owner => 'regress_s3export_bob')$$);
RESET ROLE;
GRANT regress_s3export_bob TO regress_s3export_member;
SET ROLE regress_s3export_member;
SELECT s3export.alter_connector('members', owner => 'regress_s3export_bob', validate => false);
SET ROLE regress_s3export_alice;
SELECT s3export.alter_connector('members', owner => 'regress_s3export_alice', validate => false);
SET ROLE regress_s3export_bob;
SELECT name, owner FROM s3export.connectors;

-- credentials that serve another owner's connector too
RESET ROLE;
SELECT s3export.create_connector('shares', 'my-bucket', role_arn => 'arn:aws:iam::123456789012:role/r', folder_path => 'shares',
	validate => false) > 0 AS created;
SELECT s3export.alter_connector('shares', owner => 'regress_s3export_alice', validate => false);
UPDATE s3export.connector SET credential_id = (SELECT credential_id FROM s3export.connector WHERE name = 'members')
	WHERE name = 'shares';
SELECT * FROM s3export.adopt();
SET ROLE regress_s3export_alice;
SELECT s3export.set_credentials('shares', role_arn => 'arn:aws:iam::123456789012:role/r', validate => false);
SELECT s3export.drop_connector('shares');
SET ROLE regress_s3export_bob;
SELECT name, credentials_missing FROM s3export.connectors;

-- pg_read_all_data: no secret, in any way, nor in the statistics
RESET ROLE;
ANALYZE s3export.secret;
SELECT attname FROM pg_statistic JOIN pg_attribute ON attrelid = starelid AND attnum = staattnum
	WHERE starelid = 's3export.secret'::regclass;
SET ROLE regress_s3export_reader;
SELECT count(*) FROM s3export.connectors;
SELECT count(*) FROM s3export.connector;
SELECT * FROM s3export.secret;
COPY s3export.secret TO STDOUT;
SET row_security = off;
SELECT pg_temp.sqlstate_of('SELECT * FROM s3export.secret');
SELECT * FROM s3export.secret;
COPY s3export.secret TO STDOUT;
RESET row_security;
SELECT * FROM s3export.test_credentials('members');
SELECT s3export.set_credentials('members', role_arn => 'arn:aws:iam::123456789012:role/r', validate => false);

-- pg_write_all_data: no change behind the functions' back
SET ROLE regress_s3export_writer;
INSERT INTO s3export.connector_grant VALUES (1, 'regress_s3export_writer');
INSERT INTO s3export.secret VALUES (1, '');
INSERT INTO s3export.external_id VALUES ('regress_s3export_writer', 'mine');
INSERT INTO s3export.base_identity (credential_id) VALUES (1);
INSERT INTO s3export.credential (owner, role_arn) VALUES ('regress_s3export_writer', 'mine');
UPDATE s3export.connector SET endpoint_url = 'https://evil.example.com';
UPDATE s3export.installation SET installation_id = gen_random_uuid();
UPDATE s3export.current SET publication = 'theirs';
UPDATE s3export.current_state SET delivered_lsn = '0/0';
DELETE FROM s3export.current_table;
DELETE FROM s3export.current_batch;
DELETE FROM s3export.current_event;
DELETE FROM s3export.connector;
TRUNCATE s3export.connector;
SET ROLE regress_s3export_both;
SELECT pg_temp.sqlstate_of('UPDATE s3export.connector SET endpoint_url = NULL');
UPDATE s3export.connector SET owner = 'regress_s3export_both' WHERE name = 'members';
DELETE FROM s3export.secret;
SELECT s3export.drop_connector('members');
RESET ROLE;
SELECT name, owner, endpoint_url, credentials_missing FROM s3export.connectors;
SELECT s3export.refuse_direct_writes();

-- a function that owns more than its caller: the connector is the function's owner's
CREATE FUNCTION public.drop_it() RETURNS void LANGUAGE sql SECURITY DEFINER AS $$ SELECT s3export.drop_connector('members') $$;
ALTER FUNCTION public.drop_it() OWNER TO regress_s3export_carol;
SELECT public.drop_it();
ALTER FUNCTION public.drop_it() OWNER TO regress_s3export_bob;
SET ROLE regress_s3export_carol;
SELECT public.drop_it();
RESET ROLE;
SELECT count(*) FROM s3export.connectors;

-- objects of the caller's never stand in for those of the server
GRANT CREATE ON SCHEMA public TO regress_s3export_alice;
SET ROLE regress_s3export_alice;
CREATE FUNCTION public.trap(name, text) RETURNS boolean LANGUAGE plpgsql AS
	$$ BEGIN RAISE NOTICE 'ran as %', current_user; RETURN true; END $$;
CREATE FUNCTION public.trap(text, text) RETURNS boolean LANGUAGE plpgsql AS
	$$ BEGIN RAISE NOTICE 'ran as %', current_user; RETURN true; END $$;
CREATE OPERATOR public.= (FUNCTION = public.trap, LEFTARG = text, RIGHTARG = text);
CREATE FUNCTION public.nextval(text) RETURNS bigint LANGUAGE plpgsql AS
	$$ BEGIN RAISE NOTICE 'ran as %', current_user; RETURN 1; END $$;
SET search_path = public, pg_catalog;
SELECT s3export.create_connector('trapped', 'my-bucket', access_key_id => 'AKIAIOSFODNN7EXAMPLE',
	secret_access_key => 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY', validate => false) > 0 AS created;
SHOW search_path;
SELECT s3export.drop_connector('trapped');
SELECT s3export.drop_connector('trapped');
SHOW search_path;
SELECT current_user;
RESET search_path;
RESET ROLE;

DROP OPERATOR public.= (text, text);
DROP FUNCTION public.trap(text, text), public.trap(name, text), public.nextval(text), public.drop_it();
REVOKE CREATE ON SCHEMA public FROM regress_s3export_alice;
REVOKE EXECUTE ON FUNCTION s3export.create_connector, s3export.set_identity FROM
	regress_s3export_alice, regress_s3export_bob, regress_s3export_teammate;
DROP ROLE regress_s3export_alice, regress_s3export_bob, regress_s3export_carol, regress_s3export_team,
	regress_s3export_member, regress_s3export_teammate, regress_s3export_reader, regress_s3export_writer,
	regress_s3export_both;
