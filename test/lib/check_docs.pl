# check_docs.pl: each link of README, CONTRIBUTING and docs leads to a file, and to a heading
# in it; no page has a heading twice; the README stays short.  Run it at the top of the tree.
use strict;
use warnings;

my $longest_readme = 250;
my (%headings, @wrong);

sub slurp
{
	my ($name) = @_;

	open my $file, '<', $name or die "could not read $name: $!\n";
	local $/;
	return readline $file;
}

# Without what is between fences, or in code.
sub prose
{
	my ($text) = @_;

	$text =~ s/^( *)(?:\d+\. |[*-] )?```.*?^ *```\n//msg;
	return $text;
}

# As GitHub makes them.
sub anchor
{
	my ($heading) = @_;

	return lc($heading) =~ s/[^\w -]//gr =~ s/ /-/gr;
}

my @pages = grep { -e } 'README.md', 'CONTRIBUTING.md', 'SECURITY.md', 'test/README.md', glob 'docs/*.md';
my %text = map { $_ => prose(slurp($_)) } @pages;

foreach my $page (@pages)
{
	foreach my $heading ($text{$page} =~ /^#+ (.*)$/mg)
	{
		push @wrong, "$page has the heading \"$heading\" twice" if $headings{$page}{ anchor($heading) }++;
	}
}
foreach my $page (@pages)
{
	my ($directory) = $page =~ m{^(.*/)};

	foreach my $link ($text{$page} =~ s/`[^`]*`//gr =~ /\]\(([^)\s]+)\)/g)
	{
		next if $link =~ /^https?:/;
		my ($file, $anchor) = $link =~ /^([^#]*)#?(.*)$/;
		my $target = $file eq '' ? $page : ($directory // '') . $file;

		1 while $target =~ s{[^/]+/\.\./}{};
		push @wrong, "$page: there is no $target" unless -e $target;
		push @wrong, "$page: $target has no heading for #$anchor" if $anchor ne '' && !$headings{$target}{$anchor};
	}
}
my $lines = () = slurp('README.md') =~ /\n/g;

push @wrong, "README.md has $lines lines; $longest_readme are enough" if $lines > $longest_readme;
print "$_\n" foreach @wrong;
exit(@wrong ? 1 : 0);
