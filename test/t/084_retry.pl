# retry_for: queued exports that fail for a reason that may pass are tried again, with pauses,
# and leave nothing of an attempt; all others fail at once.
use strict;
use warnings;
use lib 'test/lib';
use IPC::Run;
use PostgreSQL::Test::Utils;
use S3Currents;
use S3Export;
use S3Faults;
use ScriptedS3;
use Test::More;
use Time::HiRes qw(sleep);

my $s3 = scripted_s3();
my %keys = scripted_user($s3);
my $node = currents_node('main', 'max_worker_processes = 16', q(s3export.retry_timeout = '0'), q(s3export.part_size = '5MB'), q(s3export.max_parallel_workers = 0));
my $large = q(SELECT repeat('x', 100000) FROM generate_series(1, 200));

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub queue
{
	my ($path, %more) = @_;
	my $source = delete $more{source} // 'VALUES (1)';

	return sql("SELECT job_id FROM s3export.copy_to('lake', " . sql_literal($source) . ", '$path', wait => false" . join('', map { ", $_ => " . sql_literal($more{$_}) } sort keys %more) . ')');
}

sub job { return sql("SELECT $_[1] FROM s3export.jobs WHERE job_id = $_[0]"); }

# Until an attempt has failed, and the job is queued again.
sub wait_rest
{
	my ($job, $attempts) = @_;

	poll_until(sub { job($job, q(concat_ws(' ', state, attempts, waiting_for, next_attempt_at > clock_timestamp()))) eq "queued $attempts its next attempt t" }, "job $job after attempt $attempts");
	return;
}

# As if its pause were over.
sub hurry
{
	my ($job) = @_;

	sql("UPDATE s3export.job SET next_attempt_at = now() WHERE job_id = $job");
	return;
}

sub fault { $s3->call('add_fault', times => undef, @_); return; }

sub wait_error { return sql_error($node, "SELECT s3export.wait($_[0])"); }

sub uploads_of { return scalar(grep { $_->{key} =~ /$_[0]/ } $s3->uploads('exports')); }

create_connector($node, 'lake', bucket => 'exports', endpoint_url => $s3->url, %keys);

# ---- arguments
foreach my $case (
	[ q(retry_for => '1 hour'), 'waits', '22023' ],
	[ q(retry_for => '0', wait => false), 'zero', '22023' ],
	[ q(retry_for => '-1 h', wait => false), 'negative', '22023' ])
{
	is(sql_error($node, "SELECT s3export.copy_to('lake', 'VALUES (1)', 'x.csv', $case->[0])")->{sqlstate}, $case->[2], "retry_for: $case->[1]");
}

# ---- S3 is away, and comes back
{
	my $listener = $node->background_psql('postgres');

	$listener->query('LISTEN s3export');
	fault(do => 'error', code => 'ServiceUnavailable', status => 503);
	my $job = queue('away.csv', retry_for => '2 hours');
	my $later = queue('away.csv', source => 'VALUES (2)', if_exists => 'overwrite');

	wait_rest($job, 1);
	is(job($job, q(error_code || ' ' || (error_detail ~ 'ServiceUnavailable'))), '38000 true', 'the last error is there');
	is(job($job, q(next_attempt_at - now() BETWEEN '20 s' AND '36 s')), 't', 'the first pause');
	is(job($job, q(retry_until - queued_at BETWEEN '1:59:59' AND '2:00:01')), 't', 'the end of all attempts');
	is(job($job, 'num_nulls(started_at, finished_at, leader_pid, uploader_pid)'), 4, 'nobody runs it');
	is(sql("SELECT state FROM s3export.wait($job, '1 s')"), 'queued', 'wait() goes on waiting');
	is(job($later, 'waiting_for'), "job $job, which writes the same object", 'later jobs of its path wait for it');

	hurry($job);
	wait_rest($job, 2);
	is(job($job, q(next_attempt_at - now() BETWEEN '40 s' AND '72 s')), 't', 'the second pause is twice as long');
	sql("UPDATE s3export.job SET attempts = 30 WHERE job_id = $job");
	hurry($job);
	wait_rest($job, 31);
	is(job($job, q(next_attempt_at - now() BETWEEN '11 min' AND '18 min')), 't', 'up to a quarter of an hour');
	$s3->call('clear_faults');
	is($listener->query('SELECT 1') =~ /notification/ ? 1 : 0, 0, 'nobody is told of an attempt');
	hurry($job);
	is(sql("SELECT state, rows FROM s3export.wait($job)"), 'succeeded|1', 'and then succeeds');
	is(sql("SELECT state FROM s3export.wait($later)"), 'succeeded', 'the later one, too');
	is($s3->object('exports', 'lake/away.csv'), "column1\n2\n", 'in their order');
	is(job($job, q(concat_ws(' ', attempts, num_nulls(error_code, error_message, error_detail, error_hint, next_attempt_at)))), '32 5', 'the row has the attempts, and no error');
	like($listener->query('SELECT 1'), qr/"job_id" : $job, "state" : "succeeded"/, 'the end is told');
	$listener->quit;
}

