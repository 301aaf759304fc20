"""Every transform has a page that says what its docstring and the notes say now."""

import re
import sys
from pathlib import Path

import pytest

from jaxguide.sample.build import TRANSFORMS, build_guidance

DOCS = Path(__file__).parent.parent / "docs"
sys.path.insert(0, str(DOCS))
import make_methods  # noqa: E402

PAGES = make_methods.pages()
AGAIN = "Run python docs/make_methods.py (and --pictures --only NAME)."


@pytest.fixture(scope="module")
def texts():
    return make_methods.outputs(PAGES)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_page_is_current(name, texts):
    file = PAGES[name].file
    assert file.is_file(), f"no page for {name}. {AGAIN}"
    assert file.read_text("utf-8") == texts[file], f"{name}: page is old. {AGAIN}"


@pytest.mark.parametrize("file", ["methods/index.md", "choose.md", "../mkdocs.yml"])
def test_index_table_and_menu_are_current(file, texts):
    file = (DOCS / file).resolve()
    (text,) = [text for other, text in texts.items() if other.resolve() == file]
    assert file.read_text("utf-8") == text, AGAIN


def test_no_page_and_no_note_is_left_of_a_transform_that_is_gone():
    notes = set(make_methods.read_notes()) - {"families"}
    assert notes <= set(TRANSFORMS)
    files = {file.stem for file in (DOCS / "methods").glob("*.md")} - {"index"}
    assert files == set(TRANSFORMS)
    pictures = {file for file in make_methods.IMAGES.glob("*.png")}
    kinds = ("demo", "toy")
    assert pictures == {
        page.picture(k) for page in PAGES.values() for k in kinds if page.settings(k)
    }, AGAIN


@pytest.mark.parametrize("name", [n for n, page in PAGES.items() if page.notes])
def test_the_notes_are_whole(name):
    page = PAGES[name]
    needed = {"family", "suits", "use", "avoid", "wrong", "demo", "toy"}
    assert needed <= set(page.notes), name
    for kind in ("demo", "toy"):
        settings = page.settings(kind)
        if settings:
            picture = build_guidance([*settings.get("base", []), *settings["method"]])
            assert picture.parts
            assert settings["method"][-1]["name"] == name


def test_every_method_of_the_readme_has_notes():
    """One that the README does not name may have a page that says it has none."""
    text = (DOCS.parent / "README.md").read_text("utf-8")
    table = text.partition("| family |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`(\w+)`", table)) & set(TRANSFORMS)
    assert len(named) > 40
    assert not {name for name in named if not PAGES[name].notes}


def test_pictures_are_small():
    sizes = [file.stat().st_size for file in make_methods.IMAGES.glob("*.png")]
    assert max(sizes) <= 60_000 and sum(sizes) <= 6_000_000


def test_what_stands_between_two_marks_is_replaced_and_nothing_else():
    text = "a\n# x: begin here\nold\nolder\n# x: end\nb\n"
    wanted = "a\n# x: begin here\nnew\n# x: end\nb\n"
    assert make_methods.between(text, "x", "new") == wanted
    assert make_methods.between(wanted, "x", "new") == wanted
    with pytest.raises(ValueError, match="need 'y: begin'"):
        make_methods.between(text, "y", "new")


def test_a_transform_without_notes_has_a_page_that_says_so():
    bare = make_methods.Page(PAGES["cfg"].method, {})
    text = make_methods.render(bare)
    assert "Not written yet." in text and "no picture yet" in text
    assert bare.family == make_methods.OTHER


def test_an_unknown_name_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["make_methods.py", "--only", "cgf"])
    with pytest.raises(SystemExit) as error:
        make_methods.main()
    assert error.value.code == 2 and "got 'cgf'" in capsys.readouterr().err
