-- Connectors: how they are made, changed, listed and dropped, and what is
-- refused.  Nothing here reaches a server.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS s3export;
RESET client_min_messages;
SET TimeZone = 'UTC';
CREATE ROLE regress_s3export_owner;

-- an argument that means the same has the same name, and one type, everywhere
SELECT p.proname, p.proargnames[1] FROM pg_proc p
	WHERE p.pronamespace = 's3export'::regnamespace AND p.proargnames[1] IN ('name', 'connector') ORDER BY p.proname COLLATE "C";
SELECT p.proname, a.name, a.type::regtype FROM pg_proc p, unnest(p.proargnames, p.proargtypes::oid[]) AS a (name, type)
	WHERE p.pronamespace = 's3export'::regnamespace AND a.name IN ('wait', 'role_wait') ORDER BY p.proname COLLATE "C";

-- with a secret key, and every default
SELECT s3export.create_connector('first', 'my-bucket',
	access_key_id => 'AKIAIOSFODNN7EXAMPLE', secret_access_key => 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY',
	validate => false) > 0 AS created;
\x on
SELECT name, owner = current_user::regrole AS owned, kind, auth_method, access_key_id, role_arn, external_id,
	bucket, folder_path, uri, region, endpoint_url, sts_endpoint_url, addressing, payload_signing, server_side_encryption,
	credentials_missing, created_at <= clock_timestamp() AS dated, validated_at
	FROM s3export.connectors;
-- with everything given, and normalised
SELECT s3export.create_connector(name => 'Second "one"', bucket => 'my-bucket', kind => 'currents',
	access_key_id => 'ASIAIOSFODNN7EXAMPLE', secret_access_key => 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY',
	session_token => 'FwoGZXIvYXdzEXAMPLE', folder_path => '/a/b c/', server_side_encryption => 'aes256',
	region => 'eu-west-1', endpoint_url => 'HTTPS://S3.Example.com:443/', sts_endpoint_url => 'http://[::1]:8000',
	addressing => 'virtual', payload_signing => 'signed', validate => false) > 0 AS created;
SELECT name, kind, auth_method, access_key_id, bucket, folder_path, uri, region, endpoint_url, sts_endpoint_url,
	addressing, payload_signing, server_side_encryption, credentials_missing
	FROM s3export.connectors WHERE name <> 'first';
-- with a role: the external ID is of the owner, and stays
SELECT s3export.create_connector('by role', 'my-bucket', role_arn => 'arn:aws:iam::123456789012:role/export',
	folder_path => '', server_side_encryption => 'none', endpoint_url => '', validate => false) > 0 AS created;
SELECT name, auth_method, access_key_id, role_arn, external_id ~ '^s3export-[0-9a-f]{32}$' AS has_external_id,
	folder_path, uri, server_side_encryption, endpoint_url, credentials_missing
	FROM s3export.connectors WHERE name = 'by role';
\x off
SELECT external_id AS first_id FROM s3export.connectors WHERE name = 'by role' \gset
SELECT s3export.drop_connector('by role');
SELECT s3export.create_connector('by role', 'my-bucket', role_arn => 'arn:aws:iam::123456789012:role/export',
	folder_path => '', validate => false) > 0 AS created;
SELECT external_id = :'first_id' AS same FROM s3export.connectors WHERE name = 'by role';
-- also over a rollback
SET ROLE regress_s3export_owner;
BEGIN;
RESET ROLE;
GRANT EXECUTE ON FUNCTION s3export.create_connector TO regress_s3export_owner;
SET ROLE regress_s3export_owner;
SELECT s3export.create_connector('rolled back', 'r-bucket', role_arn => 'arn:aws:iam::123456789012:role/export',
	validate => false) > 0 AS created;
SELECT external_id AS owner_id, external_id <> :'first_id' AS differs FROM s3export.connectors \gset
ROLLBACK;
RESET ROLE;
\echo :differs
SELECT count(*) FROM s3export.external_id WHERE role = 'regress_s3export_owner'::regrole;
GRANT EXECUTE ON FUNCTION s3export.create_connector TO regress_s3export_owner;
SET ROLE regress_s3export_owner;
SELECT s3export.create_connector('again', 'r-bucket', role_arn => 'arn:aws:iam::123456789012:role/export',
	validate => false) > 0 AS created;
