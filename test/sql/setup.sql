-- Setting AWS up: policies, identity, external IDs, shared credentials, and what
-- objects are created with.  Nothing here reaches a server.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS s3export;
RESET client_min_messages;
CREATE ROLE regress_s3export_maker;
CREATE ROLE regress_s3export_other;
CREATE ROLE regress_s3export_files IN ROLE pg_read_server_files;
GRANT EXECUTE ON FUNCTION s3export.create_connector TO regress_s3export_maker, regress_s3export_files;

CREATE FUNCTION pg_temp.sqlstate_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	RETURN sqlstate;
END $$;

-- whatever other tests have left
DELETE FROM s3export.base_identity;
DELETE FROM s3export.secret;
DELETE FROM s3export.credential;

-- policies: what each kind needs, and never more than the bucket or the folder
SELECT jsonb_pretty(s3export.iam_policy('acme-exports'));
SELECT jsonb_pretty(s3export.iam_policy('acme-exports', 'currents', folder_path => '/daily/orders/'));
SELECT s3export.iam_policy('acme-exports', folder_path => '') = s3export.iam_policy('acme-exports') AS root_is_the_bucket;
SELECT s3export.iam_policy('acme-exports', region => region) -> 'Statement' -> 0 ->> 'Resource' AS bucket
	FROM unnest(ARRAY['eu-west-1', 'cn-north-1', 'us-gov-west-1']) AS region;
