# S3Currents.pm: what the tests of currents share.
#
#	use lib 'test/lib';
#	use S3Export;
#	use S3Currents;
#
#	my $node = currents_node('main');
#	create_connector($node, 'flow', kind => 'currents', tables => '{events}', folder_path => $folder);
#	my $row = deliver($node, 'flow');		# $row->{events}
#	my @events = events(files_in_bucket($folder));
#	is($events[0]{values}{id}, 1);
package S3Currents;

use strict;
use warnings;

use Cwd qw(abs_path);
use Digest::MD5 qw(md5);
use Exporter 'import';
use File::Basename qw(basename dirname);
use IO::Uncompress::Gunzip ();
use IPC::Run;
use JSON::PP ();
use PostgreSQL::Test::Utils;
use S3Export;
use Test::More;

our @EXPORT = qw(
  currents_node currents_settings launch deliver deliver_all deliver_and_listen start_psql finish_psql current_of
  objects_in_bucket objects_in_scripted files_in_bucket files_in_scripted batches schemas
  parse_csv parse_file all_events events wrong_files wrong_events wrong_batches follows replay
  worker_pid with_clock clock_library set_clock_factor set_clock_forward clock_forward
);

# For tests with one server and the scripted S3, which call share_scripted() first.
our %EXPORT_TAGS = (
	scripted => [ qw(
		  %folder share_scripted sql flow files objects gaps short in_full versions fine said deliver_loudly events_of refusing open_transaction
		) ]);
our @EXPORT_OK = @{ $EXPORT_TAGS{scripted} };

my $id_pattern = qr/[0-9A-F]{8}-[0-9A-F]{16}-[0-9A-F]{10}/;

# ------------------------------------------------------------------- the server

# What a server needs for currents.
sub currents_settings
{
	my ($known) = PostgreSQL::Test::Utils::run_command([ 'postgres', '--describe-config' ]);

	return ('wal_level = logical',
		$known =~ /^output_plugin_libraries\t/m ? q(output_plugin_libraries = 'pgoutput, test_decoding, s3export') : ());
}

sub currents_node
{
	my ($name, @settings) = @_;

	return s3export_node($name, 'max_wal_senders = 10', 'max_replication_slots = 20', currents_settings(), @settings);
}

