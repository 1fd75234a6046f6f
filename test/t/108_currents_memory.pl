# The memory of the worker that delivers does not grow with the number of transactions, of
# tables that come and go, or of batches: late it is what it was early.
#
# Transactions that alter, make and drop tables are where memory would leak: after each of
# them the worker looks up again what it knows of relations.  S3EXPORT_TEST_TRANSACTIONS=number
# has other numbers of them.
use strict;
use warnings;
use lib 'test/lib';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use S3Currents;
use S3Export;
use S3Faults;
use ScriptedS3;
use Test::More;

my $s3 = scripted_s3();
my %keys = scripted_user($s3);
my $transactions = $ENV{S3EXPORT_TEST_TRANSACTIONS} // 20_000;
my $node = with_clock(sub { currents_node('main', 'log_min_messages = debug1', 'max_wal_size = 4GB', 'checkpoint_timeout = 1h', 'max_slot_wal_keep_size = 10GB') });
my %folder;

$s3->call('configure', max_skew => 1e9);

sub sql { return $node->safe_psql('postgres', @_); }

sub flow
{
	my ($name, %more) = @_;

	$folder{$name} = unique_folder();
	create_connector($node, $name, at_endpoint($s3), %keys, folder_path => $folder{$name}, kind => 'currents', validate => \'false', %more);
	launch($node, $name);
	return;
}

# One whose files are refused; the batch that was not sent has what has been done so far.
sub suspended_flow
{
	my ($name, $change, %more) = @_;

	flow($name, drop_after => '1 hour', %more);
	$change->(1);
	$s3->call('add_fault', do => 'error', code => 'AccessDenied', match => { key => $folder{$name}, operation => [ 'PutObject', 'CompleteMultipartUpload' ] }, times => undef);
	$node->psql('postgres', "SELECT * FROM s3export.deliver('$name')");
	is(current_of($node, $name, 'state, events_dropped'), 'suspended|0', "$name: S3 refuses its files");
	is(sql("SELECT b.events FROM s3export.current_batch b JOIN s3export.currents USING (connector_id) WHERE name = '$name'"), 1, "$name: with one event");
	return;
}

sub events_of { return scalar events(files_in_scripted($s3, $folder{ $_[0] })); }

# ---- the worker's own account of its memory
# Has it say so once so many transactions have been decoded for a slot, each time, and tells how many they were,
# and what the kernel has for the worker (kB).  It looks more often than psql could.
sql(<<'SQL');
CREATE FUNCTION ask_at(slot text, numbers bigint[], OUT decoded bigint, OUT resident text) RETURNS SETOF record LANGUAGE plpgsql SET stats_fetch_consistency = 'none' AS $$
DECLARE
	worker int;
	begun bool := false;
	patience timestamptz := clock_timestamp() + '60 s';
BEGIN
	FOR i IN 1 .. cardinality(numbers) LOOP
		LOOP
			SELECT total_txns INTO decoded FROM pg_stat_replication_slots WHERE slot_name = slot;
			SELECT active_pid INTO worker FROM pg_replication_slots WHERE slot_name = slot;
			EXIT WHEN worker IS NOT NULL AND decoded >= numbers[i];
			IF begun AND worker IS NULL OR clock_timestamp() > patience THEN
				RETURN;
			END IF;
			begun := worker IS NOT NULL;
			PERFORM pg_sleep(0.001);
		END LOOP;
		PERFORM pg_log_backend_memory_contexts(worker);
		resident := substring(pg_read_file('/proc/' || worker || '/status') FROM 'RssAnon:\s+(\d+)');
		RETURN NEXT;
	END LOOP;
END
$$;
SQL

# What the worker has said in the log since an offset: [kB of all contexts, kB of contexts by name] each time.
sub accounts
{
	my ($offset) = @_;
	my (@accounts, %now);

	foreach my $line (split /\n/, slurp_file($node->logfile, $offset))
	{
		if ($line =~ /LOG:  level: \d+; ([^:]+): (\d+) total in/)
		{
			$now{$1} += $2 / 1024;
		}
		elsif ($line =~ /LOG:  Grand total: (\d+) bytes/)
		{
			push @accounts, [ $1 / 1024, {%now} ];
			%now = ();
		}
	}
	return @accounts;
}

