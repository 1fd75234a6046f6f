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
use File::Basename qw(dirname);
use IO::Uncompress::Gunzip ();
use IPC::Run;
use JSON::PP ();
use PostgreSQL::Test::Utils;
use S3Export;
use Test::More;

our @EXPORT = qw(
  currents_node currents_settings launch deliver deliver_all deliver_and_listen start_psql finish_psql current_of
  files_in_bucket files_in_scripted parse_csv parse_file events wrong_files wrong_events replay
  worker_pid with_clock clock_library set_clock_factor set_clock_forward clock_forward
);

my $id_pattern = qr/[0-9A-F]{8}-[0-9A-F]{16}-[0-9A-F]{8}/;

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

# The process that decodes, or that uploads for it, once there is one.
sub worker_pid
{
	my ($node, $type) = @_;

	return poll_until(sub { $node->safe_psql('postgres', "SELECT min(pid) FROM pg_stat_activity WHERE backend_type = " . sql_literal($type // 's3export current')) }, 'a worker');
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

sub files_in_bucket
{
	my ($folder) = @_;

	return s3_get_all("$folder/");
}

sub files_in_scripted
{
	my ($s3, $folder, $bucket) = @_;

	$bucket //= 'exports';
	return map { [ $_, $s3->object($bucket, $_) ] } grep { index($_, "$folder/") == 0 } $s3->keys_of($bucket);
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

# One file, given its key and bytes: folder, database, connector_id, type, date, version, table, first (an _id), suffix,
# csv, header (names) and events; without a header where the name is none of a current's.
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

	if ($key =~ m{^(?:(?<folder>.*)/)?s3export\.(?<database>[^/]+)\.(?<connector_id>\d+)/event_type=(?<type>[^/]+)/date=(?<date>\d{4}-\d\d-\d\d-\d\d)/(?<version>\d+)/(?<table>[^/]+)\+(?<first>$id_pattern)\.csv(?<suffix>(?:\.gz|\.zst|\.lz4)?)$})
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

	# The name of a file begins with the table's and goes on with an _id, which decides the order.
	return sort { $a->{type} cmp $b->{type} || $a->{first} cmp $b->{first} } grep { defined $_->{header} } map { parse_file(@$_) } @_;
}

# All events of these files (pairs of key and bytes): tables one after the other, each in the order of its files.
sub events
{
	return map { @{ $_->{events} } } parsed(@_);
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
			my $hour = $event->{at} =~ /^(\d{4}-\d\d-\d\d) (\d\d):\d\d:\d\d(?:\.\d+)?\+00$/ ? "$1-$2" : "no time in $event->{at}";

			push @wrong, "$key: _id $event->{id}" unless $event->{id} =~ /^$id_pattern$/;
			push @wrong, "$key: _op $event->{op}" unless $event->{op} =~ /^(?:insert|update|delete|truncate|copy)$/;
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

# The rows that a table has after these events, by the value of its key: what a reader of the folder makes of them.
sub replay
{
	my ($key, @events) = @_;
	my %rows;

	foreach my $event (@events)
	{
		my %values = %{ $event->{values} };
		my @unchanged = split /,/, delete $values{_unchanged} // '';

		delete @values{qw(_id _op _committed_at)};
		if ($event->{op} eq 'truncate')
		{
			%rows = ();
		}
		elsif ($event->{op} eq 'delete')
		{
			delete $rows{ $values{$key} } or die "nothing to delete: $event->{id}";
		}
		elsif ($event->{op} eq 'update')
		{
			my $old = $rows{ $values{$key} } // die "nothing to update: $event->{id}";

			delete @values{@unchanged};
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

1;
