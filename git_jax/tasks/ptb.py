r"""Captions to tokens, as pycocoevalcap makes them, without Java.

>>> tokenize(["A man's dog can't sit (U.S. No. 5)."])
["a man 's dog ca n't sit -lrb- u.s. no. 5 -rrb-"]

pycocoevalcap runs Stanford's PTBTokenizer 3.4.1 with `-preserveLines -lowerCase`,
which follows the conventions of the Penn Treebank, and drops a list of punctuation
marks from what it prints. This lexer was written from that program's answers alone:
it was asked millions of short strings, and the rules say what it did.

A lexer is one table of regular expressions, `_RULES`. At every position the longest
match wins, and of two equally long ones the first in the table. What a rule looks
ahead at counts for its length unless it stands in a lookaround: `(don)n't` is five
long, so it beats the four letters of the word `donn`, but only `do` becomes a token.

    clitics         can't -> ca n't  man's -> man 's  cannot -> can not  'tis -> 't is
    names           O'Brien, d'Artagnan, Xi'an and Hawai'i stay whole
    stops           Mr. U.S. a.m. Inc. keep theirs, No. before a number alone
    numbers         1,000.50  3-1/2  22 3/4  12:30  12/25/2001  '90s  (650) 555-1234
    signs           50 %   $ 5   US$ 5   # 5 for both #5 and £5   cents for ¢
    joined words    black-and-white, and/or, AT&T, #tag, @home, street.There, photo.jpg
    addresses       http://a.com/b?c=d   www.a.com   me@a.com   <b>
    brackets        -lrb- -rrb- -lsb- -rsb- -lcb- -rcb-, but :-) is one token :--rrb-
    dropped         quotes, dashes, ellipses, single . , : ; ? !, emoji, unknown signs

The tokens are written in lower case before the punctuation is dropped, so that the
brackets, listed in capitals, remain. A blank inside a token (a telephone number, a
mixed fraction) is a no-break space, as the reference prints it.

A stop's meaning can depend on the next word (`Plan A. The end`), and the reference
sees all captions as one text: so the last initial of a caption may lose its stop to
the next caption's `The`. `tokenize` does the same, given the same captions in the
same order. A caption with a line break of any kind stays one caption here; the
reference itself would lose count of its lines at all but `\n`.

Known differences, none of which was met in a real caption: letters that Unicode gained
since 2012, which the reference drops; characters above U+FFFF inside addresses and
markup, which it keeps; soft hyphens and named letters (`&eacute;`) inside words that
are joined or run together; a few fixed names (`S&P-500`).
"""

import functools
import re
import unicodedata
from collections.abc import Callable, Iterable

from git_jax.tasks import ptb_tables as tables

# The evaluation's list, as it applies to lower case, and what is left of no token.
_PUNCTUATION = frozenset(["", *"'' ' `` ` . ? ! , : - -- ... ;".split()])

