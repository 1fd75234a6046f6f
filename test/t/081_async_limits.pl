# Exports in the background where worker processes are few, and where S3 is slow to
# put an object together.
use strict;
use warnings;
use lib 'test/lib';
use PostgreSQL::Test::Utils;
use S3Export;
use S3Faults;
use Test::More;
use Time::HiRes qw(sleep);

my $s3 = scripted_s3();
my $node = s3export_node('main', 'max_worker_processes = 5', 'max_logical_replication_workers = 0', 's3export.max_running_jobs = 4');
my %keys = scripted_user($s3);

create_connector($node, 'lake', at_endpoint($s3), %keys);

sub sql { return $node->safe_psql('postgres', @_); }

sub start_sql
{
	my ($statement) = @_;
	my %session = (out => '', err => '');

	$session{handle} = IPC::Run::start([ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $node->connstr('postgres'), '-c', $statement ],
		'>', \$session{out}, '2>', \$session{err});
	return \%session;
}

sub queue
{
	my ($source, $path, $more) = @_;

	return sql("SELECT job_id FROM s3export.copy_to('lake', " . sql_literal($source) . ', ' . sql_literal($path) . ', wait => false' . ($more // '') . ')');
}

sub wait_for
{
	my ($job, $what, $value) = @_;

	poll_until(sub { sql("SELECT $what FROM s3export.jobs WHERE job_id = $job") eq $value }, "job $job: $what = $value");
	return;
}

# Another session's export, which sends rows for as long as it may.
sub start_export
{
	my ($path) = @_;

	return start_sql("SELECT s3export.copy_to('lake', \$\$SELECT repeat('x', 260000), pg_sleep(0.3) FROM generate_series(1, 2000)\$\$, '$path', parallel => 0)");
}

# ---- every worker taken: a job waits, and a queue is started by who comes next
{
	my @others = map { start_export("other$_.csv") } 1 .. 5;
	my $job;

	poll_until(sub { sql(q(SELECT count(*) FROM s3export.jobs WHERE state = 'running')) == 5 }, 'five exports');
	$job = queue('VALUES (1)', 'no-slot.csv');
	is(sql("SELECT state, waiting_for FROM s3export.wait($job, '1 s') JOIN s3export.jobs USING (job_id, state)"), 'queued|', 'no worker for the dispatcher: the job stays queued');
	is(sql('SELECT bool_and(s3export.cancel(job_id)) FROM s3export.jobs WHERE state = $$running$$'), 't', 'five exports are cancelled');
	$_->{handle}->finish foreach @others;
	is(sql("SELECT state FROM s3export.wait($job)"), 'succeeded', 'wait() starts it then');
}

# ---- a worker for the job, and none for its uploader
{
	my @others = map { start_export("more$_.csv") } 1 .. 3;
	my $job;

	poll_until(sub { sql(q(SELECT count(*) FROM s3export.jobs WHERE state = 'running')) == 3 }, 'three exports');
	$job = sql(q(SELECT min(job_id) FROM generate_series(1, 2) n, s3export.copy_to('lake', 'VALUES (1)', 'one-slot' || n || '.csv', wait => false)));
	wait_for($job, q(state || coalesce(waiting_for, '')), 'queueda free background worker');
	pass('a job whose uploader finds no worker goes back to the queue, and says why');
	sleep 3;
	is(sql("SELECT state, waiting_for, started_at IS NULL FROM s3export.jobs WHERE job_id = $job + 1"), 'queued|a free background worker|t', 'so does the next');
	sql('SELECT s3export.cancel(min(job_id)) FROM s3export.jobs WHERE state = $$running$$');
	is(sql("SELECT state FROM s3export.wait($job + $_)"), 'succeeded', 'and runs when a worker is free') foreach 0, 1;
	sql('SELECT s3export.cancel(job_id) FROM s3export.jobs WHERE state = $$running$$');
	$_->{handle}->finish foreach @others;
}

# ---- twenty jobs and few workers
{
	my @jobs = split /\n/, sql(q(SELECT job_id FROM generate_series(1, 20) n, s3export.copy_to('lake', 'SELECT ' || n || ' AS n, pg_sleep(0.1)', 'many' || n || '.csv', wait => false)));

	is(scalar @jobs, 20, 'twenty jobs');
	sql("SELECT state FROM s3export.wait($_)") foreach reverse @jobs;
	is(sql("SELECT count(*) FROM s3export.jobs WHERE state = 'succeeded' AND path LIKE 'many%'"), 20, 'have all run');
	is(scalar(grep { /many\d+\.csv$/ } $s3->keys_of('exports')), 20, 'and all have their objects');
	is(sql(q(WITH j AS (SELECT row_number() OVER (ORDER BY job_id) AS id, row_number() OVER (ORDER BY started_at) AS start FROM s3export.jobs WHERE path LIKE 'many%')
			SELECT max(abs(id - start)) <= 3 FROM j)), 't', 'in their order, but for those that had to wait for a worker');
}

# ---- while S3 puts the object together, cancel comes too late, and the row says so
foreach my $case ([ 'small', 'VALUES (1)', 'PutObject' ], [ 'large', q(SELECT repeat('x', 1000) FROM generate_series(1, 20000)), 'CompleteMultipartUpload' ])
{
	my ($name, $source, $operation) = @$case;
	my $job;

	$s3->call('add_fault', do => 'stall', seconds => undef, when => 'after', match => { operation => $operation, key => "$name.csv" });
	$job = queue($source, "$name.csv");
	wait_for($job, 'state', 'completing');
	is(sql("SELECT s3export.cancel($job)"), 't', "$name: cancelled while it completes");
	sleep 1;
	is(sql("SELECT state FROM s3export.jobs WHERE job_id = $job"), 'completing', "$name: it goes on");
	$s3->call('release');
	is(sql("SELECT state FROM s3export.wait($job)"), 'succeeded', "$name: and says that it succeeded");
	is(scalar(grep { /$name\.csv$/ } $s3->keys_of('exports')), 1, "$name: as the object is there");
}

# ---- a store that does not answer yet
{
	my $job;

	$s3->call('add_fault', do => 'hold', match => { operation => 'GetObject' }, times => undef);
	$job = queue('VALUES (1)', 'held.csv');
	wait_for($job, 'uploader_pid IS NOT NULL', 't');
	is(sql("SELECT s3export.cancel($job)"), 't', 'a store that does not answer: cancel');
	wait_for($job, 'state', 'cancelled');
	pass('does not wait for the store');
	$s3->call('clear_faults');
	$s3->call('release');
}

$node->stop;
$s3->stop;
done_testing();
