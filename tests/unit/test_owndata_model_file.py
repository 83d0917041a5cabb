from __future__ import annotations

from pathlib import Path

import attrs
import numpy as np
import pytest

from scarcity.engine import Moments, OnlineDiscoveryEngine, Schema, Variable
from scarcity.errors import CodecError, ConfigError, InsufficientInputs, SchemaMismatchError
from scarcity.node.data.model_file import (
    MAX_TEXT,
    ModelFile,
    Provenance,
    decode_model,
    encode_model,
    read_model,
    write_model,
)
from scarcity.node.files import require_writable, write_whole

SCHEMA = Schema([Variable("x", unit="µm", scale=1.0), Variable("y", scale=2.0)], lags=1, horizon=3)
MADE = Provenance("scarcity 0", "a test", "distributed", "record", "average", 1.0, 1e-6, 8, 2, 1, reproducible=True)


def model(noise_std: float = 0.0) -> ModelFile:
    engine = OnlineDiscoveryEngine(SCHEMA)
    engine.process_rows(np.random.default_rng(0).normal(size=(200, 2)))
    return ModelFile(attrs.evolve(engine.differenced(), noise_std=noise_std), MADE)


def test_a_model_comes_back_as_it_was_and_its_bytes_are_canonical() -> None:
    made = model(noise_std=3.5)
    data = encode_model(made)
    assert decode_model(data) == made
    assert encode_model(decode_model(data)) == data
    assert np.array_equal(decode_model(data).fit().coefficients, made.fit().coefficients)


def test_a_model_file_is_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "a.model"
    write_model(model(), path, "--model")
    assert read_model(path) == model()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.model"]
    assert path.stat().st_mode & 0o077 == 0o044  # readable by others as any new file here, umask 022


def test_a_model_of_too_few_rows_has_no_fit() -> None:
    engine = OnlineDiscoveryEngine(SCHEMA)
    engine.process_rows(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    with pytest.raises(InsufficientInputs, match="needs more rows"):
        ModelFile(engine.statistics(), MADE).fit()


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (Schema([Variable("x")]), "its variables are x, y, not x"),
        (Schema([Variable("x", unit="m", scale=1.0), *SCHEMA.variables[1:]]), "its unit of 'x' is µm, not m"),
        (attrs.evolve(SCHEMA, horizon=4), "its horizon is 3, not 4"),
    ],
)
def test_another_schema_is_refused_by_its_first_difference(schema: Schema, words: str) -> None:
    with pytest.raises(SchemaMismatchError, match=words) as caught:
        model().require_schema(schema, Path("a.model"))
    assert "\n" not in str(caught.value)
    model().require_schema(SCHEMA, Path("a.model"))


@pytest.mark.parametrize(
    "change", [{"note": "x" * (MAX_TEXT + 1)}, {"epsilon": float("inf")}, {"delta": float("nan")}, {"clients": -1}]
)
def test_a_provenance_is_bounded(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="provenance"):
        attrs.evolve(MADE, **change)


def test_a_missing_file_and_a_stranger_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model .*no.model: No such file"):
        read_model(tmp_path / "no.model")
    (tmp_path / "a.csv").write_text("a,b\n")
    with pytest.raises(
        ConfigError, match=r"model .*a.csv: not a model; `scarcity swarm --model FILE` writes one, and so"
    ):
        read_model(tmp_path / "a.csv")


def test_another_version_is_refused_with_the_way_out() -> None:
    data = encode_model(model()).replace(b"scarcity model 1\n", b"scarcity model 2\n")
    with pytest.raises(CodecError, match="a model of version 2, this scarcity reads version 1: make it again"):
        decode_model(data)


# Files that are there whole or not at all


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.model"
    path.write_bytes(b"old")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ConfigError, match=r"--model .*a.model: No space left on device"):
        write_whole(path, b"new", "--model")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.model"]


def test_a_link_stays_a_link_and_a_pipe_a_pipe(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    write_whole(link, b"new", "--json")
    assert (link.is_symlink(), target.read_bytes()) == (True, b"new")
    write_whole(Path("/dev/null"), b"x", "--json")
    assert Path("/dev/null").is_char_device()


def test_what_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder"):
        require_writable(tmp_path, "--out")
    with pytest.raises(ConfigError, match="cannot write into"):
        require_writable(tmp_path / "no" / "file", "--out")
    (tmp_path / "there").touch()
    with pytest.raises(ConfigError, match="there already; --force replaces it"):
        require_writable(tmp_path / "there", "--out", replace=False)
    require_writable(tmp_path / "there", "--out")
    require_writable(Path("/dev/null"), "--out")


def test_moments_of_any_form_can_be_kept() -> None:
    for form, size in (("centred", 15), ("mean", 15)):
        vector = np.arange(1.0, size + 1.0)
        moments = Moments.from_vector(SCHEMA, form, vector, 1.0, 1)  # type: ignore[arg-type]  # each is a Form
        kept = ModelFile(moments, MADE)
        assert decode_model(encode_model(kept)) == kept
