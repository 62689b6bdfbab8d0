import string
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from feddp.common.data.tokens import IGNORE, TokenRow, chunk_rows, tokenize_example
from feddp.common.data.users import Example

LETTERS = string.ascii_letters + string.digits + " .:!?\n#"
SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "<u>", "<a>", "<sys>", "<e>")
BEGIN, END, TURN_END = SPECIAL.index("<s>"), SPECIAL.index("</s>"), SPECIAL.index("<e>")
TEMPLATE = """{% for m in messages %}{% if m.role == 'user' and loop.index0 and
messages[loop.index0 - 1].role == 'user' %}{{ raise_exception('two questions') }}{% endif %}
{{- {'user': '<u>', 'assistant': '<a>\n', 'system': '<sys>'}[m.role] + m.content + '<e>' }}
{%- endfor %}{% if add_generation_prompt %}{{ '<a>\n' }}{% endif %}"""
# Shows the thoughts "#...#" of the last answer only, as templates of reasoning models do.
FORGETFUL = """{% for m in messages %}{{ ('<u>' if m.role == 'user' else '<a>') +
(m.content if loop.last else m.content.split('#')[-1]) + '<e>' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<a>' }}{% endif %}"""


def letters(template: str | None = None, *, has_begin: bool = True) -> PreTrainedTokenizerFast:
    """One token per letter, so that a row reads as text."""
    vocabulary = {name: i for i, name in enumerate((*SPECIAL, *LETTERS))}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>" if has_begin else None,
        eos_token="</s>",
        additional_special_tokens=list(SPECIAL[4:]),
    )
    tokenizer.chat_template = template
    return tokenizer


PLAIN, CHAT = letters(), letters(TEMPLATE)


def rows_of(
    example: Example, max_tokens: int = 50, tokenizer: PreTrainedTokenizerBase = PLAIN
) -> list[TokenRow]:
    return tokenize_example(example, tokenizer, task="causal-lm", max_tokens=max_tokens, labels=())


def text_of(ids: object) -> str:
    names = (*SPECIAL, *LETTERS)
    return "".join("_" if i == IGNORE else names[i] for i in np.asarray(ids).tolist())


def is_shifted(row: TokenRow) -> bool:
    """Every label inside a row is the next input."""
    inside = row.labels[:-1]
    return bool(((inside == IGNORE) | (inside == row.input_ids[1:])).all())


def turns(*pairs: tuple[str, str]) -> Example:
    return Example(messages=tuple({"role": role, "content": text} for role, text in pairs))


def test_a_text_predicts_every_token_and_its_end() -> None:
    (row,) = rows_of(Example("Hi you"))
    assert text_of(row.input_ids) == "<s>Hi you"
    assert text_of(row.labels) == "Hi you</s>"
    assert row.input_ids.dtype == row.labels.dtype == np.int64


def test_a_tokenizer_without_a_begin_token_gets_none() -> None:
    (row,) = rows_of(Example("Hi"), tokenizer=letters(has_begin=False))
    assert (text_of(row.input_ids), text_of(row.labels)) == ("Hi", "i</s>")


@given(st.text(LETTERS, max_size=80), st.integers(4, 30))
def test_a_long_text_becomes_rows_that_predict_each_token_once(text: str, most: int) -> None:
    rows = rows_of(Example(text), most)
    if not text.strip():
        assert rows == []
        return
    assert "".join(text_of(row.labels) for row in rows) == text + "</s>"
    assert "".join(text_of(row.input_ids) for row in rows) == "<s>" + text
    assert all(0 < len(row.input_ids) == len(row.labels) <= most for row in rows)
    assert all(is_shifted(row) for row in rows)


def test_completion_alone_has_loss() -> None:
    (row,) = rows_of(Example(text="Yes.", prompt="Ok? "))
    assert text_of(row.input_ids) == "<s>Ok? Yes."
    assert text_of(row.labels) == "____Yes.</s>"


def test_a_long_prompt_loses_its_beginning() -> None:
    (row,) = rows_of(Example(text="Yes.", prompt="abcdefgh"), 7)
    assert text_of(row.input_ids) == "fghYes."
    assert text_of(row.labels) == "__Yes.</s>"


def test_a_long_completion_keeps_its_beginning_and_one_token_of_the_prompt() -> None:
    (row,) = rows_of(Example(text="123456789", prompt="abc"), 5)
    assert text_of(row.input_ids) == "c1234"
    assert text_of(row.labels) == "12345"


