"""Folders of shards: what is damaged is made again, what is of another run is not."""

import pytest

from jaxguide.errors import InputError
from jaxguide.runtime import shards
from jaxguide.runtime.files import replacing, write_json

KIND = shards.Kind("made-1", "part", "write", "read", "python -m made")
PLAN = {"count": 5, "seed": 1}
FILES = shards.Files(KIND, 5, 2)


def fill(folder, plan=PLAN, stop=9):
    """Writes what is missing, up to a shard; returns the numbers of those."""
    shards.write_plan(folder, KIND, plan)
    missing = shards.my_shards(folder, FILES, (0, 1), plan)
    for shard in (done := [one for one in missing if one < stop]):
        with replacing(folder / FILES.file(shard)) as part:
            part.write_text(f"{plan} {shard}")
        shards.write_facts(folder, FILES, shard, plan)
    if len(done) == len(missing):
        assert shards.write_manifest(folder, FILES, plan)
    return done


@pytest.mark.parametrize("content", [b"", b'{"count": 5', b"[]", b"\xff\0"])
@pytest.mark.parametrize("name", ["plan.json", "manifest.json"])
def test_a_damaged_plan_or_manifest_is_made_again(tmp_path, name, content, capfd):
    fill(tmp_path)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content)
    assert fill(tmp_path) == [] and (tmp_path / name).read_bytes() == whole
    said = capfd.readouterr().err.splitlines()
    assert len(said) == (name == "plan.json")


def test_shards_of_another_plan_are_not_taken_for_ours_when_theirs_is_damaged(tmp_path):
    fill(tmp_path, {**PLAN, "seed": 2})
    (tmp_path / "plan.json").write_text("{")
    assert fill(tmp_path) == [0, 1, 2]
    assert shards.read_manifest(tmp_path, KIND)[0] == PLAN


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}"])
def test_a_shard_with_damaged_facts_is_made_again(tmp_path, content, capfd):
    fill(tmp_path)
    (tmp_path / FILES.facts_file(1)).write_bytes(content)
    assert fill(tmp_path) == [1]
    assert "not as it was written and is made again" in capfd.readouterr().err


def test_facts_of_older_versions_are_taken(tmp_path):
    fill(tmp_path)
    for shard in range(3):
        path = tmp_path / FILES.facts_file(shard)
        write_json(path, shards.shard_facts(tmp_path / FILES.file(shard), 2))
    assert fill(tmp_path) == [2], "the last has one example alone"


def test_a_plan_binds_once_something_is_finished(tmp_path):
    fill(tmp_path, stop=0)
    fill(tmp_path, {**PLAN, "seed": 2}, stop=1)
    with pytest.raises(InputError, match="need the seed .* got seed=1 instead of 2"):
        fill(tmp_path)


@pytest.mark.parametrize(
    "content",
    ['{"kind": "made-1"}', '{"kind": "made-1", "shards": [{"file": "../x"}]}'],
)
def test_a_manifest_that_names_no_files_of_its_folder_is_refused(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(InputError, match="need a manifest of kind 'made-1'"):
        shards.read_manifest(tmp_path, KIND)
