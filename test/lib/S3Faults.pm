# S3Faults.pm: what the tests with the scripted server (ScriptedS3.pm) share.
#
#	use lib 'test/lib';
#	use S3Export;
#	use S3Faults;
#
#	my $s3 = scripted_s3();
#	my %keys = scripted_user($s3);
#	create_connector($node, 'lake', at_aws(), %keys);
#	is(error_text($node, 'SELECT ...'), <<'TEXT');
package S3Faults;

use strict;
use warnings;

use Exporter 'import';
use File::Basename qw(basename);
use File::Temp ();
use IPC::Run;
use PostgreSQL::Test::Utils;
use S3Export;
use ScriptedS3;
use Test::More;

our @EXPORT = qw(
  scripted_s3 scripted_user scripted_role scripted_session at_aws at_endpoint aws_settings
  error_text failed_checks checks_sql masked trust allow job_text keep_secrets
  fault_outcome fault_untried caller_cell job_cell bucket_cell scripted_cell
);

my $directory = File::Temp->newdir;
my $account = '111122223333';
my $users = 0;

# ------------------------------------------------------------------- the server

# Certificates for the names that AWS's services have.
sub certificate
{
	my ($cert, $key) = ("$directory/cert.pem", "$directory/key.pem");
	my @names = map { ("DNS:s3.$_.amazonaws.com", "DNS:*.s3.$_.amazonaws.com", "DNS:sts.$_.amazonaws.com") }
	  qw(us-east-1 eu-west-1 ap-south-2);

	my @command = (qw(openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2),
		'-subj', '/CN=scripted S3', '-addext', 'subjectAltName=' . join(',', 'IP:127.0.0.1', @names),
		'-keyout', $key, '-out', $cert);
	my $complaint = '';

	IPC::Run::run(\@command, '>', \$complaint, '2>&1') or die "could not make a certificate: $complaint";
	return (cert => $cert, key => $key);
}

# A server with bucket "exports" in us-east-1, which plays AWS to whoever takes it
# for a proxy.
sub scripted_s3
{
	my $s3 = ScriptedS3->start(certificate());

	$s3->call('add_bucket', name => 'exports');
	return $s3;
}

# Settings with which a PostgreSQL server takes the scripted server for AWS.
sub aws_settings
{
	my ($s3) = @_;

	return ("s3export.proxy = '" . $s3->url . "'", "s3export.ca_file = '$directory/cert.pem'");
}

# Where a connector leads: arguments of connector_sql.
sub at_aws
{
	return (bucket => 'exports', endpoint_url => undef, region => undef, folder_path => unique_folder());
}

sub at_endpoint
{
	my ($s3) = @_;

	return (bucket => 'exports', endpoint_url => $s3->url, region => 'us-east-1', folder_path => unique_folder());
}

# A new user; %more goes to add_user.  Returns keys as arguments of connector_sql.
sub scripted_user
{
	my ($s3, %more) = @_;
	my $id = sprintf 'AKIASCRIPTED%04dUSER', ++$users;
	my $secret = join '', map { ('a' .. 'z', 'A' .. 'Z', 0 .. 9)[rand 62] } 1 .. 40;

	$s3->call('add_user', access_key_id => $id, secret_access_key => $secret, name => "exporter$users", %more);
	s3_secret($secret);
	return (access_key_id => $id, secret_access_key => $secret);
}

# Keys of a running session of a role, in the same form.
sub scripted_session
{
	my ($s3, $arn, %more) = @_;
	my $session = $s3->call('start_session', role => $arn, %more);

	return map { $_ => $session->{$_} } qw(access_key_id secret_access_key session_token);
}

sub trust
{
	my (%condition) = @_;

	return {
		Version => '2012-10-17',
		Statement => [ { Effect => 'Allow', Principal => { AWS => "arn:aws:iam::$account:root" }, Action => 'sts:AssumeRole',
				%condition ? (Condition => { StringEquals => \%condition }) : () } ] };
}

# A policy that allows these actions, on everything.
sub allow
{
	return { Version => '2012-10-17', Statement => [ { Effect => 'Allow', Action => [@_], Resource => '*' } ] };
}

# A new role, which the account may assume unless %more says otherwise; its ARN.
sub scripted_role
{
	my ($s3, $name, %more) = @_;

	return $s3->call('add_role', name => $name, trust => trust(), %more)->{arn};
}

# Records what the server made, for the search of the logs.
sub keep_secrets
{
	my ($s3) = @_;

	s3_secret(@{ $s3->call('secrets')->{secrets} });
	return;
}

# ------------------------------------------------------------- what a person sees

# Text without what differs from run to run.
sub masked
{
	my ($text) = @_;

	$text =~ s/(?<=Request ID )[0-9A-F]{16}/ID/g;
	$text =~ s/(?<=s3export-check-)[0-9a-f]{32}/TOKEN/g;
	$text =~ s/\bs3export-[0-9a-f]{32}\b/EXTERNAL/g;
	$text =~ s/(?<=s3export-)\d+/JOB/g;
	$text =~ s/(?<=127\.0\.0\.1:)\d+/PORT/g;
	$text =~ s/\bASIA[A-Z2-7]{16}/ASIAKEY/g;
	$text =~ s/\bAKIASCRIPTED\d{4}USER/AKIAKEY/g;
	$text =~ s/\bexporter\d+/exporter/g;
	$text =~ s/\b[\w-]+-pl-\d+-\d+\b/FOLDER/g;
	$text =~ s/\bconnector\d+\.csv/FILE.csv/g;
	$text =~ s/\d{8}T\d{6}Z/TIME/g;
	return $text;
}