@given(st.text(LETTERS, max_size=40), st.text(LETTERS, max_size=40), st.integers(4, 30))
def test_prompt_rows_are_shifted_and_bounded(prompt: str, completion: str, most: int) -> None:
    rows = rows_of(Example(text=completion, prompt=prompt), most)
    assert bool(rows) == bool(completion.strip())
    for row in rows:
        assert len(row.input_ids) == len(row.labels) <= most
        assert is_shifted(row)
    if prompt and rows:
        wanted = (*completion, "</s>")[:most]
        assert text_of(rows[0].labels[rows[0].labels != IGNORE]) == "".join(wanted)


CHAT_TURNS = (
    ("system", "Be kind."),
    ("user", "Hi"),
    ("assistant", "Ho!"),
    ("user", "So?"),
    ("assistant", "No."),
    ("user", "Bye"),
)


def test_a_chat_by_template_has_loss_on_the_answers_and_not_on_their_heads() -> None:
    (row,) = rows_of(turns(*CHAT_TURNS), 100, CHAT)
    assert text_of(row.input_ids) == "<sys>Be kind.<e><u>Hi<e><a>\nHo!<e><u>So?<e><a>\nNo."
    given = "_" * (len("Be kind.") + 2 + len("Hi") + 2 + 1)
    assert text_of(row.labels) == given + "Ho!<e>" + "_" * (len("So?") + 4) + "No.<e>"


def test_the_given_part_is_exactly_what_the_template_asks_with() -> None:
    (row,) = rows_of(turns(*CHAT_TURNS[:3]), 100, CHAT)
    asked = CHAT.apply_chat_template(
        [{"role": role, "content": text} for role, text in CHAT_TURNS[:2]],
        tokenize=False,
        add_generation_prompt=True,
    )
    first = int(np.flatnonzero(row.labels != IGNORE)[0])
    assert text_of(row.input_ids[: first + 1]) == asked


def test_a_chat_without_template_has_one_line_per_turn() -> None:
    (row,) = rows_of(turns(*CHAT_TURNS[1:]), 200, PLAIN)
    assert text_of(row.input_ids) == (
        "<s>user: Hi\nassistant: Ho!\n</s>user: So?\nassistant: No.\n"
    )
    assert text_of(row.labels).replace("_", "") == " Ho!\n</s> No.\n</s>"
    assert is_shifted(row)


@pytest.mark.parametrize("tokenizer", [PLAIN, CHAT], ids=["plain", "template"])
@given(
    st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.text(LETTERS, max_size=9))),
    st.integers(4, 40),
)
def test_any_chat_gives_at_most_one_bounded_shifted_row(
    tokenizer: PreTrainedTokenizerBase, pairs: list[tuple[str, str]], most: int
) -> None:
    rows = rows_of(turns(*pairs), most, tokenizer)
    assert len(rows) <= 1
    for row in rows:
        assert len(row.input_ids) == len(row.labels) <= most
        assert is_shifted(row)
        assert (row.labels != IGNORE).any()


def test_a_long_chat_keeps_its_end() -> None:
    (whole,) = rows_of(turns(*CHAT_TURNS), 100, CHAT)
    (cut,) = rows_of(turns(*CHAT_TURNS), 9, CHAT)
    assert cut.input_ids.tolist() == whole.input_ids[-9:].tolist()
    assert cut.labels.tolist() == whole.labels[-9:].tolist()


@pytest.mark.parametrize("tokenizer", [PLAIN, CHAT], ids=["plain", "template"])
def test_a_chat_without_an_answer_gives_no_row(tokenizer: PreTrainedTokenizerBase) -> None:
    for pairs in (
        [("user", "Hi")],
        [("user", "Hi"), ("assistant", "")],
        [("user", "Hi"), ("assistant", " \n")],
        [("assistant", "")],
        [("", "Hi")],
    ):
        assert rows_of(turns(*pairs), 100, tokenizer) == []


def test_first_words_of_an_assistant_are_given_by_a_template() -> None:
    (row,) = rows_of(turns(("assistant", "Hi."), ("user", "Yo"), ("assistant", "Ok")), 99, CHAT)
    assert text_of(row.input_ids) == "<a>\nHi.<e><u>Yo<e><a>\nOk"
    assert text_of(row.labels).replace("_", "") == "Ok<e>"


def test_a_chat_that_the_template_refuses_gives_no_row() -> None:
    pairs = (("user", "a"), ("user", "b"), ("assistant", "c"))
    assert rows_of(turns(*pairs), 100, CHAT) == []
    assert rows_of(turns(("tool", "a"), ("assistant", "c")), 100, CHAT) == []