SELECT external_id = :'owner_id' AS same FROM s3export.connectors WHERE name = 'again';
SELECT s3export.drop_connector('again');
RESET ROLE;
REVOKE EXECUTE ON FUNCTION s3export.create_connector FROM regress_s3export_owner;

-- null where there must be a value
SELECT s3export.create_connector(NULL, 'bucket');
SELECT s3export.create_connector('x', NULL);
SELECT s3export.create_connector('x', 'bucket', kind => NULL);
SELECT s3export.create_connector('x', 'bucket', role_arn => 'arn:aws:iam::123456789012:role/r', addressing => NULL);
SELECT s3export.create_connector('x', 'bucket', role_arn => 'arn:aws:iam::123456789012:role/r', payload_signing => NULL);
SELECT s3export.create_connector('x', 'bucket', role_arn => 'arn:aws:iam::123456789012:role/r', validate => NULL);
SELECT s3export.alter_connector(NULL);
SELECT s3export.alter_connector('first', validate => NULL);
SELECT s3export.drop_connector(NULL);
SELECT s3export.drop_connector('first', NULL);
SELECT s3export.set_credentials(NULL);
SELECT s3export.set_credentials('first', validate => NULL);
SELECT s3export.set_identity(NULL, 'secret');
SELECT s3export.set_identity('AKIAIOSFODNN7EXAMPLE', NULL);
SELECT s3export.grant_usage(NULL, 'regress_s3export_owner');
SELECT s3export.grant_usage('first', NULL);
SELECT s3export.revoke_usage(NULL, 'regress_s3export_owner');
SELECT s3export.revoke_usage('first', NULL);
SELECT * FROM s3export.test_credentials(NULL);
SELECT * FROM s3export.test_credentials(bucket => NULL);
SELECT * FROM s3export.test_credentials('first', 'bucket');
SELECT * FROM s3export.test_credentials('first', access_key_id => 'AKIAIOSFODNN7EXAMPLE');
SELECT * FROM s3export.test_credentials('first', folder_path => 'elsewhere');
SELECT * FROM s3export.test_credentials(bucket => 'bucket');
SELECT * FROM s3export.test_credentials(bucket => 'Bucket');

-- values that are wrong
SELECT s3export.create_connector('', 'bucket');
SELECT s3export.create_connector(repeat('x', 64), 'bucket');
SELECT s3export.create_connector(E'a\tb', 'bucket');
SELECT s3export.create_connector('x', 'My_Bucket');
SELECT s3export.create_connector('x', 'bucket', kind => 'stream');
SELECT s3export.create_connector('x', 'bucket', role_arn => 'arn:aws:s3:::bucket');
SELECT s3export.create_connector('x', 'bucket', role_arn => 'arn:aws:iam::123456789012:role/r', folder_path => 'a/../b');
SELECT s3export.create_connector('x', 'bucket', role_arn => 'arn:aws:iam::123456789012:role/r', folder_path => 'a//b');
SELECT s3export.create_connector('x', 'bucket', role_arn => 'arn:aws:iam::123456789012:role/r', server_side_encryption => 'AES128');
SELECT s3export.create_connector('x', 'bucket', role_arn => 'arn:aws:iam::123456789012:role/r', region => 'eu-west-1.example.com');
SELECT s3export.create_connector('x', 'bucket', role_arn => 'arn:aws:iam::123456789012:role/r', endpoint_url => 's3.example.com');
SELECT s3export.create_connector('x', 'bucket', role_arn => 'arn:aws:iam::123456789012:role/r', endpoint_url => 'https://me:hidden@s3.example.com');
SELECT s3export.create_connector('x', 'bucket', role_arn => 'arn:aws:iam::123456789012:role/r', sts_endpoint_url => 'ftp://sts.example.com');
SELECT s3export.create_connector('x', 'bucket', role_arn => 'arn:aws:iam::123456789012:role/r', addressing => 'dns');
SELECT s3export.create_connector('x', 'bucket', role_arn => 'arn:aws:iam::123456789012:role/r', payload_signing => 'Signed');
-- keys and roles: no message shows a value
SELECT s3export.create_connector('x', 'bucket', validate => false);
SELECT s3export.create_connector('x', 'bucket', access_key_id => 'AKIAIOSFODNN7EXAMPLE', validate => false);
SELECT s3export.create_connector('x', 'bucket', secret_access_key => 'hidden-secret-hidden', validate => false);
SELECT s3export.create_connector('x', 'bucket', session_token => 'hidden-token-hidden', validate => false);
SELECT s3export.create_connector('x', 'bucket', access_key_id => 'AKIAIOSFODNN7EXAMPLE',
	secret_access_key => 'hidden-secret-hidden', role_arn => 'arn:aws:iam::123456789012:role/r', validate => false);
