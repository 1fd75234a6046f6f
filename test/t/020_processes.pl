# However an export ends, no object appears, no upload stays open, the caller
# has an error that says why, and the server goes on.
use strict;
use warnings;
use lib 'test/lib';
use PostgreSQL::Test::Utils;
use S3Export;
use S3Faults;
use Test::More;
use Time::HiRes qw(time sleep);

s3_or_skip();
my $node = s3export_node('main', 'max_worker_processes = 4', 's3export.part_size = 5MB', 's3export.retry_timeout = 3s');
my $folder = unique_folder();

create_connector($node, 'lake', folder_path => $folder);

# Rows without end, slowly enough to be stopped in the middle and fast enough
# to have parts in S3 soon.
my $endless = q(SELECT g, repeat(md5(g::text), 60) FROM generate_series(1, 100000000) g);

# Starts a session that exports; returns its handle and where its messages go.
sub start_export
{
	my ($name, $before) = @_;
	my $messages = '';
	my $handle = IPC::Run::start(
		[ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'),
			'-c', $before // 'SELECT', '-c', "SELECT s3export.copy_to('lake', " . sql_literal($endless) . ", '$name')" ],
		'>', \my $out, '2>', \$messages);

	return ($handle, \$messages);
}

sub job
{
	my ($name, $columns) = @_;

	return $node->safe_psql('postgres', "SELECT $columns FROM s3export.jobs WHERE uri ~ '/($folder|a)/$name\$' ORDER BY job_id DESC LIMIT 1");
}

# Waits until a multipart upload is under way, so that there is something to abort.
sub wait_for_upload
{
	my ($name) = @_;

	poll_until(sub { job($name, 'open_uploads') eq '1' }, "the upload of $name");
	poll_until(sub { scalar s3_uploads("$folder/$name") }, "parts of $name");
	return;
}

# What lies in the bucket, for the table of faults.
sub remote_cell
{
	my ($name) = @_;
	my ($object) = s3_list("$folder/$name");

	return bucket_cell($object, undef, scalar(() = s3_uploads("$folder/$name")));
}

sub nothing_left
{
	my ($name, $state, $why, $error) = @_;

	poll_until(sub { job($name, 'state') ne 'running' }, "the end of $name");
	is(job($name, 'state, open_uploads = 0, finished_at IS NOT NULL'), "$state|t|t", "$why: the job row says so");
	is_deeply([ s3_list("$folder/$name") ], [], "$why: no object appears");
	is_deeply([ s3_uploads("$folder/$name") ], [], "$why: no upload stays open");
	fault_outcome($why, caller_cell($error), job_cell($node, $name), remote_cell($name)) if defined $error;
	is($node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 's3export uploader'"), 0,
		"$why: no uploader stays") if poll_until(sub {
			$node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 's3export uploader'") == 0 }, 'the uploader\'s end');
	is($node->safe_psql('postgres', "SELECT rows FROM s3export.copy_to('lake', 'VALUES (1)', 'after/$name', if_exists => 'overwrite')"), 1,
		"$why: the server goes on");
	return;
}

# ---- statement_timeout
{
	my ($handle, $messages) = start_export('timeout.csv', q(SET statement_timeout = '3s'));

	$handle->finish;
	like($$messages, qr/ERROR:  57014: canceling statement due to statement timeout/, 'statement_timeout: the caller\'s error');
	nothing_left('timeout.csv', 'cancelled', 'statement_timeout', $$messages);
	is(job('timeout.csv', 'error_code, error_message'), '57014|canceling statement due to statement timeout', 'statement_timeout: the reason is kept');
}

# ---- cancel
{
	my ($handle, $messages) = start_export('cancel.csv');
	my $started;

	wait_for_upload('cancel.csv');
	$started = time;
	$node->safe_psql('postgres', 'SELECT pg_cancel_backend(' . job('cancel.csv', 'leader_pid') . ')');
	$handle->finish;
	cmp_ok(time - $started, '<', 3, 'cancel: at once');
	like($$messages, qr/ERROR:  57014: canceling statement due to user request/, 'cancel: the caller\'s error');
	nothing_left('cancel.csv', 'cancelled', 'pg_cancel_backend of the caller', $$messages);
}

# ---- the caller is terminated, or its process dies
foreach my $how ([ 'terminate', sub { $node->safe_psql('postgres', "SELECT pg_terminate_backend($_[0])") } ])
{
	my ($what, $end) = @$how;
	my ($handle, $messages) = start_export("$what.csv");

	wait_for_upload("$what.csv");
	$end->(job("$what.csv", 'leader_pid'));
	$handle->finish;
	like($$messages, qr/FATAL:  57P01/, "$what: the caller's error");
	nothing_left("$what.csv", 'cancelled', "pg_${what}_backend of the caller", $$messages);
	is(job("$what.csv", 'error_message'), 'the session that ran the export has ended', "$what: the reason is kept");
}

# ---- the uploader is terminated or cancelled
foreach my $function ('pg_terminate_backend', 'pg_cancel_backend')
{
	my $name = "$function.csv";
	my ($handle, $messages) = start_export($name);

	wait_for_upload($name);
	$node->safe_psql('postgres', "SELECT $function(" . job($name, 'uploader_pid') . ')');
	$handle->finish;
	like($$messages,
		$function eq 'pg_cancel_backend' ? qr/ERROR:  57014: canceling the export due to user request/
		: qr/ERROR:  57P01: terminating the uploader due to administrator command/, "$function of the uploader: the caller's error");
	nothing_left($name, 'cancelled', "$function of the uploader", $$messages);
}

# ---- a query that fails late
{
	my $error = sql_error($node, q(SELECT s3export.copy_to('lake', 'SELECT repeat(md5(g::text), 60), 1 / (20000 - g) FROM generate_series(1, 20000) g', 'late.csv')));

	is("$error->{sqlstate} $error->{message}", '22012 division by zero', 'a query that fails at its last row: the caller\'s error');
	nothing_left('late.csv', 'failed', 'a query that fails at its last row', $error);
}

# ---- no worker, then one
{
	my @others = map { [ start_export("slot$_.csv") ] } 1 .. 3;

	# One of the four slots is the logical replication launcher's.
	poll_until(sub { $node->safe_psql('postgres', "SELECT count(*) FROM s3export.jobs WHERE uri LIKE '%slot%' AND state = 'running'") == 3 }, 'three exports');
	error_like($node, q(SELECT s3export.copy_to('lake', 'VALUES (1)', 'slot4.csv')),
		{ sqlstate => '53000', message => 'could not start an uploader: no background worker is free',
			hint => qr/max_worker_processes/ }, 'worker slots exhausted: the caller\'s error');
	error_like($node, q(SELECT * FROM s3export.test_credentials('lake')),
		{ sqlstate => '53000', message => 'could not start an uploader: no background worker is free' }, 'a test needs one too');
	$node->safe_psql('postgres', "SELECT pg_cancel_backend(leader_pid) FROM s3export.jobs WHERE state = 'running'");
	$_->[0]->finish foreach @others;
	nothing_left('slot3.csv', 'cancelled', 'worker slots exhausted');
}

# ---- the extension of a transaction that has not committed
$node->safe_psql('postgres', 'CREATE DATABASE fresh');
error_like($node, "BEGIN; CREATE EXTENSION s3export; SELECT " . connector_sql('lake', folder_path => "$folder/fresh", validate => \'false')
	  . q(; SELECT s3export.copy_to('lake', 'VALUES (1)', 'fresh.csv')),
	{ sqlstate => '42P01', message => 'could not find the tables of extension "s3export"', hint => qr/commit/ },
	'an extension not committed yet', dbname => 'fresh');
is($node->safe_psql('fresh', "CREATE EXTENSION s3export; BEGIN; SELECT " . connector_sql('lake', folder_path => "$folder/fresh")
	  . q(; SELECT rows FROM s3export.copy_to('lake', 'VALUES (1)', 'fresh.csv'); COMMIT)) =~ /1$/ ? 1 : 0, 1,
	'a connector not committed yet works');

# ---- a lock on the job table, held by the very caller that waits
error_like($node, q(BEGIN; LOCK s3export.job; SELECT s3export.copy_to('lake', 'VALUES (1)', 'locked.csv')),
	{ sqlstate => '55P03' }, 'a caller that locks the job table gets an error, not a deadlock');

# ---- the server stops and starts
{
	my ($handle, $messages) = start_export('shutdown.csv');
	my $started;

	wait_for_upload('shutdown.csv');
	$started = time;
	$node->stop('fast');
	cmp_ok(time - $started, '<', 10, 'a fast shutdown is fast');
	$handle->finish;
	$node->start;
	nothing_left('shutdown.csv', 'cancelled', 'a fast shutdown while parts are sent', $$messages);
}
{
	my ($handle, $messages) = start_export('crash.csv');
	my $uploads;

	wait_for_upload('crash.csv');
	$node->stop('immediate');
	$handle->finish;
	$node->start;
	is_deeply([ s3_list("$folder/crash.csv") ], [], 'immediate shutdown: no object appears');
	is(job('crash.csv', '(SELECT upload_id FROM s3export.job_files f WHERE f.job_id = jobs.job_id)'), (s3_uploads("$folder/crash.csv"))[0], 'immediate shutdown: the upload that is left is named in the job row');
	is($node->safe_psql('postgres', 'SELECT action FROM s3export.recover()'), 'aborted', 'immediate shutdown: recover()');
	nothing_left('crash.csv', 'failed', 'immediate shutdown');
}

# ---- the S3 server dies in mid-export, and one that comes back
{
	my $gateway = rgw_start();
	my ($handle, $messages);

	with_s3($gateway, sub { create_connector($node, 'mortal', folder_path => 'a') });
	$handle = IPC::Run::start([ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $node->connstr('postgres'),
			'-c', "SELECT s3export.copy_to('mortal', " . sql_literal($endless) . ", 'killed.csv')" ],
		'>', \my $out, '2>', \my $error);
	poll_until(sub { job('killed.csv', 'open_uploads') eq '1' }, 'the upload of killed.csv');
	sleep 1;
	rgw_kill($gateway);
	$handle->finish;
	like($error, qr/ERROR:  08006: could not upload .*DETAIL:  .*HINT:  /s, 'S3 server killed: SQLSTATE, message, detail and hint');
	is(job('killed.csv', 'state, open_uploads > 0'), 'failed|t', 'S3 server killed: the upload that could not be aborted is named in the job row');
	error_like($node, q(SELECT s3export.copy_to('mortal', 'VALUES (1)', 'down.csv')),
		{ sqlstate => '08006', detail => qr/./, hint => qr/./ }, 'S3 server down: an error');

	rgw_resume($gateway);
	with_s3($gateway, sub { is_deeply([ s3_list('a/killed.csv') ], [], 'S3 server killed: no object appears') });

	# Stopped for less than the time for retries, an export goes on.
	$node->safe_psql('postgres', q(ALTER SYSTEM SET s3export.retry_timeout = '60s'; SELECT pg_reload_conf()));
	my $rows = 60000;
	$handle = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'),
			'-c', "SELECT rows FROM s3export.copy_to('mortal', 'SELECT g, repeat(md5(g::text), 30), CASE WHEN g % 2000 = 0 THEN pg_sleep(0.1) END FROM generate_series(1, $rows) g', 'resumed.csv')" ],
		'>', \my $total, '2>', \my $complaint);
	poll_until(sub { job('resumed.csv', 'open_uploads') eq '1' }, 'the upload of resumed.csv');
	rgw_kill($gateway);
	sleep 2;
	rgw_resume($gateway);
	$handle->finish;
	is("$total$complaint", "$rows\n", 'S3 server back in time: the export goes on');
	with_s3($gateway, sub {
		is(scalar(() = s3_get('a/resumed.csv') =~ /\n/g), $rows + 1, 'S3 server back in time: nothing is lost'); });
	rgw_stop($gateway);
}

$node->stop;
s3_clear($folder);
done_testing();
