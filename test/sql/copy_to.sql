-- What copy_to refuses before it asks for an uploader or for S3: nothing listens
-- at the endpoint of this connector, so an error of another kind would show it.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS s3export;
RESET client_min_messages;
\set SHOW_CONTEXT never

SELECT s3export.create_connector('nowhere', 'bucket', access_key_id => 'AKIAIOSFODNN7EXAMPLE',
	secret_access_key => 'not-a-secret', endpoint_url => 'http://127.0.0.1:1', validate => false) > 0 AS created;
CREATE TABLE target (a int, b text);

-- one SELECT, VALUES or TABLE, and nothing else
SELECT s3export.copy_to('nowhere', '');
SELECT s3export.copy_to('nowhere', ';');
SELECT s3export.copy_to('nowhere', 'INSERT INTO target VALUES (1) RETURNING a');
SELECT s3export.copy_to('nowhere', 'DELETE FROM target');
SELECT s3export.copy_to('nowhere', 'SELECT 1; SELECT 2');
SELECT s3export.copy_to('nowhere', 'SELECT 1; DROP TABLE target');
SELECT s3export.copy_to('nowhere', 'WITH gone AS (DELETE FROM target RETURNING a) SELECT * FROM gone');
SELECT s3export.copy_to('nowhere', 'SELECT * INTO other FROM target');
SELECT s3export.copy_to('nowhere', 'SELECT * FROM target FOR UPDATE');
SELECT s3export.copy_to('nowhere', 'COPY target TO STDOUT');
SELECT s3export.copy_to('nowhere', 'EXPLAIN SELECT 1');
SELECT s3export.copy_to('nowhere', 'SELECT $1');
SELECT s3export.copy_to('nowhere', 'SELEC 1');
SELECT s3export.copy_to('nowhere', 'DELETE(1)');
SELECT s3export.copy_to('nowhere', 'no_such_table');
SELECT s3export.copy_to('nowhere', 'no_such_schema."Table"');
SELECT s3export.copy_to('nowhere', 'SELECT nothing FROM target');

-- arguments
SELECT s3export.copy_to('nobody', 'target');
SELECT s3export.copy_to(NULL, 'target');
SELECT s3export.copy_to('nowhere', NULL);
SELECT s3export.copy_to('nowhere', 'target', header => NULL);
SELECT s3export.copy_to('nowhere', 'target', if_exists => 'replace');
SELECT s3export.copy_to('nowhere', 'target', if_exists => NULL);
SELECT s3export.copy_to('nowhere', 'target', on_empty => 'nothing');
SELECT s3export.copy_to('nowhere', 'target', delimiter => ',,');
SELECT s3export.copy_to('nowhere', 'target', delimiter => E'\n');
SELECT s3export.copy_to('nowhere', 'target', quote => '""');
SELECT s3export.copy_to('nowhere', 'target', quote => ',');
SELECT s3export.copy_to('nowhere', 'target', escape => 'ab');
SELECT s3export.copy_to('nowhere', 'target', "null" => E'a\nb');
SELECT s3export.copy_to('nowhere', 'target', encoding => 'latin-none');
SELECT s3export.copy_to('nowhere', 'target', force_quote => ARRAY[NULL::text]);
SELECT s3export.copy_to('nowhere', 'target', '');
SELECT s3export.copy_to('nowhere', 'target', '../up.csv');
SELECT s3export.copy_to('nowhere', 'target', 'a//b.csv');
SELECT s3export.copy_to('nowhere', 'target', '/a.csv');
SELECT s3export.copy_to('nowhere', 'target', 'folder/');
SELECT s3export.copy_to('nowhere', 'target', E'line\nfeed.csv');
SELECT s3export.copy_to('nowhere', 'target', repeat('x', 1020));

-- nothing of all this is a job, and nothing was changed
SELECT count(*) FROM s3export.jobs;
SELECT count(*) FROM target;