-- what IAM would read as a pattern or a variable is escaped
SELECT s3export.iam_policy('acme-exports', folder_path => 'a*b?/${aws:username}/"q\') -> 'Statement' -> 1 ->> 'Resource' AS objects;
-- encryption, ACLs and tags take rights of their own
SELECT s3export.iam_policy('acme-exports', acl => 'bucket-owner-full-control', tags => '{"team": "x"}') -> 'Statement' -> 1 -> 'Action' AS actions;
SELECT key, jsonb_pretty(s3export.iam_policy('acme-exports', kms_key_id => key) -> 'Statement' -> 2) AS statement
	FROM unnest(ARRAY['1234abcd-12ab-34cd-56ef-1234567890ab',
		'arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab', 'alias/exports',
		'arn:aws:kms:eu-west-1:123456789012:alias/exports']) AS key;
SELECT s3export.iam_policy('acme-exports', region => 'cn-north-1', kms_key_id => 'alias/exports') -> 'Statement' -> 2 ->> 'Resource' AS keys;
SELECT s3export.iam_policy(NULL);
SELECT s3export.iam_policy('acme-exports', NULL);
SELECT s3export.iam_policy('acme-*');
SELECT s3export.iam_policy('acme-exports', 'both');
SELECT s3export.iam_policy('acme-exports', folder_path => 'a/../b');
SELECT s3export.iam_policy('acme-exports', kms_key_id => 'key/*');
SELECT s3export.iam_policy('acme-exports', acl => 'everybody');
SET ROLE regress_s3export_other;
SELECT s3export.iam_policy('acme-exports') IS NOT NULL AS for_everybody;

-- the external ID is for every role, the identity for those who create connectors
SELECT account, arn, external_id ~ '^s3export-[0-9a-f]{32}$' AS has_external_id FROM s3export.identity();
SELECT external_id AS others_id FROM s3export.identity() \gset
SELECT s3export.trust_policy();
SET ROLE regress_s3export_maker;
SELECT account, arn, external_id ~ '^s3export-[0-9a-f]{32}$' AS has_external_id, external_id <> :'others_id' AS its_own FROM s3export.identity();
SELECT external_id AS makers_id FROM s3export.identity() \gset
SELECT external_id = :'makers_id' AS stays FROM s3export.identity();
SELECT s3export.trust_policy();
BEGIN READ ONLY;
SELECT external_id = :'makers_id' AS same FROM s3export.identity();
COMMIT;
SELECT s3export.create_connector('by role', 'acme-exports', role_arn => 'arn:aws:iam::123456789012:role/r', validate => false) > 0 AS created;
SELECT external_id = :'makers_id' AS same FROM s3export.connectors;
RESET ROLE;
SELECT role, external_id IN (:'others_id', :'makers_id') AS shown FROM s3export.external_id
	WHERE role::text ~ '^regress_s3export_(maker|other)' ORDER BY role::text;
-- an identity whom nobody answers for (nobody listens on port 1)
SELECT s3export.set_identity('AKIAIOSFODNN7EXAMPLE', 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY');
SET s3export.retry_timeout = '500ms';
SET client_min_messages = error;
SELECT account, arn, external_id IS NOT NULL AS has_external_id FROM s3export.identity(sts_endpoint_url => 'http://127.0.0.1:1');
RESET client_min_messages;
SELECT pg_temp.sqlstate_of($$SELECT s3export.trust_policy(sts_endpoint_url => 'http://127.0.0.1:1')$$);
RESET s3export.retry_timeout;
SELECT s3export.identity('Not a region');
SELECT s3export.trust_policy(sts_endpoint_url => 'ftp://127.0.0.1');
SET ROLE regress_s3export_maker;
SELECT s3export.identity(sts_endpoint_url => 'http://127.0.0.1:1');
SET ROLE regress_s3export_other;
SELECT account, arn FROM s3export.identity(sts_endpoint_url => 'http://127.0.0.1:1');
RESET ROLE;
-- as after a restore
DELETE FROM s3export.secret WHERE credential_id = (SELECT credential_id FROM s3export.base_identity);
SELECT account, arn FROM s3export.identity();
SELECT s3export.trust_policy();

-- how long to wait for a new role
SELECT s3export.create_connector('x', 'bucket', role_arn => 'arn:aws:iam::123456789012:role/r', role_wait => NULL);
SELECT s3export.create_connector('x', 'bucket', role_arn => 'arn:aws:iam::123456789012:role/r', role_wait => '-1 s');
SELECT s3export.set_credentials('by role', role_arn => 'arn:aws:iam::123456789012:role/r', role_wait => '1 month');
SELECT s3export.test_credentials('by role', role_wait => '61 min');
SELECT s3export.test_credentials('by role', role_wait => '60 min');

-- what objects are created with
SELECT s3export.create_connector('options', 'acme-exports', access_key_id => 'AKIAIOSFODNN7EXAMPLE',
	secret_access_key => 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY', folder_path => 'options',
	server_side_encryption => 'AWS:KMS', kms_key_id => 'alias/exports', bucket_key => true, storage_class => 'STANDARD_IA',
	tags => '{"team": "finance & co", "empty": ""}', acl => 'bucket-owner-full-control',
	content_type => 'text/csv; charset=utf-8', expected_bucket_owner => '123456789012', validate => false) > 0 AS created;
\x on
SELECT server_side_encryption, kms_key_id, bucket_key, storage_class, tags, acl, content_type, expected_bucket_owner
	FROM s3export.connectors WHERE name = 'options';
-- what is not named stays; the key goes with its encryption
SELECT s3export.alter_connector('options', storage_class => 'GLACIER_IR', bucket_key => false, validate => false);
SELECT server_side_encryption, kms_key_id, bucket_key, storage_class, tags, acl, content_type, expected_bucket_owner
	FROM s3export.connectors WHERE name = 'options';
SELECT s3export.alter_connector('options', server_side_encryption => 'AES256', storage_class => '', tags => '{}', acl => '',
	content_type => '', expected_bucket_owner => '', validate => false);
SELECT server_side_encryption, kms_key_id, bucket_key, storage_class, tags, acl, content_type, expected_bucket_owner
	FROM s3export.connectors WHERE name = 'options';
\x off
SELECT s3export.alter_connector('options', kms_key_id => 'alias/exports', validate => false);
SELECT s3export.alter_connector('options', bucket_key => true, validate => false);
SELECT s3export.alter_connector('options', server_side_encryption => 'none', kms_key_id => 'alias/exports', validate => false);
SELECT s3export.alter_connector('options', kms_key_id => '', validate => false);
SELECT s3export.alter_connector('options', server_side_encryption => 'aws:kms', kms_key_id => 'not a key', validate => false);
SELECT s3export.alter_connector('options', storage_class => E'STANDARD\r\nx-amz-acl: public-read', validate => false);
SELECT s3export.alter_connector('options', acl => 'public', validate => false);
SELECT s3export.alter_connector('options', content_type => 'csv', validate => false);
SELECT s3export.alter_connector('options', expected_bucket_owner => '1234', validate => false);
SELECT s3export.alter_connector('options', tags => '["team"]', validate => false);
SELECT s3export.alter_connector('options', tags => '{"team": 1}', validate => false);
SELECT s3export.alter_connector('options', tags => '{"": "x"}', validate => false);
SELECT s3export.alter_connector('options', tags => jsonb_build_object('team', repeat('x', 257)), validate => false);
SELECT s3export.alter_connector('options', tags => jsonb_build_object(repeat('x', 129), ''), validate => false);
SELECT s3export.alter_connector('options', tags => (SELECT jsonb_object_agg(i::text, '') FROM generate_series(1, 11) i), validate => false);
SELECT s3export.alter_connector('options', tags => jsonb_build_object(repeat('x', 128), repeat('x', 256)), validate => false);
-- the owner of a connector decides who can read its objects
SELECT s3export.grant_usage('options', 'regress_s3export_other');
SET ROLE regress_s3export_other;
SELECT s3export.copy_to('options', 'SELECT 1', acl => 'public-read');
SELECT s3export.copy_to('options', 'SELECT 1', server_side_encryption => 'none');
SELECT s3export.copy_to('options', 'SELECT 1', kms_key_id => 'alias/mine');
SELECT s3export.copy_to('options', 'SELECT 1', bucket_key => false);
SELECT s3export.copy_to('options', 'SELECT 1', storage_class => 'NO SUCH');
SELECT s3export.copy_to('options', 'SELECT 1', tags => '{"a": null}');
SELECT s3export.copy_to('options', 'SELECT 1', content_type => 'csv');
RESET ROLE;
SELECT s3export.copy_to('options', 'SELECT 1', acl => 'public');
SELECT s3export.copy_to('options', 'SELECT 1', kms_key_id => 'alias/mine');

-- both kinds in one bucket: a notice, to those who may know of the other
SELECT s3export.create_connector('stream', 'acme-exports', 'currents', access_key_id => 'AKIAIOSFODNN7EXAMPLE',
	secret_access_key => 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY', folder_path => 'stream', validate => false) > 0 AS created;
SELECT s3export.alter_connector('stream', bucket => 'elsewhere', validate => false);
SELECT s3export.alter_connector('stream', bucket => 'acme-exports', endpoint_url => 'https://s3.example.com', validate => false);
SELECT s3export.alter_connector('stream', endpoint_url => '', validate => false);
DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO regress_s3export_maker', current_database()); END $$;
SET ROLE regress_s3export_maker;
SELECT s3export.create_connector('own stream', 'acme-exports', 'currents', role_arn => 'arn:aws:iam::123456789012:role/r',
	folder_path => 'own', validate => false) > 0 AS created;
SELECT s3export.drop_connector('own stream');
SELECT s3export.drop_connector('by role');
SELECT s3export.create_connector('own stream', 'acme-exports', 'currents', role_arn => 'arn:aws:iam::123456789012:role/r',
	folder_path => 'own', validate => false) > 0 AS created;
SELECT s3export.drop_connector('own stream');
RESET ROLE;
DO $$ BEGIN EXECUTE format('REVOKE CREATE ON DATABASE %I FROM regress_s3export_maker', current_database()); END $$;
SELECT s3export.drop_connector('stream');

-- credentials of another connector: rotated once for all
SELECT s3export.create_connector('second', 'acme-exports', folder_path => 'second', credentials_from => 'options', validate => false) > 0 AS created;
SELECT s3export.create_connector('third', 'acme-exports', folder_path => 'third', credentials_from => 'second', validate => false) > 0 AS created;
SELECT s3export.create_connector('alone', 'acme-exports', folder_path => 'alone', role_arn => 'arn:aws:iam::123456789012:role/alone', validate => false) > 0 AS created;
SELECT name, auth_method, access_key_id, credentials_missing, credentials_shared FROM s3export.connectors ORDER BY name;
SELECT count(*) AS secrets FROM s3export.secret;
SELECT s3export.set_credentials('third', 'ASIAROTATEDROTATED42', 'anothersecretanothersecretanothersecret00', 'token', validate => false);
SELECT name, access_key_id, credentials_missing FROM s3export.connectors ORDER BY name;
SELECT version FROM s3export.credential JOIN s3export.connector USING (credential_id) WHERE name = 'options';
-- one leaves, for credentials of its own, and comes back
SELECT s3export.set_credentials('third', 'AKIAIOSFODNN7EXAMPLE', 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY', unshare => true, validate => false);
SELECT name, access_key_id, credentials_missing, credentials_shared FROM s3export.connectors ORDER BY name;
SELECT s3export.set_credentials('third', credentials_from => 'second', validate => false);
SELECT name, access_key_id, credentials_missing, credentials_shared FROM s3export.connectors ORDER BY name;
SELECT count(*) AS secrets FROM s3export.secret;
-- a role is shared with its external ID
SELECT s3export.set_credentials('third', credentials_from => 'alone', validate => false);
SELECT name, role_arn, credentials_shared FROM s3export.connectors WHERE role_arn IS NOT NULL ORDER BY name;
SELECT count(*) AS credentials FROM s3export.credential WHERE credential_id NOT IN (SELECT credential_id FROM s3export.base_identity);
-- the last one takes them along
SELECT s3export.drop_connector('alone');
SELECT name, role_arn, credentials_shared FROM s3export.connectors WHERE role_arn IS NOT NULL ORDER BY name;
SELECT s3export.drop_connector('third');
SELECT count(*) AS credentials FROM s3export.credential WHERE credential_id NOT IN (SELECT credential_id FROM s3export.base_identity);
-- what cannot be
SELECT s3export.set_credentials('second', credentials_from => 'second', validate => false);
SELECT s3export.set_credentials('second', credentials_from => 'missing', validate => false);
SELECT s3export.set_credentials('second', 'AKIAIOSFODNN7EXAMPLE', credentials_from => 'options', validate => false);
SELECT s3export.set_credentials('second', role_arn => 'arn:aws:iam::123456789012:role/r', credentials_from => 'options', validate => false);
SELECT s3export.set_credentials('second', unshare => NULL);
-- it takes the right to both the connector and its credentials
SET ROLE regress_s3export_maker;
SELECT s3export.create_connector('thief', 'acme-exports', folder_path => 'thief', credentials_from => 'options', validate => false);
SELECT * FROM s3export.test_credentials(bucket => 'acme-exports', credentials_from => 'options');
RESET ROLE;
SELECT s3export.alter_connector('second', owner => 'regress_s3export_maker', validate => false);
SET ROLE regress_s3export_maker;
SELECT s3export.create_connector('thief', 'acme-exports', folder_path => 'thief', credentials_from => 'second', validate => false);
SELECT s3export.set_credentials('second', 'AKIAIOSFODNN7EXAMPLE', 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY', validate => false);
SELECT s3export.set_credentials('second', 'AKIAIOSFODNN7EXAMPLE', 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY', unshare => true, validate => false);
SELECT s3export.create_connector('friend', 'acme-exports', folder_path => 'friend', credentials_from => 'second', validate => false) > 0 AS created;
SELECT name, credentials_shared FROM s3export.connectors ORDER BY name;
SELECT s3export.drop_connector('friend');
SELECT s3export.drop_connector('second');
RESET ROLE;

-- secrets from files: who may, and what cannot be one
SET ROLE regress_s3export_maker;
SELECT s3export.create_connector('file', 'acme-exports', access_key_id => 'AKIAIOSFODNN7EXAMPLE', secret_file => '/nowhere/secret', validate => false);
SELECT pg_temp.sqlstate_of($$SELECT s3export.test_credentials(bucket => 'acme-exports', access_key_id => 'AKIAIOSFODNN7EXAMPLE', secret_file => '/nowhere/secret')$$);
SET ROLE regress_s3export_files;
SELECT s3export.create_connector('file', 'acme-exports', access_key_id => 'AKIAIOSFODNN7EXAMPLE', secret_file => '/nowhere/secret', validate => false);
SELECT s3export.create_connector('file', 'acme-exports', access_key_id => 'AKIAIOSFODNN7EXAMPLE', secret_file => 'secret', validate => false);
SELECT s3export.create_connector('file', 'acme-exports', access_key_id => 'AKIAIOSFODNN7EXAMPLE', secret_file => '/dev/zero', validate => false);
SELECT s3export.create_connector('file', 'acme-exports', access_key_id => 'AKIAIOSFODNN7EXAMPLE', secret_file => '/', validate => false);
SELECT s3export.create_connector('file', 'acme-exports', secret_file => '/nowhere/secret', validate => false);
SELECT s3export.create_connector('file', 'acme-exports', access_key_id => 'AKIAIOSFODNN7EXAMPLE', secret_access_key => 'hidden-secret-hidden',
	secret_file => '/nowhere/secret', validate => false);
SELECT s3export.create_connector('file', 'acme-exports', access_key_id => 'AKIAIOSFODNN7EXAMPLE', session_token => 'hidden-token-hidden',
	secret_file => '/nowhere/secret', validate => false);
SELECT s3export.create_connector('file', 'acme-exports', role_arn => 'arn:aws:iam::123456789012:role/r', secret_file => '/nowhere/secret', validate => false);
RESET ROLE;
SELECT s3export.set_credentials('options', 'AKIAIOSFODNN7EXAMPLE', secret_file => '/nowhere/secret', validate => false);
SELECT s3export.set_identity('AKIAIOSFODNN7EXAMPLE', secret_file => '/nowhere/secret');
SELECT s3export.set_identity('AKIAIOSFODNN7EXAMPLE', 'hidden-secret-hidden', secret_file => '/nowhere/secret');
SELECT s3export.set_identity('AKIAIOSFODNN7EXAMPLE');

SELECT s3export.drop_connector('options');
SELECT count(*) AS connectors FROM s3export.connector;
SELECT count(*) AS credentials FROM s3export.credential WHERE credential_id NOT IN (SELECT credential_id FROM s3export.base_identity);
DELETE FROM s3export.base_identity;
DELETE FROM s3export.credential;
REVOKE EXECUTE ON FUNCTION s3export.create_connector FROM regress_s3export_maker, regress_s3export_files;
DROP ROLE regress_s3export_maker, regress_s3export_other, regress_s3export_files;
