import pytest

from pyserver.config.record import MISSING, Field, Record


class Tree(Record):
    root: str
    depth: int = 3
    names: tuple[str, ...] = Field(("a", "b"), {"text": "of the files"})  # type: ignore[assignment]
    owner: str = Field(MISSING)  # type: ignore[assignment]

    @property
    def place(self) -> str:
        return f"{self.root}:{self.depth}"


def test_fields_come_in_their_order_or_by_name() -> None:
    one, other = Tree("/srv", 4, owner="www"), Tree(owner="www", depth=4, root="/srv")
    assert (one.root, one.depth, one.names, one.owner, one.place) == ("/srv", 4, ("a", "b"), "www", "/srv:4")
    assert one == other
    assert hash(one) == hash(other)
    assert one != Tree("/srv", owner="www")
    assert repr(one) == "Tree(root='/srv', depth=4, names=('a', 'b'), owner='www')"


def test_what_is_known_of_a_field_is_kept_with_its_default() -> None:
    assert list(Tree.FIELDS) == ["root", "depth", "names", "owner"]
    assert Tree.FIELDS["names"] == Field(("a", "b"), {"text": "of the files"})
    assert Tree.FIELDS["depth"] == Field(3)
    assert not hasattr(Tree, "depth"), "a default is nothing of the class"


@pytest.mark.parametrize(
    ("values", "named", "why"),
    [
        (("/srv",), {}, "Tree without owner"),
        ((), {"owner": "www"}, "Tree without root"),
        (("/srv",), {"owner": "www", "colour": "red"}, "Tree has no colour"),
        (("/srv",), {"owner": "www", "root": "/"}, "too many values for Tree"),
        (("/srv", 1, (), "www", 5), {}, "too many values for Tree"),
    ],
)
def test_each_field_has_one_value(values: tuple[object, ...], named: dict[str, object], why: str) -> None:
    with pytest.raises(TypeError, match=why):
        Tree(*values, **named)  # type: ignore[arg-type]


def test_it_does_not_change_but_another_may_differ_from_it() -> None:
    tree = Tree("/srv", owner="www")
    with pytest.raises(AttributeError, match="depth of a Tree does not change"):
        tree.depth = 5  # type: ignore[misc]
    with pytest.raises(AttributeError, match="depth of a Tree does not go"):
        del tree.depth
    assert tree.replaced(depth=5) == Tree("/srv", 5, owner="www")
    assert tree == Tree("/srv", owner="www")
    with pytest.raises(TypeError, match="Tree has no colour"):
        tree.replaced(colour="red")


def test_records_of_two_classes_are_not_equal() -> None:
    class Other(Record):
        root: str

    class Another(Record):
        root: str

    assert Other("/") == Other("/")
    assert Other("/") != Another("/")
    assert Other("/") != ("/",)
