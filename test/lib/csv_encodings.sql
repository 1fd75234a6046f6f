-- Multibyte text and output encodings.  Trailing bytes of a client-only
-- encoding can be the bytes of delimiters, quotes and escapes.

CREATE TABLE multibyte (id serial, v text);
INSERT INTO multibyte (v) VALUES
	('ascii, only'), (''), ('café, "naïve"'), ('Straße'), ('Ünïcödé;|\'), ('¿¡§°±µ'), ('ąčęėįšųūž'), ('Привет, "мир"'), ('Ελληνικά'), ('שלום'),
	('مرحبا'), ('สวัสดี'), ('tiếng Việt'), ('₫ € „quotes“'),
	-- second bytes 5C, 7C, 7B, 40 and so on in SJIS
	('ソ'), ('表示|ポート'), ('能、ソ, "十"'), ('予約\構'), ('ミ匿Ы'), ('ァァ'), ('ﾊﾝｶｸ'),
	-- the same in BIG5
	('許功蓋'), ('餐淚|功'), ('育珮, "坼"'),
	-- GBK and GB18030, whose second and fourth bytes may be digits
	('誠|乗'), ('汉字, "漢字"'), ('丂丄丅'), ('㐀㐁ÿÀ'), ('𠀀😀, x'),
	-- UHC and JOHAB, whose second bytes may be letters
	('한국어, "말"'), ('갂갃갅똠방각하'), ('쌰쎼쓔'),
	(repeat('ソ', 3000)), (repeat('許,', 3000)), (repeat('x', 15) || 'é'), (repeat('x', 16) || 'é'), (repeat('x', 64) || 'ソ|'), ('x' || repeat('é', 40));
INSERT INTO queries
	SELECT 'multibyte', format('SELECT v, ''\.'' AS w FROM multibyte WHERE id = %s', id) FROM multibyte
	UNION ALL SELECT 'multibyte', format('SELECT v AS "é ""ソ" FROM multibyte WHERE id = %s', id) FROM multibyte;

INSERT INTO options (name, header, delimiter, quote, escape, nul, force_quote, encoding)
SELECT format('m %s %s', e, o.name), o.header, o.delimiter, o.quote, o.escape, o.nul, o.force_quote, e
FROM unnest(ARRAY['UTF8', 'SQL_ASCII', 'LATIN1', 'LATIN2', 'LATIN9', 'WIN1251', 'WIN1252', 'WIN1258', 'KOI8R', 'ISO_8859_5', 'WIN874', 'EUC_JP', 'EUC_CN',
	'EUC_KR', 'EUC_TW', 'EUC_JIS_2004', 'SJIS', 'SHIFT_JIS_2004', 'BIG5', 'GBK', 'UHC', 'JOHAB', 'GB18030']) e,
	(VALUES ('', true, NULL, NULL, NULL, NULL, NULL::text[]),
		('marks', false, '|', NULL, '\', '', NULL),
		('quotes', false, NULL, '|', '\', 'é', '{*}'),
		('backslash', true, '\', '@', NULL, 'ascii', NULL),
		('letters', false, 'A', 'a', 'Z', '', '{*}'),
		('digits', false, '0', '9', NULL, '', NULL)) o (name, header, delimiter, quote, escape, nul, force_quote);

-- the types, not only text, in another encoding
INSERT INTO options (name, encoding, header) VALUES
	('t LATIN1', 'LATIN1', true), ('t SJIS', 'SJIS', true), ('t EUC_JP', 'EUC_JP', false), ('t SQL_ASCII', 'SQL_ASCII', false);
