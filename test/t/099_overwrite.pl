# Users of one connector replace, and remove, what they have exported themselves; what others
# have, and what no job knows, the connector's owner and whoever the owner lets.
use strict;
use warnings;
use lib 'test/lib';
use PostgreSQL::Test::Utils;
use S3Currents;
use S3Export;
use S3Faults;
use ScriptedS3;
use Test::More;

my $s3 = scripted_s3();
my %keys = scripted_user($s3);
my $node = currents_node('main', q(s3export.retry_timeout = '0'), q(s3export.max_parallel_workers = 0));

sub sql { return $node->safe_psql('postgres', $_[0], extra_params => [ '-U', $_[1] // getpwuid($>) ]); }

sub export
{
	my ($user, $path, $value, $more) = @_;

	return sql_error($node, "SELECT s3export.copy_to('lake', 'SELECT x FROM generate_series($value, $value + 1) x', '$path', if_exists => 'overwrite'" . ($more // '') . ')', user => $user);
}

sub done { my ($what, @of) = @_; is(export(@of)->{message}, undef, $what); return; }

sub refused
{
	my ($what, $user, $path, @of) = @_;
	my $object = (split /\n/, $what)[1] // $path;
	my $error = export($user, $path, @of);

	$what =~ s/\n.*//;
	is("$error->{sqlstate} $error->{message}", qq(42501 permission denied: object "s3://exports/lake/$object" already exists), $what);
	is($error->{detail} =~ s/  1 of the 2 files.*//r, qq(It is not known as one that role "$user" has exported, and the role may replace no others.), "$what: detail");
	is($error->{hint}, 'The owner of the connector can allow it with s3export.grant_usage(..., overwrite => true).', "$what: hint");
	return;
}

sub object { return $s3->object('exports', "lake/$_[0]"); }

sub keys_like { return join ' ', map { s{^lake/}{}r } grep { /$_[0]/ } $s3->keys_of('exports'); }

sql("CREATE ROLE $_ LOGIN") foreach qw(alice bob carol dave);
sql('CREATE ROLE team; GRANT team TO carol, dave');
create_connector($node, 'lake', bucket => 'exports', endpoint_url => $s3->url, %keys);
sql(q(SELECT s3export.alter_connector('lake', owner => 'alice', validate => false)));
sql("SELECT s3export.grant_usage('lake', '$_')", 'alice') foreach qw(bob team);

# ---- one file
done('a path that is free', 'bob', 'one.csv', 1);
done('what is his own', 'bob', 'one.csv', 2);
refused('what is another user\'s', 'carol', 'one.csv', 3);
is(object('one.csv'), "x\n2\n3\n", 'is as it was');
done('the connector\'s owner may', 'alice', 'one.csv', 4);
refused('then it is the owner\'s', 'bob', 'one.csv', 5);
done('a superuser may', scalar(getpwuid($>)), 'one.csv', 6);
$s3->call('put_object', bucket => 'exports', key => 'lake/before.csv', body => 'x');
refused('what no job knows', 'bob', 'before.csv', 1);

# ---- roles
sql(q(SET ROLE team; SELECT s3export.copy_to('lake', 'VALUES (1)', 'team.csv')), 'carol');
done('what a role has exported, its members replace', 'dave', 'team.csv', 1);
refused('what one of them has, not the others', 'carol', 'team.csv', 2);

# ---- several files
done('several files', 'bob', 'many.csv', 1, ', max_rows_per_file => 1');
$s3->call('delete_object', bucket => 'exports', key => 'lake/many.csv');
refused("one of them is another user's\nmany_part2.csv", 'carol', 'many.csv', 3, ', max_rows_per_file => 1');
is(object('many_part2.csv'), "x\n2\n", 'and stays');
$s3->call('delete_object', bucket => 'exports', key => 'lake/many.csv') if defined object('many.csv');
done('files of others are not removed as left over', 'carol', 'many.csv', 5);
is(keys_like('many'), 'many.csv many_part2.csv', 'they are there');
done('with a manifest', 'bob', 'm.csv', 1, ', manifest => true');
$s3->call('delete_object', bucket => 'exports', key => 'lake/m.csv');
refused("its manifest\n_m.manifest.json", 'carol', 'm.csv', 1, ', manifest => true');
done('his own', 'bob', 'm.csv', 2, ', manifest => true');

# ---- one path again and again: what an export reads grows with its number, not with the square
{
	my $again = q(SELECT s3export.copy_to('lake', 'VALUES (1)', 'again.csv', if_exists => 'overwrite'););
	my $read = q(SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE relid = 's3export.job_file'::regclass);

	sql($again x 60);
	poll_until(sub { sql(q(SELECT pg_stat_reset())); sleep 1; sql($read) == 0 }, 'the statistics of these exports');
	sql($again);
	poll_until(sub { sql($read) > 0 }, 'those of one more');
	cmp_ok(sql($read), '<', 1000, 'one more export reads the rows of the others once');
}

# ---- in the background
{
	my $job = sql(q(SELECT job_id FROM s3export.copy_to('lake', 'VALUES (1)', 'm.csv', if_exists => 'overwrite', wait => false)), 'carol');

	is(sql_error($node, "SELECT s3export.wait($job)")->{sqlstate}, '42501', 'a queued job is refused as well');
}

# ---- whom the owner lets
sql(q(SELECT s3export.grant_usage('lake', 'carol', overwrite => true)), 'alice');
is(sql(q(SELECT grantee, overwrite FROM s3export.connector_grants ORDER BY grantee::text), 'alice'), "bob|f\ncarol|t\nteam|f", 'the owner sees it');
done("then $_ is hers to replace", 'carol', $_, 7) foreach qw(one.csv before.csv);
done('files of others are removed', 'carol', 'many.csv', 8);
is(keys_like('many'), 'many.csv', 'as left over');
sql(q(SELECT s3export.grant_usage('lake', 'carol')), 'alice');
refused('a grant without it takes it back', 'carol', 'm.csv', 9);
sql(q(UPDATE s3export.connector_grant SET overwrite = true WHERE grantee = 'bob'::regrole::oid));
is(export('bob', 'one.csv', 1)->{sqlstate}, 'XX001', 'what decides has a code');

$node->stop;
done_testing();
