# Whatever the database or the role sets, background workers do and say the same: each
# family of settings, for the one and for the other, around exports here and in the
# background, a launch and a delivery.  The bytes are compared with those without.
use strict;
use warnings;
use lib 'test/lib';
use PostgreSQL::Test::Utils;
use S3Currents qw(:DEFAULT);
use S3Export;
use S3Faults;
use Test::More;

my $s3 = scripted_s3();
my $node = currents_node('main', 'autovacuum = off', 'log_min_messages = debug1', q(s3export.part_size = '5MB'), "s3export.allowed_endpoints = '" . $s3->url . "'");
my %keys = scripted_user($s3);
my $number = 0;
my $accent = "\xc3\xa9";

# The clients' own.
$ENV{PGCLIENTENCODING} = 'UTF8';

# The superuser's own statements, which no setting disturbs.
sub sql
{
	local $ENV{PGOPTIONS} = join ' ', map { "-c $_" } 'session_preload_libraries=', 'role=none', 'search_path=public', 'default_transaction_read_only=off',
	  'default_transaction_deferrable=off', 'session_replication_role=origin', 'datestyle=iso';

	return $node->safe_psql('postgres', @_);
}

sql(q(CREATE ROLE exporter LOGIN REPLICATION; CREATE ROLE stranger; GRANT stranger TO exporter; GRANT CREATE ON DATABASE postgres TO exporter;
	GRANT CREATE ON SCHEMA public TO exporter; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA s3export TO exporter; SET ROLE exporter;
	CREATE TABLE public.items (id int PRIMARY KEY, at timestamptz, span interval, note text, bytes bytea, ratio float8, money numeric, what regclass);
	INSERT INTO public.items SELECT i, '2026-03-04 05:06:07.89+00'::timestamptz + i * interval '1 day', i * interval '25 hours', 'a ' || i || chr(233), decode(md5(i::text), 'hex'),
		i / 7.0, i * 1.5, 'pg_class' FROM generate_series(1, 500) i));
{
	local $ENV{PGUSER} = 'exporter';
	create_connector($node, 'lake', at_endpoint($s3), folder_path => 'lake', %keys);
}

# What the exporter's sessions say: (rows, messages).
sub said
{
	my (@statements) = @_;
	my ($out, $err) = ('', '');
	my $late = 0;

	$node->psql('postgres', join(";\n", "SET client_min_messages = 'warning'", @statements), stdout => \$out, stderr => \$err, extra_params => [ '-U', 'exporter' ],
		on_error_stop => 0, timeout => 60, timed_out => \$late);

	$err =~ s/^(?:psql:<stdin>:\d+: )?//mg;
	$err =~ s/^DEBUG: .*\n?//mg;
	return $late ? ('', "no end after a minute\n") : ($out, $err);
}