# ---- an upload that could not be aborted
{
	fault(do => 'error', code => 'InternalError', status => 500, match => { operation => 'UploadPart', part => 2 });
	fault(do => 'reset', match => { operation => 'AbortMultipartUpload' });
	my $job = queue('left.csv', source => $large, retry_for => '1 h');

	wait_rest($job, 1);
	is(uploads_of('left'), 1, 'an upload is left');
	hurry($job);
	wait_rest($job, 2);
	is(job($job, q(error_message)), 'could not remove what the last attempt has left in the bucket', 'nothing is begun beside it');
	is(uploads_of('left'), 1, 'nor left besides it');
	$s3->call('clear_faults');
	hurry($job);
	is(sql("SELECT state, rows FROM s3export.wait($job)"), 'succeeded|200', 'when it can be removed, the job goes on');
	is(uploads_of('left'), 0, 'and nothing is left');
	is(sql("SELECT count(*), min(state) FROM s3export.job_files WHERE job_id = $job"), '1|done', 'the files are those of the last attempt');
}

# ---- what does not pass

sql(q(SELECT s3export.copy_to('lake', 'VALUES (1)', 'taken.csv')));
foreach my $case (
	[ 'an error of the query', '22012', source => 'SELECT 1 / (i - 1) FROM generate_series(1, 1) i' ],
	[ 'a name that is taken', '42710', path => 'taken.csv' ],
	[ 'what S3 denies', '28000', code => 'AccessDenied', status => 403 ],
	[ 'keys that S3 does not know', '28000', code => 'InvalidAccessKeyId', status => 403 ],
	[ 'what S3 does not know', '38000', code => 'InvalidRequest', status => 400 ])
{
	my ($what, $sqlstate, %more) = @$case;

	fault(do => 'error', code => $more{code}, status => $more{status}) if $more{code};
	my $job = queue($more{path} // 'never.csv', defined $more{source} ? (source => $more{source}) : (), retry_for => '1 h');
	is(wait_error($job)->{sqlstate}, $sqlstate, "at once: $what");
	is(job($job, q(state || ' ' || attempts)), 'failed 1', 'once');
	$s3->call('clear_faults');
}

# ---- a file that is in place
{
	fault(do => 'error', code => 'ServiceUnavailable', status => 503, match => { operation => 'PutObject', key => 'lake/two_part2.csv' });
	my $job = queue('two.csv', source => 'SELECT * FROM generate_series(1, 2)', max_rows_per_file => 1, retry_for => '1 h');

	like(wait_error($job)->{detail}, qr/1 of the 2 files/, 'files that are in place end it');
	$s3->call('clear_faults');
}

# ---- the end of retry_for, and cancel
fault(do => 'reset');
{
	my $job = queue('short.csv', retry_for => '1 s');

	poll_until(sub { job($job, 'state') eq 'failed' }, 'the end of retry_for');
	is(job($job, q(concat_ws(' ', attempts > 1, error_code, finished_at >= retry_until))), 't 08006 t', 'the last attempt is at its end');
}
{
	my $job = queue('cancelled.csv', retry_for => '1 h');

	wait_rest($job, 1);
	is(sql("SELECT s3export.cancel($job)"), 't', 'cancel()');
	is(job($job, q(concat_ws(' ', state, error_code, coalesce(error_detail, error_hint, next_attempt_at::text)))), 'cancelled 57014', 'ends it');
}
$s3->call('clear_faults');
{
	my $job = queue('running.csv', source => 'SELECT pg_sleep(600)', retry_for => '1 h');

	poll_until(sub { job($job, q(state || uploader_pid)) =~ /^running\d/ }, 'a job that runs');
	is(sql("SELECT s3export.cancel($job)"), 't', 'cancel()');
	is(wait_error($job)->{sqlstate}, '57014', 'ends one that runs');
}

# ---- a worker that is terminated, a server that is stopped, and one that crashes
{
	my $source = q(SELECT repeat('x', 1000000), pg_sleep(CASE WHEN (SELECT count(*) FROM gate) = 0 THEN 0.5 ELSE 0 END) FROM generate_series(1, 20));

	sql('CREATE TABLE gate (i int)');
	my $job = queue('stopped.csv', source => $source, retry_for => '1 h');
	my $running = sub { poll_until(sub { job($job, q(state || uploader_pid)) =~ /^running\d/ && uploads_of('stopped') }, 'an upload under way') };

	$running->();
	sql("SELECT pg_terminate_backend(leader_pid) FROM s3export.jobs WHERE job_id = $job");
	wait_rest($job, 1);
	is(uploads_of('stopped'), 0, 'terminated: nothing is left');
	hurry($job);
	$running->();
	$node->restart;
	is(job($job, q(concat_ws(' ', state, attempts))), 'queued 2', 'a server that was stopped has it queued');
	hurry($job);
	sql('SELECT s3export.recover()');
	$running->();
	$node->stop('immediate');
	$node->start;
	is(sql('SELECT job_id, action FROM s3export.recover()'), "$job|aborted", 'after a crash recover() settles it');
	is(job($job, q(concat_ws(' ', state, attempts, error_code))), 'queued 3 57P02', 'and has it queued');
	sql('INSERT INTO gate VALUES (1)');
	hurry($job);
	is(sql("SELECT state, rows FROM s3export.wait($job)"), 'succeeded|20', 'wait() is enough to have it run');
	is(uploads_of('stopped'), 0, 'nothing is left');
}

# ---- a session that writes to the path
{
	my $session = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', q(SELECT s3export.copy_to('lake', 'SELECT pg_sleep(600)', '{connector}.csv')) ], '>', \my $out, '2>', \my $err);

	poll_until(sub { sql(q(SELECT count(*) FROM s3export.jobs WHERE state = 'running' AND uploader_pid > 0)) == 1 }, 'an export of a session');
	my $job = queue('lake.csv', retry_for => '1 h');
	wait_rest($job, 1);
	is(job($job, 'error_code'), '55006', 'a path that is taken for a while');
	sql(q(SELECT pg_cancel_backend(leader_pid) FROM s3export.jobs WHERE state = 'running'));
	$session->finish;
	hurry($job);
	is(sql("SELECT state FROM s3export.wait($job)"), 'succeeded', 'is free later');
}

# ---- the column decides, so it has a code
{
	fault(do => 'reset');
	my $job = queue('forged.csv', retry_for => '1 h');

	wait_rest($job, 1);
	sql("UPDATE s3export.job SET retry_until = 'infinity' WHERE job_id = $job");
	hurry($job);
	is(wait_error($job)->{sqlstate}, 'XX001', 'a row that was written by others is not run');
	$s3->call('clear_faults');
}

$node->stop;
done_testing();