sub launch
{
	my ($node, $name, %options) = @_;
	my $copy = exists $options{copy_existing} ? ', copy_existing => ' . ($options{copy_existing} ? 'true' : 'false') : '';

	return $node->safe_psql($options{dbname} // 'postgres', 'SELECT s3export.launch(' . sql_literal($name) . "$copy)");
}

# What one delivery says, as a hash; undef when it has no row.
sub deliver
{
	my ($node, $name, %options) = @_;

	return (deliver_all($node, %options, name => $name))[0];
}

sub deliver_all
{
	my ($node, %options) = @_;
	my $arguments = defined $options{name} ? sql_literal($options{name}) : '"raise" => false';
	my $json = $node->safe_psql($options{dbname} // 'postgres', "SELECT coalesce(json_agg(d), '[]') FROM s3export.deliver($arguments) d");

	return @{ JSON::PP->new->decode($json) };
}

# What deliver("raise" => false), or one delivery by its name, says: its rows, and its messages with their SQLSTATEs.
sub deliver_and_listen
{
	my ($node, %options) = @_;
	my $name = defined $options{name} ? sql_literal($options{name}) . ', ' : '';
	my ($status, $out, $err) = $node->psql($options{dbname} // 'postgres',
		qq(\\set VERBOSITY verbose\nSELECT coalesce(json_agg(d), '[]') FROM s3export.deliver($name"raise" => false) d));

	die "deliver() failed: $err" if $status != 0;
	return (JSON::PP->new->decode($out), $err);
}

# Columns of a connector's line of s3export.currents, as psql shows them.
sub current_of
{
	my ($node, $name, $columns, %options) = @_;

	return $node->safe_psql($options{dbname} // 'postgres', "SELECT $columns FROM s3export.currents WHERE name = " . sql_literal($name));
}

# psql in the background, one transaction for each statement; finish_psql returns its exit status, output and
# messages, which are in the hash as well.
sub start_psql
{
	my ($node, @statements) = @_;
	my %session = (out => '', err => '');

	$session{handle} = IPC::Run::start([ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'),
			map { ('-c', $_) } @statements ], '<', \undef, '>', \$session{out}, '2>', \$session{err});
	return \%session;
}

sub finish_psql
{
	my ($session) = @_;

	$session->{handle}->finish;
	chomp $session->{out};
	return ($session->{handle}->result(0), $session->{out}, $session->{err});
}

# The process that decodes, or that uploads for it, once there is one.  It may live for a moment only, so the
# server is not asked: a connection takes longer.  With the session that it works for, an end of that is an error.
sub worker_pid
{
	my ($node, $type, $session) = @_;
	my ($postmaster) = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
	my $title = 'postgres: ' . $node->name . ': ' . ($type // 's3export current');

	return poll_until(sub {
		foreach my $directory (glob '/proc/[0-9]*')
		{
			my $command = eval { slurp_file("$directory/cmdline") } // '';

			next if substr($command, 0, length $title) ne $title;
			return basename($directory) if (eval { slurp_file("$directory/status") } // '') =~ /^PPid:\s+$postmaster$/m;
		}
		return if !$session;
		eval { $session->{handle}->pump_nb };
		die "no worker was seen before the session ended: $session->{out} $session->{err}" if !$session->{handle}->pumpable;
		return;
	}, 'a worker');
}

# ------------------------------------------------------------- the time of day

#	my $node = with_clock(sub { currents_node('main') });
#	$s3->call('configure', max_skew => 1e9);	# as the scripted server keeps the real time
#	set_clock_forward(3600);
#
# All servers of a test that are started within with_clock() have one clock.  It never
# goes back as long as each of their starts is within it.
my $lib = dirname(abs_path(__FILE__));
my ($clock_library, $clock_file);
my %clock = (forward => 0, base => int(time), factor => 1);

# The library of clock.c, for LD_PRELOAD.
sub clock_library
{
	if (!defined $clock_library)
	{
		my $file = PostgreSQL::Test::Utils::tempdir() . '/clock.so';

		PostgreSQL::Test::Utils::system_or_bail($ENV{CC} // 'cc', '-shared', '-fPIC', '-o', $file, "$lib/clock.c");
		$clock_library = $file;
	}
	return $clock_library;
}

# Writes the file that clock.c reads, in place: servers have mapped it.
sub write_clock
{
	$clock_file //= PostgreSQL::Test::Utils::tempdir() . '/clock';
	open my $file, -e $clock_file ? '+<' : '>', $clock_file or die "could not open $clock_file: $!";
	syswrite($file, pack 'q3', @clock{qw(forward base factor)}) == 24 or die "could not write $clock_file: $!";
	close $file;
	return;
}

# Runs a block; the servers that it starts have the clock that the functions below set.
sub with_clock
{
	my ($block) = @_;
	my $library = clock_library();

	write_clock() unless defined $clock_file;
	local @ENV{qw(LD_PRELOAD TEST_CLOCK)} = ($library, $clock_file);
	return $block->();
}

# Lets so many seconds pass in one.  To be called before any server is started.
sub set_clock_factor
{
	my ($factor) = @_;

	die 'a clock must not be changed that a server may have' if defined $clock_file;
	@clock{qw(base factor)} = (int(time), $factor);
	return;
}

# Sets the clock forward by so many seconds, of servers that run as well.
sub set_clock_forward
{
	my ($seconds) = @_;

	die "a clock must not go back, by $seconds seconds" if $seconds < 0;
	$clock{forward} += $seconds;
	write_clock();
	return;
}

# The seconds that set_clock_forward() has added so far.
sub clock_forward
{
	return $clock{forward};
}

# ------------------------------------------------------------------ the bucket

# All objects below a folder, as pairs of key and bytes.
sub objects_in_bucket
{
	my ($folder) = @_;

	return s3_get_all("$folder/");
}

sub objects_in_scripted
{
	my ($s3, $folder, $bucket) = @_;

	$bucket //= 'exports';
	return map { [ $_, $s3->object($bucket, $_) ] } grep { index($_, "$folder/") == 0 } $s3->keys_of($bucket);
}

sub is_file { return $_[0][0] !~ m{/_(?:batches|schema)/[^=]*\.json$}; }

# Those of them that are files of events, or whatever does not belong there.
sub files_in_bucket { return grep { is_file($_) } objects_in_bucket(@_); }
sub files_in_scripted { return grep { is_file($_) } objects_in_scripted(@_); }

# What the objects of batches, or of schemas, say, in the order of their names; "key" is that of the object, and
# "document" has all of it, with its own "key".
sub batches { return documents('_batches', @_); }
sub schemas { return documents('_schema', @_); }

sub documents
{
	my ($folder, @objects) = @_;

	return map { my $document = JSON::PP->new->decode($_->[1]); +{ %$document, document => $document, key => $_->[0] } } sort { $a->[0] cmp $b->[0] } grep { $_->[0] =~ m{/$folder/[^=]*\.json$} } @objects;
}

# Rows of CSV; an unquoted empty value is undef.
sub parse_csv
{
	my ($text) = @_;
	my (@rows, @row);

	pos($text) = 0;
	while ($text =~ /\G(?:"((?:[^"]++|"")*+)"|([^,"\n]*+))(,|\n)/gc)
	{
		my ($quoted, $plain, $end) = ($1, $2, $3);

		push @row, defined $quoted ? $quoted =~ s/""/"/gr : length $plain ? $plain : undef;
		if ($end eq "\n")
		{
			push @rows, [@row];
			@row = ();
		}
	}
	die 'this is no CSV: ' . substr($text, pos($text), 200) if pos($text) != length $text || @row;
	return @rows;
}

sub decompress
{
	my ($bytes, $suffix) = @_;
	my $out;

	if ($suffix eq '.gz')
	{
		IO::Uncompress::Gunzip::gunzip(\$bytes => \$out, MultiStream => 1) or die "gzip: $IO::Uncompress::Gunzip::GunzipError";
	}
	else
	{
		IPC::Run::run([ $suffix eq '.zst' ? 'zstd' : 'lz4', '-dc' ], '<', \$bytes, '>', \$out) or die "could not decompress $suffix";
	}
	return $out;
}

# One file, given its key and bytes: folder, feed, type, date, version, first (an _id), suffix, csv, header (names) and
# events; without a header where the name is none of a current's.
my %parsed;

sub parse_file
{
	my ($key, $bytes) = @_;

	return $parsed{ md5("$key\n$bytes") } //= parse_bytes($key, $bytes);
}

sub parse_bytes
{
	my ($key, $bytes) = @_;
	my %file = (key => $key);

	if ($key =~ m{^(?:(?<folder>.*)/)?(?<feed>[^/]+)/_table=(?<type>[^/]+)/_version=(?<version>\d{4,})/_hour=(?<date>\d{4}-\d\d-\d\dT\d\d)/(?<first>$id_pattern)\.csv(?<suffix>(?:\.gz|\.zst|\.lz4)?)$})
	{
		%file = (%file, %+);
		$file{csv} = length $file{suffix} ? decompress($bytes, $file{suffix}) : $bytes;
		my @rows = parse_csv($file{csv});
		my @names = @{ shift @rows // [] };

		$file{header} = \@names;
		$file{events} = [ map { my %values; @values{@names} = @$_; { id => $values{_id}, op => $values{_op}, at => $values{_committed_at}, type => $file{type}, values => \%values, file => \%file } } @rows ];
	}
	return \%file;
}

sub parsed
{
	my %order;

	# The name of a file is an _id, which decides the order.
	return sort { $a->{type} cmp $b->{type} || $a->{first} cmp $b->{first} } grep { defined $_->{header} } map { parse_file(@$_) } @_;
}

# All events of these files (pairs of key and bytes): tables one after the other, each in the order of its files.
sub all_events
{
	return map { @{ $_->{events} } } parsed(@_);
}

# Those that are about a row, or about all.
sub events
{
	return grep { $_->{op} !~ /^(?:snapshot|alter)$/ } all_events(@_);
}

# What no file of a current may be like.
sub wrong_files
{
	my @wrong;

	foreach my $file (map { parse_file(@$_) } @_)
	{
		my $key = $file->{key};

		if (!defined $file->{header})
		{
			push @wrong, "$key: not a name of a current's";
			next;
		}
		push @wrong, "$key: no event" unless @{ $file->{events} };
		push @wrong, "$key: columns @{$file->{header}}" unless "@{$file->{header}}[0 .. 2]" eq '_id _op _committed_at';
		push @wrong, "$key: begins with another event" if @{ $file->{events} } && $file->{events}[0]{id} ne $file->{first};
		foreach my $event (@{ $file->{events} })
		{
			my $hour = $event->{at} =~ /^(\d{4}-\d\d-\d\d) (\d\d):\d\d:\d\d(?:\.\d+)?\+00$/ ? "$1T$2" : "no time in $event->{at}";

			push @wrong, "$key: _id $event->{id}" unless $event->{id} =~ /^$id_pattern$/;
			push @wrong, "$key: _op $event->{op}" unless $event->{op} =~ /^(?:insert|update|delete|truncate|copy|snapshot|alter)$/;
			push @wrong, "$key: $hour" if $hour ne $file->{date};
		}
	}
	return splice @wrong, 0, 20;
}

# Events that come twice, or out of order within their table.
sub wrong_events
{
	my (%seen, %last, @wrong);

	foreach my $event (@_)
	{
		my $last = $last{ $event->{type} } // '';

		push @wrong, "$event->{id} twice: $event->{file}{key}, $seen{$event->{id}}" if $seen{ $event->{id} };
		push @wrong, "$event->{id} after $last: $event->{file}{key}" if $event->{id} le $last;
		$seen{ $event->{id} } = $event->{file}{key};
		$last{ $event->{type} } = $event->{id};
	}
	return splice @wrong, 0, 20;
}

# What the objects of batches may not say.  Given all objects: each file is in one of them, as it is, with the schema
# of its version, and each of them names the one before it.
# Does a batch come after another, or after none?  A crash may come between a copy, which begins nowhere, and its record.
sub follows
{
	my ($batch, $last) = @_;
	my $previous = $batch->{previous} // '';

	return $previous eq ($last ? $last->{batch} : '') || ($last && !defined $last->{from_lsn} && $previous eq ($last->{previous} // ''));
}

sub wrong_batches
{
	my %bytes = map { @$_ } @_;
	my (%last, %seen, @wrong);

	foreach my $batch (batches(@_))
	{
		my ($feed) = $batch->{key} =~ m{^(.*/)_batches/};
		my $last = $last{$feed};
		my %sum = (files => 0, rows => 0, bytes => 0);
		my ($after, $last_id, $committed_at) = ('', '');

		push @wrong, "$batch->{key}: is called $batch->{batch}" if $batch->{key} ne "${feed}_batches/$batch->{batch}.json";
		push @wrong, "$batch->{key}: comes after " . ($batch->{previous} // 'nothing') unless follows($batch, $last);
		# A copy of what is there begins nowhere.
		my ($from, $to) = (lsn($batch->{from_lsn} // $batch->{to_lsn}), lsn($batch->{to_lsn}));
		push @wrong, "$batch->{key}: from $from to $to" if $from > $to || ($last && $from < lsn($last->{to_lsn}));
		$last{$feed} = $batch;
		foreach my $told (@{ $batch->{files} })
		{
			my $key = "$feed$told->{path}";
			my $file = defined $bytes{$key} ? parse_file($key, $bytes{$key}) : {};
			my %is = (rows => scalar @{ $file->{events} // [] }, bytes => length($bytes{$key} // ''), table => $file->{type},
				version => ($file->{version} // 0) + 0, first_id => $file->{first}, last_id => $file->{events} && $file->{events}[-1]{id});
			my ($schema) = schemas([ "$feed$told->{schema}", $bytes{"$feed$told->{schema}"} // '{}' ]);

			push @wrong, "$batch->{key}: $key is in $seen{$key}, too" if $seen{$key};
			push @wrong, map { "$batch->{key}: $_ of $key: $told->{$_}" } grep { $told->{$_} ne ($is{$_} // '') } sort keys %is;
			push @wrong, "$batch->{key}: $key: no place in s3://" if $told->{uri} !~ m{^s3://[^/]+/\Q$key\E$};
			push @wrong, "$batch->{key}: $key after $after" if $told->{first_id} le $after;
			push @wrong, "$batch->{key}: events of $key" if $told->{first_id} lt $batch->{first_id};
			push @wrong, "$schema->{key}: columns of $key" if join(' ', @{ $file->{header} // [] }) ne join(' ', qw(_id _op _committed_at), (map { $_->{name} } @{ $schema->{columns} // [] }), '_meta');
			push @wrong, "$schema->{key}: $key" if index($told->{path}, $schema->{path} // ' ') != 0 || $told->{first_id} lt $schema->{from_id};
			$seen{$key} = $batch->{key};
			$after = $told->{first_id};
			($last_id, $committed_at) = ($told->{last_id}, $file->{events}[-1]{at}) if $file->{events} && $told->{last_id} gt $last_id;
			$sum{files}++;
			$sum{$_} += $told->{$_} foreach 'rows', 'bytes';
		}
		push @wrong, map { "$batch->{key}: totals: $_" } grep { $batch->{totals}{$_} != $sum{$_} } sort keys %sum;
		push @wrong, "$batch->{key}: events" if $batch->{events} != $sum{rows};
		push @wrong, "$batch->{key}: last event" if ($batch->{last_id} // '') ne $last_id || ($batch->{committed_at} // '') ne ($committed_at // '');
	}
	push @wrong, map { "$_: in no batch" } grep { !$seen{$_} } map { $_->[0] } grep { is_file($_) } @_;
	return splice @wrong, 0, 20;
}

# A position as a number.
sub lsn
{
	my ($high, $low) = split m{/}, shift;

	return hex($high) * 2**32 + hex $low;
}

# The rows that a table has after these events, by the value of its key: what a reader of the folder makes of them.
sub replay
{
	my ($key, @events) = @_;
	my %rows;

	foreach my $event (@events)
	{
		my %values = %{ $event->{values} };
		my $meta = JSON::PP->new->decode(delete $values{_meta} // '{}');

		delete @values{qw(_id _op _committed_at)};
		if ($event->{op} =~ /^(?:truncate|snapshot)$/)
		{
			%rows = ();
		}
		elsif ($event->{op} eq 'alter')
		{
		}
		elsif ($event->{op} eq 'delete')
		{
			delete $rows{ $values{$key} } or die "nothing to delete: $event->{id}";
		}
		elsif ($event->{op} eq 'update')
		{
			my $old = delete $rows{ $meta->{old_key} ? $meta->{old_key}{$key} : $values{$key} } // die "nothing to update: $event->{id}";

			delete @values{ @{ $meta->{unchanged} // [] } };
			$rows{ $values{$key} } = { %$old, %values };
		}
		else
		{
			die "there already: $event->{id}" if $rows{ $values{$key} };
			$rows{ $values{$key} } = \%values;
		}
	}
	return \%rows;
}

# -------------------------------------------- one server, and the scripted S3

#	use S3Currents qw(:DEFAULT :scripted);
#	share_scripted($node, $s3, %keys);
#	flow('f', tables => '{t}');
#	launch($node, 'f');
#	sql('INSERT INTO t VALUES (1)');
#	is((deliver_loudly('f'))[0], '1');
#	is(short('f'), 'insert 1');

# By the names of connectors.
our %folder;
my ($shared_node, $shared_s3, %shared_keys);

# The functions below are about these.
sub share_scripted
{
	($shared_node, $shared_s3, %shared_keys) = @_;
	return;
}

sub sql { return $shared_node->safe_psql('postgres', @_); }

# A connector with a folder of its own, that is not launched.
sub flow
{
	my ($name, %more) = @_;

	$folder{$name} = unique_folder();
	create_connector($shared_node, $name, bucket => 'exports', endpoint_url => $shared_s3->url, region => 'us-east-1', %shared_keys,
		folder_path => $folder{$name}, kind => 'currents', validate => \'false', %more);
	return;
}

# What it has written: all, or files of events alone.
sub objects { return objects_in_scripted($shared_s3, $folder{ $_[0] }); }
sub files { return files_in_scripted($shared_s3, $folder{ $_[0] }); }

# What readers miss, as objects of batches say it.
sub gaps { return join '|', map { my $gap = $_; ($gap->{table} // 'all') . ": $gap->{reason}" } map { @{ $_->{gaps} } } @_; }

sub told
{
	my ($columns, @events) = @_;

	return join ', ', map { my $event = $_; "$event->{op} " . join('/', map { $event->{values}{$_} // '-' } @$columns) } @events;
}

# "insert 1, delete 2" of a connector, in the order of a table's events; of some columns, "insert 1/a".
sub short
{
	my ($name, $type, @columns) = @_;

	return told(@columns ? \@columns : ['id'], grep { !defined $type || $_->{type} eq $type } events(files($name)));
}

# The same of all tables, with the events that are about no row.
sub in_full
{
	my ($name, @columns) = @_;

	return told(@columns ? \@columns : ['id'], all_events(files($name)));
}

# How many versions the events of a connector have.
sub versions
{
	my ($name) = @_;
	my %versions = map { $_->{file}{version} => 1 } all_events(files($name));

	return scalar keys %versions;
}

sub fine
{
	my ($name, $what) = @_;
	my @files = files($name);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is_deeply([ wrong_files(@files), wrong_events(all_events(@files)) ], [], "$what: the files");
	return;
}

# What a statement says: its rows and its messages, with their SQLSTATEs.
sub said
{
	my ($statement, $user) = @_;
	my ($status, $out, $err) = $shared_node->psql('postgres', "\\set VERBOSITY verbose\n$statement", extra_params => [ defined $user ? ('-U', $user) : () ]);

	return ($out, $err);
}

# The number of events, or the error, and the messages.
sub deliver_loudly
{
	my ($name, $user) = @_;

	return said("SELECT coalesce(error, events::text) FROM s3export.deliver('$name', \"raise\" => false)", $user);
}

sub events_of
{
	my ($name) = @_;

	return sql("SELECT string_agg(event, ' ' ORDER BY at) FROM s3export.current_events WHERE connector = '$name'");
}

# S3 refuses the connector's files while the block runs.
sub refusing
{
	my ($name, $block) = @_;

	$shared_s3->call('add_fault', do => 'error', code => 'AccessDenied', match => { key => $folder{$name} }, times => undef);
	$block->();
	$shared_s3->call('clear_faults');
	return;
}

# A transaction that has run these statements and goes on for so many seconds.
sub open_transaction
{
	my ($seconds, @statements) = @_;
	my $sleep = "SELECT pg_sleep($seconds) AS open_" . int(rand 1e9);
	my $session = start_psql($shared_node, 'BEGIN', @statements, $sleep, 'COMMIT');

	poll_until(sub { sql("SELECT count(*) FROM pg_stat_activity WHERE query = '$sleep'") > 0 }, 'an open transaction');
	return $session;
}

1;