# Of a statement that decodes so many transactions for a connector: its memory does not grow after the first part,
# but for so many kB, or what caches may have or not.
sub is_flat
{
	my ($name, $count, $statement, $what, $allowed) = @_;
	my $offset = -s $node->logfile;
	my $slot = current_of($node, $name, 'slot_name');
	my $before = sql("SELECT coalesce(max(total_txns), 0) FROM pg_stat_replication_slots WHERE slot_name = '$slot'");
	my @numbers = map { int($before + $count * $_) } 0.2, 0.4, 0.6, 0.8;
	my $asking = start_psql($node, "SELECT * FROM ask_at('$slot', '{" . join(',', @numbers) . "}')");

	poll_until(sub { sql(q{SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT * FROM ask_at(%' AND state = 'active'}) eq '1' }, 'the session that asks');
	my (undef, undef, $err) = $node->psql('postgres', $statement);
	my (undef, $asked) = finish_psql($asking);
	my @accounts = accounts($offset);
	my @asked = map { [ split /\|/ ] } split /\n/, $asked;

	foreach my $i (0 .. $#accounts)
	{
		my ($all, $contexts) = @{ $accounts[$i] };

		note(sprintf '%s: after %d of %d transactions %.0f kB, %d kB of them resident: %s', $what, $asked[$i][0] - $before, $count, $all, $asked[$i][1],
			join ', ', map { sprintf '%s %.0f', $_, $contexts->{$_} } grep { /^s3export/ || $contexts->{$_} > 500 } sort keys %$contexts);
	}
	ok(@accounts >= 2 && $asked[$#accounts][0] - $before >= $count / 2, "$what: the worker has said what it has, early and late") or return $err;
	cmp_ok($accounts[-1][0] - $accounts[0][0], '<', $allowed // 500, "$what: and it does not grow");
	return $err;
}

# ---- transactions that alter another table, or make and drop a temporary one
sql('CREATE TABLE noise (id int)');
sql('CREATE TABLE wide (id int PRIMARY KEY, ' . join(', ', map { "column_$_ varchar(100)" } 1 .. 30) . ')');
sql('CREATE PUBLICATION filtered FOR TABLE wide (id, column_1, column_2, column_3) WHERE (id > 0)');
sub ddl
{
	my ($number) = @_;

	return sql(<<"SQL");
DO \$\$
DECLARE
	first int := (SELECT coalesce(max(id), 0) FROM wide);
BEGIN
	FOR i IN 1 .. $number LOOP
		IF i % 5 = 0 THEN
			CREATE TEMPORARY TABLE short (id int);
			DROP TABLE short;
		ELSE
			EXECUTE format('ALTER TABLE noise SET (fillfactor = %s)', 50 + i % 40);
		END IF;
		INSERT INTO wide (id) VALUES (first + i);
		COMMIT;
	END LOOP;
END
\$\$;
SQL
}

flow('send', tables => '{wide}');
flow('slow', tables => '{wide}');
suspended_flow('count', \&ddl, publication => 'filtered');
ddl($transactions);
is(is_flat('send', $transactions, q(SELECT * FROM s3export.deliver('send')), 'a delivery'), '', 'a delivery');
is(events_of('send'), $transactions + 1, 'a delivery: all events are sent');

# ---- one that takes long is sent in batches, however small they are: it may be cut short
{
	my $delivery = start_psql($node, q(SELECT events FROM s3export.deliver('slow')));

	sql("SELECT ask_at('" . current_of($node, 'slow', 'slot_name') . "', '{" . int($transactions / 10) . "}')");
	set_clock_forward(11);
	is((finish_psql($delivery))[1], $transactions + 1, 'a delivery that takes more than 10 s') or diag($delivery->{err});
	is(sql(q(SELECT count(*) FROM s3export.jobs WHERE connector = 'slow')), 2, 'a delivery that takes more than 10 s: another batch');
	sql(q(SELECT s3export.drop_connector('slow')));
}

# ---- events that are counted as they are dropped: all but the first batch
sub is_flat_dropping
{
	my ($name, $count, $what, $allowed) = @_;

	set_clock_forward(7200);
	sql("SELECT s3export.resume('$name')");
	like(is_flat($name, $count, "SELECT * FROM s3export.deliver('$name')", $what, $allowed), qr/WARNING: .*dropped for good/, "$what: a warning");
	is(current_of($node, $name, 'state, events_dropped'), 'suspended|' . ($count + 1), "$what: they are counted");
	sql("SELECT s3export.drop_connector('$name')");
	return;
}

is_flat_dropping('count', $transactions, 'dropped events');

# ---- tables that are made, filled and dropped, in a publication of all
sub tables
{
	my ($number) = @_;

	return sql(<<"SQL");
DO \$\$
BEGIN
	FOR i IN 1 .. $number LOOP
		EXECUTE format('CREATE TABLE stage_%s (id int)', i);
		EXECUTE format('INSERT INTO stage_%s VALUES (1)', i);
		EXECUTE format('DROP TABLE stage_%s', i);
		COMMIT;
	END LOOP;
END
\$\$;
SQL
}

sql(q(SELECT s3export.drop_connector('send'); CREATE PUBLICATION everything FOR ALL TABLES; CREATE PUBLICATION deletes FOR ALL TABLES WITH (publish = 'delete')));
flow('nothing', publication => 'deletes');
suspended_flow('stages', \&tables, publication => 'everything');
my $tables = int($transactions / 10);
tables($tables);
is(is_flat('nothing', $tables, q(SELECT * FROM s3export.deliver('nothing')), 'tables whose inserts are not published', 6000), '', 'tables whose inserts are not published: a delivery');
is(events_of('nothing'), 0, 'tables whose inserts are not published: no event');
# It forgets them after some MB of WAL.
is_flat_dropping('stages', $tables, 'dropped events of tables that are gone', 6000);

# ---- batches: of so many files each, so that the next transaction begins another
my ($batches, $files) = (24, 500);
sql('CREATE TABLE small (id int PRIMARY KEY)');
flow('batches', tables => '{small}', max_events_per_file => \1);
sql("DO \$\$BEGIN FOR i IN 1 .. $batches LOOP INSERT INTO small SELECT i * 1000 + j FROM generate_series(1, $files) j; COMMIT; END LOOP; END\$\$");
{
	my @numbers = (4, $batches);
	my @faults = map { $s3->call('add_fault', do => 'hold', match => { key => "$folder{batches}.*[.]csv\$", operation => [ 'PutObject', 'CompleteMultipartUpload' ] }, skip => $files * $_ - 1)->{id} } @numbers;
	my $delivery = start_psql($node, q(SELECT events, files FROM s3export.deliver('batches')));
	my @accounts;

	foreach my $i (0, 1)
	{
		poll_until(sub { grep { $_->{id} == $faults[$i] && $_->{used} } @{ $s3->call('list_faults')->{faults} } }, "batch $numbers[$i]");
		my $offset = -s $node->logfile;
		my @now;

		sql('SELECT pg_log_backend_memory_contexts(' . worker_pid($node) . ')');
		poll_until(sub { @now = accounts($offset) }, 'the account');
		push @accounts, @now;
		$s3->call('release', id => $faults[$i]);
	}
	is((finish_psql($delivery))[1], $batches * $files . '|' . $batches * $files, 'batches: all events are sent') or diag($delivery->{err});
	is(sql(q(SELECT count(*) FROM s3export.jobs WHERE connector = 'batches')), $batches, 'batches: as many as there should be');
	foreach my $i (0, 1)
	{
		note(sprintf 'batches: in batch %d %.0f kB: %s', $numbers[$i], $accounts[$i][0], join ', ', map { sprintf '%s %.0f', $_, $accounts[$i][1]{$_} } grep { /^s3export/ || $accounts[$i][1]{$_} > 500 } sort keys %{ $accounts[$i][1] });
	}
	cmp_ok($accounts[1][0] - $accounts[0][0], '<', 40, 'batches: the memory does not grow with them');
}
done_testing();
