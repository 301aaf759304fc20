"""Labels in words have one meaning, or are refused."""

import pytest

import jaxguide as jg
from jaxguide.sample.labels import parse_label, parse_labels

# As folders of numbers are sorted: the place of "2" is 4, that of "10" is 2.
NUMBERS = sorted(str(number) for number in range(12))
WORDS = ["bag", "t-shirt", "dog, black", "bag", "3-1"]


@pytest.mark.parametrize(
    ("text", "names", "labels"),
    [
        ("all", WORDS, [0, 1, 2, 3, 4]),
        ("t-shirt, 2", WORDS, [1, 2]),
        ("'dog, black',\"t-shirt\"", WORDS, [2, 1]),
        ("#0-1,#3", WORDS, [0, 1, 3]),
        ("3-1", WORDS, [4]),
        ("#2,#10-11", NUMBERS, [2, 10, 11]),
        ("'2','10'", NUMBERS, [4, 2]),
        ("0-1", NUMBERS, [0, 1]),
        ("7,0-2", [str(number) for number in range(10)], [7, 0, 1, 2]),
        ("1999", ["1998", "1999"], [1]),
        ("007", ["006", "007"], [1]),
    ],
)
def test_these_mean(text, names, labels):
    assert parse_labels(text, names) == labels


@pytest.mark.parametrize(
    ("text", "names", "line"),
    [
        ("2", NUMBERS, "'2' is the name of label 4 and a place too. Write #4 or #2"),
        ("0-2", NUMBERS, "2 is the name of another class"),
        ("bag", WORDS, "'bag' names several classes. Write #0 or #3"),
        ("2-1", WORDS, "'2-1' is empty. Write 1-2"),
        ("dog, black", WORDS, "Did you mean 'dog, black'"),
        ("0,,1", WORDS, "joined by commas"),
        ("0,", WORDS, "joined by commas"),
        ("", WORDS, "joined by commas"),
        ("5", WORDS, "numbers in 0..4"),
        ("#5", WORDS, "numbers in 0..4"),
        ("0-999999999", WORDS, "numbers in 0..4"),
        ("-1", WORDS, "need a name in"),
        ("²", WORDS, "need a name in"),
        ("all", ["all", "none"], "'all' is a class too"),
    ],
)
def test_these_mean_nothing_or_too_much(text, names, line):
    with pytest.raises(jg.InputError) as refused:
        parse_labels(text, names)
    assert line in str(refused.value) and "\n" not in str(refused.value)


def test_a_field_of_one_label_takes_one():
    assert parse_label("negative", "#4", NUMBERS) == 4
    with pytest.raises(
        jg.InputError, match="need one label for negative, .*which is 2"
    ):
        parse_label("negative", "#4,#5", NUMBERS)