SELECT s3export.create_connector('x', 'bucket', session_token => 'hidden-token-hidden',
	role_arn => 'arn:aws:iam::123456789012:role/r', validate => false);
SELECT s3export.create_connector('x', 'bucket', access_key_id => 'hidden/secret+hidden', secret_access_key => 'hidden-secret-hidden', validate => false);
SELECT s3export.create_connector('x', 'bucket', access_key_id => 'AKIAIOSFODNN7EXAMPLE', secret_access_key => E'hidden\nsecret', validate => false);
SELECT s3export.create_connector('x', 'bucket', access_key_id => 'AKIAIOSFODNN7EXAMPLE', secret_access_key => 'hidden-secret-hidden', session_token => '', validate => false);
SELECT s3export.set_identity('AKIAIOSFODNN7EXAMPLE', '');
-- a name, and a place, is taken once
SELECT s3export.create_connector('first', 'other-bucket', role_arn => 'arn:aws:iam::123456789012:role/r', validate => false);
SELECT s3export.create_connector('x', 'my-bucket', role_arn => 'arn:aws:iam::123456789012:role/r', folder_path => 'first/', validate => false);
SELECT s3export.create_connector('x', 'my-bucket', role_arn => 'arn:aws:iam::123456789012:role/r', folder_path => 'a/b c',
	endpoint_url => 'https://s3.example.com', validate => false);
SELECT s3export.create_connector('elsewhere', 'my-bucket', role_arn => 'arn:aws:iam::123456789012:role/r',
	endpoint_url => 'https://s3.example.com', validate => false) > 0 AS created;
SELECT s3export.drop_connector('elsewhere');

-- the default of folder_path is the connector's name, if that is a path; for currents it is "currents"
SELECT s3export.create_connector('a/name with {braces}', 'd-bucket', role_arn => 'arn:aws:iam::123456789012:role/r', validate => false) > 0 AS created;
SELECT s3export.create_connector('flow', 'd-bucket', kind => 'currents', role_arn => 'arn:aws:iam::123456789012:role/r', folder_path => NULL, validate => false) > 0 AS created;
SELECT name, folder_path, uri FROM s3export.connectors WHERE bucket = 'd-bucket' ORDER BY name;
SELECT s3export.create_connector('second flow', 'd-bucket', kind => 'currents', role_arn => 'arn:aws:iam::123456789012:role/r', validate => false);
SELECT s3export.create_connector('..', 'd-bucket', role_arn => 'arn:aws:iam::123456789012:role/r', validate => false);
SELECT s3export.create_connector('a//b', 'd-bucket', role_arn => 'arn:aws:iam::123456789012:role/r', validate => false);
SELECT s3export.create_connector('/', 'd-bucket', role_arn => 'arn:aws:iam::123456789012:role/r', validate => false);
SELECT s3export.create_connector('/', 'd-bucket', role_arn => 'arn:aws:iam::123456789012:role/r', folder_path => 'slash', validate => false) > 0 AS created;
SELECT s3export.drop_connector('/');
SELECT s3export.drop_connector('a/name with {braces}');
-- the files of a current need room for their names
SELECT s3export.create_connector('long', 'd-bucket', kind => 'currents', role_arn => 'arn:aws:iam::123456789012:role/r', folder_path => repeat('d', 513), validate => false);
SELECT s3export.create_connector('long', 'd-bucket', kind => 'currents', role_arn => 'arn:aws:iam::123456789012:role/r', folder_path => repeat('d', 512) || '/', validate => false) > 0 AS created;
SELECT s3export.alter_connector('flow', folder_path => repeat('ü', 256) || 'd', validate => false);
SELECT s3export.alter_connector('flow', folder_path => repeat('ü', 256), validate => false);
SELECT s3export.test_credentials(bucket => 'd-bucket', kind => 'currents', role_arn => 'arn:aws:iam::123456789012:role/r', folder_path => repeat('d', 513));
SELECT s3export.iam_policy('d-bucket', 'currents', folder_path => repeat('d', 513));
SELECT s3export.drop_connector('flow');
SELECT s3export.drop_connector('long');
SELECT s3export.create_connector('long', 'd-bucket', role_arn => 'arn:aws:iam::123456789012:role/r', folder_path => repeat('d', 960), validate => false) > 0 AS created;
SELECT s3export.drop_connector('long');

