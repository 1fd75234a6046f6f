# How far an export is, as others see it, as pg_stat_progress_copy and as psql's
# user do; against a server that is slow, fails or waits as told.
use strict;
use warnings;
use lib 'test/lib';
use IPC::Run;
use PostgreSQL::Test::Utils;
use S3Export;
use S3Faults;
use ScriptedS3;
use Test::More;
use Time::HiRes qw(sleep time);

my $s3 = scripted_s3();
my $node = s3export_node('main', 's3export.part_size = 5MB', 's3export.upload_memory = 15MB');

create_connector($node, 'lake', at_endpoint($s3), scripted_user($s3));
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE orders AS SELECT i AS id, repeat(md5(i::text), 32) AS note FROM generate_series(1, 20000) i;
ANALYZE orders;
CREATE ROLE clerk LOGIN;
CREATE ROLE head LOGIN;
CREATE ROLE stranger LOGIN;
GRANT clerk TO head;
GRANT SELECT ON orders TO clerk;
SELECT s3export.grant_usage('lake', 'clerk');
SQL

# The same rows, over about 8 seconds.
my $paced = q(SELECT id, note, CASE WHEN id % 250 = 0 THEN pg_sleep(0.1) END FROM orders);

# Starts a session with these statements; its messages and its output are in the hash.
sub start
{
	my ($sql, %environment) = @_;
	my %run = (out => '', err => '');

	# The tests' own name for their sessions would hide that they are psql's.
	local %ENV = %ENV;
	delete $ENV{PGAPPNAME};
	%ENV = (%ENV, %environment);
	$run{handle} = IPC::Run::start([ 'psql', '-XAtq', '-v', 'VERBOSITY=terse', '-d', $node->connstr('postgres'), map { ('-c', $_) } @$sql ],
		'<', \undef, '>', \$run{out}, '2>', \$run{err});
	return \%run;
}

sub finish
{
	my ($run) = @_;

	$run->{handle}->finish;
	chomp(my $out = $run->{out});
	return $out;
}

sub copy_to
{
	my ($source, $name) = @_;

	return "SELECT rows, bytes FROM s3export.copy_to('lake', " . sql_literal($source) . ", '$name')";
}

# What the view says of an object's export, as a hash; undef: nothing.
sub progress
{
	my ($name, $user) = @_;

	local $ENV{PGUSER} = $user if defined $user;
	my $row = $node->safe_psql('postgres', "SELECT row_to_json(p) FROM s3export.progress p WHERE uri LIKE '%/$name'");
	return $row eq '' ? undef : JSON::PP::decode_json($row);
}

