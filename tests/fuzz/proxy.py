"""Fuzz what proxies say of their clients: the PROXY header, Forwarded, X-Forwarded-For. See README.md."""

from tests.fuzz import target

with target.instrumented():
    from tests.unit.http import test_forwarded, test_proxy

    from pyserver.http.forwarded import address, hops_of_forwarded, hops_of_x_forwarded_for
    from pyserver.http.proxy import UNIX, Header

# The first byte of an input says what the rest is.
KINDS = 3

SEEDS = (
    *(b"\0" + header for header in (*test_proxy.GOOD, *test_proxy.WRONG.values())),
    *(b"\1" + value for value in test_forwarded.FORWARDED),
    *(b"\2" + value for value in test_forwarded.X_FORWARDED_FOR),
)


def one_input(data: bytes) -> None:
    kind, data = data[:1], data[1:]
    match int.from_bytes(kind, "big") % KINDS:
        case 0:
            whole = test_proxy.outcome(data)
            pieces = (test_proxy.outcome(data[:end]) for end in range(len(data) + 1))
            assert next((found for found in pieces if found is not None), None) == whole, (
                "it depends on where it is cut"
            )
            if isinstance(whole, Header):
                assert whole.length <= len(data)
                assert whole.client in (None, UNIX) or address(whole.client or b"") == whole.client
        case 1:
            value = data + b", for=192.0.2.7;proto=http , for=10.0.0.2"
            assert test_forwarded.found_by(hops_of_forwarded, value) == b"192.0.2.7", "a client chose its address"
        case _:
            value = data + b", 192.0.2.7:1 , 10.0.0.2"
            assert test_forwarded.found_by(hops_of_x_forwarded_for, value) == b"192.0.2.7", "a client chose its address"


if __name__ == "__main__":
    target.main(one_input, SEEDS)