-- changes: what is not named stays
SELECT s3export.alter_connector('first', validate => false);
SELECT s3export.alter_connector('first', new_name => 'renamed');
SELECT s3export.alter_connector('renamed', bucket => 'new-bucket', folder_path => 'new/', server_side_encryption => 'AES256',
	region => 'us-east-2', endpoint_url => 'http://127.0.0.1:9000', sts_endpoint_url => 'http://127.0.0.1:9001',
	addressing => 'path', payload_signing => 'unsigned', owner => 'regress_s3export_owner', validate => false);
\x on
SELECT name, owner, kind, access_key_id, bucket, folder_path, region, endpoint_url, sts_endpoint_url, addressing, payload_signing,
	server_side_encryption, credentials_missing, validated_at
	FROM s3export.connectors WHERE name = 'renamed';
\x off
SELECT k.owner FROM s3export.credential k JOIN s3export.connector USING (credential_id) WHERE name = 'renamed';
-- defaults come back; another bucket has a region of its own
SELECT s3export.alter_connector('renamed', server_side_encryption => 'none', endpoint_url => '', sts_endpoint_url => '',
	region => 'us-east-2', validate => false);
SELECT server_side_encryption, endpoint_url, sts_endpoint_url, region, payload_signing FROM s3export.connectors WHERE name = 'renamed';
SELECT s3export.alter_connector('renamed', payload_signing => '', validate => false);
SELECT s3export.alter_connector('renamed', payload_signing => 'auto', validate => false);
SELECT payload_signing FROM s3export.connectors WHERE name = 'renamed';
SELECT s3export.alter_connector('renamed', bucket => 'newer-bucket', validate => false);
SELECT bucket, region FROM s3export.connectors WHERE name = 'renamed';
-- a new owner of a role's connector has another external ID
SELECT s3export.alter_connector('by role', owner => 'regress_s3export_owner', validate => false);
SELECT external_id = :'owner_id' AS of_owner FROM s3export.connectors WHERE name = 'by role';
-- not so where the credentials serve another connector
BEGIN;
UPDATE s3export.connector SET credential_id = (SELECT credential_id FROM s3export.connector WHERE name = 'by role')
	WHERE name = 'renamed';
SELECT s3export.alter_connector('by role', owner => current_user::regrole, validate => false);
SELECT name, external_id = :'owner_id' AS of_owner FROM s3export.connectors WHERE auth_method = 'role_arn' ORDER BY name;
SELECT s3export.drop_connector('renamed');
SELECT name, role_arn FROM s3export.connectors WHERE auth_method = 'role_arn';
ROLLBACK;
-- what cannot be
SELECT s3export.alter_connector('missing', new_name => 'x');
SELECT s3export.alter_connector('renamed', new_name => '');
SELECT s3export.alter_connector('renamed', new_name => 'by role');
SELECT s3export.alter_connector('renamed', bucket => 'my-bucket', folder_path => '', validate => false);
SELECT s3export.alter_connector('renamed', bucket => 'no', validate => false);
SELECT s3export.alter_connector('renamed', owner => 999999::oid::regrole);
SELECT s3export.alter_connector('renamed', owner => '-');
SELECT s3export.grant_usage('renamed', 999999::oid::regrole);
SELECT s3export.grant_usage('missing', 'regress_s3export_owner');

-- credentials: keys to role and back; the new ones replace the old
SELECT s3export.set_credentials('renamed', role_arn => 'arn:aws:iam::123456789012:role/other', validate => false);
SELECT auth_method, access_key_id, role_arn, external_id = :'owner_id' AS of_owner, credentials_missing
	FROM s3export.connectors WHERE name = 'renamed';
SELECT count(*) FROM s3export.secret JOIN s3export.connector USING (credential_id) WHERE name = 'renamed';
SELECT s3export.set_credentials('renamed', 'AKIAI44QH8DHBEXAMPLE', 'je7MtGbClwBF/2Zp9Utk/h3yCo8nvbEXAMPLEKEY', validate => false);
SELECT auth_method, access_key_id, role_arn, external_id, credentials_missing
	FROM s3export.connectors WHERE name = 'renamed';