# All of an error, as psql shows it, with its SQLSTATE.
sub error_text
{
	my ($node, $sql, %options) = @_;
	my $error = sql_error($node, $sql, %options);

	return "no error\n" unless %$error;
	return masked(join '', "$error->{severity}:  $error->{sqlstate}: $error->{message}\n",
		map { defined $error->{ lc $_ } ? "$_:  $error->{lc $_}\n" : () } qw(DETAIL HINT));
}

# The test of a connector, saved (its name) or not (arguments of connector_sql).
sub checks_sql
{
	my ($name, %arguments) = @_;
	my $call = %arguments ? connector_sql('-', %arguments) : "s3export.test_credentials('$name')";

	$call =~ s/create_connector\(/test_credentials(/;
	$call =~ s/, name => '-'//;
	return "SELECT * FROM $call";
}

# The checks that fail, one after the other, and those that pass by name.
sub failed_checks
{
	my ($node, $name, %arguments) = @_;

	my $rows = checks_sql($name, %arguments);

	return masked($node->safe_psql('postgres', qq{SELECT CASE WHEN ok THEN 'ok: ' || "check"
		ELSE format(E'FAILED: %s, %s, %s\n  %s\n  %s', "check", action, coalesce(code, '-'), message, coalesce(hint, '-')) END
		FROM ($rows) t})) . "\n";
}

# What the newest job of a file says, with its error as a person sees it.
sub job_text
{
	my ($node, $file) = @_;

	return masked($node->safe_psql('postgres', qq{SELECT state || CASE WHEN open_uploads = 0 THEN '' ELSE ', upload left' END
		|| coalesce(E'\nERROR:  ' || error_code || ': ' || error_message, '') || coalesce(E'\nDETAIL:  ' || error_detail, '')
		|| coalesce(E'\nHINT:  ' || error_hint, '')
		FROM s3export.jobs WHERE uri LIKE '%/$file' ORDER BY job_id DESC LIMIT 1})) . "\n";
}

# ------------------------------------------------------------- the table of faults

# States one line of the table of faults in the docs, of what was observed; the cells
# are best made by the functions below.  A test file's lines go to
# NAME.faults beside its logs, where fault_table.pl finds them.
#
#	fault_outcome('a part meets SlowDown', caller_cell($error), job_cell($node, $file), scripted_cell($s3, $key, $whole));
my $faults_file;

sub append_fault
{
	my (@cells) = @_;

	if (!defined $faults_file)
	{
		$faults_file = "$PostgreSQL::Test::Utils::log_path/" . basename($0, '.pl') . '.faults';
		unlink $faults_file;
	}
	append_to_file($faults_file, '| ' . join(' | ', @cells) . " |\n");
	return;
}

sub fault_outcome
{
	my (@cells) = @_;

	die 'a fault, what the caller sees, the job and the bucket are expected' unless @cells == 4 && !grep { !defined || /[|\n]/ } @cells;
	append_fault(@cells);
	return;
}

# For a fault that cannot be tried where the tests run now.
sub fault_untried
{
	my ($fault) = @_;

	append_fault($fault, 'not tried here');
	return;
}

# What the caller sees: an error as sql_error returns it, or all that psql wrote to
# stderr with VERBOSITY=verbose; an empty one is success.  Without the names of objects.
sub caller_cell
{
	my ($error) = @_;
	my ($sqlstate, $message);

	if (ref $error)
	{
		($sqlstate, $message) = @$error{qw(sqlstate message)};
	}
	elsif ($error =~ /(?:ERROR|FATAL|PANIC):  ([0-9A-Z]{5}): ([^\n]*)/)
	{
		($sqlstate, $message) = ($1, $2);
	}
	elsif ($error =~ /server closed the connection|connection to server was lost/)
	{
		return 'the connection is lost';
	}
	return 'success' unless defined $sqlstate;
	$message =~ s/ "s3:\/\/[^"]*"//;
	$message =~ s/part \d+ of/a part of/;
	return "`$sqlstate` " . masked($message);
}

# What the newest job of a file, or of a path, says; "none" when there is no such row.
sub job_cell
{
	my ($node, $file) = @_;
	my $cell = $node->safe_psql('postgres', qq{SELECT state || coalesce(' `' || error_code || '`', '')
		|| CASE WHEN error_detail LIKE '%may or may not appear%' AND recovered_at IS NULL THEN ', in doubt' ELSE '' END
		|| CASE WHEN recovered_at IS NULL THEN '' ELSE ', settled by recovery' END
		|| CASE WHEN open_uploads = 0 THEN '' ELSE ', names the upload that is left' END
		FROM s3export.jobs WHERE uri LIKE '%/$file' OR path = '$file' ORDER BY job_id DESC LIMIT 1});

	return length $cell ? $cell : 'none';
}

# What lies in the bucket: an object's bytes (undef: none), those it ought to have,
# and the number of open uploads.
sub bucket_cell
{
	my ($object, $whole, $uploads) = @_;
	my $cell = !defined $object ? 'no object' : $object eq ($whole // '') ? 'the whole object' : 'another object';

	return $uploads == 0 ? $cell : "$cell, $uploads open upload" . ($uploads == 1 ? '' : 's');
}

# The same of a key in the scripted server's bucket "exports".
sub scripted_cell
{
	my ($s3, $key, $whole) = @_;

	return bucket_cell($s3->object('exports', $key), $whole, scalar(grep { $_->{key} eq $key } $s3->uploads('exports')));
}

1;