sub copy_to
{
	my ($query, $path, $more) = @_;

	return "s3export.copy_to('lake', " . sql_literal($query) . ", '$path'" . ($more // '') . ')';
}

# The events of a current as text, without what differs from one to the next.
sub events_as_text
{
	my ($folder) = @_;

	return join "\n", sort map { my $event = $_; join '|', map { "$_=" . ($event->{values}{$_} // '') } grep { $_ !~ /^_(?!op)/ } sort keys %{ $event->{values} } }
	  events(files_in_scripted($s3, $folder));
}

# All that is compared, done with the exporter's sessions as @before makes them.
sub work
{
	my ($what, @before) = @_;
	my $n = ++$number;
	my %done;

	my $whole = copy_to('SELECT * FROM public.items ORDER BY id', "here-$n.csv");
	my $large = copy_to(q(SELECT i, pg_catalog.repeat('0123456789', 100) FROM pg_catalog.generate_series(1, 8000) i), "large-$n.csv");
	my ($out, $err) = said(@before, "SELECT rows FROM $whole", "SELECT rows FROM $large");
	$done{'an export'} = $s3->object('exports', "lake/here-$n.csv");
	$done{'its rows, and those of a large one'} = $out;
	$done{'the messages of both'} = $err;

	($out, $err) = said(@before, 'SELECT job_id FROM ' . copy_to('SELECT * FROM public.items ORDER BY id', "background-$n.csv", ', wait => false'));
	my ($job) = $out =~ /^(\d+)$/m;
	($out, $err) = said(@before, "SELECT state FROM s3export.wait($job, '1 min')") if defined $job;
	$done{'an export in the background'} = $s3->object('exports', "lake/background-$n.csv");
	$done{'its end'} = "$out$err";

	# Its text has a character that LATIN1 has, with another byte.
	my $again = copy_to('VALUES (1)', "$accent.csv", q(, if_exists => 'error'));
	said(@before, "SELECT * FROM $again");
	($out, $err) = said(@before, "SELECT * FROM $again");
	($done{'an error of the uploader'}) = $err =~ /ERROR: +(.*)/;
	($out) = said(@before, 'SELECT job_id FROM ' . copy_to('SELECT note::pg_catalog.int4 FROM public.items WHERE id = 1', "failed-$n.csv", ', wait => false'));
	$done{'a job that fails'} = $out =~ /^(\d+)$/m ? (said(@before, "SELECT * FROM s3export.wait($1, '1 min')"))[1] =~ s{job \d+ to "s3:\S+"}{job to a file}r : "no job\n";

	my $name = "flow_$n";
	{
		local $ENV{PGUSER} = 'exporter';
		$node->safe_psql('postgres', join(';', @before, 'SELECT ' . connector_sql($name, at_endpoint($s3), folder_path => $name, %keys, kind => 'currents', tables => '{public.items}', validate => \'false')));
	}
	($out, $err) = said(@before, "SELECT s3export.launch('$name', copy_existing => true) IS NOT NULL", q(UPDATE public.items SET note = note || chr(233), at = at + interval '1 hour' WHERE id % 100 = 0),
		"SELECT state, events FROM s3export.deliver('$name')", "SELECT s3export.drop_connector('$name')");
	$done{'a launch and a delivery'} = "$out$err" =~ s/flow_\d+/flow/gr;
	$done{'its events'} = events_as_text($name);
	sql(q(UPDATE public.items SET note = rtrim(note, chr(233)) || chr(233), at = at - interval '1 hour' WHERE id % 100 = 0));
	return \%done;
}

my @known = split /\n/, sql('SELECT name FROM pg_settings');

# A setting that this server has: (name => value).
sub there
{
	my (%settings) = @_;

	return map { my $name = $_; (grep { $_ eq $name } @known) ? ($name => $settings{$name}) : () } sort keys %settings;
}

sub same
{
	my ($what, $done, $expected) = @_;

	foreach my $part (sort keys %$expected)
	{
		my @got = split /\n/, $done->{$part} // 'nothing';
		my @want = split /\n/, $expected->{$part} // 'nothing';
		my ($first) = grep { ($got[$_] // '') ne ($want[$_] // '') } 0 .. $#got, 0 .. $#want;

		ok(!defined $first, "$what: $part") or diag('got ' . ($got[$first] // 'nothing') . ', not ' . ($want[$first] // 'nothing'));
	}
	return;
}

# Families, with statements that the sessions begin with.
my @families = (
	(map { [ "messages from $_ on", { client_min_messages => $_ } ] } qw(debug5 debug1 notice error)),
	(map { [ "client_encoding $_", { client_encoding => $_ } ] } qw(LATIN1 SQL_ASCII)),
	[ 'timeouts', { there(statement_timeout => "'20s'", lock_timeout => "'5s'", idle_in_transaction_session_timeout => "'100ms'", idle_session_timeout => "'100ms'",
				transaction_timeout => "'20s'") } ],
	[ 'transactions', { default_transaction_read_only => 'on', default_transaction_isolation => 'serializable', default_transaction_deferrable => 'on' },
		'SET default_transaction_read_only = off; SET default_transaction_deferrable = off' ],
	[ 'names', { search_path => 'nowhere', row_security => 'off', timezone_abbreviations => "'India'" } ],
	[ 'the role', { role => 'stranger' }, 'SET ROLE NONE' ],
	[ 'replication', { session_replication_role => 'replica', wal_compression => 'on' } ],
	[ 'literals', { standard_conforming_strings => 'off', escape_string_warning => 'off', array_nulls => 'off', transform_null_equals => 'on', backslash_quote => 'on' } ],
	[ 'the log', { log_min_messages => 'debug5', log_min_error_statement => 'panic', log_duration => 'on', log_error_verbosity => 'verbose',
			log_executor_stats => 'on', log_temp_files => '0' } ],
	[ 'resources', { work_mem => "'64kB'", hash_mem_multiplier => '1', jit => 'on', jit_above_cost => '0', jit_optimize_above_cost => '0', maintenance_work_mem => "'1MB'",
			there(logical_decoding_work_mem => "'64kB'", force_parallel_mode => 'on', debug_parallel_query => 'on'), parallel_setup_cost => '0', parallel_tuple_cost => '0',
			min_parallel_table_scan_size => '0' } ],
	[ 'libraries', { session_preload_libraries => "'auto_explain'" } ],
);

# How values are written decides what exports have, where COPY has it too; not what currents have.
my @styles = ([ 'styles', { DateStyle => "'SQL, DMY'", IntervalStyle => 'iso_8601', TimeZone => "'Asia/Kathmandu'", bytea_output => 'escape', extra_float_digits => '0', quote_all_identifiers => 'on',
			lc_numeric => "'C'", lc_monetary => "'C'", xmlbinary => 'hex' } ]);

my $expected = work('nothing set');
like($expected->{'its events'}, qr/^.*2026-03-05.*$/m, 'there are events');
like($expected->{'an error of the uploader'}, qr/\Q$accent\E\.csv" already exists/, 'an error with a character that is not ASCII');
like($expected->{'a job that fails'}, qr/\Qinvalid input syntax for type integer: "a 1$accent"\E/, 'of a job, too');

foreach my $family (@families, @styles)
{
	my ($what, $settings, @before) = @$family;
	my %expected = %$expected;

	foreach my $scope ('DATABASE postgres', 'ROLE exporter')
	{
		my $kind = lc((split / /, $scope)[0]);

		sql(join(';', map { "ALTER $scope SET $_ = $settings->{$_}" } sort keys %$settings));
		if ($what eq 'styles')
		{
			local $ENV{PGUSER} = 'exporter';
			$expected{$_} = copy_oracle_here() foreach 'an export', 'an export in the background';
		}
		my $done = work($what, @before);
		sql("ALTER $scope RESET ALL");
		same("$what, of the $kind", $done, \%expected);
	}
}

sub copy_oracle_here
{
	my ($out) = $node->safe_psql('postgres', q(COPY (SELECT * FROM public.items ORDER BY id) TO STDOUT (FORMAT csv, HEADER)));

	return "$out\n";
}

# ---- what the uploader says while rows are sent is heard
{
	sql(q(CREATE FUNCTION public.flood() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN FOR i IN 1 .. 1000 LOOP RAISE NOTICE '% %', i, repeat('flood ', 100); END LOOP; RETURN NEW; END$$;
		CREATE TRIGGER flood AFTER INSERT OR UPDATE ON s3export.job_file FOR EACH ROW EXECUTE FUNCTION public.flood();
		CREATE TRIGGER flood AFTER UPDATE ON s3export.job FOR EACH ROW EXECUTE FUNCTION public.flood()));
	my ($out, $err) = said('SELECT rows FROM ' . copy_to(q(SELECT i, repeat('0123456789', 100) FROM generate_series(1, 20000) i), 'flood.csv', ', parallel => 0'));
	like($out, qr/^20000$/m, 'an uploader that says more than its queue holds') or diag(substr($err, -500));
	sql('DROP TRIGGER flood ON s3export.job; DROP TRIGGER flood ON s3export.job_file');
}

ok(slurp_file($node->logfile) !~ /was terminated by signal/, 'nothing has crashed');
$node->stop;
$s3->stop;
done_testing();
