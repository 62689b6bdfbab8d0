"""What large populations and vocabularies are measured with."""

import json
from pathlib import Path

from small_shape import relative

from feddp.simulations.bench.scale import index_of, loss_of, rounds_of, write_users


def test_both_losses_of_the_vocabulary_stage_give_one_gradient() -> None:
    chunked, full = (loss_of(name, vocabulary=300)().numpy() for name in ("chunked", "full logits"))
    assert relative(chunked, full) < 1e-5


def test_the_population_stage_trains_users_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "users.jsonl"
    write_users(path, 30)
    assert index_of(str(path), str(tmp_path))["peak_megabytes"] > 0
    found = rounds_of(str(path), str(tmp_path), cohort_size=3)
    lost = rounds_of(str(path), str(tmp_path), cohort_size=3, num_users=20, dropout=1.0)
    assert found["cpu_seconds"] > lost["cpu_seconds"] > 0


def test_every_user_of_the_file_has_one_text(tmp_path: Path) -> None:
    path = tmp_path / "users.jsonl"
    write_users(path, 3)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["user_id"] for row in rows] == ["user-0", "user-1", "user-2"]
    assert len({row["text"] for row in rows}) == 3
