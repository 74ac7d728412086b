"""What all sources share."""

import pickle

from git_jax.data.source import BadRecord


def test_a_bad_record_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(BadRecord("a.jpg", "empty caption", "''")))
    assert (error.id, error.reason, error.detail) == ("a.jpg", "empty caption", "''")
    assert str(error) == "a.jpg: empty caption: ''"