def test_a_template_that_rewrites_earlier_turns_has_loss_on_the_last_answer() -> None:
    pairs = (("user", "a"), ("assistant", "#x#b"), ("user", "c"), ("assistant", "#y#d"))
    (row,) = rows_of(turns(*pairs), 100, letters(FORGETFUL))
    assert text_of(row.input_ids) == "<u>a<e><a>b<e><u>c<e><a>#y#d"
    assert text_of(row.labels).replace("_", "") == "#y#d<e>"


def classify(example: Example, max_tokens: int = 50) -> list[TokenRow]:
    return tokenize_example(
        example, PLAIN, task="classification", max_tokens=max_tokens, labels=("bad", "good")
    )


def test_classification_gives_the_index_of_the_class() -> None:
    (row,) = classify(Example("Fine", label="good"))
    assert (text_of(row.input_ids), row.labels.tolist()) == ("Fine", [1])
    assert row.input_ids.dtype == row.labels.dtype == np.int64


def test_classification_cuts_a_long_text() -> None:
    (row,) = classify(Example("abcdefgh", label="bad"), 5)
    assert (text_of(row.input_ids), row.labels.tolist()) == ("abcde", [0])
    (whole,) = classify(Example("abcdefgh", label="bad"))
    assert text_of(whole.input_ids) == "abcdefgh"


@pytest.mark.parametrize("label", [None, "", "Good", "ugly"])
def test_a_label_that_is_not_declared_gives_no_row(label: str | None) -> None:
    assert classify(Example("Fine", label=label)) == []


@pytest.mark.parametrize("text", ["", "  \n\t"])
def test_empty_text_gives_no_row(text: str) -> None:
    assert rows_of(Example(text)) == []
    assert rows_of(Example(text, prompt="Why?")) == []
    assert classify(Example(text, label="good")) == []


def test_text_without_a_token_gives_no_row() -> None:
    silent = letters(has_begin=False)
    silent.backend_tokenizer.normalizer = None
    silent.backend_tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "removed")
    for task, labels in (("classification", ("bad", "good")), ("causal-lm", ())):
        example = Example("Fine", label="good")
        assert tokenize_example(example, silent, task=task, max_tokens=9, labels=labels) == []


def test_lone_surrogates_are_question_marks() -> None:
    (row,) = rows_of(Example("a\ud800b"))
    assert text_of(row.labels) == "a?b</s>"
    (labelled,) = classify(Example("a\udfffb", label="bad"))
    assert text_of(labelled.input_ids) == "a?b"
    chat = turns(("user", "\ud800"), ("assistant", "\ud800"))
    (answer,) = rows_of(chat, 50, CHAT)
    assert text_of(answer.labels).replace("_", "") == "?<e>"


DEMO = AutoTokenizer.from_pretrained(str(files("simulations") / "demo" / "model"))


@given(st.text(max_size=200), st.text(max_size=60), st.integers(4, 40))
def test_demo_tokenizer_gives_bounded_shifted_rows(text: str, prompt: str, most: int) -> None:
    for example in (
        Example(text),
        Example(text, prompt=prompt),
        turns(("user", prompt), ("assistant", text)),
    ):
        rows = rows_of(example, most, DEMO)
        assert bool(rows) == bool(text.encode("utf-8", "replace").decode().strip())
        for row in rows:
            assert len(row.input_ids) == len(row.labels) <= most
            assert is_shifted(row)
            assert row.input_ids.min() >= 0
            assert max(row.input_ids.max(), row.labels.max()) < len(DEMO)


def test_demo_tokenizer_gives_text_back() -> None:
    text = "Hello, where is my order? It was due on Friday."
    rows = rows_of(Example(text), 6, DEMO)
    assert len(rows) > 1
    ids = np.concatenate([row.labels for row in rows])
    assert ids[-1] == DEMO.eos_token_id
    assert DEMO.decode(ids[:-1]).strip() == text


def test_joined_texts_are_cut_into_blocks_that_predict_every_token_once() -> None:
    tokenizer = letters()
    rows = chunk_rows([Example("abc"), Example(" "), Example("defgh")], tokenizer, chunk_tokens=4)
    assert [len(row.input_ids) for row in rows] == [4, 4, 3]
    text = tokenizer("<s>abc</s><s>defgh</s>", add_special_tokens=False)["input_ids"]
    assert [int(i) for row in rows for i in row.labels] == text[1:]
    assert [int(i) for row in rows for i in row.input_ids] == text[:-1]


def test_a_user_without_text_has_no_blocks() -> None:
    assert chunk_rows([Example("  ")], letters(), chunk_tokens=4) == []
