"""Texts that break careless copies. NUL is not among them: PostgreSQL cannot hold it."""

HARD = {
    "empty": "",
    "space": " ",
    "trailing space": "ends in a space ",
    "copy null": "\\N",
    "copy end": "\\.",
    "backslashes": "C:\\new\\table\\x41\\",
    "newlines": "one\ntwo\r\nthree\rfour\n",
    "tabs": "a\tb\vc\fd\be",
    "quotes": 'it\'s "quoted" `so`, $tag$ too',
    "controls": "\x01\x1b\x1f\x7f\x85\xad",
    "scripts": "Grüße, 実験, опыт, ניסוי, \u202eabc\u202c, e\u0301 = é",
    "astral": "🧪👩\u200d🔬𝔘 \U0010fffd",
    "separators": "\ufeffa\u2028b\u2029c\u00a0d\u3000e",
    "null word": "NULL",
    "none word": "None",
    "number": "1e400",
    "big number": "123456789012345678901234567890.10",
    "json": '{"a": [1, 2.50, null], "b": "\\u00e9\\n", "a": 1.0}',
    "sql": "'; DROP TABLE runs; --",
    "formats": "%s %(x)s {0} $1 :name ?",
    "html": "<b>&amp;</b>",
}


def long(length: int) -> str:
    """So many characters, most of them more than one byte long."""
    return ("жλ漢🧪a" * (length // 5 + 1))[:length]
