from pyserver.http.errors import ProtocolError


def test_an_error_says_what_to_answer_and_ends_the_connection_unless_told_otherwise() -> None:
    error = ProtocolError(400, "bad byte")
    assert (error.status, error.why, error.close, str(error)) == (400, "bad byte", True, "bad byte")
    assert not ProtocolError(400, "bad path", close=False).close
