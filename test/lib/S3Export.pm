# S3Export.pm: what the TAP tests of s3export share.
#
#	use lib 'test/lib';
#	use S3Export;
#	use Test::More;
#
#	s3_or_skip();
#	my $node = s3export_node('main');
#	create_connector($node, 'lake', folder_path => 'a');
#	is(sql_error($node, 'SELECT ...')->{sqlstate}, '42501');
#
# The S3 server is named by S3EXPORT_TEST_ENDPOINT and the other variables that
# rgw.sh writes into env.sh.  Without them s3_or_skip ends the test.  Tests find
# them in %S3, by what comes after S3EXPORT_TEST_ ($S3{ENDPOINT}).
package S3Export;

use strict;
use warnings;

use Cwd qw(abs_path);
use Exporter 'import';
use File::Basename qw(basename dirname);
use File::Temp ();
use IPC::Run;
use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time sleep);

our @EXPORT = qw(
  %S3 s3_or_skip s3 s3_ok s3_list s3_get s3_get_all s3_head s3_put s3_remove s3_uploads s3_clear
  s3_assume s3_user s3_role s3_secret
  rgw_start rgw_stop rgw_kill rgw_resume with_s3
  s3export_node create_connector connector_sql copy_oracle
  sql_error error_like try_query server_answers poll_until sql_literal unique_folder
);

my $lib = dirname(abs_path(__FILE__));
my $python = '/usr/bin/python3';
my @own_gateways;
my $folders = 0;

# The keys leave the environment: a postmaster writes its own to its log at DEBUG3.
our %S3 = map { /^S3EXPORT_TEST_(\w+)$/ ? ($1 => $ENV{$_}) : () } keys %ENV;
delete @ENV{ grep { /^S3EXPORT_TEST_.*(ACCESS_KEY|TOKEN)/ } keys %ENV };

# ----------------------------------------------------------------- the S3 server

# Ends the test file, skipped, where there is no S3 server to test with.
sub s3_or_skip
{
	plan skip_all => 'S3EXPORT_TEST_ENDPOINT is not set (test/check.sh starts a server)'
	  unless $S3{ENDPOINT};
	return;
}

# Runs a helper with %S3 in its environment; returns (exit status, stdout, stderr).
sub helper
{
	my (@command) = @_;
	my ($out, $err) = ('', '');

	local @ENV{ map { "S3EXPORT_TEST_$_" } keys %S3 } = values %S3;
	IPC::Run::run(\@command, '<', \undef, '>', \$out, '2>', \$err);
	return ($? >> 8, $out, $err);
}

# Runs s3.py; returns (exit status, stdout, stderr).
sub s3
{
	return helper($python, "$lib/s3.py", @_);
}

# The same, where anything but success is a mistake of the test's.
sub s3_ok
{
	my (@command) = @_;
	my ($status, $out, $err) = s3(@command);

	die "s3.py @command: $err" if $status != 0;
	return $out;
}

