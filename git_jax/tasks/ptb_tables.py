"""Word lists and character sets of the caption tokenizer (`ptb.py`).

Each was measured: strings were given to Stanford's PTBTokenizer 3.4.1 as a black
box, every list below is what it was seen to treat alike. Abbreviations: all strings
of up to four letters and all words of a 30,000-word vocabulary, each before a stop.
Characters: all of the basic multilingual plane, each alone and inside words.
"""

# Abbreviations that keep their stop: `Mr. Smith` -> mr. smith, any case of letters.
TITLES = """
adj adm adv alex assoc asst atty ave brig capt cf cie cmdr col cpl dept det dr drs elec
ens ft gen gov govs hon insp invt jos lieut lt maj messrs mlle mme mr mrs ms msgr mt
natl pfc ph pres prof pvt rep reps rev sen sens sfc sgt spc st ste supt treas vs wm
""".split()

# The same, and the stop binds closer than the rest of the word: `Inc.x` -> inc. x.
CLOSERS = """
al ala apr ariz assn aug bhd bldg blvd bros calif co colo conn corp cos ct dak dec esq
est etc ext feb fla fri ga inc ind intl jan jr jul jun kan kans ky ltd mar md mich minn
mo mon mont neb nev nov oct okla penn plc rd rt sep sept seq
sq sr sys tel tenn thu thurs tue tues univ va vt wed wis wisc wyo
""".split()

# Abbreviations only with a capital, for they are words too: `Mass.`, but `mass .`
CAPITAL_CLOSERS = "ark az del ill la mass miss ore pa tex wash".split()

# Abbreviations, but not in capitals: `Pty.`, but `PTY .`
NO_CAPITALS = "mfg mtg ppte ppty pte ptes pty ptys".split()

# Abbreviations only before a number: `No. 5`, but `no . five`
COUNTED = "art ca fig figs no nos op pp prop".split()

# A capitalised one of these after `A. ` starts a sentence, so the stop was a full one.
STARTERS = """
a about according after an as at but earlier he her here however if in it last many more
now once one other our she since so some such that the their then there these they this
we what when while yet you
""".split()

# File extensions that make a name of something that starts with a digit: `001.jpg`
EXTENSIONS = """
bat bmp c class cgi cpp dll doc docx exe gif gz h htm html jar java jpeg jpg mov mp3 pdf
php pl png ppt ps py sql tar txt wav x xml zip
""".split()

# Code points, hexadecimal. Marks stand in words as letters do, but never after a digit.
MARKS = """
2c2-2c5 2d2-2df 2e5-2eb 2ed 2ef-36f 375 378-379 384-385 3f6 483-487 55a-55f 591-5bd 5bf
5c1-5c2 5c4-5c5 5c7 615-61a 64b-65e 670 6d6-6e4 6e7-6ed 6fd-6fe 70f 711 730-74c 7a6-7b0
7eb-7f3 900-903 93c 93e-94e 951-955 962-963 981-983 9bc 9be-9c4 9c7-9c8 9cb-9cd 9d7
9e2-9e3 a01-a03 a3c a3e-a4f a81-a83 abc abe-acf b82 bbe-bc2 bc6-bc8 bca-bcd c01-c03
c3e-c56 d3e-d44 d46-d48 e31 e34-e3a e47-e4e eb1 eb4-ebc ec8-ecd
""".split()

# Symbols that are tokens, each by itself. What is in no set (emoji, ...) is dropped.
SYMBOLS = """
21 23-2f 3a-40 5b-60 7b-7e a1 a5-a9 ac ae-b4 b6-b9 bf d7 f7 37e 387 589 5be 5c0 5c3 5c6
5f3-5f4 600-603 606-60c 614 61b 61e-61f 66a 66d 6d4 700-70d 7f6-7f8 964-965 e3f e4f 1fbd
2016-2017 201a 201e-2023 2030-2038 203b 203e-2042 2044 2070 2074-207e 2080-208e 20a4
2100-2101 2103-2106 2108-2109 2114 2116-2118 211e-2123 2125 2127 2129 212e 213a-213b
2140-2144 214a-214d 214f 2155-215e 2190-2bff 3001-3002 3012 30fb ff01-ff0f ff1a-ff20
ff3b-ff40 ff5b-ff65 ffe0-ffe1 ffe5-ffe6
""".split()

# Characters that are written as another token. Quotes and dashes are not here: they
# are dropped anyhow, as what no rule knows is.
REWRITTEN = {
    "(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-",
    "¢": "cents", "£": "#", "\x80": "$", "¤": "$", "₠": "$", "€": "$",
    "¼": "1/4", "½": "1/2", "¾": "3/4", "⅓": "1/3", "⅔": "2/3",
}  # fmt: skip