SELECT sealed AS before FROM s3export.secret JOIN s3export.connector USING (credential_id) WHERE name = 'renamed' \gset
SELECT s3export.set_credentials('renamed', 'AKIAI44QH8DHBEXAMPLE', 'anothersecretanothersecretanothersecret00', 'token', validate => false);
SELECT sealed <> :'before' AS replaced, position('another'::bytea IN sealed) AS in_clear
	FROM s3export.secret JOIN s3export.connector USING (credential_id) WHERE name = 'renamed';
SELECT s3export.set_credentials('renamed', validate => false);
SELECT s3export.set_credentials('renamed', access_key_id => 'AKIAI44QH8DHBEXAMPLE', validate => false);
SELECT s3export.set_credentials('missing', role_arn => 'arn:aws:iam::123456789012:role/other', validate => false);

-- the base identity that roles are assumed with
SELECT * FROM s3export.test_credentials('by role');
SELECT * FROM s3export.test_credentials(bucket => 'bucket', kind => 'currents', role_arn => 'arn:aws:iam::123456789012:role/r');
SELECT s3export.create_connector('x', 'bucket', role_arn => 'arn:aws:iam::123456789012:role/r');
SELECT credentials_missing FROM s3export.connectors WHERE name = 'by role';
SELECT s3export.set_identity('AKIAIOSFODNN7EXAMPLE', 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY');
SELECT s3export.set_identity('ASIAIOSFODNN7EXAMPLE', 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY', 'token');
SELECT count(*), min(access_key_id) FROM s3export.base_identity JOIN s3export.credential USING (credential_id);
SELECT credentials_missing FROM s3export.connectors WHERE name = 'by role';

-- a secret that is gone, as after a restore: everything but its use works
DELETE FROM s3export.secret;
SELECT name, credentials_missing FROM s3export.connectors ORDER BY name;
SELECT * FROM s3export.test_credentials('renamed');
SELECT * FROM s3export.test_credentials('by role');
SELECT s3export.alter_connector('renamed', new_name => 'never', folder_path => 'elsewhere');
SELECT s3export.alter_connector('renamed', new_name => 'restored');
SELECT s3export.set_credentials('restored', 'AKIAI44QH8DHBEXAMPLE', 'je7MtGbClwBF/2Zp9Utk/h3yCo8nvbEXAMPLEKEY', validate => false);
SELECT s3export.set_identity('AKIAIOSFODNN7EXAMPLE', 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY');
SELECT name, credentials_missing FROM s3export.connectors ORDER BY name;

-- the codes of what has failed above
CREATE FUNCTION pg_temp.sqlstate_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	RETURN sqlstate;
END $$;
SELECT pg_temp.sqlstate_of(statement), statement FROM unnest(ARRAY[
	$$SELECT s3export.create_connector(NULL, 'bucket')$$,
	$$SELECT s3export.revoke_usage('restored', NULL)$$,
	$$SELECT s3export.create_connector('x', 'My_Bucket')$$,
	$$SELECT s3export.create_connector('x', 'bucket')$$,
	$$SELECT s3export.create_connector('x', 'bucket', access_key_id => 'AKIAIOSFODNN7EXAMPLE')$$,
	$$SELECT s3export.create_connector('x', 'bucket', access_key_id => 'A', role_arn => 'arn:aws:iam::123456789012:role/r')$$,
	$$SELECT s3export.create_connector('restored', 'bucket', role_arn => 'arn:aws:iam::123456789012:role/r')$$,
	$$SELECT s3export.create_connector('x', 'my-bucket', role_arn => 'arn:aws:iam::123456789012:role/r', folder_path => '', validate => false)$$,
	$$SELECT s3export.drop_connector('missing')$$,
	$$SELECT s3export.alter_connector('restored', owner => '-')$$,
	$$SELECT s3export.test_credentials('Second "one"')$$]) AS statement;
BEGIN;
DELETE FROM s3export.base_identity;
SELECT pg_temp.sqlstate_of($$SELECT s3export.test_credentials('by role')$$);
ROLLBACK;
BEGIN READ ONLY;
SELECT pg_temp.sqlstate_of($$SELECT s3export.alter_connector('restored', new_name => 'read')$$);
ROLLBACK;

-- new credentials never replace others, even if the sequence is set back
BEGIN;
SELECT setval('s3export.credential_credential_id_seq', credential_id, false) > 0 AS set_back
	FROM s3export.connector WHERE name = 'restored';
SELECT pg_temp.sqlstate_of($$SELECT s3export.create_connector('x', 'bucket',
	role_arn => 'arn:aws:iam::123456789012:role/r', validate => false)$$);
SELECT setval('s3export.credential_credential_id_seq', max(credential_id)) > 0 AS set_forward FROM s3export.credential;
ROLLBACK;

-- a failing test saves nothing, whatever the reason (nobody listens on port 1)
SET s3export.retry_timeout = '500ms';
CREATE FUNCTION pg_temp.fails(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	RETURN sqlstate || ' ' || left(sqlerrm, 31);
END $$;
SELECT pg_temp.fails($$SELECT s3export.create_connector('x', 'bucket', access_key_id => 'AKIAIOSFODNN7EXAMPLE',
	secret_access_key => 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY', endpoint_url => 'http://127.0.0.1:1')$$);
SELECT pg_temp.fails($$SELECT s3export.alter_connector('restored', endpoint_url => 'http://127.0.0.1:1')$$);
BEGIN;
SELECT s3export.alter_connector('restored', endpoint_url => 'http://127.0.0.1:1', validate => false);
SELECT pg_temp.fails($$SELECT s3export.set_credentials('restored', 'ASIAIOSFODNN7EXAMPLE', 'anothersecretanothersecretanothersecret00')$$);
SELECT access_key_id FROM s3export.connectors WHERE name = 'restored';
SELECT count(*) > 0 AS checks, bool_and(ok) AS ok FROM s3export.test_credentials('restored');
ROLLBACK;
SELECT name, endpoint_url FROM s3export.connectors ORDER BY name;
RESET s3export.retry_timeout;

-- dropped connectors leave nothing behind
SELECT s3export.grant_usage('restored', 'regress_s3export_owner');
SELECT s3export.grant_usage('restored', 'regress_s3export_owner');
SELECT count(*) FROM s3export.connector_grant;
SELECT s3export.drop_connector('missing');
SELECT s3export.drop_connector('missing', if_exists => true);
SELECT s3export.drop_connector('restored');
SELECT s3export.drop_connector('by role');
SELECT s3export.drop_connector('Second "one"');
SELECT count(*) FROM s3export.connectors;
SELECT count(*) FROM s3export.connector_grant;
SELECT count(*) FROM s3export.credential WHERE credential_id NOT IN (SELECT credential_id FROM s3export.base_identity);
SELECT count(*) FROM s3export.secret WHERE credential_id NOT IN (SELECT credential_id FROM s3export.base_identity);

-- an owner or a grantee that no longer exists
SELECT s3export.create_connector('orphan', 'my-bucket', role_arn => 'arn:aws:iam::123456789012:role/export', validate => false) > 0 AS created;
SELECT s3export.alter_connector('orphan', owner => 'regress_s3export_owner', validate => false);
CREATE ROLE regress_s3export_gone;
SELECT 'regress_s3export_gone'::regrole::oid AS gone \gset
SELECT s3export.grant_usage('orphan', 'regress_s3export_gone');
DROP ROLE regress_s3export_gone;
DROP ROLE regress_s3export_owner;
SELECT s3export.revoke_usage('orphan', :'gone');
SELECT count(*) FROM s3export.connector_grant;
SELECT owner::text ~ '^[0-9]+$' AS no_name FROM s3export.connectors;
SELECT s3export.alter_connector('orphan', owner => current_user::regrole, validate => false);
SELECT owner = current_user::regrole AS owned FROM s3export.connectors;
SELECT s3export.drop_connector('orphan');

-- what a dump takes along, and what it does not
SELECT relid::regclass, condition FROM pg_extension, unnest(extconfig, extcondition) AS x(relid, condition)
	WHERE extname = 's3export' AND relid::regclass::text ~ '\.(connector|credential|secret|base_identity|external_id|installation)'
	ORDER BY relid::regclass::text COLLATE "C";
SELECT relname, relrowsecurity, relforcerowsecurity, attstattarget, (SELECT count(*) FROM pg_policy WHERE polrelid = c.oid) AS policies
	FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid AND attname = 'sealed'
	WHERE c.oid = 's3export.secret'::regclass;