# Keys below a prefix, sorted.
sub s3_list
{
	my ($prefix) = @_;

	return sort map { (split /\t/, $_, 3)[2] } split /\n/, s3_ok('ls', $prefix // '');
}

sub s3_get
{
	my ($key) = @_;

	return s3_ok('get', $key);
}

# All objects below a prefix, as pairs of key and bytes, in the order of the keys.
sub s3_get_all
{
	my ($prefix) = @_;
	my $out = s3_ok('getall', $prefix);
	my $at = 0;
	my @objects;

	while ($at < length $out)
	{
		my $end = index($out, "\n", $at);
		my ($size, $key) = split /\t/, substr($out, $at, $end - $at), 2;

		push @objects, [ $key, substr($out, $end + 1, $size) ];
		$at = $end + 1 + $size;
	}
	return @objects;
}

# The headers of the answer to HEAD, as a hash with lower-case names.
sub s3_head
{
	my ($key) = @_;

	return JSON::PP::decode_json(s3_ok('head', $key));
}

sub s3_put
{
	my ($key, $data) = @_;
	my $file = File::Temp->new;

	print $file $data;
	close $file;
	s3_ok('put', $key, $file->filename);
	return;
}

sub s3_remove
{
	s3_ok('rm', @_);
	return;
}

# Ids of the multipart uploads that are open below a prefix.
sub s3_uploads
{
	my ($prefix) = @_;

	return map { (split /\t/)[0] } split /\n/, s3_ok('uploads', $prefix // '');
}

# Removes objects and open uploads below a prefix.
sub s3_clear
{
	my ($prefix) = @_;

	s3_ok('clear', $prefix);
	return;
}

# Records a secret that a test made, for the search of the logs.
sub s3_secret
{
	my (@secrets) = @_;

	if (defined $S3{SECRETS})
	{
		open my $file, '>>', $S3{SECRETS} or die "could not record a secret: $!";
		# What tests make up to be wrong may be found anywhere.
		print $file "$_\n" foreach grep { length >= 16 && !/[[:cntrl:]]/ } @secrets;
		close $file;
	}
	return;
}

# Keys of a session of a role, as a hash (AccessKeyId, SecretAccessKey, SessionToken).
sub s3_assume
{
	my ($arn, $seconds) = @_;
	my $keys;

	local @S3{qw(ACCESS_KEY_ID SECRET_ACCESS_KEY)} =
	  @S3{qw(STS_ACCESS_KEY_ID STS_SECRET_ACCESS_KEY)};
	$keys = JSON::PP::decode_json(s3_ok('assume', $arn // $S3{ROLE_ARN}, $seconds // 900));
	s3_secret($keys->{SecretAccessKey}, $keys->{SessionToken});
	return $keys;
}

sub rgw
{
	my ($command, $dir, @more) = @_;
	my ($status, $out, $err) = helper('/bin/bash', "$lib/rgw.sh", $command, $dir, @more);

	die "rgw.sh $command: $err" if $status != 0;
	return $out;
}

# What a shell file exports, as entries of %S3.
sub exports
{
	my ($text) = @_;

	return map { /^export S3EXPORT_TEST_(\w+)=(.*)$/ ? ($1 => $2) : () } split /\n/, $text;
}

# A new user who may do nothing but these actions on the bucket; returns the
# access key id and the secret access key.
sub s3_user
{
	my ($name, @actions) = @_;
	my %made = exports(rgw('user', gateway(), $name, @actions));

	return @made{qw(ACCESS_KEY_ID SECRET_ACCESS_KEY)};
}

# A new role, which the STS user may assume, with these actions; returns its ARN.
sub s3_role
{
	my ($name, @actions) = @_;
	my $arn = rgw('role', gateway(), $name, @actions);

	chomp $arn;
	return $arn;
}

sub gateway
{
	return $S3{RGW_DIR} // die 'S3EXPORT_TEST_RGW_DIR is not set';
}

# A gateway of the test's own, to be killed or stopped; %settings are those of
# rgw.sh (RGW_STS_MIN => 5).  Returns its %S3, for with_s3.
sub rgw_start
{
	my (%settings) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir_short();
	my %env;

	local @ENV{ keys %settings } = values %settings;
	push @own_gateways, $dir;
	rgw('start', $dir);
	%env = exports(PostgreSQL::Test::Utils::slurp_file("$dir/env.sh"));
	$env{RGW_DIR} = $dir;
	return \%env;
}

# Runs a block with another gateway, or other keys, in %S3.
sub with_s3
{
	my ($env, $block) = @_;

	local @S3{ keys %$env } = values %$env;
	return $block->();
}

sub rgw_kill
{
	my ($env) = @_;

	rgw('kill', $env->{RGW_DIR});
	return;
}

sub rgw_resume
{
	my ($env) = @_;

	rgw('resume', $env->{RGW_DIR});
	return;
}

sub rgw_stop
{
	my ($env) = @_;
	my $dir = $env->{RGW_DIR};

	rgw('stop', $dir);
	@own_gateways = grep { $_ ne $dir } @own_gateways;
	return;
}

END
{
	# The stop of a gateway must not decide the test's exit status.
	local $?;
	foreach my $dir (@own_gateways)
	{
		system('/bin/bash', "$lib/rgw.sh", 'stop', $dir) if -d $dir;
	}
}

# ------------------------------------------------------------------- PostgreSQL

# A running node with the extension, logging all that s3export says.  Statements
# are not logged: a key that a user types into one is the user's to keep.
sub s3export_node
{
	my ($name, @settings) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(extra => [ '--encoding=UTF8', '--locale=C.UTF-8' ]);
	$node->append_conf('postgresql.conf', <<'CONF');
log_statement = none
log_min_error_statement = panic
log_min_messages = debug5
log_replication_commands = off
max_worker_processes = 16
CONF
	$node->append_conf('postgresql.conf', "$_\n") foreach @settings;
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION s3export');
	return $node;
}

# A value as SQL; undef is NULL, a reference to a string is SQL as it is.
sub sql_literal
{
	my ($value) = @_;

	return 'NULL' unless defined $value;
	return $$value if ref $value;
	return "'" . ($value =~ s/'/''/gr) . "'" unless $value =~ /\\/;
	return "E'" . ($value =~ s/(['\\])/$1$1/gr) . "'";
}

# The call that makes a connector to the test's bucket.  %arguments are added to,
# or replace, the ones that say where and with which keys; undef leaves one
# out.
sub connector_sql
{
	my ($name, %arguments) = @_;
	my %all = (
		bucket => $S3{BUCKET},
		endpoint_url => $S3{ENDPOINT},
		region => $S3{REGION});

	if (!exists $arguments{role_arn})
	{
		$all{access_key_id} = $S3{ACCESS_KEY_ID};
		$all{secret_access_key} = $S3{SECRET_ACCESS_KEY};
	}
	%all = (%all, %arguments, name => $name);
	s3_secret(grep { defined && !ref } @all{qw(secret_access_key session_token)});
	return 's3export.create_connector('
	  . join(', ', map { "$_ => " . sql_literal($all{$_}) } grep { defined $all{$_} } sort keys %all) . ')';
}

sub create_connector
{
	my ($node, $name, %arguments) = @_;

	return $node->safe_psql('postgres', 'SELECT ' . connector_sql($name, %arguments));
}

# A folder that no other test uses, so that tests may run side by side.
sub unique_folder
{
	$folders++;
	return basename($0) =~ s/\W+/-/gr . "-$$-$folders";
}

# The bytes that COPY writes for a query, with its options in COPY's own syntax;
# "before" is SQL to run first in that session.
sub copy_oracle
{
	my ($node, $query, $options, $before) = @_;
	my $file = File::Temp->new(DIR => $node->basedir);
	my $path = $file->filename;

	$options = $options ? "FORMAT csv, $options" : 'FORMAT csv';
	$node->safe_psql('postgres', ($before // '') . ";\nCOPY ($query) TO " . sql_literal($path) . " ($options)");
	return PostgreSQL::Test::Utils::slurp_file($path);
}

# Runs SQL that should fail.  Returns a hash of its first error: severity,
# sqlstate, message, and where given detail, hint and context; an empty one when nothing
# failed.  Options: dbname, user, and before, which is SQL run first.
sub sql_error
{
	my ($node, $sql, %options) = @_;
	my ($status, $out, $err);
	my %error;
	my $field;

	local $ENV{PGUSER} = $options{user} if defined $options{user};
	($status, $out, $err) = $node->psql(
		$options{dbname} // 'postgres',
		"\\set VERBOSITY verbose\n" . ($options{before} // '') . "\n$sql",
		on_error_stop => 1);
	foreach my $line (split /\n/, $err)
	{
		if ($line =~ /(?:^|: )(ERROR|FATAL|PANIC):  ([0-9A-Z]{5}): (.*)$/)
		{
			last if %error;
			%error = (severity => $1, sqlstate => $2, message => $3);
			$field = 'message';
		}
		elsif (%error && $line =~ /^(DETAIL|HINT|CONTEXT|LOCATION|LINE \d+|QUERY|SCHEMA NAME|TABLE NAME|COLUMN NAME|DATATYPE NAME|CONSTRAINT NAME):\s+(.*)$/)
		{
			$field = lc $1;
			$error{$field} = $2;
		}
		elsif (%error)
		{
			$error{$field} .= "\n$line";
		}
	}
	die "psql failed without an error of the server's: $err" if $status != 0 && !%error;
	return \%error;
}

# One test: the statement fails with this SQLSTATE and message; %expected may
# also have detail and hint, each a regular expression or a string.
sub error_like
{
	my ($node, $sql, $expected, $name, %options) = @_;
	my $error = sql_error($node, $sql, %options);
	my @wrong;

	foreach my $field (sort keys %$expected)
	{
		my $want = $expected->{$field};
		my $got = $error->{$field};
		my $same = defined $got && (ref $want ? $got =~ $want : $got eq $want);

		push @wrong, "$field: got " . ($got // 'none') . ", expected $want" unless $same;
	}

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $result = ok(!@wrong, $name);
	diag(join "\n", @wrong, map { "$_: $error->{$_}" } sort keys %$error) unless $result;
	return $result;
}

# A query of a server that may be down: psql's status, and the rows.  Its text is no
# input of psql's: one that ends before it has read that is an error to IPC::Run.
sub try_query
{
	my ($node, $sql) = @_;
	my ($out, $err) = ('', '');

	IPC::Run::run([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), '-c', $sql ], '<', \undef, '>', \$out, '2>', \$err);
	my $status = $? >> 8;
	chomp $out;
	return ($status, $out);
}

# It is up, and has recovered.
sub server_answers
{
	my ($node) = @_;
	my ($status, $out) = try_query($node, 'SELECT NOT pg_is_in_recovery()');

	return $status == 0 && $out eq 't';
}

# Calls a block every 50 ms until it returns true, which is then returned; dies
# when that takes more than $seconds (PG_TEST_TIMEOUT_DEFAULT).
sub poll_until
{
	my ($block, $what, $seconds) = @_;
	my $deadline = time + ($seconds // $PostgreSQL::Test::Utils::timeout_default);

	while (time < $deadline)
	{
		my $result = $block->();

		return $result if $result;
		sleep 0.05;
	}
	die "timed out waiting for $what";
}

1;