# ---- from the first row to the last
{
	my (%before, @wrong, @seen, $export);

	$s3->call('add_fault', do => 'stall', when => 'before', seconds => 3, match => { operation => 'CompleteMultipartUpload', key => '.*paced.csv' });
	$export = start([ copy_to($paced, 'paced.csv') ]);
	poll_until(sub { progress('paced.csv') }, 'the export to be seen');
	while (my $now = progress('paced.csv'))
	{
		push @seen, $now;
		foreach my $counter (qw(rows bytes_made bytes_sent parts percent))
		{
			push @wrong, "$counter fell from $before{$counter} to $now->{$counter}" if ($now->{$counter} // 0) < ($before{$counter} // 0);
		}
		push @wrong, "more is sent than made: $now->{bytes_sent}" if $now->{bytes_sent} > $now->{bytes_made};
		push @wrong, "per cent: $now->{percent}" if defined $now->{percent} && ($now->{percent} < 0 || $now->{percent} > 100);
		push @wrong, "per cent: $now->{percent} of $now->{rows}"
		  if $now->{phase} eq 'reading rows' && abs($now->{percent} - $now->{rows} / 200) > 5;
		%before = %$now;
	}
	my ($rows, $bytes) = split /\|/, finish($export);
	my @reading = grep { $_->{phase} eq 'reading rows' && $_->{rows} > 0 } @seen;
	my @middle = grep { $_->{percent} > 30 && $_->{percent} < 70 } @reading;

	is_deeply(\@wrong, [], 'the numbers only grow, and fit together');
	is($rows, 20000, 'all rows are exported');
	cmp_ok(scalar @reading, '>', 5, 'its progress was seen again and again');
	ok((grep { $_->{bytes_sent} > 0 } @reading), 'with bytes sent while rows come');
	is($reading[-1]{waiting_for}, 'rows of the query', 'waiting for a slow query');
	ok((grep { $_->{seconds_left} >= 2 && $_->{seconds_left} <= 15 } @middle) == @middle && @middle > 0, 'the time left is about what it takes')
	  or diag(join ' ', map { "$_->{percent}:$_->{seconds_left}" } @middle);
	is("$before{state} $before{phase} $before{waiting_for}", 'completing completing S3', 'at its end it waits for S3 to put the object in place');
	is("$before{rows} $before{bytes_made} $before{bytes_sent} $before{percent}", "20000 $bytes $bytes 100", 'and the sums are those of the export');
	is($before{parts}, $node->safe_psql('postgres', "SELECT parts FROM s3export.job_files WHERE job_id = $before{job_id}"), 'so are the parts');
	cmp_ok($before{rate}, '>', 100000, 'with a rate');
	is($before{leader_pid} =~ /^\d+$/ && $before{uploader_pid} =~ /^\d+$/ ? 1 : 0, 1, 'and both processes');
	is(progress('paced.csv'), undef, 'an export that is over is not shown');
}

# ---- many small files, which are sent when all rows are made
{
	my $stall = $s3->call('add_fault', do => 'stall', when => 'before', seconds => 0.3, times => JSON::PP::null, match => { operation => 'PutObject', key => '.*many.csv' });
	my $export = start([ q(SELECT files FROM s3export.copy_to('lake', 'SELECT id % 40 AS v, id FROM orders', 'many.csv', partition_by => 'v')) ]);
	my (@seen, %before);

	while (!@seen || $seen[-1])
	{
		my $row = $node->safe_psql('postgres', q(SELECT row_to_json(p) FROM s3export.progress p JOIN s3export.jobs USING (job_id) WHERE path = 'many.csv'));

		push @seen, $row eq '' ? undef : JSON::PP::decode_json($row);
		last if !$export->{handle}->pumpable;
		pop @seen if !@seen || (!defined $seen[-1] && !grep { defined } @seen);
	}
	@seen = grep { defined && $_->{phase} eq 'completing' } @seen;
	is(finish($export), 40, 'many small files');
	$s3->call('clear_faults');
	my @some = grep { $_->{files} > 0 && $_->{files} < 40 } @seen;
	cmp_ok(scalar @some, '>', 1, 'they appear one after the other');
	is_deeply([ grep { ($_->{seconds_left} // 0) == 0 } @some ], [], 'nobody is told that there is no time left before they are there');
	is_deeply([ grep { $_->{bytes_sent} >= $_->{bytes_made} } @some ], [], 'nor that all is sent');
}

# ---- who sees it
{
	my $held = $s3->call('add_fault', do => 'hold', when => 'before', match => { operation => 'CompleteMultipartUpload', key => '.*seen.csv' });
	my $export = start([ copy_to('orders', 'seen.csv') ], PGUSER => 'clerk');
	my ($job, $pipe);

	poll_until(sub { my $now = progress('seen.csv'); $now && $now->{phase} eq 'completing' }, 'the end of the export');
	is(progress('seen.csv', 'stranger'), undef, 'another role does not see an export');
	ok(progress('seen.csv', 'head'), 'a member of the role does');
	is($node->safe_psql('postgres', q(SET ROLE stranger; SELECT count(*) FROM s3export.job_progress(1, 1) p WHERE p.phase IS NOT NULL)), 0, 'numbers that are made up show nothing');
	($job, $pipe) = split /\|/, $node->safe_psql('postgres', q(SELECT job_id, pipe FROM s3export.job WHERE state = 'completing'));
	is($node->safe_psql('postgres', "SELECT (s3export.job_progress($job, $pipe)).phase IS NOT NULL"), 't', 'the numbers of the job');
	is($node->safe_psql('postgres', "SELECT (s3export.job_progress($job + 1, $pipe)).phase IS NULL"), 't', 'those of another job');
	is($node->safe_psql('postgres', "SET ROLE stranger; SELECT (s3export.job_progress($job, $pipe)).phase IS NULL"), 't', 'are of no use to another role');
	is($node->safe_psql('template1', "CREATE EXTENSION s3export; SELECT (s3export.job_progress($job, $pipe)).phase IS NULL; DROP EXTENSION s3export"), 't', 'nor in another database');
	$s3->call('release', id => $held->{id});
	is((split /\|/, finish($export))[0], 20000, 'and whoever looks holds nothing up');
}

# ---- the planner's guess is wrong, or there is none
{
	my $export = start([ copy_to(q(SELECT i, repeat(md5(i::text), 300), pg_sleep(0.002) FROM (SELECT unnest(array_agg(i)) AS i FROM generate_series(1, 1500) i) s), 'guess.csv') ]);
	my @seen;

	push @seen, poll_until(sub { progress('guess.csv') }, 'the export to be seen');
	while (my $now = progress('guess.csv'))
	{
		push @seen, $now;
	}
	is((split /\|/, finish($export))[0], 1500, 'more rows than the planner expects');
	my @beyond = grep { $_->{phase} eq 'reading rows' && $_->{rows} > 10 } @seen;
	ok(@beyond > 0 && !(grep { defined $_->{percent} || defined $_->{seconds_left} } @beyond), 'per cent and time left are left out then');
}

# ---- S3 fails for a while
{
	my ($export, $retrying);

	$s3->call('add_fault', do => 'slow_down', match => { operation => 'UploadPart', key => '.*throttled.csv' }, times => 8);
	$export = start([ copy_to('orders', 'throttled.csv') ]);
	$retrying = poll_until(sub { my $now = progress('throttled.csv'); $now && $now->{phase} eq 'retrying' && $now }, 'a pause');
	like($retrying->{waiting_for}, qr/^S3, to be asked again in \d+ s$/, 'a pause before the next attempt');
	cmp_ok($retrying->{retries}, '>', 0, 'with the number of them');
	is((split /\|/, finish($export))[0], 20000, 'and it ends well');
}

# ---- the ends of exports
{
	my $export = start([ copy_to("$paced, generate_series(1, 1000)", 'terminated.csv') ]);
	my $pid = poll_until(sub { my $now = progress('terminated.csv'); $now && $now->{rows} > 0 && $now->{leader_pid} }, 'rows');

	$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
	finish($export);
	poll_until(sub { !progress('terminated.csv') }, 'the end of the export');
	is(progress('terminated.csv'), undef, 'an export whose session is terminated is not shown');

	$export = start([ copy_to("$paced, generate_series(1, 1000)", 'crashed.csv') ]);
	poll_until(sub { my $now = progress('crashed.csv'); $now && $now->{rows} > 0 }, 'rows');
	$node->stop('immediate');
	finish($export);
	$node->start;
	is($node->safe_psql('postgres', q(SELECT state, pipe IS NOT NULL FROM s3export.job WHERE path = 'crashed.csv')), 'running|t', 'a crash leaves the row');
	is(progress('crashed.csv'), undef, 'whose segment is gone, so that it is not shown');
}

# ---- pg_stat_progress_copy
{
	my $held = $s3->call('add_fault', do => 'hold', when => 'before', match => { operation => 'CompleteMultipartUpload', key => '.*held.csv' });
	my $export = start([ copy_to('orders', 'held.csv') ]);
	my $columns = q(command, type, relid::regclass, bytes_processed > 1024 * tuples_processed, tuples_processed > 0);

	is(poll_until(sub { $node->safe_psql('postgres', "SELECT $columns FROM pg_stat_progress_copy WHERE tuples_processed = 20000") }, 'the row in pg_stat_progress_copy'),
		'COPY TO|CALLBACK|orders|t|t', 'the leader is in pg_stat_progress_copy');
	$s3->call('release', id => $held->{id});
	finish($export);

	$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION entry() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_stat_clear_snapshot();
	RETURN (SELECT type || ' ' || (tuples_processed > 100) FROM pg_stat_progress_copy WHERE pid = pg_backend_pid());
END$$;
CREATE FUNCTION copies() RETURNS text LANGUAGE plpgsql AS $$ BEGIN COPY (SELECT 1) TO '/dev/null'; RETURN 'copied'; END$$;
CREATE FUNCTION fails() RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN RETURN 'failed'; END$$;
CREATE FUNCTION exports() RETURNS text LANGUAGE plpgsql AS
	$$ BEGIN PERFORM s3export.copy_to('lake', 'VALUES (1)', 'inner.csv', if_exists => 'overwrite'); RETURN 'exported'; END$$;
SQL
	foreach my $function (qw(copies fails exports))
	{
		my $last = (split /\n/, do {
				$node->safe_psql('postgres', copy_to("SELECT CASE id WHEN 1 THEN $function() WHEN 2000 THEN entry() ELSE note END FROM orders WHERE id <= 2000 ORDER BY id", "$function.csv"));
				$s3->object('exports', ($s3->keys_of('exports'))[0] =~ s{/[^/]*$}{/$function.csv}r) })[-1];

		is($last, 'CALLBACK true', "it is there after a function that $function");
	}
	is($node->safe_psql('postgres', 'BEGIN; ' . copy_to('orders', 'after.csv') . '; SELECT entry() IS NULL; COMMIT') =~ /^t$/m ? 1 : 0, 1, 'and not after the export');
	is($node->safe_psql('postgres', q(COPY (SELECT (s3export.copy_to('lake', 'orders', 'within.csv')).rows, entry()) TO STDOUT)), "20000\tPIPE false",
		'an export within COPY leaves the entry to COPY');
	$node->psql('postgres', q(\set ON_ERROR_STOP off
SELECT s3export.copy_to('lake', 'SELECT 1 / (2000 - id), note FROM orders', 'divided.csv');
SELECT entry() IS NULL), stdout => \my $after, on_error_stop => 0);
	like($after, qr/^t$/m, 'nor is it there after an error');
}

# ---- notices, every ten seconds
{
	my $slow = q(SELECT id, note, CASE WHEN id % 250 = 0 THEN pg_sleep(0.6) END FROM orders WHERE id <= 5000);
	my (%run, %notices);

	# All parts, or the one request, wait for longer than it takes to the first notice.
	$s3->call('add_fault', do => 'stall', when => 'before', seconds => 12, times => 2, match => { operation => 'UploadPart', key => '.*blocked.csv' });
	$s3->call('add_fault', do => 'stall', when => 'before', seconds => 12, match => { operation => 'PutObject', key => '.*small.csv' });
	$run{psql} = start([ copy_to($slow, 'psql.csv') ]);
	$run{blocked} = start([ copy_to('SELECT * FROM orders, generate_series(1, 3)', 'blocked.csv') ]);
	$run{small} = start([ copy_to('VALUES (1)', 'small.csv') ]);
	$run{off} = start([ q(SET s3export.progress_notice = off), copy_to($slow, 'off.csv') ]);
	$run{cron} = start([ copy_to($slow, 'cron.csv') ], PGAPPNAME => 'pg_cron');
	$run{on} = start([ q(SET s3export.progress_notice = on), copy_to($slow, 'on.csv') ], PGAPPNAME => 'pg_cron');

	sleep 2;
	is($node->safe_psql('postgres', q(SELECT string_agg(DISTINCT wait_event_type || ' ' || (wait_event IN ('Extension', 'S3exportSend', 'S3exportReply')), ',')
		FROM pg_stat_activity a JOIN s3export.jobs j ON a.pid = j.leader_pid WHERE path IN ('blocked.csv', 'small.csv'))), 'Extension true', 'leaders wait by name');
	is($node->safe_psql('postgres', q(SELECT string_agg(DISTINCT wait_event_type || ' ' || (wait_event IN ('Extension', 'S3exportStore', 'S3exportRows')), ',')
		FROM pg_stat_activity a JOIN s3export.progress p ON a.pid = p.uploader_pid)), 'Extension true', 'so do uploaders');
	is($node->safe_psql('postgres', q(SELECT waiting_for FROM s3export.progress WHERE uri LIKE '%blocked.csv')), 'S3', 'one of which waits for S3');
	foreach my $name (sort keys %run)
	{
		finish($run{$name});
		$notices{$name} = [ grep { /export: / } split /\n/, $run{$name}{err} ];
	}
	is(join(' ', grep { @{ $notices{$_} } } sort keys %notices), 'blocked on psql small', 'psql is told, unless that is off, and others are only if that is on')
	  or diag(explain(\%notices));
	foreach my $name (qw(blocked on psql small))
	{
		my $most = $node->safe_psql('postgres', "SELECT (extract(epoch FROM duration) + 1)::int / 10 FROM s3export.jobs WHERE path = '$name.csv'");

		cmp_ok(scalar @{ $notices{$name} }, '<=', $most, "$name: every ten seconds");
	}
	like($notices{psql}[0], qr/^NOTICE:  export: \d+ rows, \d+ kB made, \d+ (bytes|kB) sent(, \d+ (bytes|kB)\/s)?, \d+\.\d % of the rows, about \d+ s left; waiting for rows of the query$/, 'of a slow query');
	like($notices{blocked}[0], qr/ sent.*; waiting for S3$/, 'of a slow server, while the queue is full');
	like($notices{small}[0], qr/^NOTICE:  export: 1 rows, \d+ bytes made, 0 bytes sent, 100\.0 % of the rows; waiting for S3$/, 'and while the end is awaited');
}

keep_secrets($s3);
$node->stop;
done_testing();