-- where a READ ONLY transaction may read, it may export, as COPY TO does
SET s3export.retry_timeout = 0;
BEGIN READ ONLY;
\set VERBOSITY terse
SELECT s3export.copy_to('nowhere', 'VALUES (1)', 'a.csv');
\echo :LAST_ERROR_SQLSTATE
\set VERBOSITY default
ROLLBACK;
SELECT state, error_code FROM s3export.jobs;

-- a query needs no blanks
BEGIN;
\set VERBOSITY terse
SELECT s3export.copy_to('nowhere', 'VALUES(1)', 'a.csv');
\set VERBOSITY default
ROLLBACK;

-- in the background
SELECT s3export.copy_to('nowhere', 'target', wait => NULL);
SELECT s3export.copy_to('nowhere', 'DELETE FROM target', wait => false);
SELECT s3export.copy_to('nowhere', 'no_such_table', wait => false);
SELECT s3export.copy_to('nowhere', 'target', '../up.csv', wait => false);
SELECT s3export.copy_to('nowhere', 'target', wait => false, settings => '{no_such_setting}');
SELECT s3export.copy_to('nowhere', 'target', wait => false, settings => '{max_connections}');
SELECT s3export.copy_to('nowhere', 'target', wait => false, settings => '{session_authorization}');
SELECT s3export.copy_to('nowhere', 'target', wait => false, settings => '{transaction_isolation}');
BEGIN;
SET LOCAL app.tenant = '"quoted" \ back';
SELECT job_id > 0 AS queued, uri, rows, files, bytes
	FROM s3export.copy_to('nowhere', 'target', 'a.csv', delimiter => E'\t', force_quote => '{a,"b c"}', tags => '{"k": "v"}',
		wait => false, settings => '{app.tenant,work_mem}');
SELECT path, state, waiting_for, started_at, uri FROM s3export.jobs WHERE path = 'a.csv' AND state = 'queued';
SELECT jsonb_pretty(arguments) AS arguments, settings ? 'search_path' AS path, settings ->> 'app.tenant' AS tenant, settings ? 'work_mem' AS memory
	FROM s3export.job WHERE state = 'queued';
SET LOCAL s3export.max_queued_jobs = 1;
SELECT s3export.copy_to('nowhere', 'target', 'b.csv', wait => false);
ROLLBACK;
BEGIN READ ONLY;
SELECT s3export.copy_to('nowhere', 'target', wait => false);
ROLLBACK;
SELECT count(*) FROM s3export.jobs WHERE state = 'queued';
SELECT s3export.wait(NULL::bigint);
SELECT s3export.cancel(NULL);
SELECT s3export.wait(0);
SELECT s3export.cancel(0);

-- settings have limits; how they are told differs between servers
\set VERBOSITY sqlstate
SET s3export.part_size = '4MB';
\set VERBOSITY default
SET s3export.max_concurrent_parts = 0;
SET s3export.no_such_setting = 1;

-- the folder of a current is for its own files, now and in the background, for its owner and for who may use it
SELECT s3export.create_connector('flow', 'bucket', kind => 'currents', credentials_from => 'nowhere', endpoint_url => 'http://127.0.0.1:1', validate => false) > 0 AS created;
CREATE ROLE regress_s3export_user;
SELECT s3export.grant_usage('flow', 'regress_s3export_user');
SELECT s3export.copy_to('flow', 'VALUES (1)', 's3export.any/event_type=public.t/forged.csv', if_exists => 'overwrite');
\echo :LAST_ERROR_SQLSTATE
SET ROLE regress_s3export_user;
SELECT s3export.copy_to('flow', 'VALUES (1)');
RESET ROLE;
SELECT s3export.copy_to('flow', 'VALUES (1)', wait => false);
SELECT count(*) FROM s3export.jobs WHERE connector = 'flow';
SELECT s3export.drop_connector('flow');
DROP ROLE regress_s3export_user;

SELECT s3export.drop_connector('nowhere');
DROP TABLE target;