_QUOTES = (
    dict.fromkeys("`‘‛\x91‹", "`")
    | dict.fromkeys("'’\x92›", "'")
    | dict.fromkeys("“\x93«", "``")
    | dict.fromkeys("”\x94»", "''")
    | {"„": "„", "‚": "‚"}
)
_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">"}  # the others are dropped
_BREAKS = re.compile("[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
# A lower-case word before a blank is a token by every rule, but for those that split.
_PLAIN = re.compile(r"(?!(?:cannot|gonna|gotta|gimme|lemme|wanna) )([a-z]+) +")


def tokenize(captions: Iterable[str]) -> list[str]:
    """The tokens of each caption, in lower case, joined by blanks.

    >>> tokenize(["Two dogs.", "It's 5:30, isn't it?", "..."])
    ['two dogs', "it 's 5:30 is n't it", '']
    """
    text = "\n".join(_BREAKS.sub(" ", caption) for caption in captions)
    lines = " ".join(_tokens(text)).split("\n")
    return [" ".join(_kept(line.strip(" ").rstrip())) for line in lines]


def _kept(line: str) -> list[str]:
    return [token for token in line.split(" ") if token not in _PUNCTUATION]


def _tokens(text: str) -> Iterable[str]:
    """Tokens in lower case, punctuation among them, and `\\n` where a line ends."""
    rules = _compiled()
    write: Callable[[str], str]
    at = 0
    while at < len(text):
        if plain := _PLAIN.match(text, at):
            yield plain[1]
            at = plain.end()
            continue
        char = text[at]
        best, write = None, _word
        if not char.isspace():
            for pattern, writer in rules["a" if char.isalpha() else "d"]:
                found = pattern.match(text, at)
                if found and (best is None or found.end() > best.end()):
                    best, write = found, writer
        if best is None:
            yield _single(char)
            at += 1
        else:
            token = best[best.lastindex or 0]
            yield write(token)
            at += len(token)


def _single(char: str) -> str:
    """A character that no rule knows: a token, another one's name, or nothing."""
    if char in tables.REWRITTEN:
        return tables.REWRITTEN[char]
    return char if char == "\n" or _symbol().match(char) else ""


def _word(token: str) -> str:
    """Lower case, without soft hyphens and the entities that the rules let in."""
    token = token.lower().replace("\u00ad", "")
    return token.replace("&apos;", "'").replace("&amp;", "&")


def _clitic(token: str) -> str:
    """`’S` -> `'s`; a backquote (`don`t`) stays."""
    return _word(token.replace("’", "'").replace("\x92", "'"))


def _quote(token: str) -> str:
    return "".join(_QUOTES[char] for char in token)


def _entity(token: str) -> str:
    if token[1] == "#" or token in ("&QUOT;", "&APOS;"):
        return token.lower()
    return _ENTITIES.get(token.lower(), "")


def _bracketed(token: str) -> str:
    """`(650) 5` -> `-lrb-650-rrb-\u00a05`, of telephone numbers and faces."""
    token = token.replace("(", "-lrb-").replace(")", "-rrb-")
    return token.replace(" ", "\u00a0").lower()


def _dash(token: str) -> str:
    return "--" if 1 < len(token) < 5 else token


def _dots(token: str) -> str:
    return "..."


def _chars(ranges: Iterable[str]) -> str:
    """["41-43", "5f"] -> "A-C_-_", the inside of a character class."""
    ends = [[int(end, 16) for end in part.split("-")] for part in ranges]
    return "".join(f"\\u{end[0]:04x}-\\u{end[-1]:04x}" for end in ends)


def _any(words: Iterable[str]) -> str:
    return f"(?:{'|'.join(sorted(words, key=len, reverse=True))})"


def _capitalised(words: Iterable[str]) -> str:
    """["pa"] -> "(?:P(?i:a))": Pa or PA."""
    return _any(f"{word[0].upper()}(?i:{word[1:]})" for word in words)


def _parts() -> dict[str, str]:
    """What the rules are made of, by the names that they use in `{}`."""
    # Python's \w also holds the likes of ½ and ².
    numerals = "".join(
        char
        for char in map(chr, range(0x80, 0x10000))
        if char.isalnum() and unicodedata.category(char) in ("No", "Nl", "So", "Mn")
    )
    part = {
        "A": "[A-Za-z]",
        "AN": "[A-Za-z0-9]",
        "PURE": rf"[^\W\d_{numerals}\U00010000-\U0010ffff]",
        "LETTER": rf"(?:[^\W\d_{numerals}\U00010000-\U0010ffff]"
        r"|&(?i:[aeiou](?:acute|grave|uml));)",
        "ALNUM": rf"[^\W_{numerals}\U00010000-\U0010ffff]",
        "MARK": f"[{_chars(tables.MARKS)}]",
        "HYPHEN": "[-_\u058a\u2010\u2011]",
        "CURLY": r"(?:[’\x92]|&(?i:apos);)",
        "APOS": r"(?:['’\x92]|&(?i:apos);)",
        "LOOSE": "['’\x92`‘‛\x91]",  # what serves for an apostrophe inside a word
        "CLITIC": "(?i:[sdm]|re|ve|ll)",
        "URL": r"[^ \t\n\"<>|(){}]",
        "PATH": r"[^ \t\n\"<>|()]",
        "HOST": r"[^ \t\n\"<>|.!?(){},]",
        "LABEL": r"[^ \t\n\"`'<>|.!?(){},_$:;=\\^/\[\]@A-Z0-9-]",
        "LAST": r"[^ \t\n\"<>|.!?(){},-]",  # of an address
        "EYE": "[-^x=~<>']",
        "TAG": r"(?:<[!?][A-Za-z-][^>\n]*>|</[A-Za-z][A-Za-z0-9_.:-]*>"
        r"|<[A-Za-z][A-Za-z0-9_.:-]*(?: +[A-Za-z][A-Za-z0-9_.:-]*"
        r"(?:=(?:\"[^\"\n]*\"|'[^'\n]*'))?)* */?>)",
        "EXTENSIONS": _any(tables.EXTENSIONS),
        "TITLES": _any(tables.TITLES),
        "NO_CAPITALS": _any(
            f"[{w[0]}{w[0].upper()}]{w[1:]}" for w in tables.NO_CAPITALS
        ),
        "CLOSERS": _any(tables.CLOSERS),
        "CAPITALS": _capitalised(tables.CAPITAL_CLOSERS),
        "COUNTED": _any(tables.COUNTED),
        "STARTERS": _capitalised(tables.STARTERS),
    }
    nested = {
        "L": r"(?:{LETTER}|{MARK})",
        "WORD": r"{L}(?:{L}|\d|\u00ad)*",
        "DOTTED": r"{LETTER}{ALNUM}*(?:[.!?]{L}(?:{ALNUM}|\u00ad)*)+",
        "PIECE": r"(?:[dDlLoO]{LOOSE}{ALNUM}{{2,}}|{ALNUM}+)",
        "HYPHENED": r"{PIECE}(?:{HYPHEN}{PIECE})*",
        "FIGURED": r"{AN}[A-Za-z0-9.,]*(?:-(?:{A}\.(?:{A}\.)+|{AN}+))+",
    }
    for name, pattern in nested.items():
        part[name] = pattern.format(**part)
    return part


# (where it starts, regular expression, how its token is written). A rule may start at
# a letter "a", at any other character "d", or at both. Group 1, if any, is the token.
_RULES: list[tuple[str, str, Callable[[str], str]]] = [
    # Markup and entities: <b>, <unk>, <a href="x">, </a>, <!-- x -->, &amp;
    ("d", r"{TAG}", str.lower),
    ("d", r"&(?:(?i:amp|lt|gt|nbsp|mdash|ndash)|quot|apos|QUOT|APOS|#\d+);", _entity),
    # Words written as one, and n't, which takes the word before it apart.
    ("a", r"((?i:can))(?i:not)(?!{ALNUM})", _word),
    ("a", r"((?i:gon|wan))(?i:na)(?!{ALNUM})", _word),
    ("a", r"((?i:got))(?i:ta)(?!{ALNUM})", _word),
    ("a", r"((?i:gim|lem))(?i:me)(?!{ALNUM})", _word),
    ("a", r"({A}*[A-MO-Za-mo-z])[Nn](?:{LOOSE}|&apos;)[Tt]", _word),
    ("a", r"[Nn](?:{LOOSE}|&apos;)[Tt]", _clitic),
    # The other clitics, and words that an apostrophe begins.
    ("ad", r"({WORD}|{DOTTED}){APOS}{CLITIC}", _word),
    ("d", r"'{CLITIC}(?!{A})|{CURLY}{CLITIC}", _clitic),
    ("d", r"('[Tt])(?i:is|was)", _word),
    ("d", r"{APOS}(?i:em|till?|cause)", str.lower),
    ("d", r"{APOS}[Nn]{APOS}|'[Nn](?=\s)|{CURLY}[Nn]", str.lower),
    ("d", r"{APOS}(?:[2-9]0[Ss]|\d\d(?=\s))", str.lower),
    # Words with an apostrophe inside: y'all -> y' all, but O'Brien (HYPHENED), Xi'an.
    ("a", r"(?i:[dlj]|ol){APOS}|[yY]{APOS}(?={A})", _word),
    (
        "a",
        r"(?i:cap'n|c'est|c'mon|e'er|ev'ry|li'l|nat'l|nor'easter|o'o|s'mores"
        r"|somethin')",
        _word,
    ),
    ("a", r"[A-HJ-XZn]{LOOSE}{PURE}{{2,}}", _word),
    ("a", r"{LETTER}+[aeiouyAEIOUY]{LOOSE}[aeiouA-Z]{PURE}*", _word),
    # Addresses: me@a.com, http://..., www.a.com/b, a.com/bc, @home, #tag
    (
        "ad",
        r"<?{AN}[^ \t\n\"<>|()\u00a0{{}}]*@(?:[^ \t\n\"<>|().\u00a0{{}}]+\.)*"
        r"[^ \t\n\"<>|().\u00a0{{}}]+>?",
        str.lower,
    ),
    ("a", r"(?i:https?)://{URL}+{LAST}", str.lower),
    ("a", r"(?i:www)\.(?:{HOST}+\.)+{A}{{2,4}}", str.lower),
    ("a", r"(?i:www)\.(?:{HOST}+?\.)+?{A}{{2,4}}/{PATH}+{LAST}", str.lower),
    (
        "ad",
        r"(?:{LABEL}+\.)+(?i:com|net|org|edu)(?:/{PATH}+{LAST})?",
        str.lower,
    ),
    ("d", r"@[A-Za-z_][A-Za-z_0-9]*|#{LETTER}+", str.lower),
    # Abbreviations and initials. A closer may also take what follows: Inc.-x -> inc. x
    ("a", r"((?i:{CLOSERS}|(?:ph|ed)\.d)\.)(?:(?!{LETTER}).)?.?", _word),
    ("a", r"({NO_CAPITALS}\.)(?:(?!{LETTER}).)?.?", _word),
    ("a", r"({CAPITALS}\.)(?:(?!{LETTER}).)?.?", _word),
    ("a", r"(?i:{TITLES})\.", _word),
    ("a", r"((?i:{COUNTED})\.)\s?\d", _word),
    ("a", r"({A})\.\s+(?:{STARTERS}|M[RrSs]\.|{TAG})(?=\s)", _word),
    ("a", r"{A}(?:\.{A})*\.", _word),
    # Any word keeps its stop before another mark: `dog.,`
    ("ad", r"((?:{DOTTED}|{HYPHENED}|{FIGURED})\.)[,;:]", _word),
    # Words run together by a missing blank, and file names.
    ("ad", r"{DOTTED}", _word),
    ("ad", r"{AN}+(?:\.{AN}+)*\.(?i:{EXTENSIONS})(?=[\s.,!?])", _word),
    # Numbers, dates, fractions, telephone numbers.
    ("d", r"[-+]?[.,:٫٬]?\d+(?:[.,:٫٬]\d+)*", _word),
    ("d", r"\d{{1,2}}[-/]\d{{1,2}}[-/]\d{{2,4}}", _word),
    ("d", r"(?:\d{{1,4}}[- \u00a0])?\d{{1,4}}(?:\\?/|⁄)\d{{1,4}}", _bracketed),
    (
        "d",
        r"(?:\(\d\d\d?\)[ \u00a0]?|\+?(?:\d{{2,4}}[- \u00a0])?\d{{2,4}}[- \u00a0])"
        r"\d{{3,4}}[- \u00a0]?\d{{3,5}}",
        _bracketed,
    ),
    # Words, joined or not.
    ("ad", r"{WORD}", _word),
    ("d", r"\d(?:{ALNUM}|\u00ad)*", _word),
    ("ad", r"{HYPHENED}", _word),
    ("ad", r"{FIGURED}", _word),
    ("a", r"(?i:non-u\.s|anti-|pro-)", _word),
    ("ad", r"{AN}+(?:-{A}+){{0,2}}(?:\\?/{AN}+(?:-{A}+){{0,2}}){{1,2}}", _word),
    ("a", r"[A-Z]+(?:(?:[&+]|&(?i:amp);)[A-Z]+)+|[Ss]&[Ll][Ss]", _word),
    ("a", r"[CcFf]#|[Cc]\+\+|[A-Z]+\$", _word),
    # Faces, and runs of one mark.
    ("d", r"[<>]?[:;=][-o*']?[()DPdpO\\{{@|\[\]](?!{AN})", _bracketed),
    ("ad", r"{EYE}_{EYE}", _word),
    ("d", r"\((?!--.\)){EYE}[-_.]?{EYE}\)", _bracketed),
    ("d", r"-(?i:[lr][rcs]b)-", _word),
    ("d", r"-+", _dash),
    ("d", r"\.{{3,5}}", _dots),
    ("ad", r"[⁺⁻]?[⁰¹²³⁴-⁹]+|[₊₋]?[₀-₉]+", _word),
    ("d", r"''|[`‘‛\x91‹›’\x92“\x93«”\x94»„‚]{{1,2}}", _quote),
    ("d", r"[?!]{{2,}}|\*+|\\\*|#+|@+|_+|<<|>>", _word),
]


@functools.cache
def _compiled() -> dict[str, list[tuple[re.Pattern[str], Callable[[str], str]]]]:
    """The rules that may start at a letter "a" and at another character "d"."""
    parts = _parts()
    rules = [(where, re.compile(p.format(**parts)), w) for where, p, w in _RULES]
    return {
        start: [(pattern, write) for where, pattern, write in rules if start in where]
        for start in "ad"
    }


@functools.cache
def _symbol() -> re.Pattern[str]:
    return re.compile(f"[{_chars(tables.SYMBOLS)}]")
