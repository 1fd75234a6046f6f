# docs/reference.md has each function, view and setting as the catalog has it, and the
# catalog has a comment on each.
#
# The page's lists of signatures and columns are what this test prints when they differ.
use strict;
use warnings;
use lib 'test/lib';
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use PostgreSQL::Test::Utils;
use S3Export;
use Test::More;

my $page = slurp_file(dirname(abs_path(__FILE__)) . '/../../docs/reference.md');
my $node = s3export_node('main');

sub sql { return $node->safe_psql('postgres', $_[0]); }

# The fenced block, or the table, of a section.
sub section
{
	my ($heading) = @_;
	my ($text) = $page =~ /^#+ \Q$heading\E\n(.*?)(?=^#+ |\z)/ms or die "the page has no section \"$heading\"";

	return $text;
}

sub block
{
	my ($block) = section($_[0]) =~ /^```\w*\n(.*?)\n```$/ms;

	return $block // '';
}

# ---- functions: those that are not internal
is(block('Signatures'), sql(<<'SQL'), 'the page has the signature of each function') or diag('it should be the list that the test got');
SELECT string_agg(format(E'%s(%s)\n    RETURNS %s', proname,
		CASE WHEN arguments <> '' THEN E'\n    ' || replace(regexp_replace(arguments, '::[a-z0-9_.]+(\[\])?', '', 'g'), ', ', E',\n    ') ELSE '' END,
		result), E'\n\n' ORDER BY proname COLLATE "C", arguments COLLATE "C")
  FROM (SELECT proname, pg_get_function_arguments(p.oid) AS arguments, pg_get_function_result(p.oid) AS result
		  FROM pg_proc p WHERE pronamespace = 's3export'::regnamespace AND obj_description(p.oid, 'pg_proc') NOT LIKE 'Internal: %') f
SQL
{
	my @named = section('Functions') =~ /^\| `([^|]*)` \|/mg;
	my %named = map { map { $_ => 1 } /(?:^|`, `)(\w+)\(/g } @named;

	is(join(' ', sort keys %named), sql(<<'SQL'), 'and says what each does');
SELECT string_agg(DISTINCT proname, ' ' ORDER BY proname) FROM pg_proc p WHERE pronamespace = 's3export'::regnamespace AND obj_description(p.oid, 'pg_proc') NOT LIKE 'Internal: %'
SQL
}

# ---- views
is(block('Columns of the views'), sql(<<'SQL'), 'the page has the columns of each view') or diag('it should be the list that the test got');
SELECT string_agg(format(E'%s\n%s', relname, columns), E'\n\n' ORDER BY relname)
  FROM (SELECT relname, string_agg(format('    %s %s', quote_ident(attname), format_type(atttypid, atttypmod)), E'\n' ORDER BY attnum) AS columns
		  FROM pg_class c JOIN pg_attribute ON attrelid = c.oid AND attnum > 0
		 WHERE relnamespace = 's3export'::regnamespace AND relkind = 'v' GROUP BY relname) v
SQL
is(join(' ', sort(section('Views') =~ /^\| `(\w+)` \|/mg)), sql(q(SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relnamespace = 's3export'::regnamespace AND relkind = 'v')), 'and says what each has');

# ---- settings
{
	my %set_by = (user => 'any role', superuser => 'superuser', sighup => '`postgresql.conf`');
	my %documented;

	foreach my $line (section('Settings') =~ /^(\| `s3export\..*)$/mg)
	{
		my ($name, $default, $set_by) = $line =~ /^\| `(s3export\.\w+)` \| (.*?) ?\| (.*?) \|/ or die "cannot read: $line";

		$documented{$name} = "$default, $set_by";
	}
	my %real = map { my ($name, $default, $context) = split /\|/; $name => "$default, $set_by{$context}" }
	  split /\n/, sql(q(LOAD 's3export'; SELECT name, current_setting(name), context FROM pg_settings WHERE name LIKE 's3export.%' AND name <> 's3export.fast_output'));

	is_deeply(\%documented, \%real, 'the page has each setting, its default, and who may set it');
}

# ---- comments
is(sql(<<'SQL'), '', 'the catalog has a comment on each function, view and type');
SELECT string_agg(object, ' ')
  FROM (SELECT p.oid::regprocedure::text, obj_description(p.oid, 'pg_proc') FROM pg_proc p WHERE pronamespace = 's3export'::regnamespace
		UNION ALL SELECT c.oid::regclass::text, obj_description(c.oid, 'pg_class') FROM pg_class c WHERE relnamespace = 's3export'::regnamespace AND relkind = 'v'
		UNION ALL SELECT t.oid::regtype::text, obj_description(t.oid, 'pg_type') FROM pg_type t LEFT JOIN pg_class c ON c.oid = typrelid
		 WHERE typnamespace = 's3export'::regnamespace AND typelem = 0 AND c.oid IS NULL) AS o(object, comment)
 WHERE comment IS NULL
SQL

$node->stop;
done_testing();
