"""The keys of [merge] that say which tokenizer, chat template and vocabulary the result has; and their problems."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from regstream.manifest.messages import Problem, format_value, nearest_word
from regstream.manifest.schema import Merge
from regstream.manifest.value_types import BASE, TEMPLATE_SUFFIX, UNION, is_template_file


def reads_tokenizers(merge: Merge) -> bool:
    """Whether the candidates' tokenizers decide the result's vocabulary."""
    return merge.tokenizer not in (None, BASE)


def template_source(merge: Merge) -> str | Path:
    """Whose chat template the result has: a candidate's name, `BASE`, or a file."""
    return merge.chat_template or (BASE if merge.tokenizer in (None, UNION) else merge.tokenizer)


def tokenizer_problems(merge: Mapping[str, Any], names: Collection[str]) -> Iterator[Problem]:
    """Every problem of the keys of a [merge] table with candidates of these names; invalid values are None."""
    tokenizer, template = merge.get("tokenizer"), merge.get("chat_template")
    if tokenizer is not None and tokenizer not in (BASE, UNION, *names):
        text = f'expected "base", "union" or a candidate\'s name, found {format_value(tokenizer)}'
        yield Problem(("merge", "tokenizer"), text + _guess(tokenizer, (BASE, UNION, *names)))
    if tokenizer is not None and UNION in names:
        text = 'a candidate is named "union", which has a meaning of its own here; give it another name'
        yield Problem(("merge", "tokenizer"), text)
    if template is not None and not is_template_file(template) and template not in (BASE, *names):
        text = f'expected "base", a candidate\'s name or a {TEMPLATE_SUFFIX} file, found {format_value(template)}'
        yield Problem(("merge", "chat_template"), text + _guess(template, (BASE, *names)))
    if tokenizer not in (None, BASE) and (merge.get("others") or {}).get("vocabulary") == BASE:
        text = f'"base" drops the rows that tokenizer = {format_value(tokenizer)} takes; remove one of both keys'
        yield Problem(("merge", "others", "vocabulary"), text)


def _guess(text: str, words: Collection[str]) -> str:
    guess = nearest_word(text, words)
    return f'; did you mean "{guess}"?' if guess else ""
